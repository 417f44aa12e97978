"""PyRadiomics through our record: its names, its own baseline values, and what happens without it."""

from __future__ import annotations

import ast
import csv
import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from toy_scan import SPACING, ball, chest

from nsclc_mtl.records import ItemFault, UsageFault, Volume
from nsclc_mtl.scans import radiomics, volume

PRESET = {"setting": {"binWidth": 25}, "featureClass": {"shape": [], "firstorder": []}}


def scan(mask: np.ndarray) -> Volume:
    return Volume(chest(mask).astype(np.float32), mask, SPACING, np.diag([-1.0, -1.0, 2.0, 1.0]), "CT")


def test_a_ball_measures_as_a_ball() -> None:
    ours = scan(ball(6.0))
    found = radiomics.features(ours, PRESET)
    inside = ours.array[ours.mask > 0]
    assert found["original_shape_VoxelVolume"] == pytest.approx(len(inside) * 2.0)
    assert found["original_shape_VoxelVolume"] == pytest.approx(4 / 3 * math.pi * 6**3, rel=0.05)
    assert 0.75 < found["original_shape_Sphericity"] <= 1
    assert found["original_firstorder_Mean"] == pytest.approx(inside.mean(), rel=1e-5)
    assert found["original_firstorder_Maximum"] == inside.max()
    assert len(found) == 14 + 18
    assert not [name for name in found if name.startswith("diagnostics")]


def test_settings_reach_the_library() -> None:
    coarse = radiomics.features(scan(ball()), {**PRESET, "setting": {"binWidth": 200}})
    fine = radiomics.features(scan(ball()), PRESET)
    assert coarse["original_firstorder_Entropy"] < fine["original_firstorder_Entropy"]
    shifted = radiomics.features(scan(ball()), {**PRESET, "setting": {"resampledPixelSpacing": [2, 2, 2]}})
    assert shifted["original_shape_VoxelVolume"] % 8 == 0  # voxels of 2 mm now


def test_wrong_settings_and_hopeless_lesions() -> None:
    with pytest.raises(UsageFault, match=r"scans\.radiomics"):
        radiomics.features(scan(ball()), {"setting": {"binWidth": -3}})
    with pytest.raises(UsageFault, match="textures"):
        radiomics.features(scan(ball()), {"featureClass": {"textures": []}})
    line = np.zeros_like(ball())
    line[10, 10, 5:20] = 1
    with pytest.raises(ItemFault) as caught:
        radiomics.features(scan(line), PRESET)
    assert caught.value.reason == "radiomics"


def test_it_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    radiomics.features(scan(ball()), {"featureClass": {"glcm": []}, "setting": {"binWidth": 25}})
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("radiomics").level >= logging.WARNING


def test_without_the_library_the_recipe_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "radiomics", None)
    radiomics._extractor.cache_clear()
    with pytest.raises(UsageFault, match="--no-build-isolation"):
        radiomics.features(scan(ball()), PRESET)


def test_the_key_changes_with_what_changes_a_feature() -> None:
    cfg = {"modality": "CT", "radiomics": PRESET, "crop": {"size_vox": 32}, "workers": 2}
    key = radiomics.radiomics_key(cfg)
    assert len(key) == 8
    assert int(key, 16) >= 0
    assert radiomics.radiomics_key({**cfg, "workers": 7, "crop": None, "qc": True}) == key
    assert radiomics.radiomics_key({**cfg, "radiomics": {**PRESET, "setting": {"binWidth": 5}}}) != key
    assert radiomics.radiomics_key({**cfg, "label": 2}) != key


CLASSES = ["firstorder", "shape", "glcm", "glrlm", "glszm", "gldm", "ngtdm"]


def baseline(folder: Path, feature_class: str) -> Iterator[tuple[str, str, dict[str, Any], dict[str, float]]]:
    """Every column of the library's baseline: its name, its case, its settings and its values."""
    with (folder / "baseline" / f"baseline_{feature_class}.csv").open() as file:
        rows = list(csv.DictReader(file))
    for column in list(rows[0])[1:]:
        told = {row["featureName"]: row[column] for row in rows}
        params = {
            "setting": ast.literal_eval(told["diagnostics_Configuration_Settings"]),
            "imageType": ast.literal_eval(told["diagnostics_Configuration_EnabledImageTypes"]),
            "featureClass": {feature_class: []},
        }
        values = {n: float(v) for n, v in told.items() if f"_{feature_class}_" in n and v}
        yield column, told["diagnostics_Configuration_TestCase"], params, values


def compare(ours: Volume, params: dict[str, Any], values: dict[str, float], where: str) -> int:
    """The library's tolerance is 3 %; its own rounding aside, all but one column agree to 1e-9."""
    found = radiomics.features(ours, params)
    close = 0.03 if where == "brain1 shape" else 1e-9
    for feature, value in values.items():
        assert found[feature] == pytest.approx(value, rel=close, abs=1e-12), (where, feature)
    return len(values)


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("name", ["brain1", "brain2", "breast1"])
@pytest.mark.parametrize("feature_class", CLASSES)
def test_the_librarys_own_baseline(real_data: Path, name: str, feature_class: str) -> None:
    """NRRD -> record -> features, every column of the cases whose image is there."""
    folder = real_data / "radiology" / "pyradiomics"
    ours = volume.load(folder / f"{name}_image.nrrd", folder / f"{name}_label.nrrd", "MR")
    columns = [c for c in baseline(folder, feature_class) if c[1] == name]
    assert len(columns) == {"shape": 2, "firstorder": 4, "glcm": 8, "glrlm": 8}.get(feature_class, 7)
    for column, _, params, values in columns:
        assert compare(ours, params, values, f"{column} {feature_class}") >= 5


@pytest.mark.realdata
@pytest.mark.parametrize("feature_class", CLASSES)
def test_the_librarys_own_baseline_in_seconds(real_data: Path, feature_class: str) -> None:
    folder = real_data / "radiology" / "pyradiomics"
    ours = volume.load(folder / "breast1_image.nrrd", folder / "breast1_label.nrrd", "MR")
    for column, case, params, values in baseline(folder, feature_class):
        if case == "breast1":
            assert compare(ours, params, values, f"{column} {feature_class}") >= 5


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["lung1", "lung2"])
def test_shapes_of_cases_whose_image_is_not_there(real_data: Path, name: str, tmp_path: Path) -> None:
    """A shape needs the mask alone; the image is a blank one on its grid."""
    folder = real_data / "radiology" / "pyradiomics"
    mask = sitk.ReadImage(str(folder / f"{name}_label.nrrd"))
    blank = sitk.Image(mask.GetSize(), sitk.sitkInt16)
    blank.CopyInformation(mask)
    sitk.WriteImage(blank, str(tmp_path / "blank.nrrd"))
    ours = volume.load(tmp_path / "blank.nrrd", folder / f"{name}_label.nrrd", "MR")
    columns = [c for c in baseline(folder, "shape") if c[1] == name]
    assert len(columns) == 2
    for column, _, params, values in columns:
        assert compare(ours, params, values, f"{column} shape") == 14
