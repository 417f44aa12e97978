"""Scans the whole way: a tree of NIfTI files -> extract -> train on crops -> maps that lie on the scans."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.config import execute

COHORT = """\
# sixteen small scans
name: toy
root: null
patients: {file: patients.csv, id: patient_id}
scans: {image: '{patient}-{scan}.nii.gz', mask: '{patient}-{scan}-roi.nii.gz', modality: {PET: PT}}
tasks:
  hot: {kind: binary, column: hot, classes: ['0', '1']}
  survival: {kind: survival, endpoint: OS, time: days, unit: days, event: dead, events: {'1': 1, '0': 0}}
modalities:
  pet_volume: {kind: volume, scans: tiny}
  pet_deep: {kind: deep, scans: tiny, optional: true}
"""
PRESET = """\
# 32 voxels of 4 mm
defaults: [pet_suv, _self_]
workers: 1
qc: false
"""
AFFINE = np.array([[0.0, -3.0, 0, 40], [-3.0, 0, 0, 60], [0, 0, 5.0, -200], [0, 0, 0, 1]])  # x and y exchanged


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(16):
        hot, at = i % 2, rng.integers(12, 18, 3)
        far = np.linalg.norm((np.indices((30, 32, 24)).transpose(1, 2, 3, 0) - at) * [3, 3, 5], axis=-1)
        array = rng.random(far.shape) + (12.0 if hot else 3.0) * (far < 15)
        for word, values in (("", array.astype(np.float32)), ("-roi", (far < 15).astype(np.uint8))):
            nibabel.save(nibabel.Nifti1Image(values, AFFINE), tmp_path / f"P{i:02}-PET{word}.nii.gz")
        rows.append(
            {"patient_id": f"P{i:02}", "hot": hot, "days": 100 + 40 * (i + 1) // (1 + hot), "dead": (i // 2) % 2}
        )
    pd.DataFrame(rows).to_csv(tmp_path / "patients.csv", index=False)
    for group, name, text in (("cohort", "toy", COHORT), ("scans", "tiny", PRESET)):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / f"{name}.yaml").write_text(text)
    return tmp_path


def run(root: Path, verb: str, *words: str) -> Path:
    body = import_module(f"nsclc_mtl.commands.{verb}").body
    given = [f"paths.runs={root / 'runs'}", f"paths.out={root / 'out'}", f"name={verb}", "device=cpu", *words]
    assert execute(verb, given, lambda: body, conf_dirs=[root / "conf"]) == 0
    return root / "runs" / verb / verb


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["resnet_3d", "resnet_25d"])
def test_from_a_tree_of_files_to_maps_on_the_scans(root: Path, encoder: str) -> None:
    cohort = ("cohort=toy", f"cohort.root={root}", "deep=resnet_3d", "deep.random=true")
    run(root, "extract", *cohort)
    trained = run(
        root, "train", *cohort, "folds.n=2", "folds.workers=0", "folds.validation=0", "folds.min_events=1", "audit=0",
        "trainer.max_epochs=3", "optim.min_steps=12", "logger=none", "modalities=[pet_volume]",
        "parts.modalities.volume.augment.flip=true", "parts.modalities.volume.augment.rotate_deg=10",
        f"volume_encoder={encoder}",
    )  # fmt: skip
    made = run(root, "predict", f"ckpt={trained}", "patients=[P03]")
    image = nibabel.load(root / "P03-PET.nii.gz")
    lesion = nibabel.load(root / "P03-PET-roi.nii.gz").get_fdata() > 0
    for method in ("gradcam", "occlusion"):
        for task in ("hot", "survival"):
            stem = made / "patients" / "P03" / f"P03-PET-{method}-{task}"
            assert stem.with_suffix(".png").stat().st_size > 10_000
            told = nibabel.load(f"{stem}.nii.gz")
            assert told.shape == image.shape
            np.testing.assert_allclose(told.affine, image.affine, atol=1e-4)
            assert np.abs(told.get_fdata()).max() > 0
    # hiding the hot lesion changes the score more than hiding anything far away
    values = np.abs(nibabel.load(made / "patients" / "P03" / "P03-PET-occlusion-hot.nii.gz").get_fdata())
    assert values[lesion].mean() > 2 * values[~lesion].mean()
