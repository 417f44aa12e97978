"""Studies without a network: drawn alike however often they are interrupted; inner folds and spaces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("optuna", reason="the extra `tune` is not installed")

from nsclc_mtl.commands import space, trials
from nsclc_mtl.records import DataFault, Manifest, ModalitySpec, TaskSpec, UsageFault

SPACE = space.parameters(
    {
        "optim.optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "optim.dim": {"low": 4, "high": 16, "step": 4},
        "skip": {"choices": ["none", "linear"]},
    }
)


class Worth:
    """A score that is highest at a rate of .01 and a width of 8; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, params: Mapping[str, Any], folder: Path) -> dict[str, float]:
        assert list(folder.iterdir()) == []
        (folder / "left").write_text("of a trial")
        self.calls += 1
        return {
            "grade": 1 - abs(params["optim.dim"] - 8) / 16,
            "survival": 1 - abs(params["optim.optimizer.lr"] - 0.01),
        }


def study(path: Path, count: int, score: Any, seed: int = 0, of: list[space.Parameter] = SPACE) -> list[Any]:
    words: dict[str, Any] = {"objective": "mean", "seed": (seed, 0), "startup": 4, "made_from": {"a": "b"}}
    return [trials.row_of(t) for t in trials.run_trials(path, of, count, score, **words)]


def drawn(rows: list[Any]) -> list[Any]:
    return [(row["trial"], row["state"], row["params"], row["value"]) for row in rows]


@settings(max_examples=5, deadline=None)
@given(stop=st.integers(1, 9), seed=st.integers(0, 99))
def test_interrupted_or_not_a_study_draws_the_same(
    tmp_path_factory: pytest.TempPathFactory, stop: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("study")
    whole = study(folder / "a.jsonl", 10, Worth(), seed)
    study(folder / "b.jsonl", stop, Worth(), seed)
    score = Worth()
    assert drawn(study(folder / "b.jsonl", 10, score, seed)) == drawn(whole)
    assert score.calls <= 10 - stop
    assert [path.name for path in sorted(folder.iterdir())] == ["a.jsonl", "b.jsonl"]  # nothing of a trial is left


def test_the_draws_differ_between_trials_and_seeds_and_learn(tmp_path: Path) -> None:
    first, second = study(tmp_path / "a.jsonl", 30, Worth()), study(tmp_path / "b.jsonl", 30, Worth(), seed=1)
    assert drawn(first) != drawn(second)
    assert len({row["params"]["optim.optimizer.lr"] for row in first}) == 30
    late = sum(row["value"] for rows in (first, second) for row in rows[20:]) / 20
    early = sum(row["value"] for rows in (first, second) for row in rows[:4]) / 8
    assert late > early + 0.02  # the sampler has learned where the score is high


def test_a_setting_drawn_again_keeps_its_score(tmp_path: Path) -> None:
    small, score = space.parameters({"skip": {"choices": ["none", "linear"]}}), Counted()
    rows = study(tmp_path / "a.jsonl", 8, score, of=small)
    assert score.calls == len({row["params"]["skip"] for row in rows}) <= 2
    for row in rows:
        assert row["value"] == {"none": 0.6, "linear": 0.7}[row["params"]["skip"]]
        assert (row["as"] is None) == (row["trial"] in {r["trial"] for r in first_of_each(rows)})


class Counted:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, params: Mapping[str, Any], folder: Path) -> dict[str, float]:
        self.calls += 1
        return {"grade": {"none": 0.6, "linear": 0.7}[params["skip"]]}


def first_of_each(rows: list[Any]) -> list[Any]:
    return list({row["params"]["skip"]: row for row in reversed(rows)}.values())


def test_a_study_of_something_else_begins_anew(tmp_path: Path) -> None:
    study(tmp_path / "a.jsonl", 3, Worth())
    score = Worth()
    words: dict[str, Any] = {"objective": "mean", "seed": (0, 0), "startup": 4}
    made = trials.run_trials(tmp_path / "a.jsonl", SPACE, 2, score, made_from={"a": "other"}, **words)
    assert score.calls == len(made) == len(trials.journal(tmp_path / "a.jsonl")) == 2


def test_one_task_or_the_mean_is_the_goal() -> None:
    assert trials.goal({"grade": 0.6, "survival": 0.8}, "mean") == pytest.approx(0.7)
    assert trials.goal({"grade": 0.6, "survival": 0.8}, "survival") == 0.8
    with pytest.raises(DataFault, match="no main metric"):
        trials.goal({"grade": 0.6}, "survival")


def toy(patients: int = 30) -> Manifest:
    ids = [f"P{i:02}" for i in range(patients)]
    index = pd.Index(ids, name="patient_id")
    people = pd.DataFrame({"site": ["A", "B", "C"] * (patients // 3)}, index=index)
    label = pd.DataFrame({"value": [float(i % 2) for i in range(patients)]}, index=index)
    visits = pd.MultiIndex.from_product([ids, [0.0, 7.0]], names=["patient_id", "days"])
    return Manifest(
        "toy", people, {"grade": TaskSpec("grade", "binary", ("low", "high"))},
        {"clinical": ModalitySpec("clinical", "table"), "wsi": ModalitySpec("wsi", "bag")}, {"grade": label},
        tables={"clinical": pd.DataFrame({"age": range(patients)}, index=index)},
        bags={"wsi": {p: [f"{p}.h5"] for p in ids}},
        series={"ctdna": pd.DataFrame({"vaf": range(2 * patients)}, index=visits)},
    )  # fmt: skip


def rows_of(manifest: Manifest) -> pd.DataFrame:
    parts = ["test"] * 6 + ["calibration"] * 4 + ["validation"] * 4 + ["train"] * (len(manifest.ids) - 14)
    return pd.DataFrame({"patient_id": manifest.ids, "fold": 0, "part": parts})


def options(**folds: Any) -> dict[str, Any]:
    return {"seed": 0, "folds": {"validation": 0.2, "together": [], "sites": None, **folds}, "cohort": {}}


def test_inner_folds_hold_those_who_train_and_validate() -> None:
    manifest = toy()
    rows = rows_of(manifest)
    mine = sorted(rows.loc[rows["part"].isin(["train", "validation"]), "patient_id"])
    made = trials.inner_splits(options(), manifest, rows, 3)
    assert sorted(made["fold"].unique()) == [0, 1, 2]
    assert sorted(made.loc[made["part"] == "test", "patient_id"]) == mine
    for _, fold in made.groupby("fold"):
        assert sorted(fold["patient_id"]) == mine
        assert set(fold["part"]) == {"train", "validation", "test"}
    plain = trials.inner_splits(options(), manifest, rows, 0)
    assert sorted(plain["patient_id"]) == mine
    assert set(plain["part"]) == {"train", "validation"}
    with pytest.raises(DataFault, match="validation"):
        trials.inner_splits(options(), manifest, rows[rows["part"] != "validation"], 0)


def test_inner_folds_keep_sites_whole_where_the_outer_ones_do() -> None:
    manifest = toy()
    manifest.patients["site"] = [f"S{i // 3}" for i in range(30)]
    made = trials.inner_splits(options(sites="preserve"), manifest, rows_of(manifest), 2)
    parts = made.join(manifest.patients["site"], on="patient_id").groupby(["fold", "site"])["part"].nunique()
    assert (parts == 1).all()
    with pytest.raises(DataFault, match="2 folds"):  # three sites
        trials.inner_splits(options(sites="preserve"), toy(), rows_of(manifest), 2)


def test_the_others_are_out_of_reach() -> None:
    manifest = toy()
    kept = manifest.ids[:7]
    mine = trials.of_patients(manifest, kept)
    assert mine.ids == kept
    assert all(who == kept for who in mine.holders().values())
    assert list(mine.labels["grade"].index) == kept
    assert len(mine.series["ctdna"]) == 14
    assert len(manifest.ids) == 30  # the cohort itself is as it was


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"low": 2, "high": 1}, "is not below"),
        ({"low": 0, "high": 1, "log": True}, "begins above 0"),
        ({"low": 0, "high": 1, "step": 0}, "step=0"),
        ({"low": 0}, "needs numbers"),
        ({"low": 0, "high": True}, "needs numbers"),
        ({"choices": []}, "list of values"),
        ({"choices": [1], "low": 2}, "stand alone"),
        ({"choices": [[1]]}, "one number"),
        (3, "needs {low"),
    ],
)
def test_a_range_that_is_none(said: Any, why: str) -> None:
    with pytest.raises(UsageFault, match=why):
        space.parameters({"optim.dim": said})


def test_settings_are_overrides_and_ours_are_left_out() -> None:
    params = {"optim.dim": 8, "optim.optimizer.lr": 1e-05, "skip": "linear", "a.b": True, "a.c": None}
    assert space.words(params) == ["optim.dim=8", "optim.optimizer.lr=1e-05", "skip='linear'", "a.b=true", "a.c=null"]
    words = ["model=moe_mil", "trials=3", "space={optim.dim: {low: 4, high: 8}}", "optim.dim=4", "skip=none", "inner=0"]
    assert space.given(words, SPACE) == ["model=moe_mil"]
    made = space.settings(["optim.dim=8", *space.words({"optim.optimizer.lr": 1e-05, "skip": "linear"})], [])
    assert (made["optim"]["dim"], made["optim"]["optimizer"]["lr"]) == (8, 1e-05)
    assert made["skip"]["_target_"].endswith("LinearSkip")


def test_every_choice_of_a_part_must_take_the_other_keys() -> None:
    both = {"fusion": {"choices": ["experts", "concat"]}, "fusion.experts": {"low": 2, "high": 4}}
    with pytest.raises(UsageFault, match=r"no key 'fusion\.experts'"):
        space.sound([], space.parameters(both), [])
    space.sound([], space.parameters({**both, "fusion": {"choices": ["experts"]}}), [])
