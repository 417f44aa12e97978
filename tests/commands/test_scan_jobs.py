"""`mtl extract` on scans and the training on what it made: robustness, parameter file, batch table."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.config import execute

PARAMS = """
setting: {binWidth: 25}
featureClass: {shape: [VoxelVolume, Sphericity], firstorder: [Mean, Entropy], glcm: [Contrast]}
"""
COHORT = """
name: toy
root: {root}
patients: {{file: patients.csv, id: patient_id}}
tasks:
  response: {{kind: binary, column: response, classes: ['no', 'yes']}}
modalities:
  radiomics: {{kind: radiomics}}
"""


@pytest.fixture
def way(tmp_path: Path) -> Path:
    """Sixteen patients with a CT of a ball in lung; who responds has the larger ball."""
    rng = np.random.Generator(np.random.PCG64(5))
    rows = []
    z, y, x = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in (18, 22, 24)], indexing="ij")
    for i in range(16):
        radius = (3.5 if i % 2 else 7.0) + rng.uniform(-0.5, 1.5)
        mask = ((1.2 * z) ** 2 + y**2 + x**2 <= radius**2).astype(np.uint8)
        ct = np.where(mask > 0, 40 + rng.normal(0, 30, mask.shape), -800).astype(np.int16)
        for name, array in (("ct", ct), ("mask", mask)):
            nibabel.save(
                nibabel.Nifti1Image(array.T.copy(), np.diag([-1.0, -1.0, 1.2, 1.0])), tmp_path / f"{name}{i}.nii.gz"
            )
        rows.append((f"P{i:02d}", "no" if i % 2 else "yes", f"ct{i}.nii.gz", f"mask{i}.nii.gz"))
    table = pd.DataFrame(rows, columns=["patient_id", "response", "image", "mask"])
    table[["patient_id", "response"]].to_csv(tmp_path / "patients.csv", index=False)
    table.assign(scan_id=table["patient_id"], modality="CT").drop(columns="response").to_csv(
        tmp_path / "scans.csv", index=False
    )
    table.drop(columns="response").rename(columns={"image": "Image", "mask": "Mask"})[:3].to_csv(
        tmp_path / "cases.csv", index=False
    )
    (tmp_path / "my.yaml").write_text(PARAMS)
    (tmp_path / "conf" / "cohort").mkdir(parents=True)
    (tmp_path / "conf" / "cohort" / "toy.yaml").write_text(COHORT.format(root=tmp_path))
    return tmp_path


def mtl(verb: str, at: Path, *words: str) -> int:
    paths = [f"paths.runs={at / 'runs'}", f"paths.out={at / 'out'}", "name=a"]
    body = import_module(f"nsclc_mtl.commands.{verb}").body
    return execute(verb, [*paths, *words], lambda: body, conf_dirs=[at / "conf"])


@pytest.mark.slow
def test_robust_features_from_extract_to_fold(way: Path) -> None:
    scans = [
        "cohort=toy", f"scans.params={way / 'my.yaml'}", "scans.crop=null", "scans.qc=false", "scans.workers=1",
        "scans.robustness.perturb=true", "scans.robustness.lower=0.6",
    ]  # fmt: skip
    assert mtl("extract", way, *scans, "device=cpu") == 0
    assert len(list((way / "out" / "scans").glob("perturbed-*.parquet"))) == 1
    small = [
        "folds.n=2", "folds.workers=0", "folds.validation=0.25", "folds.min_events=2", "trainer.max_epochs=2",
        "optim.min_steps=1", "audit=2", "device=cpu", "logger=none",
    ]  # fmt: skip
    assert mtl("train", way, *scans, *small) == 0
    for fold in (0, 1):
        told = json.loads((way / "runs" / "train" / "a" / f"fold{fold}" / "fitted.json").read_text())["fitted"][
            "robust"
        ]
        found = told["radiomics"]
        assert "original_shape_VoxelVolume" in found["kept"]
        assert set(found["icc"]) >= set(found["kept"])
        assert found["perturbations"] == ["erode 1 mm", "dilate 1 mm", "shift 1: 1 mm", "shift 2: 1 mm"]
        assert found["patients"] < 9  # training patients of the fold, no more
        assert len(found["kept"]) < len(found["icc"]) == 5
    assert mtl("evaluate", way, f"ckpt={way / 'runs' / 'train' / 'a'}", "bootstrap=50") == 0
    rows = json.loads((way / "runs" / "evaluate" / "a" / "metrics.json").read_text())
    assert "floor:radiomics" in {row["model"] for row in rows}
    # a prediction needs the features alone, not what they were chosen by
    next((way / "out" / "scans").glob("perturbed-*.parquet")).unlink()
    assert mtl("predict", way, f"ckpt={way / 'runs' / 'train' / 'a'}", "explain.patients=0") == 0


def test_a_batch_table_needs_no_cohort(way: Path) -> None:
    assert (
        mtl("extract", way, f"scans.batch={way / 'cases.csv'}", f"scans.params={way / 'my.yaml'}", "scans.workers=1")
        == 0
    )
    table = pd.read_csv(next((way / "out" / "scans").glob("batch-*/features.csv")))
    assert list(table.columns[:3]) == ["patient_id", "Image", "Mask"]
    assert table["original_glcm_Contrast"].notna().all()
    assert "diagnostics_Mask-original_VolumeNum" in table
    run = json.loads((way / "runs" / "extract" / "a" / "run.json").read_text())
    assert run["done"] == ["case 1", "case 2", "case 3"]


def test_a_parameter_file_that_is_not_there_is_a_usage_fault(way: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mtl("extract", way, f"scans.batch={way / 'cases.csv'}", "scans.params=none.yaml") == 2
    assert "scans.params: there is no file 'none.yaml'" in capsys.readouterr().err
