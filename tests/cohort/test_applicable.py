"""A task that does not apply to a patient is no missing label, and no label either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsclc_mtl.cohort import manifest
from nsclc_mtl.config import compose, plain
from nsclc_mtl.records import DataFault, UsageFault


@pytest.fixture
def cohort(tmp_path: Path) -> dict[str, Any]:
    """Five patients: graded, not graded because of HPV, blank; one more whose histology has no grade."""
    (tmp_path / "patients.csv").write_text(
        "patient_id,grade,t,e\nA,1,1,1\nB,2,2,0\nC,hpv,3,1\nD,,4,0\nE,2,5,1\nF,1,6,0\n"
    )
    (tmp_path / "histology.csv").write_text("patient_id,type\nA,squamous\nB,squamous\nC,squamous\nD,\nE,sarcoma\n")
    return {
        "name": "toy",
        "root": str(tmp_path),
        "patients": {"file": "patients.csv", "id": "patient_id"},
        "tasks": {
            "grade": {
                "kind": "ordinal",
                "column": "grade",
                "classes": ["G1", "G2"],
                "map": {"1": "G1", "2": "G2", "hpv": "not_applicable"},
                "applies": {"file": "histology.csv", "column": "type", "values": ["squamous"]},
            },
            "os": {"kind": "survival", "time": "t", "unit": "days", "event": "e", "events": {"1": 1, "0": 0}},
        },
        "modalities": {"histology": {"kind": "clinical", "file": "histology.csv", "columns": {"type": "categorical"}}},
    }


def test_not_applicable_is_counted_apart_from_missing(cohort: dict[str, Any]) -> None:
    made = manifest.load(cohort, Path("out"))
    assert made.applicable["grade"].to_dict() == {"A": True, "B": True, "C": False, "D": True, "E": False, "F": True}
    np.testing.assert_array_equal(made.labels["grade"]["value"], [0, 1, np.nan, np.nan, np.nan, 0])
    assert made.applicable["os"].all()
    assert made.labels["os"].notna().all(axis=None)
    assert "grade: not applicable to 2 of 6 patients (no missing label); missing for 1" in made.notes


def test_survival_has_patients_to_whom_it_does_not_apply_too(cohort: dict[str, Any]) -> None:
    cohort["tasks"]["os"]["events"] = {"1": 1, "0": "not_applicable"}
    made = manifest.load(cohort, Path("out"))
    assert made.labels["os"].dropna().index.tolist() == ["A", "C", "E"]
    assert made.applicable["os"].sum() == 3


@pytest.mark.parametrize(
    ("applies", "fault", "told"),
    [
        ({"column": "type"}, UsageFault, "needs `column` and `values`"),
        ({"file": "histology.csv", "column": "kind", "values": ["x"]}, DataFault, "no column 'kind'"),
        ({"file": "histology.csv", "column": "type", "values": ["adeno"]}, DataFault, "holds 'squamous', .*nobody"),
    ],
)
def test_a_declaration_that_says_nothing_is_refused(
    cohort: dict[str, Any], applies: dict[str, Any], fault: type[Exception], told: str
) -> None:
    cohort["tasks"]["grade"]["applies"] = applies
    with pytest.raises(fault, match=told):
        manifest.load(cohort, Path("out"))


@pytest.mark.realdata
def test_hancock_is_not_graded_where_hpv_made_the_tumour(real_data: Path) -> None:
    cohort = plain(compose("train", ["experiment=hancock", f"cohort.root={real_data / 'hancock'}"]))["cohort"]
    made = manifest.load(cohort, Path("out"), modalities=["pathological"])
    applies = made.applicable["grading"]
    assert (int(applies.sum()), int((~applies).sum())) == (371, 87)
    assert made.labels["grading"]["value"].notna().equals(applies.rename("value"))  # nobody else lacks a grade
    assert set(made.tables["pathological"]["hpv_association_p16"][~applies]) == {"2"}
