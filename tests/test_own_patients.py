"""Who may be predicted by which fold: own patients by one that did not train on them, or with a caution."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from test_way import Way

CHEAP = ("modalities=[clinical]", "tasks=[grade,survival]", "audit=0")


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    """Three folds from a file: A0.. are tested, `always` trained every one, `once` trained one, `never` is in none."""
    made = Way(tmp_path_factory.mktemp("own"))
    ids = list(pd.read_csv(made.data / "patients.csv", dtype=str)["patient_id"])
    always, once, never = ids[0], ids[1], ids[2]
    rows = []
    for fold in range(3):
        rows += [(p, fold, "test" if i % 3 == fold else "train") for i, p in enumerate(ids[3:])]
        rows += [(always, fold, "train")]
    rows += [(once, 1, "train"), (ids[3], 2, "test")]  # the first of the tested is tested twice
    file = made.root / "folds.csv"
    table = pd.DataFrame(rows, columns=["patient_id", "fold", "part"]).drop_duplicates(
        ["patient_id", "fold"], keep="last"
    )
    table.to_csv(file, index=False)
    made.people = {"always": always, "once": once, "never": never, "twice": ids[3]}  # type: ignore[attr-defined]
    assert made.train("whole", *CHEAP, f"folds.file={file}") == 0
    return made


def by_patient(way: Way, name: str) -> pd.DataFrame:
    return pd.read_csv(way.folder("predict", name) / "patients.csv", keep_default_na=False).set_index("patient_id")


def test_who_was_trained_on_by_every_fold_is_told(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    people = way.people  # type: ignore[attr-defined]
    assert way.predict("all") == 0
    caution = by_patient(way, "all")["caution"]
    told = "trained on by every fold: no prediction of a patient unseen"
    assert told in caution[people["always"]]
    assert (caution.drop(people["always"]).str.contains("trained on") == False).all()  # noqa: E712
    assert "1 patients were trained on by every fold" in capsys.readouterr().out


def test_who_trained_one_fold_is_predicted_by_the_others(way: Way) -> None:
    people = way.people  # type: ignore[attr-defined]
    assert way.predict("some", f"patients=[{people['once']},{people['never']}]") == 0
    made = way.table("predict", "some")
    assert set(made["fold"]) == {-1}
    each = {}
    for fold in (0, 1, 2):
        name = f"some{fold}"
        way.predict(name, f"patients=[{people['once']},{people['never']}]", ckpt=way.folder() / f"fold{fold}")
        frame = way.table("predict", name)
        each[fold] = frame[frame["output"] == "risk"].set_index("patient_id")["value"]
    mean = made[made["output"] == "risk"].set_index("patient_id")["value"]
    assert mean[people["once"]] == pytest.approx((each[0] + each[2])[people["once"]] / 2, rel=1e-4)
    assert mean[people["never"]] == pytest.approx(sum(e[people["never"]] for e in each.values()) / 3, rel=1e-4)
    assert "trained on" in by_patient(way, "some1")["caution"][people["once"]]


def test_a_patient_tested_twice_is_held_out_by_the_fold_at_hand(way: Way) -> None:
    twice = way.people["twice"]  # type: ignore[attr-defined]
    for fold in (0, 2):
        assert way.predict(f"twice{fold}", f"patients=[{twice}]", ckpt=way.folder() / f"fold{fold}") == 0
        assert set(way.table("predict", f"twice{fold}")["fold"]) == {fold}


def test_evaluating_the_own_cohort_by_name_leaves_the_trained_out(way: Way) -> None:
    always = way.people["always"]  # type: ignore[attr-defined]
    words = (
        f"ckpt={way.folder()}",
        "cohort=phantom",
        "cohort.level=features",
        "cohort.n=40",
        f"cohort.root={way.data}",
    )
    assert way.run("evaluate", "same", f"ckpt={way.folder()}", *words, "bootstrap=20") == 0
    assert always not in set(way.table("evaluate", "same")["patient_id"])
    rows = json.loads((way.folder("evaluate", "same") / "metrics.json").read_text())
    assert max(r["n"] for r in rows) <= 39
