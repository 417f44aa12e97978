"""`mtl init`: a study begins with files that compose, and a draft that guesses no outcome."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from nsclc_mtl.cli import app
from nsclc_mtl.cohort import draft, schema, templates
from nsclc_mtl.config import compose, plain
from nsclc_mtl.tables.read import read_text


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mtl(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


CLINIC = """case_no;centre;age;sex;grade;hb;drawn;note;os_months;os_status;vital_status;smoking_status
001;north;61,5;f;G1;13,5;2020-01-31;a;12,5;dead;Dead;never
002;south;70;m;G2;12,1;2020-02-01;b;30;alive;Alive;now
003;south;55;m;G2;11,0;2020-03-01;c;41;alive;Alive;now
004;north;48;f;G1;14,2;2020-04-01;d;7;dead;Dead;never
"""


def test_the_templates_compose_and_hold(here: Path) -> None:
    told = mtl("init", "My study")
    assert told.exit_code == 0
    assert {path.relative_to(here).as_posix() for path in here.rglob("*.*")} == {
        "My study/patients.csv", "My study/slides.csv", "My study/scans.csv", "My study/rna.csv",
        "My study/conf/cohort/my_study.yaml",
    }  # fmt: skip
    conf = str(here / "My study" / "conf")
    shown = mtl("train", "--show", "--conf", conf, "cohort=my_study")
    assert shown.exit_code == 0
    assert yaml.safe_load(shown.stdout)["cohort"]["index_date"] == {"column": "surgery_date", "event": "surgery"}
    assert mtl("train", "--check", "--conf", conf, "cohort=my_study").exit_code == 0
    assert schema.faults(plain(compose("check", ["cohort=my_study"], [Path(conf)]))["cohort"]) == []
    checked = mtl("check", "--conf", conf, "cohort=my_study", "name=it")
    assert checked.exit_code == 3  # two examples are no cohort
    assert "2 patients cannot be dealt into 5 folds" in checked.stderr


def test_filled_templates_are_a_cohort(here: Path) -> None:
    """The same columns with other patients: `mtl check` finds nothing that stands against a training."""
    mtl("init", "study")
    rng = np.random.default_rng(0)
    words = {"site": ["north", "south"], "sex": ["f", "m"], "smoking": ["never", "former", "current"],
             "stage": ["I", "II", "III", "IV"], "response": ["yes", "no", ""],
             "os_status": ["dead", "alive"]}  # fmt: skip
    for file in ("patients.csv", "rna.csv"):
        head, *_ = templates.TABLES[file].splitlines()
        rows = [head]
        for k in range(60):
            cells = {name: str(rng.choice(values)) for name, values in words.items()}
            cells |= {"patient_id": f"{k:03d}", "surgery_date": "2020-01-31"}
            rows.append(",".join(cells.get(name, str(rng.integers(20, 90))) for name in head.split(",")))
        (here / "study" / file).write_text("\n".join(rows) + "\n")
    words = ("check", "--conf", "study/conf", "cohort=study", "folds.n=2")
    left = mtl(*words, "name=left")
    assert left.exit_code == 3
    assert "'slides.csv': 2 of 2 ids are no patients of the cohort (EXAMPLE-1, EXAMPLE-2)" in left.stderr
    (here / "study" / "slides.csv").write_text("slide_id,patient_id,path\n")
    told = mtl(*words, "name=it")
    assert told.exit_code == 0, told.stderr


def test_nothing_is_overwritten(here: Path) -> None:
    (here / "study").mkdir()
    (here / "study" / "rna.csv").write_text("mine")
    told = mtl("init", "study")
    assert told.exit_code == 2
    assert told.stderr == (
        "mtl: 'study/rna.csv' is there already and is not overwritten; take another folder or --name\n"
    )
    assert [path.name for path in here.rglob("*.*")] == ["rna.csv"]
    assert (here / "study" / "rna.csv").read_text() == "mine"


def test_a_draft_marks_its_guesses_and_guesses_no_outcome(here: Path) -> None:
    (here / "in").mkdir()
    (here / "in" / "clinic.csv").write_text(CLINIC)
    genes = ",".join(f"G{k}" for k in range(30))
    numbers = ",".join(f"{k}.5" for k in range(30))
    (here / "in" / "genes.csv").write_text(
        f"case_no,batch,{genes}\n001,x,{numbers}\n002,y,{numbers}\n003,x,{numbers}\n"
    )
    told = mtl("init", "study", "--from", "in/clinic.csv", "in/genes.csv")
    assert told.exit_code == 0, told.output
    text = (here / "study" / "conf" / "cohort" / "study.yaml").read_text()
    made = yaml.safe_load(text)
    assert made["patients"] == {"file": "clinic.csv", "id": "case_no", "site": "centre"}
    assert "id: case_no, site: centre}   # guess: id and site" in text
    assert made["tasks"]["survival"] == {
        "kind": "survival", "endpoint": "???", "time": "???", "unit": "???", "event": "???", "events": "???",
    }  # fmt: skip
    assert "candidates: os_months" in text
    assert "os_status (alive, dead), vital_status (Alive, Dead)" in text
    assert "# Proposed: os_months, os_status, vital_status\n" in text
    assert made["never_inputs"] == []
    assert made["modalities"]["clinic"]["columns"] == {
        "age": "numeric", "sex": "categorical", "grade": "categorical", "hb": "numeric",
        "smoking_status": "categorical",
    }  # fmt: skip
    guessed = [line for line in text.splitlines() if re.match(r"      \w+: (numeric|categorical)", line)]
    assert len(guessed) == 5
    assert all("# guess" in line for line in guessed)
    assert "# Columns of dates: drawn" in text
    assert made["modalities"]["genes"] == {"kind": "omics", "file": "genes.csv", "exclude": ["batch"]}
    words = ["--conf", "study/conf", "cohort=study"]
    unfilled = mtl("check", *words)
    assert unfilled.exit_code == 2
    for word in ("endpoint", "time", "unit", "event", "events"):
        assert f"cohort.tasks.survival.{word} has no value" in unfilled.stderr
    filled = [
        *("endpoint=OS", "time=os_months", "unit=months", "event=os_status", "events={dead: 1, alive: 0}"),
    ]
    words += [f"cohort.tasks.survival.{word}" for word in filled] + ["folds.n=2", "folds.min_events=0"]
    assert mtl("train", "--show", *words).exit_code == 0
    cohort = plain(compose("check", words[2:], [Path("study/conf")]))["cohort"]
    assert schema.faults(cohort) == []


def test_the_id_column_of_the_patients_is_taken_in_all_tables(here: Path) -> None:
    (here / "a.csv").write_text("patient_id,age,sex\n1,60,f\n2,61,m\n3,62,f\n")
    (here / "b.csv").write_text("slide_no,patient_id,score\n1,1,5.5\n2,1,6.5\n3,2,7\n")
    frames = {name: read_text(here / name) for name in ("a.csv", "b.csv")}
    text = draft.draft("s", "/data", frames)
    assert yaml.safe_load(text)["patients"] == {"file": "a.csv", "id": "patient_id"}
    assert "id: patient_id}\n" in text  # the usual name is no guess
    assert "several rows a patient" in text
    assert "id" not in yaml.safe_load(text)["modalities"]["b"]


@pytest.mark.parametrize("name", ["no", "Yes", "1.0", "a: b", "# x", "[x]", "${x}", "ä b", "x'\"y"])
def test_names_survive_yaml(name: str, here: Path) -> None:
    assert yaml.safe_load(f"{{{templates.quoted(name)}: 1}}") in ({name: 1}, {name.replace("${", "\\${"): 1})


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["study", "--from", "absent.csv"], 2, "no table 'absent.csv'"),
        (["study", "--from", "empty.csv"], 3, "'empty.csv' is empty"),
        (["study", "--from", "book.xlsx"], 3, "is a spreadsheet"),
        (["study", "--from", "noid.csv"], 3, "no column that could be the id"),
        (["study", "--name", "a b"], 2, "cannot name a study"),
        (["study", "extra.csv"], 2, "name tables after --from"),
    ],
)
def test_wrong_words_and_tables_write_nothing(here: Path, words: list[str], code: int, told: str) -> None:
    (here / "empty.csv").write_text("")
    (here / "book.xlsx").write_bytes(b"PK")
    (here / "noid.csv").write_text("a,b\n1.5,x\n1.5,x\n")
    result = mtl("init", *words)
    assert result.exit_code == code
    assert told in re.sub(r"\s+", " ", result.stderr.replace("│", ""))
    assert not (here / "study").exists()
