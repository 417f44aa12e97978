"""A cohort with two kinds of scans: each preset does its own, and what was done is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.cohort import manifest
from nsclc_mtl.commands import scans
from nsclc_mtl.records import UsageFault
from nsclc_mtl.scans import crop

CROP = {"size_vox": 32, "spacing_mm": 2.0, "window": [0.0, 15.0]}
RADIOMICS = {"setting": {"binWidth": 25}, "featureClass": {"firstorder": ["Maximum"], "shape": ["VoxelVolume"]}}
PET = {"modality": "PT", "label": None, "workers": 1, "qc": False, "crop": CROP, "radiomics": RADIOMICS}
MR = {**PET, "modality": "MR", "crop": {**CROP, "window": None}}
COHORT = {
    "name": "two",
    "patients": {"file": "labels.csv", "id": "patient"},
    "scans": {
        "image": "{patient}/{scan}.nii.gz", "mask": "{patient}/{scan}_roi.nii.gz",
        "modality": {"PET": "PT", "T1": "MR"},
    },
    "tasks": {"t": {"kind": "binary", "column": "y", "classes": ["0", "1"]}},
    "modalities": {
        "pet": {"kind": "radiomics", "scans": "hot"},
        "pet_deep": {"kind": "deep", "scans": "hot", "optional": True},
        "mr_volume": {"kind": "volume", "scans": "grey"},
    },
}  # fmt: skip
DEEP = {"_target_": "nsclc_mtl.features.deep.networks.resnet_3d", "name": "resnet_3d", "random": True, "seed": 1}


@dataclass
class Notes:
    done: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)

    def track(self, items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        yield from items


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Three patients: two with both scans, one without the MR."""
    root = tmp_path / "data"
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    for i, patient in enumerate(("A", "B", "C")):
        (root / patient).mkdir(parents=True)
        rng = np.random.default_rng(i)
        roi = np.zeros((30, 32, 34), np.uint8)
        roi[8 : 14 + i, 10:18, 10:20] = 1
        for scan in ("PET", "T1") if patient != "C" else ("PET",):
            array = rng.random(roi.shape, np.float32) + 5 * roi
            nibabel.save(nibabel.Nifti1Image(array, affine), root / patient / f"{scan}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(roi, affine), root / patient / f"{scan}_roi.nii.gz")
    pd.DataFrame({"patient": list("ABC"), "y": [0, 1, 0]}).to_csv(root / "labels.csv", index=False)
    return {
        "cohort": {**COHORT, "root": str(root)}, "paths": {"out": str(tmp_path / "out")}, "device": "cpu",
        "scans": PET, "scan_presets": {"hot": PET, "grey": MR}, "deep": DEEP,
    }  # fmt: skip


def extract(settings: dict[str, Any]) -> Notes:
    notes = Notes()
    scans.extract(settings, Path(settings["cohort"]["root"]), "scans.csv", notes)
    return notes


def load(settings: dict[str, Any]) -> Any:
    return manifest.load(settings["cohort"], Path(settings["paths"]["out"]), keys=scans.keys(settings))


def test_each_preset_does_its_own_and_the_manifest_finds_it(settings: dict[str, Any]) -> None:
    pytest.importorskip("radiomics")
    notes = extract(settings)
    assert sorted(notes.done) == ["A-PET", "A-T1", "B-PET", "B-T1", "C-PET"]
    assert not notes.skipped
    assert not notes.failed
    made = load(settings)
    assert list(made.tables["pet"].columns) == ["original_shape_VoxelVolume", "original_firstorder_Maximum"]
    assert made.tables["pet_deep"].shape == (3, 512)
    assert made.tables["pet_deep"].dtypes.eq(float).all()
    assert list(made.volumes["mr_volume"]) == ["A", "B"]
    assert crop.load(Path(made.volumes["mr_volume"]["A"])).modality == "MR"
    out = Path(settings["paths"]["out"]) / "scans"
    keys = scans.keys(settings)
    assert not (out / f"{keys['radiomics@grey']}.parquet").exists()  # nobody asked for radiomics of the MR
    assert sorted(path.stem for path in out.glob("volumes-*") if path.is_dir()) == sorted(
        {keys["volumes@hot"], keys["volumes@grey"]}
    )

    again = extract(settings)
    assert any("3 kept" in line for line in again.said)
    finer = {**settings, "scan_presets": {"hot": PET, "grey": {**MR, "crop": {**CROP, "spacing_mm": 1.0}}}}
    with pytest.raises(manifest.Absent, match="mr_volume"):  # another crop is another file, never the old one
        load(finer)
    pd.testing.assert_frame_equal(load({**finer, "cohort": {**settings["cohort"], "modalities": {
        "pet": COHORT["modalities"]["pet"]}}}).tables["pet"], made.tables["pet"])  # fmt: skip


def test_a_changed_scan_gets_new_deep_features(settings: dict[str, Any]) -> None:
    pytest.importorskip("radiomics")
    extract(settings)
    before = load(settings).tables["pet_deep"]
    path = Path(settings["cohort"]["root"]) / "B" / "PET.nii.gz"
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[::-1].copy(), image.affine), path)
    notes = extract(settings)
    assert any("2 kept" in line for line in notes.said)
    after = load(settings).tables["pet_deep"]
    pd.testing.assert_frame_equal(before.loc[["A", "C"]], after.loc[["A", "C"]])
    assert not np.allclose(before.loc["B"], after.loc["B"])


def test_without_a_network_deep_modalities_are_left_out(settings: dict[str, Any]) -> None:
    settings = {**settings, "deep": {"name": None}}
    settings["cohort"]["modalities"] = {
        "pet_deep": COHORT["modalities"]["pet_deep"],
        "mr_volume": COHORT["modalities"]["mr_volume"],
    }
    notes = extract(settings)
    assert any("no network was chosen" in line for line in notes.said)
    assert list(load(settings).modalities) == ["mr_volume"]
    with pytest.raises(UsageFault, match="crop"):
        extract({**settings, "deep": DEEP, "scan_presets": {"hot": {**PET, "crop": None}, "grey": MR}})


def test_a_preset_that_the_model_does_not_know_is_refused(settings: dict[str, Any]) -> None:
    other = {**settings["cohort"], "modalities": {"pet": {"kind": "radiomics", "scans": "lukewarm"}}}
    with pytest.raises(UsageFault, match="trained with others"):
        load({**settings, "cohort": other})
