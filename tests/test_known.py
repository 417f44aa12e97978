"""Patients of the training who come again in other tables, under other ids or among others are known again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_way import Way

from nsclc_mtl.phantom.cohort import make

WORDS = ("modalities=[clinical,rna]", "tasks=[stage,response,survival]", "audit=0", "cohort.n=60")


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    """A run of sixty patients, its bundle, the run without marks, and one that knows three columns of each patient."""
    made = Way(tmp_path_factory.mktemp("known"))
    made.data = make(made.root / "sixty", level="features", n=60, seed=0)
    shutil.rmtree(made.data / "truth")
    assert made.train("whole", *WORDS) == 0
    assert made.train("narrow", *WORDS, "modalities=[clinical]") == 0
    for name in ("whole", "narrow"):
        assert made.run("bundle", name, f"ckpt={made.folder(name=name)}", f"out={made.root / name}") == 0
    new = make(made.root / "new", level="features", n=60, seed=5)
    shutil.rmtree(new / "truth")
    for name, edit in EDITS.items():
        root = Path(shutil.copytree(made.data, made.root / name))
        frames, others = (
            {file.name: pd.read_csv(file, dtype=str, keep_default_na=False) for file in at.glob("*.csv")}
            for at in (root, new)
        )
        for file, frame in edit(frames, others).items():
            frame.to_csv(root / file, index=False)
    return made


Frames = dict[str, pd.DataFrame]


def followed_longer(frames: Frames, _: Frames) -> Frames:
    """One day more for one patient."""
    patients = frames["patients.csv"]
    patients.loc[0, "os_days"] = str(float(patients.loc[0, "os_days"]) + 1)
    return frames


def shuffled(frames: Frames, _: Frames) -> Frames:
    return {file: frame.sample(frac=1, random_state=1) for file, frame in frames.items()}


def half(frames: Frames, _: Frames) -> Frames:
    ids = list(frames["patients.csv"]["patient_id"])[::2]
    return {file: frame[frame["patient_id"].isin(ids)] for file, frame in frames.items()}


def renamed(frames: Frames, _: Frames) -> Frames:
    """Other ids of patients, slides and scans."""
    ids = ("patient_id", "slide_id", "scan_id")
    return {f: t.assign(**{c: "X" + t[c] for c in ids if c in t}) for f, t in frames.items()}


def corrected(frames: Frames, _: Frames) -> Frames:
    """A quarter of the patients with another age, and one with another gene."""
    patients, rna = frames["patients.csv"], frames["rna.csv"]
    patients.loc[::4, "age"] = "44"
    rna.loc[0, rna.columns[5]] = "0.123"
    return frames


def mixed(frames: Frames, others: Frames) -> Frames:
    """Twenty of the training, under other ids, among sixty new ones who are called as others of the training are."""
    some = list(frames["patients.csv"]["patient_id"])[:20]
    again = renamed({file: frame[frame["patient_id"].isin(some)] for file, frame in frames.items()}, others)
    return {file: pd.concat([again[file], others[file]]) for file in frames}


def strangers(_: Frames, others: Frames) -> Frames:
    """The same ids, other people."""
    return others


def without_genes(_: Frames, others: Frames) -> Frames:
    """Other people, of whom nobody's genes were measured."""
    return {**others, "rna.csv": others["rna.csv"].iloc[:0]}


def of_training_parts(frames: Frames, others: Frames) -> Frames:
    """Who is in no test part of the run `one`, under other ids."""
    ids = frames["patients.csv"]["patient_id"][20:]
    return renamed({file: frame[frame["patient_id"].isin(ids)] for file, frame in frames.items()}, others)


EDITS: dict[str, Callable[[Frames, Frames], Frames]] = {
    f.__name__: f
    for f in (followed_longer, shuffled, half, renamed, corrected, mixed, strangers, without_genes, of_training_parts)
}


def there(way: Way, name: str) -> tuple[str, ...]:
    return ("cohort=phantom", "cohort.level=features", "cohort.n=60", f"cohort.root={way.root / name}")


def judge(way: Way, name: str, ckpt: Path, cohort: str, *words: str) -> int:
    return way.run("evaluate", name, f"ckpt={ckpt}", "bootstrap=10", *there(way, cohort), *words)


def of_fold(way: Way, run: str) -> pd.Series:
    """The training's own test predictions."""
    rows = way.table("train", run).query("part == 'test'")
    return rows.set_index(["patient_id", "task", "output"])["value"].sort_index()


def measured(way: Way, cohort: str) -> set[str]:
    """Whose genes were measured."""
    return set(pd.read_csv(way.root / cohort / "rna.csv", dtype=str)["patient_id"])


AGAIN = [(cohort, run) for run in ("whole", "narrow") for cohort in ("followed_longer", "shuffled", "half")]
AGAIN += [("renamed", "whole")]  # age, sex and smoking alone (`narrow`) under another id tell nobody


QUICK = (("followed_longer", "whole"), ("renamed", "whole"), ("corrected", "narrow"))
JUDGED = [
    pytest.param(*pair, marks=[] if pair in QUICK else pytest.mark.slow)  # a bundle refuses those of all, quickly
    for pair in (*AGAIN, ("corrected", "whole"), ("corrected", "narrow"))
]


@pytest.mark.parametrize(("cohort", "run"), JUDGED)
def test_patients_of_the_training_are_judged_by_the_fold_that_held_them_out(
    way: Way, cohort: str, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{cohort}-{run}"
    assert judge(way, name, way.folder(name=run), cohort, "floors=[clinical]") == 0
    said = capsys.readouterr().out
    assert "that the model never saw" not in said
    assert "are of the training, as their inputs show" in said
    assert "are of the training, as their inputs show" in (way.folder("evaluate", name) / "report.html").read_text()
    made = way.table("evaluate", name).query("part == 'test'")
    ids = pd.read_csv(way.root / cohort / "patients.csv")["patient_id"]
    expected = set(ids) if cohort != "renamed" else measured(way, cohort)  # the others' age and sex tell nobody
    assert set(made["patient_id"]) == expected
    assert (f"of {len(set(ids) - expected)} more it cannot be told" in said) == (cohort == "renamed")
    assert set(made["fold"]) == {0, 1}
    before = of_fold(way, run)
    now = made.assign(patient_id=made["patient_id"].str.removeprefix("X")).set_index(["patient_id", "task", "output"])
    if cohort != "corrected":
        pd.testing.assert_series_equal(
            now["value"].sort_index(), before.reindex(now.index).sort_index(), rtol=1e-4, atol=1e-5
        )
    splits = pd.read_csv(way.folder(name=run) / "splits.csv", dtype={"patient_id": str})
    tested = splits[splits["part"] == "test"].set_index("patient_id")["fold"]
    assert (now["fold"] == tested.reindex(now.index.get_level_values(0)).to_numpy()).all()
    rows = json.loads((way.folder("evaluate", name) / "metrics.json").read_text())
    floors = [r for r in rows if (r["model"], r["task"], r["metric"]) == ("floor:clinical", "stage", "ordinal_auc")]
    assert {r["fold"] for r in floors} >= {"0", "1", "all"}
    learner = [r for r in rows if (r["model"], r["task"], r["metric"]) == ("learner", "stage", "ordinal_auc")]
    assert {r["fold"]: r["n"] for r in floors} == {r["fold"]: r["n"] for r in learner}


@pytest.mark.slow
def test_short_rows_under_other_ids_tell_where_hardly_two_patients_share_theirs(
    way: Way, capsys: pytest.CaptureFixture[str]
) -> None:
    """Age in days, sex and smoking: many might have each row, but not sixty strangers the rows of sixty patients."""
    for name, source, seed in (("days", way.data, 0), ("other-days", way.root / "new", 1)):
        root = Path(shutil.copytree(source, way.root / name))
        table, rng = pd.read_csv(root / "patients.csv", dtype=str, keep_default_na=False), np.random.default_rng(seed)
        table["age"] = (table["age"].astype(float) * 365.25 + rng.integers(0, 365, len(table))).round().astype(str)
        table.to_csv(root / "patients.csv", index=False)
    again = Path(shutil.copytree(way.root / "days", way.root / "days-again"))
    for file, frame in renamed({f.name: pd.read_csv(f, dtype=str) for f in again.glob("*.csv")}, {}).items():
        frame.to_csv(again / file, index=False)
    words = (f"cohort.root={way.root / 'days'}", "modalities=[clinical]")
    assert way.train("days", *WORDS, *words) == 0
    assert judge(way, "days-again", way.folder(name="days"), "days-again", "floors=[]") == 0
    said = capsys.readouterr().out
    assert "of 60 patients are of the training, as their inputs show" in said
    assert "that the model never saw" not in said
    assert set(way.table("evaluate", "days-again")["fold"]) == {0, 1}
    assert judge(way, "days-other", way.folder(name="days"), "other-days", "floors=[]") == 0
    assert "60 patients that the model never saw" in capsys.readouterr().out


@pytest.mark.slow
def test_floors_of_patients_that_come_again_are_those_of_the_run(way: Way) -> None:
    assert way.run("evaluate", "own", f"ckpt={way.folder()}", "bootstrap=10", "floors=[clinical]") == 0
    assert judge(way, "again", way.folder(), "renamed", "floors=[clinical]") == 0
    keys = ["model", "task", "fold", "output", "patient_id"]
    made = [
        pd.read_csv(way.folder("evaluate", name) / "floors.csv", dtype={"fold": str}).query("part == 'test'")
        for name in ("own", "again")
    ]
    own, again = (f.assign(patient_id=f["patient_id"].str.removeprefix("X")).sort_values(keys) for f in made)
    own = own[own["patient_id"].isin(again["patient_id"])]
    columns = [*keys, "value", "target", "event", "time_days"]
    pd.testing.assert_frame_equal(own[columns].reset_index(drop=True), again[columns].reset_index(drop=True))


def test_some_patients_of_the_training_among_others_are_left_out(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    genes = measured(way, "mixed")
    known = {p for p in genes if p.startswith("X")}
    for name, ckpt in (("mixed", way.folder()), ("mixed-packed", way.root / "whole")):
        assert judge(way, name, ckpt, "mixed", "floors=[]") == 0
        said, page = capsys.readouterr().out, (way.folder("evaluate", name) / "report.html").read_text()
        for told in (
            f"{len(known)} of 80 patients are of the training, as their inputs show; they are left out",
            f"of {80 - len(genes)} more it cannot be told by their inputs whether they were trained on: they are left",
        ):
            assert f"note: {told}" in said
            assert told in page
        made = way.table("evaluate", name)
        assert set(made["patient_id"]) == genes - known
        assert set(made["fold"]) == {-1}


@pytest.mark.parametrize(
    ("run", "packed"),
    [
        ("narrow", False),
        ("whole", True),
        pytest.param("whole", False, marks=pytest.mark.slow),
        pytest.param("narrow", True, marks=pytest.mark.slow),
    ],
)
def test_patients_who_are_only_counted_alike_are_others(
    way: Way, run: str, packed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"strange-{run}" + "-packed" * packed
    assert judge(way, name, way.root / run if packed else way.folder(name=run), "strangers", "floors=[]") == 0
    said = capsys.readouterr().out
    assert "60 patients that the model never saw" in said
    assert "trained on" not in said
    assert set(way.table("evaluate", name)["fold"]) == {-1}


@pytest.mark.parametrize(("cohort", "run"), AGAIN)
def test_a_bundle_refuses_the_patients_that_it_was_trained_on(
    way: Way, cohort: str, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(way, f"refused-{cohort}-{run}", way.root / run, cohort) == 2
    assert "these are the patients that the bundle was trained on" in capsys.readouterr().err


def test_predictions_of_patients_of_the_training_say_so(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    assert way.predict("run", *there(way, "mixed")) == 0
    of_training = {p for p in measured(way, "mixed") if p.startswith("X")}
    told = f"{len(of_training)} of 80 patients are of the training, as their inputs show"
    assert f"{told}; each is predicted by the fold" in capsys.readouterr().out
    made = way.table("predict", "run")
    known = made["patient_id"].isin(of_training)
    table = pd.read_csv(way.folder("predict", "run") / "patients.csv", keep_default_na=False).set_index("patient_id")
    unsure = table["caution"].str.contains("perhaps of the patients that were trained on")
    assert set(table.index[unsure]) == set(table.index) - measured(way, "mixed")
    assert (table.loc[unsure, "training"] == "perhaps trained on").all()
    assert set(table.index[table["training"] == "held out"]) == of_training
    assert (table["training"] == "").sum() == len(measured(way, "mixed") - of_training)
    assert set(made.loc[known, "fold"]) <= {0, 1}
    assert set(made.loc[~known, "fold"]) == {-1}
    assert way.predict("packed", *there(way, "mixed"), ckpt=way.root / "whole") == 0
    assert told in capsys.readouterr().out
    table = pd.read_csv(way.folder("predict", "packed") / "patients.csv", keep_default_na=False).set_index("patient_id")
    told = table["caution"].str.contains("of the patients that the bundle was trained on")
    assert set(table.index[told]) == set(table.index[table["training"] == "trained on"]) == of_training
    words = (*there(way, "mixed"), f"patients=[{min(of_training)}]")
    assert way.predict("one", *words, ckpt=way.root / "whole") == 0
    assert "1 of 1 patients are of the training" in capsys.readouterr().out


def test_who_was_trained_on_is_not_judged_by_predictions_that_were_locked(
    way: Way, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the column `training`; of a lock of before, which has none, by the inputs of today."""
    early = Path(shutil.copytree(way.root / "mixed", way.root / "mixed-early"))
    table = pd.read_csv(early / "patients.csv", dtype=str, keep_default_na=False)
    table.assign(os_days="", os_status="", response="").to_csv(early / "patients.csv", index=False)
    assert way.predict("locked", *there(way, "mixed-early"), "lock=true", ckpt=way.root / "whole") == 0
    place = way.folder("predict", "locked")
    before = Path(shutil.copytree(place, way.root / "locked-before"))
    for name in ("patients.csv", "lock.json"):
        (before / name).chmod(0o644)
    table = pd.read_csv(before / "patients.csv", dtype=str, keep_default_na=False).drop(columns="training")
    table.to_csv(before / "patients.csv", index=False)
    lock = json.loads((before / "lock.json").read_text())
    lock["files"]["patients.csv"] = hashlib.sha256((before / "patients.csv").read_bytes()).hexdigest()
    (before / "lock.json").write_text(json.dumps(lock))
    of_training = {p for p in measured(way, "mixed") if p.startswith("X")}
    capsys.readouterr()
    for name, run in (("column", place), ("inputs", before)):
        words = (
            f"ckpt={way.root / 'whole'}",
            f"predictions={run}",
            f"cohort.root={way.root / 'mixed'}",
            "bootstrap=10",
        )
        assert way.run("evaluate", f"locked-{name}", *words) == 0
        assert ("The lock does not say who was trained on" in capsys.readouterr().out) == (name == "inputs")
        found = pd.read_csv(way.folder("evaluate", f"locked-{name}") / "outcomes.csv", dtype=str)
        assert set(found.loc[found["outcome"] == "trained on", "patient_id"]) == of_training
        rest = set(found.loc[found["outcome"] == "perhaps trained on", "patient_id"])
        assert rest == set(found["patient_id"]) - measured(way, "mixed")
        judged = set(found.loc[found["outcome"] == "joined", "patient_id"])
        assert judged
        assert not judged & (of_training | rest)


@pytest.mark.slow
def test_a_run_of_before_is_compared_with_what_is_left(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    old = Path(shutil.copytree(way.folder(), way.root / "old"))
    (old / "marks.json").unlink()
    assert judge(way, "old", old, "renamed", "floors=[]") == 0
    assert "keeps no marks of its patients, so these patients are compared with the training cohort" in (
        capsys.readouterr().out
    )
    assert set(way.table("evaluate", "old")["fold"]) == {0, 1}
    gone = way.data.rename(way.root / "gone")
    try:
        for cohort, folds, count in (("followed_longer", {0, 1}, 60), ("strangers", {-1}, 0)):
            assert judge(way, f"gone-{cohort}", old, cohort, "floors=[]") == 0
            said = capsys.readouterr().out
            assert "ids and outcomes alone are compared: 60 of 60 patients have an id of the training" in said
            assert f"{count} are taken for the same people" in said
            assert set(way.table("evaluate", f"gone-{cohort}")["fold"]) == folds
    finally:
        gone.rename(way.data)


def test_a_cohort_without_a_modality_of_the_model_is_judged_all_the_same(
    way: Way, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(way, "without", way.folder(), "without_genes", "floors=[clinical]") == 0
    assert "60 patients that the model never saw" in capsys.readouterr().out


def test_where_everybody_was_trained_on_nobody_is_judged(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    ids = pd.read_csv(way.data / "patients.csv", dtype=str)["patient_id"]
    parts = ["test"] * 20 + ["validation"] * 10 + ["train"] * 30
    pd.DataFrame({"patient_id": ids, "fold": 0, "part": parts}).to_csv(way.root / "one.csv", index=False)
    assert way.train("one", *WORDS, f"folds.file={way.root / 'one.csv'}") == 0
    assert judge(way, "nobody", way.folder(name="one"), "of_training_parts") == 3
    told = capsys.readouterr()
    assert "nobody is left to be judged: every patient was trained on" in told.err
    assert "that the model never saw" not in told.out


def test_a_bundle_without_marks_says_so(way: Way, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "b"
    assert way.run("bundle", "unmarked", f"ckpt={way.folder()}", f"out={out}", "marks=false") == 0
    assert json.loads((out / "model.json").read_text())["marks"] is None
    assert way.predict("unmarked", *there(way, "mixed"), ckpt=out) == 0
    assert "the bundle holds no marks of its training patients" in capsys.readouterr().out
