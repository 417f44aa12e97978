"""Who may be predicted by which fold: own patients by one that did not train on them, or with a caution."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from test_way import Way

from nsclc_mtl.phantom.cohort import make

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
    page = (way.folder("evaluate", "same") / "report.html").read_text()
    assert "held the patient out, 2 of no test part by the folds that were not trained on them" in page
    assert "external patients" not in page
    rows = json.loads((way.folder("evaluate", "same") / "metrics.json").read_text())
    assert max(r["n"] for r in rows) <= 39


# -- one fold ---------------------------------------------------------------------------------------------------------


def elsewhere(way: Way) -> tuple[str, ...]:
    root = way.root / "elsewhere"
    if not root.is_dir():
        make(root, level="features", n=40, seed=7)
    return (
        "cohort=phantom",
        "cohort.level=features",
        "cohort.n=40",
        f"cohort.root={root}",
        "floors=[]",
        "bootstrap=10",
    )


@pytest.mark.parametrize("place", ["fold1", "fold1/model0.ckpt"])
def test_a_named_fold_judges_whom_it_tests(way: Way, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = place.replace("/", "-")
    assert way.run("evaluate", name, f"ckpt={way.folder() / place}", "bootstrap=10", "floors=[clinical]") == 0
    said = capsys.readouterr().out
    assert "only the patients whom fold 1 tests are judged (fold 1 alone)" in said
    splits = pd.read_csv(way.folder() / "splits.csv", dtype=str)
    tested = set(splits[(splits["fold"] == "1") & (splits["part"] == "test")]["patient_id"])
    assert f"{len(set(splits[splits['fold'] == '1']['patient_id']))} patients" in said
    assert way.run("evaluate", f"all-{name}", f"ckpt={way.folder()}", "bootstrap=10", "floors=[clinical]") == 0
    rows, every = (
        json.loads((way.folder("evaluate", run) / "metrics.json").read_text()) for run in (name, f"all-{name}")
    )
    assert {r["fold"] for r in rows} <= {"1", "all"}
    # IBS ends on a common day, and at a horizon so many have to be followed, of one fold as of all
    others = {"ibs", "ipa"} | {f"{word}_{year}y" for word in ("auc", "brier") for year in (1, 3, 5)}
    for model in ("learner", "floor:clinical"):
        found = [
            [
                (r["task"], r["metric"], r["value"], r["n"])
                for r in of
                if (r["model"], r["fold"]) == (model, "1") and r["metric"] not in others
            ]
            for of in (rows, every)
        ]
        assert found[0] == found[1]
        assert found[0]
    ours = [r for r in rows if (r["fold"], r["model"], r["part"]) == ("all", "learner", "test")]
    assert max(r["n"] for r in ours) <= len(tested)
    assert "<dd>fold 1 alone</dd>" in (way.folder("evaluate", name) / "report.html").read_text()


@pytest.mark.slow
def test_the_page_says_how_many_folds_predicted(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    for name, ckpt, told in (
        ("three", way.folder(), "mean of 3 folds"),
        ("one", way.folder() / "fold2", "fold 2 alone"),
        ("single", way.folder() / "fold2/model0.ckpt", "fold 2 alone"),
    ):
        assert way.run("evaluate", f"by-{name}", f"ckpt={ckpt}", *elsewhere(way)) == 0
        by = f"predicted by {'the ' if name == 'three' else ''}{told}"
        assert f"40 patients that the model never saw, {by}" in capsys.readouterr().out
        page = (way.folder("evaluate", f"by-{name}") / "report.html").read_text()
        assert f"<dd>external patients: {told}</dd>" in page
        assert ("its cut-off is the mean of theirs" in page) == (name == "three")
        assert ("The risk of an external patient is that of fold 2 alone" in page) == (name != "three")
        assert ("training on 3 folds left it" in page) == (name == "three")
        assert ("the training of one fold left it" in page) == (name != "three")
    alone = [json.loads((way.folder("evaluate", f"by-{n}") / "metrics.json").read_text()) for n in ("one", "single")]
    assert alone[0] == alone[1]
    cuts = "tables/risk-cut-offs-survival.csv"
    of_all, of_one = (pd.read_csv(way.folder("evaluate", f"by-{n}") / cuts) for n in ("three", "one"))
    assert of_all["cut_1"][0] != of_one["cut_1"][0]
    before = way.table("train", "whole").query("task == 'survival' and output == 'risk' and part == 'train'")
    assert of_one["cut_1"][0] == pytest.approx(before[before["fold"] == 2]["value"].median(), rel=1e-5)


@pytest.mark.slow
def test_a_single_member_stands_for_its_fold(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    assert way.train("pair", *CHEAP, "members=2", "fold=0") == 0
    ckpt = way.folder(name="pair") / "fold0/model1.ckpt"
    assert way.run("evaluate", "member", f"ckpt={ckpt}", *elsewhere(way)) == 0
    assert "predicted by fold 0 alone, all 2 members of it" in capsys.readouterr().out
    assert way.run("evaluate", "member-own", f"ckpt={ckpt}", "floors=[]", "bootstrap=10") == 0
    assert "whom fold 0 tests are judged (fold 0 alone, all 2 members of it)" in capsys.readouterr().out
    assert way.predict("member", ckpt=ckpt) == 0
    assert "it predicts: fold 0 alone, all 2 members of it" in capsys.readouterr().out
