"""A lesion cut into parts is the lesion: equal to the library's own call, in any process and any order."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from test_job import Notes
from toy_scan import SPACING, ball, chest

from nsclc_mtl.records import UsageFault, Volume
from nsclc_mtl.scans import job, measuring, radiomics
from nsclc_mtl.scans.params import read_params, resolved
from nsclc_mtl.scans.volume import load, to_sitk

WIDE: dict[str, Any] = {
    "setting": {"binWidth": 25, "resampledPixelSpacing": [1.5, 1.5, 1.5], "interpolator": "sitkBSpline"},
    "imageType": {"Original": {}, "LoG": {"sigma": [2.0]}, "Wavelet": {}},
    "featureClass": {"shape": [], "firstorder": [], "glcm": ["Contrast", "Idm"], "ngtdm": []},
}


def library(image: Any, mask: Any, params: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The plain call."""
    from radiomics import featureextractor

    return dict(featureextractor.RadiomicsFeatureExtractor(params, **settings).execute(image, mask, label=1))


def scan(shape: tuple[int, int, int] = (20, 24, 28), seed: int = 0) -> Volume:
    mask = ball(6.0, shape)
    array = chest(mask, seed).astype(np.float32)
    return Volume(array, mask, SPACING, np.diag([-1.0, -1.0, 2.0, 1.0]), "CT", stored="int16")


def images(volume: Volume) -> tuple[Any, Any]:
    """As the library would read the scan from a file of int16."""
    return to_sitk(volume.array.astype(np.int16), volume.affine), to_sitk(volume.mask, volume.affine)


def test_every_value_and_the_order_are_the_librarys() -> None:
    ours = radiomics.features(scan(), WIDE)
    theirs = {n: float(v) for n, v in library(*images(scan()), WIDE).items() if not n.startswith("diagnostics")}
    assert list(ours) == list(theirs)
    assert ours == theirs
    assert len(ours) == 14 + 10 * (18 + 2 + 5)


def test_order_and_pickling_change_nothing() -> None:
    opened = radiomics.open_volume(scan(), WIDE)
    parts = pickle.loads(pickle.dumps(opened.parts))
    assert len(parts) == 10  # original, LoG, eight sub-bands
    measured = {i: radiomics.measure(part) for i, part in random.Random(1).sample(list(enumerate(parts)), len(parts))}
    assert opened.closed(measured[i] for i in range(len(parts))) == radiomics.features(scan(), WIDE)


def test_few_images_are_cut_by_feature_class() -> None:
    params = {**WIDE, "imageType": {"Original": {}}}
    opened = radiomics.open_volume(scan(), params)
    assert [list(part.classes) for part in opened.parts] == [["firstorder"], ["glcm"], ["ngtdm"]]
    whole = opened.closed(radiomics.measure(part) for part in opened.parts)
    assert list(whole) == list(radiomics.features(scan(), params))


@pytest.mark.parametrize("spacing", [[2, 2, 2], [0.7, 0.7, 3.0], [1.0, 1.0, 0]])
def test_resampling_the_surroundings_is_resampling_the_scan(spacing: list[float]) -> None:
    """In a scan much larger than the lesion the library sees a cut image, and says the same."""
    large = np.zeros((90, 150, 150), np.uint8)
    large[40:48, 20:34, 100:112] = ball(6.0, (8, 14, 12))
    rng = np.random.Generator(np.random.PCG64(0))
    for array in (rng.normal(0, 300, large.shape).round(), rng.normal(0, 1, large.shape)):
        stored = "int16" if array.std() > 9 else "float32"
        volume = Volume(array.astype(np.float32), large, SPACING, np.diag([-1.0, -1.0, 2.0, 1.0]), "CT", [], stored)
        params = {
            "setting": {"binWidth": 50 if array.std() > 9 else 0.2, "resampledPixelSpacing": spacing,
                        "interpolator": "sitkBSpline", "padDistance": 6},
            "imageType": {"Original": {}, "LoG": {"sigma": [2.0]}},
            "featureClass": {"firstorder": [], "glcm": ["Contrast"]},
        }  # fmt: skip
        cut, drawn = radiomics._images(volume, params["setting"])
        assert np.prod(cut.GetSize()) < 0.75 * large.size
        assert np.prod(drawn.GetSize()) < 0.95 * large.size
        image = to_sitk(array.astype(stored), volume.affine)
        theirs = library(image, to_sitk(large, volume.affine), params)
        for name, value in radiomics.features(volume, params).items():
            # a coordinate's last digit in float64 may turn the last one of a float32; whole numbers do not move
            exact = array.std() > 9 and not name.startswith("log")
            assert value == (float(theirs[name]) if exact else pytest.approx(float(theirs[name]), rel=1e-9)), name


def test_the_type_of_the_file_is_kept(tmp_path: Path, write: Any) -> None:
    """The library cuts the decimals off where a file holds whole numbers, so the same file gives the same values."""
    mask = ball(6.0)
    params = {**WIDE, "imageType": {"Original": {}}}
    drawn = write("mask.nii.gz", mask)
    maxima = []
    for kind in (np.int16, np.int32, np.float32, np.float64):
        image = write(f"{np.dtype(kind)}.nii.gz", chest(mask).astype(kind))
        ours = radiomics.features(load(image, drawn, "CT"), params)
        theirs = library(str(image), str(drawn), params)
        for name, value in ours.items():
            assert value == pytest.approx(float(theirs[name]), rel=1e-6 if kind is np.float64 else 1e-12), (name, kind)
        maxima.append(ours["original_firstorder_Maximum"])
    assert maxima[0] == maxima[1] == int(maxima[0])
    assert maxima[2] != int(maxima[2])
    processed = scan()
    processed.array[0, 0, 0] = 0.5  # no longer what was stored
    assert radiomics._images(processed, {})[0].GetPixelID() == sitk.sitkFloat32
    processed.array[0, 0, 0] = 70_000
    assert radiomics._images(processed, {})[0].GetPixelID() == sitk.sitkFloat32


@pytest.fixture
def cohort(write: Any) -> pd.DataFrame:
    rows = []
    for i in range(3):
        mask = ball(4.0 + i)
        image, drawn = write(f"ct{i}.nii.gz", chest(mask, i)), write(f"mask{i}.nii.gz", mask)
        rows.append(
            {"scan_id": f"s{i}", "patient_id": f"P{i}", "modality": "CT", "image": image.name, "mask": drawn.name}
        )
    return pd.DataFrame(rows)


def test_a_single_scan_over_two_processes(tmp_path: Path, cohort: pd.DataFrame) -> None:
    cfg = {"modality": "CT", "radiomics": WIDE, "workers": 1}
    job.extract_scans(tmp_path, cohort[:1], cfg, tmp_path / "one", Notes())
    job.extract_scans(tmp_path, cohort[:1], {**cfg, "workers": 2}, tmp_path / "two", Notes())
    one, two = (pd.read_parquet(radiomics.radiomics_table(tmp_path / n, cfg)) for n in ("one", "two"))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert one.shape == (1, 14 + 10 * 25)


def test_a_killed_worker_is_told(tmp_path: Path, cohort: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies takes its scans with it, none of them in silence."""
    from concurrent.futures.process import BrokenProcessPool

    from nsclc_mtl.scans import pool

    class Dying(pool.ProcessPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            raise BrokenProcessPool("gone")

    monkeypatch.setattr(pool, "ProcessPoolExecutor", Dying)
    notes = Notes()
    job.extract_scans(tmp_path, cohort, {"modality": "CT", "radiomics": WIDE, "workers": 2}, tmp_path, notes)
    assert [(f["id"], f["reason"]) for f in notes.failed] == [(f"s{i}", "worker_died") for i in range(3)]


def test_the_table_carries_its_settings(tmp_path: Path, cohort: pd.DataFrame) -> None:
    cfg = {"modality": "CT", "radiomics": {**WIDE, "imageType": {"Original": {}}}, "workers": 1}
    job.extract_scans(tmp_path, cohort, cfg, tmp_path, Notes())
    path = radiomics.radiomics_table(tmp_path, cfg)
    told = measuring.settings_in(path)
    assert f"radiomics-{told['key']}.parquet" == path.name
    assert told["radiomics"] == cfg["radiomics"]
    assert told["reading"]["modality"] == "CT"
    assert told["pyradiomics"].startswith("3.")
    assert pd.read_parquet(path).index.name == "patient_id"


def test_robustness_is_stored_beside_the_table_and_done_once(tmp_path: Path, cohort: pd.DataFrame) -> None:
    small = {"setting": {"binWidth": 25}, "featureClass": {"shape": [], "firstorder": ["Mean"]}}
    cfg = {"modality": "CT", "radiomics": small, "workers": 1}
    asked = {**cfg, "robustness": {"perturb": True, "erode_mm": [1.0, 4.0], "dilate_mm": [1.0], "shift_mm": [1.0]}}
    job.extract_scans(tmp_path, cohort, cfg, tmp_path, Notes())
    plain = radiomics.radiomics_table(tmp_path, cfg)
    assert radiomics.radiomics_table(tmp_path, asked) == plain  # the features do not depend on it
    stamp = (plain.with_suffix("") / "s1.json").stat().st_mtime_ns
    notes = Notes()
    job.extract_scans(tmp_path, cohort, asked, tmp_path, notes)
    assert (plain.with_suffix("") / "s1.json").stat().st_mtime_ns == stamp
    table = pd.read_parquet(measuring.perturbed_table(tmp_path, asked))
    assert table.index.names == ["patient_id", "perturbation"]
    assert table.shape == (3 * 4, 15)
    volume = table["original_shape_VoxelVolume"].unstack()
    drawn = pd.read_parquet(plain)["original_shape_VoxelVolume"]
    assert (volume["erode 1 mm"] < drawn).all()
    assert (volume["dilate 1 mm"] > drawn).all()
    assert np.isnan(volume.loc["P0", "erode 4 mm"])  # a ball of 4 mm
    assert volume.loc["P2", "erode 4 mm"] > 0
    assert any("perturbed lesions could not be measured" in line for line in notes.said)
    job.extract_scans(tmp_path, cohort, asked, tmp_path, again := Notes())
    assert "3 done (3 of them complete before)" in again.said[0]
    other = {**asked, "robustness": {**asked["robustness"], "seed": 9}}
    assert measuring.perturbed_table(tmp_path, other) != measuring.perturbed_table(tmp_path, asked)
    lower = {**asked, "robustness": {**asked["robustness"], "lower": 0.9}}
    assert measuring.perturbed_table(tmp_path, lower) == measuring.perturbed_table(tmp_path, asked)
    with pytest.raises(UsageFault, match="at most 15"):
        job.extract_scans(
            tmp_path, cohort, {**asked, "robustness": {"perturb": True, "erode_mm": [99.0]}}, tmp_path, Notes()
        )


def test_pet_has_suv_scalars(tmp_path: Path, write: Any) -> None:
    mask = ball(6.0)
    image, drawn = write("pet.nii.gz", np.where(mask > 0, 7.5, 1.0).astype(np.float32)), write("m.nii.gz", mask)
    row = {"scan_id": "s", "patient_id": "P", "modality": "PT", "image": image.name, "mask": drawn.name}
    cfg = {
        "modality": "PT", "workers": 1, "suv": {"fraction_of_max": 0.41},
        "radiomics": {"setting": {"binWidth": 0.5}, "featureClass": {"firstorder": ["Maximum"]}},
    }  # fmt: skip
    job.extract_scans(tmp_path, pd.DataFrame([row]), cfg, tmp_path, Notes())
    told = pd.read_parquet(radiomics.radiomics_table(tmp_path, cfg)).loc["P"]
    assert list(told.index) == [
        "original_firstorder_Maximum", "suv_max", "suv_mean", "suv_peak", "suv_mtv_ml", "suv_tlg", "suv_mean_41",
        "suv_mtv_41_ml", "suv_tlg_41",
    ]  # fmt: skip
    assert told["suv_max"] == told["original_firstorder_Maximum"] == 7.5
    assert told["suv_mtv_ml"] == pytest.approx(mask.sum() * 2 / 1000)
    assert radiomics.radiomics_key({**cfg, "suv": {"fraction_of_max": 0.5}}) != radiomics.radiomics_key(cfg)


PARAMS = """
setting:
  binWidth: 1e1       # a float for the library
  label: 2
imageType:
  Original: {}
featureClass:
  shape:
  glcm: [Contrast]
"""


def test_a_users_own_parameter_file(tmp_path: Path, cohort: pd.DataFrame) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(PARAMS)
    assert read_params(file)["setting"] == {"binWidth": 10.0, "label": 2}
    cfg = {"modality": "CT", "radiomics": WIDE, "params": str(file), "workers": 1}
    made = resolved(cfg)
    assert made["radiomics"]["featureClass"] == {"shape": None, "glcm": ["Contrast"]}
    assert made["label"] == 2
    assert resolved({**cfg, "label": 1})["label"] == 1  # what is asked for counts
    key = radiomics.radiomics_key(cfg)
    assert key != radiomics.radiomics_key({**cfg, "params": None})
    file.rename(tmp_path / "moved.yml")
    assert radiomics.radiomics_key({**cfg, "params": str(tmp_path / "moved.yml")}) == key  # the content counts
    (tmp_path / "moved.yml").write_text(PARAMS.replace("1e1", "12"))
    assert radiomics.radiomics_key({**cfg, "params": str(tmp_path / "moved.yml")}) != key
    file.write_text(PARAMS.replace("  label: 2\n", ""))
    job.extract_scans(tmp_path, cohort, cfg, tmp_path, Notes())
    assert pd.read_parquet(radiomics.radiomics_table(tmp_path, cfg)).shape == (3, 15)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("setting: {binWidth: [1,\n a: b: c", "no YAML"),
        ("", "No source"),
        ("{}", "empty"),
        ("- a\n", "empty or no mapping"),
        ("settings: {}\n", "'settings'"),
    ],
)
def test_a_parameter_file_that_is_none(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UsageFault, match=told):
        read_params(tmp_path / "p.yaml")
    with pytest.raises(UsageFault, match="no file"):
        read_params(tmp_path / "q.yaml")
