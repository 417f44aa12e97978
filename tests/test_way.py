"""The way of the data at features level: train, predict and evaluate a phantom of forty patients, in this process."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recount import recounted
from report_tables import strangers

from nsclc_mtl.config import execute
from nsclc_mtl.phantom.cohort import make

COLUMNS = ["patient_id", "task", "fold", "part", "output", "value", "target", "event", "time_days"]
SMALL = [
    "cohort.level=features", "cohort.n=40", "folds.n=2", "folds.workers=0", "folds.validation=0.2",
    "folds.min_events=2", "trainer.max_epochs=2", "optim.min_steps=1", "audit=2", "device=cpu", "logger=none",
]  # fmt: skip


class Way:
    """A working folder with a cohort, and the verbs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = make(root / "data", level="features", n=40, seed=0)
        self.paths = [f"paths.runs={root / 'runs'}", f"paths.out={root / 'out'}"]

    def run(self, verb: str, name: str, *words: str) -> int:
        body = import_module(f"nsclc_mtl.commands.{verb}").body
        return execute(verb, [f"name={name}", *self.paths, *words], lambda: body)

    def train(self, name: str, *words: str) -> int:
        return self.run("train", name, f"cohort.root={self.data}", *SMALL, *words)

    def predict(self, name: str, *words: str, ckpt: Path | None = None) -> int:
        """Without explanations, which tests ask for that look at them."""
        plain = ["explain.patients=0", "explain.features=0"]
        return self.run("predict", name, f"ckpt={ckpt or self.folder()}", *plain, *words)

    def folder(self, verb: str = "train", name: str = "whole") -> Path:
        return self.root / "runs" / verb / name

    def table(self, verb: str = "train", name: str = "whole") -> pd.DataFrame:
        return table(self.folder(verb, name) / "predictions.csv")


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=dict.fromkeys(set(COLUMNS) - {"value", "fold"}, str), keep_default_na=False)


def reasons(folder: Path) -> pd.Series:
    """What `trust.csv` says, by patient, fold, task and what; the reasons apart."""
    frame = pd.read_csv(folder / "trust.csv", dtype=str, keep_default_na=False).query("what != 'reason'")
    return frame.set_index(["patient_id", "fold", "task", "what"])["value"].sort_index()


def wide(frame: pd.DataFrame) -> pd.Series:
    return frame.set_index(["patient_id", "task", "output"])["value"].sort_index()


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    """A working folder in which two folds were trained."""
    made = Way(tmp_path_factory.mktemp("way"))
    assert made.train("whole") == 0
    return made


def test_a_run_folder_holds_what_was_promised(way: Way) -> None:
    folder = way.folder()
    for name in ("config.yaml", "run.json", "log.txt", "splits.csv", "predictions.csv", "cohort.json", "audit.json",
                 "shapley.csv"):  # fmt: skip
        assert (folder / name).is_file(), name
    for k in (0, 1):
        assert (folder / f"fold{k}" / "model0.ckpt").is_file()
        assert json.loads((folder / f"fold{k}" / "fitted.json").read_text())["fitted"]["tables"]
    account = json.loads((folder / "run.json").read_text())
    assert account["done"] == ["fold0", "fold1"]
    assert {i["path"] for i in account["inputs"]} >= {"patients.csv", "rna.csv", "slides.csv"}


def test_shapley_values_add_up_to_the_prediction(way: Way) -> None:
    """From the training patients' mean score to the patient's own: log odds of predictions.csv before their levels."""
    values = pd.read_csv(way.folder() / "shapley.csv", dtype={"patient_id": str})
    by = values.groupby(["task", "patient_id"])
    whole = by.agg(value=("value", "sum"), base=("base", "first"), score=("score", "first"))
    np.testing.assert_allclose(whole["value"], whole["score"] - whole["base"], atol=1e-5)
    said = wide(way.table().query("part == 'test'"))
    response = whole.loc["response"]
    p = said.xs(("response", "p:responder"), level=("task", "output")).loc[response.index]
    for fold, rows in response.join(values.groupby("patient_id")["fold"].first()).groupby("fold"):
        fitted = json.loads((way.folder() / f"fold{fold}" / "fitted.json").read_text())
        of = fitted["fitted"]["trust"]["response"]["recalibration"]
        assert of["slope"] == 1  # too few patients for another
        own = p[rows.index]
        np.testing.assert_allclose(np.log(own / (1 - own)), rows["score"] + of["shift"][0], atol=1e-4)
    have = set(pd.read_csv(way.data / "rna.csv", dtype=str).iloc[:, 0])
    assert set(values.loc[values["modality"] == "rna", "patient_id"]) == have & set(response.index)
    rows = json.loads((way.folder() / "audit.json").read_text())
    assert {r["mode"] for r in rows} == {"permute", "mean", "drop", "shapley"}


@pytest.mark.slow
def test_a_prediction_is_attributed_to_the_columns_of_tables(way: Way) -> None:
    assert way.run("predict", "told", f"ckpt={way.folder()}", "explain.patients=1", "explain.features=20") == 0
    cohort = pd.read_csv(way.folder("predict", "told") / "features.csv")
    genes = list(pd.read_csv(way.data / "rna.csv", nrows=0).columns[1:])
    assert set(cohort.loc[cohort["modality"] == "rna", "feature"]) == set(genes)  # not the components of them
    assert {"age", "sex", "smoking"} == set(cohort.loc[cohort["modality"] == "clinical", "feature"])
    assert (cohort["mean_abs"] >= cohort["mean"].abs() - 1e-9).all()
    assert cohort["n"].max() <= 20
    (folder,) = (way.folder("predict", "told") / "patients").iterdir()
    mine = pd.read_csv(folder / "features.csv", dtype={"value": str, "patient_id": str})
    assert set(mine["patient_id"]) == {folder.name}
    row = mine[(mine["feature"] == "sex") & (mine["task"] == "grade")]
    table = pd.read_csv(way.data / "patients.csv", dtype=str).set_index("patient_id")
    assert list(row["value"]) == [table.loc[folder.name, "sex"]]
    assert (folder / "features-survival.svg").read_text().count("<svg") == 1
    page = (folder / "page.html").read_text()
    assert f"Patient {folder.name}" in page
    assert "prognostic, not predictive" in page


def test_a_run_says_the_metric_of_every_task(way: Way) -> None:
    """The patient-weighted mean of the test metrics within the folds, as `mtl evaluate` gives it."""
    rows = json.loads((way.folder() / "metrics.json").read_text())
    told = {(r["task"], r["metric"]): r["value"] for r in rows if r["fold"] == "all"}
    assert set(told) == {
        ("grade", "ordinal_auc"), ("stage", "ordinal_auc"), ("response", "auc"), ("survival", "c_index"),
    }  # fmt: skip
    assert way.run("evaluate", "same", f"ckpt={way.folder()}", "bootstrap=2", "floors=[]") == 0
    judged = json.loads((way.folder("evaluate", "same") / "metrics.json").read_text())
    for row in judged:
        key = (row["task"], row["metric"])
        if row["fold"] == "all" and row["model"] == "learner" and key in told:
            assert told.pop(key) == row["value"]
    assert not told
    log = (way.folder() / "log.txt").read_text()
    assert "test: grade ordinal_auc 0." in log


def test_predictions_speak_public_words(way: Way) -> None:
    frame = way.table()
    assert list(frame.columns) == COLUMNS
    assert set(frame["part"]) == {"train", "validation", "test"}
    train = frame[frame["part"] == "train"]
    assert set(train.loc[train["task"] == "survival", "output"]) == {"risk"}  # no curves
    test = frame[frame["part"] == "test"]
    words = {
        "grade": {"p:G1", "p:G2", "p:G3"}, "stage": {"p:I", "p:II", "p:III", "p:IV"},
        "response": {"p:non-responder", "p:responder"},
        "survival": {"risk", *(f"surv:{d}" for d in ("182.5", "365", "730", "1095", "1460", "1825"))},
    }  # fmt: skip
    for task, outputs in words.items():
        rows = test[test["task"] == task]
        assert set(rows["output"]) == outputs
        assert set(train.loc[train["task"] == task, "output"]) == {o for o in outputs if not o.startswith("surv:")}
        assert (rows.groupby("output")["patient_id"].nunique() == 40).all()
        assert not rows.duplicated(["patient_id", "output"]).any()
        if task != "survival":
            np.testing.assert_allclose(rows.groupby("patient_id")["value"].sum(), 1, atol=1e-5)
    assert np.isfinite(frame["value"]).all()
    patients = pd.read_csv(way.data / "patients.csv", dtype=str, keep_default_na=False).set_index("patient_id")
    said = test[test["output"] == "p:G1"].set_index("patient_id")["target"]
    assert (said == patients.loc[said.index, "grade"]).all()
    risk = test[test["output"] == "risk"].set_index("patient_id")
    known = patients.loc[risk.index]
    assert (risk["event"] == known["os_status"].map({"deceased": "1", "alive": "0", "": ""})).all()
    assert (risk["time_days"] == known["os_days"]).all()
    curves = test[test["output"].str.startswith("surv:")].assign(day=lambda f: f["output"].str[5:].astype(float))
    steps = curves.pivot_table(index="patient_id", columns="day", values="value").diff(axis=1).iloc[:, 1:]
    assert (steps <= 1e-6).all(axis=None)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_one_fold_alone_is_that_fold(way: Way) -> None:
    assert way.train("again") == 0  # the whole run once more
    whole = (way.folder() / "predictions.csv").read_bytes()
    assert (way.folder(name="again") / "predictions.csv").read_bytes() == whole
    assert (way.folder(name="again") / "audit.json").read_bytes() == (way.folder() / "audit.json").read_bytes()
    assert way.train("one", "fold=1") == 0
    one, all_folds = way.table(name="one"), way.table()
    assert set(one["fold"]) == {1}
    pd.testing.assert_frame_equal(one, all_folds[all_folds["fold"] == 1].reset_index(drop=True))
    assert way.train("none", "fold=7") == 2


@pytest.mark.slow
def test_own_patients_are_predicted_by_the_fold_that_held_them_out(way: Way) -> None:
    assert way.predict("own") == 0
    made, trained = way.table("predict", "own"), way.table()
    assert list(made.columns) == COLUMNS
    pd.testing.assert_series_equal(wide(made), wide(trained[trained["part"] == "test"]), rtol=1e-4, atol=1e-5)
    shutil.copytree(way.data, way.root / "moved")
    assert way.predict("moved", f"cohort.root={way.root / 'moved'}") == 0
    pd.testing.assert_frame_equal(way.table("predict", "moved"), made)
    two = sorted(set(made["patient_id"]))[:2]
    assert way.predict("some", f"patients=[{','.join(two)}]") == 0
    pd.testing.assert_series_equal(
        wide(way.table("predict", "some")), wide(made[made["patient_id"].isin(two)]), rtol=1e-4
    )
    assert way.predict("nobody", "patients=[nobody]") == 2


def test_new_patients_are_predicted_by_the_mean_of_the_folds(way: Way) -> None:
    """Their ids are those of the training patients, and mean other people."""
    other = make(way.root / "other", level="features", n=12, seed=5)
    assert way.predict("new", f"cohort.root={other}") == 0
    made = way.table("predict", "new")
    assert set(made["fold"]) == {-1}
    folds = []
    for k in (0, 1):
        name = f"new{k}"
        assert way.predict(name, f"cohort.root={other}", ckpt=way.folder() / f"fold{k}" / "model0.ckpt") == 0
        folds.append(wide(way.table("predict", name)))
    assert (folds[0] != folds[1]).any()
    pd.testing.assert_series_equal(wide(made), (folds[0] + folds[1]) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_dropout_tells_how_far_a_prediction_wavers_and_changes_none(way: Way) -> None:
    """By patient: whoever else is asked for, and every time the same."""
    assert way.predict("wavers", "trust.mc_dropout=3") == 0
    pd.testing.assert_series_equal(
        wide(way.table("predict", "wavers")), wide(way.table().query("part == 'test'")), rtol=1e-4, atol=1e-5
    )
    told = reasons(way.folder("predict", "wavers")).unstack("what").drop(index="", level="patient_id")
    spread = told["spread"].drop(index="", level="task").astype(float)
    assert (spread > 0).any()
    two = sorted(way.table()["patient_id"].unique())[:2]
    assert way.predict("two", f"patients=[{','.join(two)}]", "trust.mc_dropout=3") == 0
    again = reasons(way.folder("predict", "two")).unstack("what")["spread"].dropna().astype(float)
    pd.testing.assert_series_equal(again[again.notna()], spread.loc[two].reindex(again.index), rtol=1e-3, atol=1e-5)
    plain = reasons(way.folder()).unstack("what")
    assert "spread" not in plain  # one member, no dropout: nothing to tell
    assert set(plain.loc["", "members"].dropna()) == {"1"}


def test_what_taught_training_does_not_calibrate(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    assert way.train("both", "trust.validation=true", "callbacks=early_stopping", "fold=0") == 2
    assert "the validation part has chosen the epoch" in capsys.readouterr().err
    assert (
        way.train("lent", "trust.validation=true", "modalities=[clinical]", "trust.miss=0.3", "fold=0", "audit=0") == 0
    )
    told = reasons(way.folder(name="lent"))
    assert told["", "0", "grade", "n_calibration"] in {"3", "4"}


def test_one_fold_never_predicts_those_it_was_trained_on(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    ckpt = way.folder() / "fold1"
    assert way.predict("half", ckpt=ckpt) == 0
    splits = pd.read_csv(way.folder() / "splits.csv", dtype=str)
    mine = splits[(splits["fold"] == "1") & (splits["part"] == "test")]["patient_id"]
    assert set(way.table("predict", "half")["patient_id"]) == set(mine)
    assert f"{40 - len(mine)} patients left out" in capsys.readouterr().out
    stranger = next(p for p in splits["patient_id"] if p not in set(mine))
    assert way.predict("asked", f"patients=[{stranger}]", ckpt=ckpt) == 3
    assert "which ckpt does not have" in capsys.readouterr().err


@pytest.mark.parametrize("dropout", [0, 0.3])
def test_a_combination_that_was_never_trained_is_refused(
    way: Way, capsys: pytest.CaptureFixture[str], dropout: float
) -> None:
    """Whatever was hidden in training: a patient counts as known who has what a training patient had."""
    name = f"fixed{dropout}"
    words = ("fold=0", f"fusion.modality_dropout={dropout}", "modalities=[rna,clinical]", "audit=0")
    assert way.train(name, *words) == 0
    other = make(way.root / f"strange{dropout}", level="features", n=12, seed=6)
    fold = way.folder(name=name) / "fold0"
    state = json.loads((fold / "fitted.json").read_text())
    assert sorted(map(sorted, state["fitted"]["patterns"])) == [["clinical"], ["clinical", "rna"]]
    state["fitted"]["patterns"] = [["clinical", "rna"]]
    (fold / "fitted.json").write_text(json.dumps(state))
    import_module("nsclc_mtl.commands.sealed").seal(fold)
    other_root = f"cohort.root={other}"
    assert way.predict(f"strict{dropout}", other_root, ckpt=way.folder(name=name)) == 3
    told = " ".join(capsys.readouterr().err.split())
    assert "has clinical and nothing else, which no training patient had" in told
    assert "set allow_unseen_modalities=true" in told
    lax = f"lax{dropout}"
    assert way.predict(lax, other_root, "allow_unseen_modalities=true", ckpt=way.folder(name=name)) == 0
    cautions = pd.read_csv(way.folder("predict", lax) / "patients.csv", keep_default_na=False)
    assert 0 < cautions["caution"].str.contains("never trained").sum() < len(cautions)
    assert (cautions["missing"].str.contains("rna") == cautions["caution"].str.contains("never trained")).all()
    assert (cautions["missing"].str.contains("rna") == cautions["caution"].str.contains("no rna")).all()


def test_a_combination_that_some_folds_know_is_told_of(way: Way) -> None:
    """Of two folds one is made to have trained nobody who has everything."""
    copy = way.root / "some_folds"
    shutil.copytree(way.folder(), copy)
    state = json.loads((copy / "fold0" / "fitted.json").read_text())
    everything = max(state["fitted"]["patterns"], key=len)
    state["fitted"]["patterns"].remove(everything)
    (copy / "fold0" / "fitted.json").write_text(json.dumps(state))
    import_module("nsclc_mtl.commands.sealed").seal(copy / "fold0")
    other = make(way.root / "some_strange", level="features", n=12, seed=6)
    assert way.predict("some", f"cohort.root={other}", "allow_unseen_modalities=true", ckpt=copy) == 0
    cautions = pd.read_csv(way.folder("predict", "some") / "patients.csv", keep_default_na=False)
    whole = cautions["modalities"] == " ".join(sorted(everything))
    assert whole.any()
    assert cautions.loc[whole, "caution"].str.contains("combination of modalities never trained by 1 of 2 folds").all()


def test_evaluate_reads_the_run(way: Way) -> None:
    """Every row of metrics.json is what other code makes of the files, every number of the page's tables is there."""
    words = ("bootstrap=24", "floors=[stage]", "primary_floor=stage")
    assert way.run("evaluate", "e", f"ckpt={way.folder()}", *words) == 0
    told = recounted(way.folder(), way.folder("evaluate", "e"))
    assert {"grade", "stage", "response", "survival"} == {task for task, *_ in told.again}
    assert not strangers(way.folder("evaluate", "e"), way.folder())
    assert (way.folder("evaluate", "e") / "report.html").is_file()
    assert way.run("evaluate", "one", f"ckpt={way.folder() / 'fold1'}", *words) == 0
    whole, one = (pd.read_csv(way.folder("evaluate", name) / "tables" / "audit.csv") for name in ("e", "one"))
    tested = way.table().query("part == 'test' and fold == 1")["patient_id"].nunique()
    assert 0 < one["of"].max() <= tested < whole["of"].max()  # the audit is of whom the fold tests


class Bomb:
    """What a pickle can do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("how", ["flipped", "pickle", "cut", "absent", "added", "fitted", "seal"])
def test_a_file_that_was_tampered_with_ends_with_exit_5(
    way: Way, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(way.folder(), tmp_path / "run"))
    ckpt, fitted = run / "fold1" / "model0.ckpt", run / "fold1" / "fitted.json"
    raw = bytearray(ckpt.read_bytes())
    if how == "flipped":
        raw[len(raw) // 2] ^= 1
        ckpt.write_bytes(raw)
    elif how == "pickle":
        buffer = io.BytesIO()
        pickle.dump(Bomb(), buffer)
        ckpt.write_bytes(buffer.getvalue())
        import_module("nsclc_mtl.commands.sealed").seal(ckpt.parent)  # by somebody who knows about the seal
    elif how == "cut":
        ckpt.write_bytes(raw[:-1])
    elif how == "absent":
        ckpt.unlink()
    elif how == "added":
        (ckpt.parent / "model1.ckpt").write_bytes(raw)
    elif how == "fitted":
        fitted.write_text(fitted.read_text().replace("0.1", "0.2", 1))
    else:
        (ckpt.parent / "manifest.sha256").unlink()
    assert way.predict(f"tampered-{how}", ckpt=run) == 5
    assert "fold1/" in capsys.readouterr().err
    assert not Path("exploded").exists()
    assert not (way.folder("predict", f"tampered-{how}") / "predictions.csv").exists()


@pytest.mark.slow
def test_calibration_patients_give_temperatures_and_prediction_sets(way: Way) -> None:
    assert way.train("sure", "folds.calibration=0.4", "trust.miss=0.3", "audit=0") == 0
    folder = way.folder(name="sure")
    fitted = [json.loads((folder / f"fold{k}" / "fitted.json").read_text())["fitted"]["trust"] for k in (0, 1)]
    assert set(fitted[0]) == {"grade", "stage", "response", "survival"}
    assert all(0 < of[t]["threshold"] <= 1 and of[t]["n"] >= 3 for of in fitted for t in ("grade", "stage", "response"))
    assert all(0 <= of["survival"]["level"] < 1 and of["survival"]["until_days"] > 0 for of in fitted)
    assert way.predict("sure", ckpt=folder) == 0
    patients = pd.read_csv(way.folder("predict", "sure") / "patients.csv", dtype=str, keep_default_na=False)
    said = wide(way.table("predict", "sure"))
    pd.testing.assert_series_equal(said, wide(way.table("train", "sure").query("part == 'test'")), check_like=True)
    of_test = (reasons(way.folder("predict", "sure")), reasons(folder))
    pd.testing.assert_series_equal(*(t[~t.index.get_level_values("what").str.startswith("n_")] for t in of_test))
    bounds = patients["set:survival"].str.extract(r"^(\d+) days or more$")[0].astype(int)
    assert (bounds >= 0).all()
    several = patients["set:grade"].str.contains("|", regex=False)
    assert (patients["caution"].str.contains("grade: .* does not decide") == several).all()
    assert (patients["confidence:grade"].astype(float).between(1 / 3, 1)).all()
    splits = pd.read_csv(folder / "splits.csv", dtype=str).query("part == 'test'").set_index("patient_id")["fold"]
    for patient, words in patients.set_index("patient_id")["set:grade"].items():
        of = said[patient, "grade"].filter(like="p:")
        at = fitted[int(splits[patient])]["grade"]["threshold"]
        assert set(words.split("|")) == {c[2:] for c in of.index if 1 - of[c] <= at + 1e-6 or of[c] == of.max()}


# ---------------------------------------------------------------------------------------------------------------------
# What the maps of slides leave, and what the report makes of it
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def maps(way: Way) -> Path:
    """A run of predict that explained six patients."""
    words = ("explain.patients=6", "explain.deletion=4", "explain.draws=2", "explain.permutations=9")
    words += ("explain.tasks=[grade,survival]",)
    assert way.run("predict", "maps", f"ckpt={way.folder()}", *words) == 0
    return way.folder("predict", "maps")


def test_the_tables_hold_every_slide_and_task_that_is_explained(maps: Path) -> None:
    folder = maps
    spread = pd.read_csv(
        folder / "explanations" / "heterogeneity.csv", dtype={"patient_id": str}, keep_default_na=False
    )
    assert spread["patient_id"].nunique() == 6
    assert set(spread["part"]) == {"test"}
    assert set(zip(spread["map"], spread["task"], strict=True)) == {
        ("attention", ""), ("influence", "grade"), ("influence", "survival"),
    }  # fmt: skip
    for patient, here in spread[spread["map"] == "attention"].groupby("patient_id"):
        assert pd.to_numeric(here["share_of_patient"]).sum() == pytest.approx(1, abs=1e-5)
        for slide_id in here["slide_id"]:  # several slides of a patient: each has its own files
            tiles = pd.read_csv(folder / "patients" / str(patient) / f"{slide_id}-tiles.csv")
            assert list(tiles.columns[3::2]) == ["attention", "influence:grade", "influence:survival"]
            assert (folder / "patients" / str(patient) / f"{slide_id}-tiles.geojson").is_file()
    whole = pd.read_csv(
        folder / "explanations" / "heterogeneity-patients.csv", dtype={"patient_id": str}, keep_default_na=False
    )
    keys, numbers = ["patient_id", "map", "task"], ["entropy", "effective_tiles", "moran_i", "moran_p"]
    assert len(whole) == 6 * 3  # a row a patient and map
    counted = spread.groupby(keys)["tiles"].agg(["sum", "count"]).reset_index()
    both = whole.merge(counted, on=keys)
    assert (both["tiles"] == both["sum"]).all()
    assert (both["slides"] == both["count"]).all()
    lone = whole[whole["slides"] == 1].merge(spread, on=keys)  # of one slide: the numbers of the slide
    assert len(lone)
    for number in numbers:
        assert (lone[f"{number}_x"].astype(str) == lone[f"{number}_y"].astype(str)).all()
    told = pd.read_csv(folder / "explanations" / "deletion.csv", dtype={"patient_id": str})
    assert set(told["share"]) == {0.25, 0.5, 0.75}
    gaps = pd.read_csv(folder / "explanations" / "deletion-gaps.csv")
    assert len(gaps) == 6 * 2 * 2 * 2  # patients, tasks, maps, modes
    assert (folder / "explanations" / "deletion-grade.svg").is_file()


@pytest.mark.slow
def test_the_report_shows_maps_and_refuses_those_of_another_run(
    way: Way, maps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("floors=[]", "bootstrap=20", f"ckpt={way.folder()}")
    assert way.run("evaluate", "shown", *words, f"explained={maps}") == 0
    out = way.folder("evaluate", "shown")
    assert "What the maps are worth" in (out / "report.html").read_text()
    rows = json.loads((out / "metrics.json").read_text())
    assert len([r for r in rows if r["metric"].startswith("deletion_gap:")]) == 2 * 3 * 2
    assert (out / "figures" / "deletion-grade.csv").is_file()
    settings = maps / "config.yaml"
    plain = settings.read_text()
    settings.write_text(plain.replace("train/whole", "train/other"))
    assert way.run("evaluate", "other", *words, f"explained={maps}") == 2
    assert "explains the run 'other', not 'whole'" in capsys.readouterr().err
    settings.write_text(plain)
    assert way.run("evaluate", "none", *words, f"explained={way.root}") == 2
    assert "explain.patients=all" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("level=fine", "neither thumbnail nor"),
        ("scale=log", "neither percentile nor raw"),
        ("deletion=1", "0 (none) or"),
    ],
)
def test_words_of_explain_that_are_none_are_refused_at_once(
    way: Way, word: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert way.predict(word.replace("=", "-"), f"explain.{word}") == 2
    assert told in capsys.readouterr().err
