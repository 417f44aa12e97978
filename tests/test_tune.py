"""`mtl tune`: trials see no test patient, a killed study goes on as if nothing had been, the best setting is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from test_way import SMALL, Way, wide

pytest.importorskip("optuna", reason="the extra `tune` is not installed")

from nsclc_mtl.commands import trials, tune
from nsclc_mtl.config import execute
from nsclc_mtl.records import DataFault

CHEAP = ("modalities=[clinical]", "tasks=[grade,survival]", "audit=0")
SPACE = (
    "space={optim.optimizer.lr: {low: 1e-3, high: 1e-1, log: true}, optim.dim: {low: 4, high: 8, step: 2}, "
    "fusion: {choices: [concat, experts]}}"
)
TUNED = ("trials=3", "startup=1", "inner=2", SPACE)


class Heard:
    """What the trials were handed, and which of them fails or is killed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[int, dict[str, Any], Any, pd.DataFrame]] = []
        self.wrong: dict[int, BaseException] = {}  # number of the call -> what is raised
        plain = trials.scored

        def scored(settings: Any, manifest: Any, splits: pd.DataFrame, folder: Path) -> dict[str, float]:
            assert folder.parent.name == "study"
            self.calls.append((int(folder.name[4:]), settings, manifest, splits))
            if fault := self.wrong.get(len(self.calls) - 1):
                raise fault
            return plain(settings, manifest, splits, folder)

        monkeypatch.setattr(trials, "scored", scored)


def tuned(way: Way, name: str, *words: str, resume: bool = False) -> int:
    given = [f"name={name}", *way.paths, f"cohort.root={way.data}", *SMALL, *CHEAP, *TUNED, *words]
    return execute("tune", given, lambda: tune.body, resume=resume)


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    return Way(tmp_path_factory.mktemp("tune"))


@pytest.fixture(scope="module")
def heard(way: Way) -> Heard:
    """What an uninterrupted study of two folds was handed; its run is called `whole`."""
    with pytest.MonkeyPatch.context() as patch:
        made = Heard(patch)
        assert tuned(way, "whole") == 0
    return made


def study(folder: Path, fold: int) -> list[dict[str, Any]]:
    rows = trials.journal(folder / "study" / f"fold{fold}.jsonl")
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.slow
def test_no_trial_sees_a_patient_who_is_tested(way: Way, heard: Heard) -> None:
    splits = pd.read_csv(way.folder("tune") / "splits.csv", dtype=str)
    assert [fold for fold, *_ in heard.calls] == [0, 0, 0, 1, 1, 1]
    for fold, _, manifest, inner in heard.calls:
        mine = splits[splits["fold"] == str(fold)]
        tested = set(mine.loc[mine["part"] == "test", "patient_id"])
        others = set(mine["patient_id"]) - tested
        reached = set(inner["patient_id"]) | set(manifest.ids)
        for part in (*manifest.labels.values(), *manifest.tables.values()):
            reached |= set(part.index)
        assert not reached & tested
        assert set(manifest.ids) == others
        held = inner[inner["part"] == "test"]
        assert sorted(held["patient_id"]) == sorted(others)  # each of them is scored once


def test_the_best_setting_of_a_fold_is_the_one_it_is_trained_with(way: Way, heard: Heard) -> None:
    folder, made = way.folder("tune"), way.table("tune")
    for fold in (0, 1):
        best = yaml.safe_load((folder / f"fold{fold}" / "best.yaml").read_text())
        rows = study(folder, fold)
        assert best["inner"] == max(row["value"] for row in rows) == rows[best["trial"]]["value"]
        assert best["inner"] == pytest.approx(sum(best["tasks"].values()) / 2)
        assert way.train(f"same{fold}", *CHEAP, f"fold={fold}", *best["overrides"]) == 0
        pd.testing.assert_frame_equal(way.table(name=f"same{fold}"), made[made["fold"] == fold].reset_index(drop=True))


def test_evaluate_and_predict_take_the_run(way: Way, heard: Heard) -> None:
    """Also where the folds differ in a whole part: each learner is built again from its own settings."""
    folder = way.folder("tune")
    assert way.predict("own", ckpt=folder) == 0
    held = way.table("tune")
    held = held[held["part"] == "test"]
    own = wide(way.table("predict", "own"))  # also of the patient who has no label
    pd.testing.assert_series_equal(own[wide(held).index], wide(held), rtol=1e-4, atol=1e-5)
    assert way.run("evaluate", "judged", f"ckpt={folder}", "bootstrap=2", "floors=[]") == 0


def test_the_account_of_the_trials_and_of_their_optimism(
    way: Way, heard: Heard, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = way.folder("tune")
    frame = pd.read_csv(folder / "trials.csv")
    assert list(frame["fold"]) == [0, 0, 0, 1, 1, 1]
    assert set(frame["state"]) == {"complete"}
    assert {"score:grade", "score:survival", "optim.optimizer.lr", "optim.dim", "fusion"} <= set(frame.columns)
    assert frame["value"].to_numpy() == pytest.approx(frame[["score:grade", "score:survival"]].mean(axis=1))
    told = json.loads((folder / "metrics.json").read_text())
    for row in json.loads((folder / "tuning.json").read_text()):
        test = [r["value"] for r in told if r["fold"] == str(row["fold"]) and r["value"] is not None]
        assert row["test"] == pytest.approx(sum(test) / len(test))
        assert row["optimism"] == pytest.approx(row["inner"] - row["test"])
    assert "optimism of the inner score: " in (folder / "log.txt").read_text()


@pytest.mark.slow
def test_a_killed_study_goes_on_as_if_nothing_had_been(way: Way, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    again = Heard(monkeypatch)
    again.wrong = {2: KeyboardInterrupt()}
    assert tuned(way, "killed") == 130
    folder, whole = way.folder("tune", "killed"), way.folder("tune")
    assert len(study(folder, 0)) == 2
    with (folder / "study" / "fold0.jsonl").open("a") as file:
        file.write('{"op_code":4,"worker')  # what a kill in the middle of a write leaves
    (folder / "study" / "fold0.jsonl.lock").touch()
    assert tuned(way, "killed", resume=True) == 0
    assert [fold for fold, *_ in again.calls] == [0, 0, 0, 0, 1, 1, 1]  # the one that was killed, once more
    for fold in (0, 1):
        assert study(folder, fold) == study(whole, fold)
    assert (folder / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    before = len(again.calls)
    assert tuned(way, "killed", "trials=4", resume=True) == 0  # more of them go on from there
    assert len(again.calls) - before <= 2  # a setting drawn before is not trained again
    assert [len(study(folder, fold)) for fold in (0, 1)] == [4, 4]
    assert study(folder, 1)[:3] == study(whole, 1)


@pytest.mark.slow
def test_a_failed_trial_is_one_line_and_all_of_them_are_a_fault(
    way: Way, heard: Heard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = Heard(monkeypatch)
    again.wrong = {0: ValueError("patient A-17"), 1: DataFault("the training diverged: a prediction is no number")}
    assert tuned(way, "failed", "fold=0") == 0
    frame = pd.read_csv(way.folder("tune", "failed") / "trials.csv", keep_default_na=False)
    assert list(frame["state"]) == ["fail", "fail", "complete"]
    assert list(frame["reason"])[:2] == ["ValueError in training", "the training diverged: a prediction is no number"]
    assert yaml.safe_load((way.folder("tune", "failed") / "fold0" / "best.yaml").read_text())["trial"] == 2
    assert "note: fold 0: 2 of 3 trials failed" in capsys.readouterr().out
    again.wrong = dict.fromkeys(range(len(again.calls), 99), ValueError())
    assert tuned(way, "none", "fold=0") == 3
    assert "fold 0: all 3 trials failed; the first: ValueError in training" in capsys.readouterr().err


def test_settings_of_a_fold_are_sealed(way: Way, heard: Heard, tmp_path: Path) -> None:
    folder = way.folder("tune")
    file = folder / "fold0" / "settings.yaml"
    before = file.read_text()
    try:
        file.write_text(before.replace("lr: ", "lr: 1"))
        assert way.predict("changed", ckpt=folder) == 5
        file.unlink()
        assert way.predict("gone", ckpt=folder) == 5
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ("{optim.optimzer.lr: {low: 1e-3, high: 1e-1}}", "did you mean 'optim.optimizer.lr'?"),
        ("{fusion: {choices: [concat, expert]}}", "did you mean 'experts'?"),
        ("{optim.dim: {low: 4, hihg: 8}}", "did you mean 'high'?"),
        ("{optim.dim: {low: 0, high: 8}}", "optim.dim: a whole number from 1 up is needed, not 0"),
        ("{folds.validation: {low: 0.1, high: 0.3}}", "cannot be tuned"),
        ("{}", "space is empty"),
    ],
)
def test_a_space_that_does_not_hold_is_told_first(
    way: Way, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], space: str, says: str
) -> None:
    never = Heard(monkeypatch)
    given = ["name=wrong", *way.paths, f"cohort.root={way.data}", *SMALL, *CHEAP, "trials=2", f"space={space}"]
    assert execute("tune", given, lambda: tune.body) == 2
    assert says in capsys.readouterr().err
    assert not never.calls
    assert not way.folder("tune", "wrong").exists()


def test_a_missing_word_is_told(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuned(way, "wrong", "objective=grde") == 2
    assert "did you mean 'grade'?" in capsys.readouterr().err
    assert tuned(way, "wrong", "inner=1") == 2
