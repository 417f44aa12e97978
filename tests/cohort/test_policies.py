"""What a cohort may declare about its tables: repeated rows, times before the index date, tasks only on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nsclc_mtl.cohort import manifest
from nsclc_mtl.records import DataFault, UsageFault


@pytest.fixture
def cohort(tmp_path: Path) -> dict[str, Any]:
    """Three patients; one has two rows of genes, another a time before the index date."""
    (tmp_path / "patients.csv").write_text("patient_id,t,e,t2\nA,10,1,5\nB,-3,1,5\nC,7,0,5\n")
    (tmp_path / "genes.csv").write_text("patient_id,slide,g\nA,s1,1\nA,s2,2\nC,s3,3\n")
    survival = {"kind": "survival", "time": "t", "unit": "days", "event": "e", "events": {"1": 1, "0": 0}}
    return {
        "name": "toy",
        "root": str(tmp_path),
        "patients": {"file": "patients.csv", "id": "patient_id"},
        "tasks": {"os": {**survival, "negative": "drop"}, "extra": {**survival, "time": "t2", "optional": True}},
        "modalities": {"genes": {"kind": "omics", "file": "genes.csv", "match": "^g", "duplicates": "first"}},
    }


def test_the_first_of_repeated_rows_is_kept_where_declared(cohort: dict[str, Any]) -> None:
    made = manifest.load(cohort, Path("out"))
    assert made.tables["genes"]["g"].to_dict() == {"A": 1.0, "C": 3.0}
    assert "'genes.csv': 1 further rows of a patient left out (duplicates: first)" in made.notes


def test_repeated_rows_are_refused_where_nothing_is_declared(cohort: dict[str, Any]) -> None:
    """Also when another modality of the same file declared a policy."""
    cohort["modalities"]["again"] = {"kind": "omics", "file": "genes.csv", "match": "^g"}
    with pytest.raises(DataFault, match="lists 'A' more than once"):
        manifest.load(cohort, Path("out"))


def test_an_unknown_policy_is_refused(cohort: dict[str, Any]) -> None:
    cohort["modalities"]["genes"]["duplicates"] = "mean"
    with pytest.raises(UsageFault, match="duplicates='mean' is none of"):
        manifest.load(cohort, Path("out"))


def test_an_event_before_the_index_date_is_no_label(cohort: dict[str, Any]) -> None:
    assert manifest.load(cohort, Path("out")).labels["os"].dropna().index.tolist() == ["A", "C"]
    del cohort["tasks"]["os"]["negative"]
    with pytest.raises(DataFault, match=r"negative for B \(1 rows\).*tasks.os.negative to drop"):
        manifest.load(cohort, Path("out"))


def test_an_optional_task_is_trained_where_it_is_asked_for(cohort: dict[str, Any]) -> None:
    assert list(manifest.load(cohort, Path("out")).tasks) == ["os"]
    assert list(manifest.load(cohort, Path("out"), tasks=["extra"]).tasks) == ["extra"]


def test_columns_of_an_optional_task_are_no_inputs(cohort: dict[str, Any]) -> None:
    cohort["modalities"]["clinical"] = {"kind": "clinical", "file": "patients.csv", "columns": {"t2": "numeric"}}
    with pytest.raises(DataFault, match="names 't2', which is an outcome"):
        manifest.load(cohort, Path("out"))
