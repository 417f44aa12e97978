"""PyRadiomics' batch table: what its own command writes, we write."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_job import Notes
from toy_scan import ball, chest

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.scans import batch

PARAMS = """
setting: {binWidth: 25, resampledPixelSpacing: [2, 2, 2], geometryTolerance: 1e-4}
imageType:
  Original: {}
  LoG: {sigma: [2.0]}
featureClass: {shape: , firstorder: [], glcm: [Contrast, JointEnergy], gldm: []}
"""


@pytest.fixture
def cases(tmp_path: Path, write: Any) -> Path:
    """Three cases with ids and labels; the second mask does not exist, the third has the label 2."""
    rows = []
    for i in range(3):
        mask = ball(5.0 + i)
        image, drawn = write(f"ct {i}.nii.gz", chest(mask, i)), write(f"mask{i}.nii.gz", mask * (2 if i == 2 else 1))
        rows.append({"ID": f"00{i}", "Image": image.name, "Mask": drawn.name, "Label": "2" if i == 2 else "1"})
    (tmp_path / "mask1.nii.gz").unlink()
    (tmp_path / "my.yaml").write_text(PARAMS)
    pd.DataFrame(rows).to_csv(tmp_path / "cases.csv", index=False)
    return tmp_path / "cases.csv"


def run(cases: Path, **cfg: Any) -> tuple[Notes, Path]:
    notes = Notes()
    wanted = {"params": str(cases.parent / "my.yaml"), "workers": 1, **cfg}
    batch.extract_batch(cases, wanted, cases.parent / "out", notes)
    return notes, next((cases.parent / "out" / "scans").glob("batch-*"))


def test_the_same_file_as_the_librarys_command(cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = pytest.importorskip("radiomics.scripts")
    monkeypatch.chdir(tmp_path)
    theirs = tmp_path / "theirs.csv"
    words = [str(cases), "-p", str(tmp_path / "my.yaml"), "-o", str(theirs), "-f", "csv", "-v", "1"]
    command = scripts.PyRadiomicsCommandLine(words)
    assert command.run() == 0
    command.args.out.close()
    notes, folder = run(cases)
    assert (folder / "features.csv").read_text() == theirs.read_text()
    assert notes.done == ["case 1", "case 3"]
    assert notes.failed == [{"id": "case 2", "reason": "absent"}]
    with theirs.open() as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["diagnostics_Versions_PyRadiomics"] == rows[1]["original_shape_Sphericity"] == ""
    assert rows[2]["ID"] == "002"
    table = pd.read_parquet(folder / "features.parquet")
    assert list(table.columns) == list(rows[0])
    assert table["original_shape_Sphericity"].dtype == float
    assert table["original_shape_Sphericity"][2] == float(rows[2]["original_shape_Sphericity"])
    assert list(table["ID"]) == ["000", "001", "002"]


def test_two_processes_and_a_rerun(cases: Path, tmp_path: Path) -> None:
    _, folder = run(cases)
    text = (folder / "features.csv").read_text()
    kept = {p: p.stat().st_mtime_ns for p in (folder / "cases").iterdir()}
    assert sorted(p.name for p in kept) == ["1.json", "3.json"]
    time.sleep(0.01)
    run(cases)
    assert {p: p.stat().st_mtime_ns for p in (folder / "cases").iterdir()} == kept
    notes = Notes()
    cfg = {"params": str(tmp_path / "my.yaml"), "workers": 2}
    batch.extract_batch(cases, cfg, tmp_path / "other", notes)
    assert next((tmp_path / "other").rglob("features.csv")).read_text() == text
    (tmp_path / "my.yaml").write_text(PARAMS.replace("25", "20"))
    run(cases)
    assert len(list((tmp_path / "out" / "scans").iterdir())) == 2


def test_what_would_be_done(cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = {"params": str(tmp_path / "my.yaml"), "workers": 1}
    assert batch.listed(cases, cfg, tmp_path / "out") == 4
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "todo    case 1"
    assert told[1].startswith("refused case 2: absent: its mask 'mask1.nii.gz' does not exist")
    assert told[3] == "cases: 2 todo, 0 kept, 1 refused; nothing was written"
    assert not (tmp_path / "out").exists()
    run(cases)
    batch.listed(cases, cfg, tmp_path / "out")
    assert capsys.readouterr().out.splitlines()[3] == "cases: 0 todo, 2 kept, 1 refused; nothing was written"


def test_its_table_is_a_modality(cases: Path, tmp_path: Path) -> None:
    """`features.csv` goes into a cohort as it is: diagnostics and paths are left out by `match`."""
    from nsclc_mtl.cohort import manifest

    _, folder = run(cases)
    root = tmp_path / "cohort"
    root.mkdir()
    (folder / "features.csv").rename(root / "features.csv")
    (root / "patients.csv").write_text("patient_id,grade\n000,a\n001,b\n002,a\n")
    declared = {
        "root": str(root),
        "patients": {"file": "patients.csv"},
        "tasks": {"grade": {"kind": "binary", "column": "grade", "classes": ["a", "b"]}},
        "modalities": {
            "radiomics": {"kind": "radiomics", "file": "features.csv", "id": "ID", "match": "^(original|log|wavelet)"}
        },
    }
    table = manifest.load(declared, tmp_path).tables["radiomics"]
    assert table.shape == (3, 14 + 2 * (18 + 2 + 14))
    assert table.loc["001"].isna().all()
    assert table.loc["000"].notna().all()


@pytest.mark.parametrize(
    ("text", "fault", "told"),
    [
        ("Image,Masks\na,b\n", DataFault, "no column 'Mask'"),
        ("Image,Mask\n", DataFault, "no row"),
        ("Image,Mask\na.nrrd,\n", DataFault, "line 2"),
        ("Image,Mask\na.nrrd,b.nrrd,c\n", DataFault, "more cells"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, fault: type[Exception], told: str) -> None:
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(fault, match=told):
        batch.read_cases(tmp_path / "cases.csv")


def test_no_file_no_settings_and_strange_labels(cases: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="no file"):
        batch.read_cases(tmp_path / "none.csv")
    with pytest.raises(UsageFault, match=r"scans\.params"):
        run(cases, params=None)
    cases.write_text(cases.read_text().replace(",1\n", ",one\n"))
    notes, _ = run(cases)
    assert {f["id"]: f["reason"] for f in notes.failed} == {"case 1": "bad_label", "case 2": "absent"}
