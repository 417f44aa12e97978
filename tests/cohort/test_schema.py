"""All faults of a cohort's tables at once: where each stands, in the file's own lines, and what to do."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from nsclc_mtl.cli import app
from nsclc_mtl.cohort import declared, manifest, schema
from nsclc_mtl.config import compose, fault_table, plain
from nsclc_mtl.records import DataFault, FaultRow

COHORT: dict[str, Any] = {
    "name": "mine",
    "index_date": {"column": "surgery", "event": "surgery"},
    "patients": {"file": "patients.csv", "id": "patient_id", "site": "hospital"},
    "tasks": {
        "grade": {"kind": "ordinal", "column": "grade", "classes": ["1", "2"]},
        "os": {"kind": "survival", "time": "t", "unit": "days", "event": "e", "events": {"dead": 1, "alive": 0}},
    },
    "modalities": {
        "clinical": {
            "kind": "clinical",
            "file": "patients.csv",
            "time": "before",
            "columns": {
                "age": {"type": "numeric", "unit": "years", "min": 0, "max": 120},
                "sex": {"type": "categorical", "values": ["f", "m"]},
                "smoking": ["no", "yes"],
            },
        },
        "rna": {"kind": "omics", "file": "rna.csv", "time": {"days": "day"}, "match": "^g"},
    },
}
PATIENTS = """patient_id;hospital;age;sex;smoking;grade;t;e;surgery
00123;A;60;f;no;1;10;dead;2020-01-05
1E5;A;70,5;m;yes;2;3;alive;2020-02-05
NA;B;;f;sometimes;;;dead;2020-03-05
7;B;50;;no;1;5;;2020-01-05
"""
RNA = "patient_id,day,g1,g2\n00123,-4,1,2\nNA,0,3,\n7,-1,0,1\n"


def lay(root: Path, patients: str = PATIENTS, rna: str = RNA) -> dict[str, Any]:
    """The cohort with these tables in a folder."""
    (root / "patients.csv").write_text(patients)
    (root / "rna.csv").write_text(rna)
    return copy.deepcopy(COHORT) | {"root": str(root)}


def brief(rows: list[FaultRow]) -> set[tuple[str, int | None, str, str, str]]:
    return {(r.file, r.row, r.column, r.value, r.rule) for r in rows}


def test_sound_tables_have_no_fault(tmp_path: Path) -> None:
    cohort = lay(tmp_path)
    assert schema.faults(cohort) == []
    assert manifest.load(cohort, tmp_path).tables["clinical"]["age"].iloc[1] == 70.5


def test_the_schema_is_one_of_pandera(tmp_path: Path) -> None:
    cohort = lay(tmp_path)
    tables = {table.file: table for table in declared.tables(cohort, None, None)}
    for table in tables.values():
        table.frame = pd.read_csv(tmp_path / table.file, sep=None, engine="python", dtype=str, keep_default_na=False)
    assert declared.rule(cohort, tables, None, None) == []
    made = schema.schema(tables["patients.csv"])
    assert type(made).__module__.startswith("pandera.")
    assert {"patient_id", "hospital", "age", "sex", "grade", "t", "e", "surgery"} <= set(made.columns)


def test_every_fault_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    spoilt = """patient_id;hospital;age;sex;smoking;grade;t;e;surgery
00123;A;170;f;no;1;10;dead;2020-01-05

1E5;A;6x;d;yes;3;-3;living;05.02.2020
NA;B;;f;sometimes;;0;dead;2020-03-05
7;B;50;;no;1;soon;;2020-01-05
7;B;50;;no;1;5;alive;2020-01-05
 ;B;50;;no;1;5;alive;2020-01-05
"""
    cohort = lay(tmp_path, spoilt, "patient_id,day,g1,g2\n00123,4,x,2\nNA,,3,\n7,-1,0,1\n")
    cohort["modalities"]["clinical"]["columns"]["weight"] = "numeric"
    cohort["modalities"]["more"] = {"kind": "omics", "file": "more.csv"}
    cohort["modalities"]["ragged"] = {"kind": "omics", "file": "ragged.csv"}
    (tmp_path / "ragged.csv").write_text("patient_id,a\n1,2\n3,4,5\n")
    rows = schema.faults(cohort)
    after = "the index date (surgery)"
    assert brief(rows) == {
        ("more.csv", None, "", "", "no such table"),
        ("ragged.csv", 3, "", "", "not readable"),
        ("patients.csv", None, "weight", "", "no such column"),
        ("patients.csv", 2, "age", "170", "outside 0 to 120 years"),
        ("patients.csv", 4, "age", "6x", "no number"),
        ("patients.csv", 4, "sex", "d", "unknown value"),
        ("patients.csv", 4, "grade", "3", "not in the map"),
        ("patients.csv", 4, "t", "-3", "negative time"),
        ("patients.csv", 4, "e", "living", "not in the map"),
        ("patients.csv", 4, "surgery", "##.##.####", "no date"),  # dates are not told, their form is
        ("patients.csv", 5, "t", "0", "time zero"),
        ("patients.csv", 6, "t", "soon", "no number"),
        ("patients.csv", 6, "patient_id", "7", "id twice"),
        ("patients.csv", 7, "patient_id", "7", "id twice"),
        ("patients.csv", 8, "patient_id", " ", "blank"),
        ("rna.csv", 2, "g1", "x", "no number"),
        ("rna.csv", 2, "day", "4", f"after {after}"),
        ("rna.csv", 3, "day", "", f"not known to be before {after}"),
    }
    assert all(row.todo for row in rows)


def test_what_was_not_asked_for_is_not_judged(tmp_path: Path) -> None:
    cohort = lay(tmp_path, rna=RNA.replace("3,", "x,"))
    cohort["tasks"]["extra"] = {**cohort["tasks"]["os"], "time": "none", "optional": True}
    cohort["modalities"]["gone"] = {"kind": "omics", "file": "gone.csv", "optional": True}
    assert [row.column for row in schema.faults(cohort)] == ["g1"]
    assert schema.faults(cohort, modalities=["clinical"]) == []
    assert [row.column for row in schema.faults(cohort, tasks=["extra"], modalities=["clinical"])] == ["none"]
    assert [row.rule for row in schema.faults(cohort, modalities=["gone"])] == ["no such table"]


SPOILT = (
    [("60;f", "160;f"), ("60;f", "x;f"), (";m;", ";q;"), ("2;3;alive", "9;3;alive"), ("3;alive", "-3;alive"),
     ("3;alive", "0;alive"), ("3;alive", "3;living"), ("3;alive", ";"), ("2020-02-05", "2020-13-05"), ("7;B", "NA;B"),
     ("7;B", ";B"), ("surgery", "operation"), ("hospital", "clinic"), ("-4,1", "-4,one"), ("-4,1", "4,1"),
     ("-4,1", ",1"), ("-4,1", "soon,1"), ("NA,0", "00123,0"), ("NA,0", "NB,0"), ("day", "week"), ("no;1", "never;1"),
     ("70,5", "7.0,5"), ("g1", "h1")]
)  # fmt: skip


def agree(root: Path, changes: list[tuple[str, str]]) -> bool:
    """Whether a verb that loads the cohort and one that checks it say the same of it."""
    patients, rna = PATIENTS, RNA
    for old, new in changes:
        patients, rna = patients.replace(old, new), rna.replace(old, new)
    cohort = lay(root, patients, rna)
    try:
        manifest.load(cohort, root)
        loads = True
    except DataFault:
        loads = False
    return (schema.faults(cohort) == []) == loads


@pytest.mark.parametrize("change", SPOILT, ids=lambda pair: f"{pair[0]}>{pair[1]}")
def test_the_schema_finds_a_fault_where_loading_does(tmp_path: Path, change: tuple[str, str]) -> None:
    assert agree(tmp_path, [change])


@given(st.lists(st.sampled_from(SPOILT), min_size=2, max_size=4))
@settings(max_examples=30)
def test_and_so_it_does_among_others(tmp_path_factory: Any, changes: list[tuple[str, str]]) -> None:
    assert agree(tmp_path_factory.mktemp("cohort"), changes)


def declare(root: Path) -> None:
    import yaml

    (root / "conf" / "cohort").mkdir(parents=True)
    (root / "conf" / "cohort" / "mine.yaml").write_text(yaml.safe_dump(copy.deepcopy(COHORT) | {"root": "."}))


def test_one_table_of_faults_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    declare(tmp_path)
    lay(tmp_path, PATIENTS.replace("70,5", "[bold]").replace("2;3;alive", "2;-3;living"))
    for verb in ("check", "train"):
        told = CliRunner().invoke(app, [verb, "--conf", "conf", "cohort=mine", "name=it"])
        assert told.exit_code == 3
        assert told.stderr.count("\n") == 1
        assert "(3 faults in all, see faults.json)" in told.stderr
        assert "3 faults in the tables" in told.stdout
        assert "[bold]" in told.stdout
        rows = json.loads((tmp_path / "runs" / verb / "it" / "faults.json").read_text())
        assert {(row["row"], row["column"]) for row in rows} == {(3, "age"), (3, "t"), (3, "e")}
        assert set(rows[0]) == {"file", "row", "column", "value", "rule", "todo"}
    kept = json.loads((tmp_path / "runs" / "check" / "it" / "check.json").read_text())
    assert (kept["errors"], kept["faults"]) == (3, rows)


def test_many_faults_alike_are_one_line() -> None:
    rows = [FaultRow("t.csv", row, "e", "living", "not in the map", "add it") for row in range(2, 200)]
    (line,) = zip(*(column.cells for column in fault_table.table(rows).columns), strict=True)
    assert line == ("t.csv", "2, 3, 4, 5 and 194 more", "e", "living", "not in the map", "add it")


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "folder"), [("hancock", "hancock"), ("tcga_lusc", "tcga"), ("tcga_ucec", "tcga")])
def test_shipped_cohorts_have_no_fault(name: str, folder: str, real_data: Path) -> None:
    cohort = plain(compose("check", [f"cohort={name}", f"cohort.root={real_data / folder}"]))["cohort"]
    assert schema.faults(cohort) == []


@pytest.mark.realdata
def test_a_barcode_of_a_slide_is_matched_to_its_patient(real_data: Path) -> None:
    """TCGA-LUSC by its slides instead of its patients: nobody matches as text, everybody by the parser."""
    words = ["cohort=tcga_lusc", f"cohort.root={real_data / 'tcga'}", "cohort.modalities.rna.id=slide_id"]
    cohort = plain(compose("check", words))["cohort"]
    with pytest.raises(DataFault, match="484 of 484 ids are no patients"):
        manifest.load(cohort, Path("out"), modalities=["rna"])
    cohort["modalities"]["rna"]["ids"] = "tcga"
    made = manifest.load(cohort, Path("out"), modalities=["rna"])
    plainly = plain(compose("check", words[:2]))["cohort"]
    assert made.tables["rna"].equals(manifest.load(plainly, Path("out"), modalities=["rna"]).tables["rna"])
