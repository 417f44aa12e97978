"""What was known when: inputs later than the index date are refused, declared or dropped, never taken in silence."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.cohort import manifest, times
from nsclc_mtl.config import compose, plain
from nsclc_mtl.features import store
from nsclc_mtl.records import DataFault, Features, UsageFault

COHORT: dict[str, Any] = {
    "name": "toy",
    "index_date": {"column": "surgery", "event": "surgery"},
    "patients": {"file": "patients.csv", "id": "patient_id"},
    "tasks": {
        "os": {"kind": "survival", "time": {"date": "last_seen"}, "event": "e", "events": {"dead": 1, "alive": 0}},
    },
    "modalities": {
        "blood": {"kind": "omics", "file": "blood.csv", "time": {"date": "taken"}},
        "clinical": {"kind": "clinical", "file": "patients.csv", "time": "before", "columns": {"age": "numeric"}},
    },
}


@pytest.fixture
def cohort(tmp_path: Path) -> dict[str, Any]:
    """Three patients; blood of one was taken three days after surgery."""
    (tmp_path / "patients.csv").write_text(
        "patient_id,age,surgery,last_seen,e,chemo,chemo_day\n"
        "A,60,2020-01-10,2020-01-30,dead,no,\n"
        "B,70,2020-02-10,2021-02-10,alive,yes,30\n"
        "C,50,2020-03-10 08:30,2020-03-11,alive,no,-5\n"
    )
    (tmp_path / "blood.csv").write_text("patient_id,hb,taken\nA,15,2020-01-10\nB,12,2020-02-13\nC,14,2020-03-01\n")
    return copy.deepcopy(COHORT) | {"root": str(tmp_path)}


def load(cohort: dict[str, Any], **asked: Any) -> Any:
    return manifest.load(cohort, Path("out"), **asked)


def test_later_rows_are_refused_by_name_and_without_dates(cohort: dict[str, Any]) -> None:
    with pytest.raises(DataFault) as caught:
        load(cohort)
    assert str(caught.value) == (
        "'blood.csv': 1 of 3 rows lie 3 days after the index date (surgery) (B); correct them, or set "
        "cohort.modalities.blood.after_index to drop (taken as missing) or declared"
    )


def test_later_rows_are_dropped_or_declared(cohort: dict[str, Any]) -> None:
    cohort["modalities"]["blood"]["after_index"] = "drop"
    made = load(cohort)
    assert made.tables["blood"].to_dict() == {"hb": {"A": 15, "C": 14}}  # the column of dates is no input
    assert "'blood.csv': 1 of 3 rows lie 3 days after the index date (surgery) (B): taken as missing" in made.notes[0]
    cohort["modalities"]["blood"]["after_index"] = "declared"
    made = load(cohort)
    assert len(made.tables["blood"]) == 3
    assert "inputs all the same (after_index: declared)" in made.notes[0]
    cohort["modalities"]["blood"]["after_index"] = "keep"
    with pytest.raises(UsageFault, match="after_index='keep' is none of refuse, declared, drop"):
        load(cohort)


def test_days_count_like_dates_and_a_row_without_a_time_is_not_known_to_be_early(cohort: dict[str, Any]) -> None:
    root = Path(cohort["root"])
    (root / "blood.csv").write_text("patient_id,hb,day\nA,15,0\nB,12,3\nC,14,\n")
    cohort["modalities"]["blood"]["time"] = {"days": "day"}
    with pytest.raises(DataFault, match=r"1 of 3 rows lie 3 days after .*\(B\) and 1 rows have no time \(C\)"):
        load(cohort)
    cohort["modalities"]["blood"]["after_index"] = "drop"
    assert list(load(cohort).tables["blood"].index) == ["A"]


def test_outcomes_count_from_the_index_date(cohort: dict[str, Any]) -> None:
    cohort["modalities"].pop("blood")
    made = load(cohort)
    assert made.labels["os"]["time_days"].to_dict() == {"A": 20, "B": 366, "C": 1}
    assert made.labels["os"]["event"].tolist() == [1, 0, 0]
    assert made.tasks["os"].columns == ("last_seen", "e")
    root = Path(cohort["root"])
    (root / "patients.csv").write_text((root / "patients.csv").read_text().replace("2020-01-30", "2020-01-01"))
    with pytest.raises(DataFault, match=r"'last_seen': negative for A \(1 rows\)"):
        load(cohort)


@pytest.mark.parametrize("day", ["31.12.2019", "2019-02-30", "soon"])
def test_what_is_no_date_is_refused_without_its_digits(cohort: dict[str, Any], day: str) -> None:
    root = Path(cohort["root"])
    (root / "patients.csv").write_text((root / "patients.csv").read_text().replace("2020-01-10", day))
    with pytest.raises(DataFault, match=r"1 value\(s\) are no dates of the form %Y-%m-%d \(A: ") as caught:
        load(cohort)
    assert "2019" not in str(caught.value)


def test_other_forms_of_dates_are_declared(cohort: dict[str, Any]) -> None:
    root = Path(cohort["root"])
    (root / "patients.csv").write_text("patient_id,age,surgery,last_seen,e\nA,6,03.02.2020,05.02.2020,dead\n")
    (root / "blood.csv").write_text("patient_id,hb,taken\nA,15,01.02.2020\n")
    cohort["index_date"]["format"] = "%d.%m.%Y"
    made = load(cohort)
    assert made.labels["os"]["time_days"].tolist() == [2]
    assert list(made.tables["blood"].index) == ["A"]


def test_a_column_may_be_later_than_its_table(cohort: dict[str, Any]) -> None:
    clinical = cohort["modalities"]["clinical"]
    cohort["modalities"].pop("blood")
    clinical["columns"]["chemo"] = {"type": "categorical", "time": "after"}
    with pytest.raises(
        DataFault, match=r"'patients.csv' column 'chemo' is known only after .*columns.chemo.after_index"
    ):
        load(cohort)
    clinical["columns"]["chemo"]["after_index"] = "declared"
    made = load(cohort)
    assert made.tables["clinical"]["chemo"].tolist() == ["no", "yes", "no"]
    assert made.modalities["clinical"].options["columns"] == {"age": "numeric", "chemo": "categorical"}
    clinical["columns"]["chemo"] = {"type": "categorical", "time": {"days": "chemo_day"}, "after_index": "drop"}
    assert load(cohort).tables["clinical"]["chemo"].tolist() == ["", "", "no"]
    clinical["columns"]["chemo"]["after_index"] = "refuse"
    with pytest.raises(DataFault, match=r"column 'chemo': 1 of 3 rows lie 30 days after .*1 rows have no time \(A\)"):
        load(cohort)


def test_a_modality_that_is_later_is_left_out_or_refused(cohort: dict[str, Any]) -> None:
    blood = cohort["modalities"]["blood"]
    blood["time"], blood["exclude"] = "after", ["taken"]
    with pytest.raises(DataFault, match="modality 'blood' is known only after"):
        load(cohort)
    blood["optional"] = True
    made = load(cohort)
    assert list(made.tables) == ["clinical"]
    assert "modality 'blood' left out: it is known only after the index date (surgery)" in made.notes
    with pytest.raises(times.Later, match="after_index=declared"):
        load(cohort, modalities=["blood"])
    blood["after_index"] = "declared"
    assert set(load(cohort).tables) == {"blood", "clinical"}
    blood["after_index"] = "drop"
    with pytest.raises(UsageFault, match=r"nothing .* is left"):
        load(cohort)


def test_late_slides_are_missing_slides(cohort: dict[str, Any]) -> None:
    root = Path(cohort["root"])
    for slide in "abc":
        store.write(root / f"{slide}.h5", Features(np.ones((2, 4), np.float16), np.zeros((2, 2), np.int64), {}))
    (root / "slides.csv").write_text(
        "slide_id,patient_id,path,day\na,A,a.h5,-1\nb,A,b.h5,9\nc,B,c.h5,9\nz,stranger,z.h5,99\n"
    )
    cohort["modalities"] = {"wsi": {"kind": "bag", "table": "slides.csv", "time": {"days": "day"}}}
    with pytest.raises(DataFault, match=r"'slides.csv': 2 of 3 rows lie 9 days after .*\(b, c\)"):
        load(cohort)
    cohort["modalities"]["wsi"]["after_index"] = "drop"
    assert load(cohort).bags["wsi"] == {"A": [str(root / "a.h5")]}


@pytest.mark.parametrize(("days", "kept"), [("-5,-3", ["A"]), ("-5,30", ["A"]), ("4,30", [])])
def test_what_was_measured_on_scans_is_as_early_as_the_earliest(
    cohort: dict[str, Any], days: str, kept: list[str]
) -> None:
    root = Path(cohort["root"])
    first, second = days.split(",")
    (root / "scans.csv").write_text(f"scan_id,patient_id,modality,image,day\n1,A,CT,x,{first}\n2,A,CT,y,{second}\n")
    (root / "out" / "scans").mkdir(parents=True)
    table = pd.DataFrame({"volume": [1.0]}, index=pd.Index(["A"], name="patient_id"))
    table.to_parquet(root / "out" / "scans" / "r.parquet")
    ct = {"kind": "radiomics", "time": {"days": "day"}, "after_index": "drop", "optional": True}
    cohort["modalities"] = {"ct": ct, "clinical": cohort["modalities"]["clinical"]}
    made = manifest.load(cohort, root / "out", keys={"radiomics": "r"})
    assert list(made.tables.get("ct", pd.DataFrame()).index) == kept


def test_a_cohort_with_an_index_date_says_of_every_modality_when_it_is_known(cohort: dict[str, Any]) -> None:
    cohort["modalities"].pop("blood")
    assert not [note for note in load(cohort).notes if "no `time`" in note]
    del cohort["modalities"]["clinical"]["time"]
    assert "no `time` is declared for clinical: taken as known by the index date (surgery)" in load(cohort).notes


@pytest.mark.parametrize(
    ("time", "told"),
    [("sometimes", "none of before, after"), ({"weeks": "x"}, "none of before, after"), ({"days": "x"}, "column 'x'")],
)
def test_a_time_that_says_nothing_is_refused(cohort: dict[str, Any], time: Any, told: str) -> None:
    cohort["modalities"]["blood"]["time"] = time
    with pytest.raises((DataFault, UsageFault), match=told):
        load(cohort)


def test_dates_need_an_index_date(cohort: dict[str, Any]) -> None:
    cohort["tasks"] = {}
    cohort["index_date"] = {"event": "surgery"}
    with pytest.raises(UsageFault, match=r"cohort.index_date.column names none"):
        load(cohort)
    cohort["index_date"] = {"when": "surgery"}
    with pytest.raises(UsageFault, match=r"index_date.when is none of"):
        load(cohort)


@pytest.mark.realdata
def test_codes_after_the_operation_need_a_declaration(real_data: Path) -> None:
    """HANCOCK's ICD codes: left out, refused by name, taken where it is said that they are meant."""
    words = ["experiment=hancock", f"cohort.root={real_data / 'hancock'}", "modalities=[clinical,icd]"]
    cohort = plain(compose("train", words))["cohort"]
    assert "icd" not in load(cohort).tables
    with pytest.raises(DataFault, match="modality 'icd' is known only after the index date") as caught:
        load(cohort, modalities=["clinical", "icd"])
    assert caught.value.exit_code == 3
    cohort = plain(compose("train", [*words, "cohort.modalities.icd.after_index=declared"]))["cohort"]
    made = load(cohort, modalities=["clinical", "icd"])
    assert made.tables["icd"].shape[1] == 40
    assert [note for note in made.notes if "inputs all the same" in note or "an input all the same" in note]
