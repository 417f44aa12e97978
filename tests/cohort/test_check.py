"""`mtl check`: what it writes, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from nsclc_mtl.commands import check as command
from nsclc_mtl.config import execute
from nsclc_mtl.phantom.cohort import make


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make(tmp_path / "data", level="features", n=60)


def run(data: Path, *words: str) -> tuple[int, dict]:
    base = [f"cohort.root={data}", "cohort.level=features", "cohort.n=60", "folds.n=3", "name=it"]
    code = execute("check", [*base, *words], lambda: command.body)
    file = Path("runs/check/it/check.json")
    return code, json.loads(file.read_text()) if file.is_file() else {}


def test_check_tells_and_writes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run(data)
    assert code == 0
    assert found["errors"] == 0
    assert found["per_site"]["all"]["patients"] == 60
    assert {row["fold"] for row in found["per_part"]} == {0, 1, 2}
    told = capsys.readouterr().out
    assert "phantom: from the tables to the folds" in told
    assert "0 errors" in told
    assert "\x1b" not in told  # plain where it is no terminal
    account = json.loads(Path("runs/check/it/run.json").read_text())
    assert {entry["path"] for entry in account["inputs"]} >= {"patients.csv", "rna.csv"}


def test_a_planted_leak_ends_with_exit_3(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(data / "patients.csv", dtype=str, keep_default_na=False)
    table["ki67"] = table["os_days"]
    table.to_csv(data / "patients.csv", index=False)
    code, found = run(data, "+cohort.modalities.clinical.columns.ki67=numeric")
    assert code == 3
    assert [(f["rule"], f["where"]) for f in found["findings"] if f["level"] == "error"] == [("copy", "clinical")]
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "'ki67' is a copy of the task 'survival' (time)" in told


@pytest.mark.slow
def test_one_slide_of_two_patients_ends_with_exit_3(data: Path) -> None:
    table = pd.read_csv(data / "slides.csv", dtype=str)
    other = table["patient_id"].ne(table["patient_id"][0]).idxmax()
    (data / table["path"][other]).write_bytes((data / table["path"][0]).read_bytes())
    code, found = run(data)
    assert code == 3
    assert [f["rule"] for f in found["findings"] if f["level"] == "error"] == ["duplicate"]
    assert run(data, "hash_slides=false", "name=quick")[0] == 0


def test_tables_that_cannot_be_read_end_with_exit_3_and_are_told(data: Path) -> None:
    text = (data / "patients.csv").read_text().replace("deceased", "deceazed", 1)
    (data / "patients.csv").write_text(text)
    code, found = run(data)
    assert code == 3
    assert "'deceazed' (1 rows)" in found["findings"][0]["sentence"]


@pytest.mark.slow
def test_a_split_that_train_would_refuse(data: Path) -> None:
    code, found = run(data, "folds.min_events=1000")
    assert code == 3
    assert found["findings"][0]["rule"] == "split"
