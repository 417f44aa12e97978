"""Series and sections of a cohort: who has them, up to which day, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import visium

from nsclc_mtl.cohort import lint, manifest
from nsclc_mtl.cohort.visits import before_the_outcome, latest
from nsclc_mtl.records import DataFault, Fault, IntegrityFault, Manifest, UsageFault

PATIENTS = "patient_id,response,t,e\n01,yes,100,1\n02,no,200,0\n03,yes,90,1\n04,no,300,1\n"
VISITS = "patient_id,days,vaf,ldh\n02,30,0.5,\n01,30,2,300\n01,-5,1,\n02,0,,\n03,10,4,100\n01,120,9,9\n99,1,1,1\n"
COHORT: dict[str, Any] = {
    "name": "toy",
    "patients": {"file": "patients.csv"},
    "tasks": {
        "response": {"kind": "binary", "column": "response", "classes": ["no", "yes"]},
        "os": {"kind": "survival", "time": "t", "unit": "days", "event": "e", "events": {"1": 1, "0": 0},
               "landmark_days": 90},
    },
    "modalities": {"ctdna": {"kind": "series", "table": "visits.csv", "until_days": 90}},
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "patients.csv").write_text(PATIENTS)
    (tmp_path / "visits.csv").write_text(VISITS)
    return tmp_path


def load(root: Path, tasks: list[str] | None = None, **changes: Any) -> Manifest:
    modalities = {"ctdna": {**COHORT["modalities"]["ctdna"], **changes}}
    return manifest.load({**COHORT, "root": str(root), "modalities": modalities}, root / "out", tasks=tasks)


def test_visits_in_the_order_of_time_up_to_a_day(root: Path) -> None:
    made = load(root)
    assert made.series["ctdna"].index.tolist() == [("01", -5.0), ("01", 30.0), ("02", 30.0), ("03", 10.0)]
    np.testing.assert_array_equal(made.series["ctdna"]["ldh"], [np.nan, 300, np.nan, 100])
    assert made.who("ctdna") == ["01", "02", "03"]
    told = "; ".join(made.notes)
    assert "1 of 6 visits later than day 90 left out" in told
    assert "1 visits without any value left out" in told
    assert "'visits.csv': rows of 1 patients outside the cohort" in told
    assert "os: 1 patients had the event or left by day 90, the landmark: no label" in told
    assert made.labels["os"]["time_days"].dropna().tolist() == [10, 110, 210]
    assert {i["path"] for i in made.inputs} == {"patients.csv", "visits.csv"}


def test_the_order_of_the_file_is_nothing(root: Path) -> None:
    first = load(root).series["ctdna"]
    head, *rows = VISITS.strip().split("\n")
    (root / "visits.csv").write_text("\n".join([head, *rows[::-1]]) + "\n")
    assert load(root).series["ctdna"].equals(first)


@pytest.mark.parametrize(
    ("changes", "fault", "told"),
    [
        ({"until_days": None}, UsageFault, "declares no `until_days`"),
        ({"later": "refuse"}, DataFault, r"1 visits later than day 90, the first of 01"),
        ({"later": "keep"}, UsageFault, "later='keep' is none of drop, refuse"),
        ({"columns": ["vaf", "cea"]}, DataFault, "has no column 'cea'"),
        ({"columns": {"vaf": "categorical"}}, UsageFault, "vaf is no number"),
        ({"days": "week"}, DataFault, "has no column 'week'"),
        ({"table": "nothing.csv"}, DataFault, "no table 'nothing.csv'"),
    ],
)
def test_a_wrong_declaration_is_one_sentence(
    root: Path, changes: dict[str, Any], fault: type[Fault], told: str
) -> None:
    with pytest.raises(fault, match=told):
        load(root, **changes)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("01,30,1,1", r"two rows of patient 01 on day 30 \(1 such rows\)"),
        ("01,,1,1", r"'days': blank for 01 \(1 rows\)"),
        ("01,soon,1,1", "01: 'soon'"),
        ("01,60,high,1", "'high'"),
        (",60,1,1", "row 9: the id in column 'patient_id' is blank"),
    ],
)
def test_a_wrong_row_is_told(root: Path, row: str, told: str) -> None:
    (root / "visits.csv").write_text(VISITS + row + "\n")
    with pytest.raises(DataFault, match=told):
        load(root)


def test_an_outcome_is_no_column_of_a_series(root: Path) -> None:
    (root / "visits.csv").write_text(VISITS.replace("ldh", "response"))
    with pytest.raises(DataFault, match="'response' is an outcome"):
        load(root)
    assert load(root, columns=["vaf"]).series["ctdna"].columns.tolist() == ["vaf"]


def test_visits_stop_where_survival_begins_to_count(root: Path) -> None:
    before_the_outcome(load(root))
    with pytest.raises(DataFault, match=r"up to day 100, and the time of the task 'os' counts from day 90.*=100"):
        before_the_outcome(load(root, until_days=100))
    before_the_outcome(load(root, tasks=["response"], until_days=500))  # no time of survival to tell


def test_a_series_that_holds_an_outcome_is_found(root: Path) -> None:
    """The latest values, the number of visits and their last day are looked at as columns are."""
    ids = [f"{i:02d}" for i in range(40)]
    rng = np.random.Generator(np.random.PCG64(0))
    yes = rng.random(40) < 0.5
    lines = [f"{p},{'yes' if y else 'no'},{t},1" for p, y, t in zip(ids, yes, 100 + rng.permutation(40), strict=True)]
    (root / "patients.csv").write_text("patient_id,response,t,e\n" + "\n".join(lines) + "\n")
    rows = [f"{p},{d},{int(y) if d else 7},{rng.normal():.3f}" for p, y in zip(ids, yes, strict=True) for d in (0, 9)]
    (root / "visits.csv").write_text("patient_id,days,flag,ldh\n" + "\n".join(rows) + "\n")
    found = lint.check(load(root, tasks=["response"]), None)
    errors = found.errors
    assert [f.rule for f in errors] == ["copy"]
    assert "column 'flag' is a copy of the task 'response'" in errors[0].sentence
    assert latest(load(root))["ctdna"].columns.tolist() == ["flag", "ldh", "visits (number)", "visits (latest day)"]


def spots(root: Path, table: str, **changes: Any) -> Manifest:
    (root / "spots.csv").write_text("section_id,patient_id,path\n" + table)
    cohort = {**COHORT, "root": str(root), "modalities": {"st": {"kind": "spots", **changes}}}
    return manifest.load(cohort, root / "out")


def test_sections_of_patients(root: Path) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    places, genes = np.arange(10).reshape(5, 2) * 100, ["A", "B", "C"]
    visium.visium(root / "v1", rng.poisson(2, (5, 3)), places, genes)
    visium.features(root / "f.h5", rng.poisson(2, (5, 3)), places, genes)
    visium.features(root / "none.h5", np.zeros((0, 3)), np.zeros((0, 2), int), genes)
    rows = "s1,01,v1\ns2,01,f.h5\ns3,03,none.h5\ns4,02,absent\ns5,77,v1\n"
    made = spots(root, rows)
    assert {p: [Path(f).name for f in files] for p, files in made.bags["st"].items()} == {"01": ["s1.h5", "s2.h5"]}
    assert all(Path(f).is_relative_to(root / "out" / "spots") for f in made.bags["st"]["01"])
    told = "; ".join(made.notes)
    assert "1 of 4 sections are not there" in told
    assert "1 of 4 sections hold no spot" in told
    assert "sections of 1 patients outside the cohort" in told
    visium.features(root / "g.h5", rng.poisson(2, (5, 3)), places, ["A", "B", "D"])
    with pytest.raises(IntegrityFault, match="hold other genes"):
        spots(root, rows + "s6,02,g.h5\n")
    with pytest.raises(UsageFault, match="values='tpm' is none of counts, normalised"):
        spots(root, rows, values="tpm")
    with pytest.raises(DataFault, match="no section of 'st' is there"):
        spots(root, "s4,02,absent\n")
