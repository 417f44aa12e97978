"""The parts of the report that compare: every number from predictions.csv again, and bold only where it is earned."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.baselines import likelihood_ratio
from nsclc_mtl.commands.judging import evaluate_predictions, with_others
from nsclc_mtl.metrics import delong, multiplicity
from nsclc_mtl.metrics.classification import auc
from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.metrics.paired import Compared, corrected_t
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import c_index
from nsclc_mtl.report import card, page, terminal
from nsclc_mtl.report.against_floor import against_floor
from nsclc_mtl.report.contrast import Contrast, p_word
from nsclc_mtl.report.section import Evidence, Section
from nsclc_mtl.report.sections import SECTIONS
from nsclc_mtl.report.sections.comparison import comparison, stage_ratio
from nsclc_mtl.report.sections.optimism import optimism

from .conftest import TASKS, again

SOME = {name: TASKS[name] for name in ("response", "type", "survival")}


def evidence(study: dict[str, Any], noise: float, splits: pd.DataFrame | None = None) -> Evidence:
    """The learner beside a floor `stage` that says the same with noise."""
    test = study["predictions"][study["predictions"]["part"] == "test"]
    rng = np.random.default_rng(4)
    floor = test.assign(model="floor:stage", value=test["value"] + noise * rng.normal(size=len(test)))
    results = evaluate_predictions(with_others(study["predictions"], floor), SOME, None, None, 100)
    split = study["splits"] if splits is None else splits
    settings = {"primary_floor": "stage", "bootstrap": 100, "seed": 0}
    return Evidence(results, study["predictions"], study["manifest"], split, settings)


@pytest.fixture(scope="module")
def given(toy: dict[str, Any]) -> Evidence:
    return evidence(toy, 0.8)


@pytest.fixture(scope="module")
def sections(given: Evidence) -> list[Section]:
    return comparison(given)


def numbers(sections: list[Section]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(r["task"], r["metric"]): r for s in sections for r in s.rows}


def test_p_is_delongs_within_the_folds(given: Evidence, sections: list[Section]) -> None:
    folds = given.results["response"].folds
    of = {m: [delong.auc_influence(f.label, f.said[m]["p:yes"]) for f in folds] for m in ("learner", "floor:stage")}
    by_hand = delong.delong_test(of["learner"], of["floor:stage"], [f.patients for f in folds])
    found = numbers(sections)
    assert found["response", "p_delong:auc"]["value"] == pytest.approx(by_hand.p, rel=1e-9)
    assert by_hand.difference.value == pytest.approx(given.results["response"].difference("auc", "floor:stage").value)
    p = [found["response", "p_delong:auc"], found["type", "p_delong:auc"], found["survival", "p_bootstrap:c_index"]]
    adjusted = [found[t, f"p_holm:{m}"] for t, m in (("response", "auc"), ("type", "auc"), ("survival", "c_index"))]
    assert [r["value"] for r in adjusted] == pytest.approx(multiplicity.holm([r["value"] for r in p]))
    assert {r["model"] for r in p} == {"floor:stage"}


def test_the_score_added_to_the_stage(given: Evidence, sections: list[Section]) -> None:
    folds = given.results["survival"].folds
    fold = np.repeat(np.arange(len(folds)), [len(f.patients) for f in folds]).astype(float)
    ours, stage = (
        likelihood_ratio.within(np.concatenate([f.said[m]["risk"] for f in folds]), fold)[:, None]
        for m in ("learner", "floor:stage")
    )
    time, event = (np.concatenate([getattr(f, word) for f in folds]) for word in ("label", "event"))
    right = likelihood_ratio.survival_ratio(stage, ours, time, event, fold)
    found = numbers(sections)
    assert found["survival", "likelihood_ratio:stage"]["value"] == pytest.approx(right.statistic)
    assert found["survival", "p_likelihood_ratio:stage"]["value"] == pytest.approx(right.p)
    assert found["type", "likelihood_ratio:stage"]["value"] is None
    assert "without an order" in found["type", "likelihood_ratio:stage"]["reason"]


def test_bold_only_where_it_is_earned(given: Evidence, sections: list[Section], toy: dict[str, Any]) -> None:
    found = numbers(sections)
    for section in sections:
        if section.task:
            metric = given.results[section.task].primary
            assert ("<strong>" in section.html) == (found[section.task, f"p_holm:{metric}"]["value"] < 0.05)
            assert str(given.results[section.task].n) in section.html
    assert sections[-1].name == "comparison"  # over the tasks
    assert sections[0].task == "response"
    same = comparison(evidence(toy, 0.0))
    assert not any("<strong>" in s.html for s in same)
    assert numbers(same)["response", "p_delong:auc"]["value"] == 1
    table = sections[0].tables["response-comparison"]
    assert table.loc[0, "smallest_difference"] > 0
    assert table.loc[0, "patients"] == given.results["response"].n


def test_without_floors_there_is_nothing_to_say(toy: dict[str, Any]) -> None:
    results = evaluate_predictions(toy["predictions"], SOME, None, None, 20)
    assert comparison(Evidence(results, toy["predictions"])) == []


@pytest.fixture(scope="module")
def several(toy: dict[str, Any]) -> Evidence:
    """The same with three repeats."""
    predictions = again(toy, 3)
    split = predictions[["patient_id", "fold", "part"]].drop_duplicates()
    return evidence(toy | {"predictions": predictions}, 0.8, split)


def test_repeated_folds_are_tested_over_the_splits(several: Evidence) -> None:
    sections = comparison(several)
    found = numbers(sections)
    row = found["response", "nadeau_bengio:auc"]
    assert row["lo"] < row["value"] < row["hi"]
    assert 0 < found["response", "p_nadeau_bengio:auc"]["value"] <= 1
    assert "Nadeau" in sections[0].html


def test_holm_adjusts_the_larger_of_two_p(several: Evidence) -> None:
    found = numbers(comparison(several))
    ruling = {}
    for task, result in several.results.items():
        metric = result.primary
        own = found.get((task, f"p_delong:{metric}"), found.get((task, f"p_bootstrap:{metric}")))
        ruling[task, metric] = max(own["value"], found[task, f"p_nadeau_bengio:{metric}"]["value"])
    adjusted = [found[task, f"p_holm:{metric}"]["value"] for task, metric in ruling]
    assert adjusted == pytest.approx(multiplicity.holm(list(ruling.values())))


def test_a_small_p_of_the_patients_alone_is_no_verdict(several: Evidence) -> None:
    """One repeat of three against the others: the bootstrap is certain, the splits are not."""
    rng = np.random.default_rng(1)
    test = several.predictions[several.predictions["part"] == "test"]
    # the floor says what the learner says, but in the first repeat
    lost = test["fold"].isin([0, 1, 2]) & (test["task"] == "survival")
    floor = test.assign(model="floor:stage", value=np.where(lost, rng.normal(size=len(test)), test["value"]))
    only = {"survival": TASKS["survival"]}
    results = evaluate_predictions(with_others(several.predictions, floor), only, None, None, 400)
    made = Evidence(results, several.predictions, splits=several.splits, settings=several.settings)
    one = against_floor(results, "floor:stage", made.splits)["survival"]
    assert one.at.p < 0.05 < one.at.splits.p
    assert one.adjusted == pytest.approx(one.at.splits.p)
    assert not one.better
    assert one.word == "not told apart from"
    said = f"P is {p_word(one.at.p)} by the bootstrap and {p_word(one.at.splits.p)} over the repeated splits"
    assert one.remark == f"{said}: the larger one counts."
    [section] = comparison(made)
    assert one.remark in section.html
    assert "<strong>+" not in section.html
    shown = terminal.table(results, "floor:stage", made.splits, boxed=False)
    assert f"survival: {said}" in str(shown.caption)
    assert not any(row.style for row in shown.rows)
    html = page.render(made, page.Story("toy", primary_floor="floor:stage"), SECTIONS).html
    assert re.search(r'class="verdict">Not told apart from the floor \(stage\).*?the larger one counts', html, re.S)
    assert "survival: the model is not shown to be better than the linear floor (stage)" in card.render(made, "1")


def test_the_larger_p_and_when_there_is_none() -> None:
    gap = Interval(0.1, 0.02, 0.18)
    over = Compared(Interval(0.1, -0.1, 0.3), Score(0.3))
    assert Contrast(gap, Score(0.01), "DeLong", Score(0.1)).ruling == 0.01
    assert Contrast(gap, Score(0.01), "DeLong", Score(0.1), over).ruling == 0.3
    assert Contrast(gap, Score(0.4), "DeLong", Score(0.1), over).ruling == 0.4
    assert Contrast(gap, Score(0.01), "DeLong", Score(0.1), corrected_t([-0.1, -0.1001, -0.1], 0.5)).ruling == 1
    # the same in every split: the splits have nothing to add; a difference in one alone: nothing can be said
    assert Contrast(gap, Score(0.01), "DeLong", Score(0.1), corrected_t([0.1] * 6, 0.5)).ruling == 0.01
    none = Contrast(gap, Score(0.01), "DeLong", Score(0.1), corrected_t([0.1, np.nan], 0.5)).ruling
    assert np.isnan(none)
    assert none.reason == "1 of 2 splits have a difference"


def test_the_score_added_to_the_stage_counts_patients_of_repeats_once(several: Evidence, toy: dict[str, Any]) -> None:
    """The first repeat is the study without repeats: so is the test."""
    rows = several.predictions[several.predictions["fold"] < 3]
    alone = Evidence(
        {name: replace(r, folds=r.folds[:3]) for name, r in several.results.items()}, rows, splits=several.splits
    )
    for name in ("response", "survival"):
        ratio, first = stage_ratio(several.results[name]), stage_ratio(alone.results[name])
        assert ratio.statistic.known
        assert (ratio.statistic, ratio.p) == (first.statistic, first.p)
    [section] = [s for s in comparison(several) if s.task == "survival"]
    assert "stands here once, with the first" in section.html


def test_optimism_from_the_predictions(given: Evidence) -> None:
    [section] = optimism(given)
    found = {(r["task"], r["metric"], r["part"]): r["value"] for r in section.rows}
    own = given.predictions[given.predictions["part"] == "train"]
    for task, output, metric in (("response", "p:yes", "auc"), ("survival", "risk", "c_index")):
        rows = own[(own["task"] == task) & (own["output"] == output)]
        values, sizes = [], []
        for _, f in rows.groupby("fold"):
            known = f[f["target"] != ""] if task == "response" else f[f["event"].notna()]
            label = (known["target"] == "yes").astype(float)
            values.append(
                auc(label, known["value"])
                if task == "response"
                else c_index(known["value"], known["time_days"], known["event"])
            )
            sizes.append(len(known))
        by_hand = np.average(values, weights=sizes)
        assert found[task, metric, "train"] == pytest.approx(by_hand)
        test = float(given.results[task].metrics[metric]["learner"].value)
        assert found[task, f"optimism:{metric}", "train"] == pytest.approx(by_hand - test)
    assert set(section.figures[0].data["part"]) == {"train", "validation", "test"}
    # what the models are worth stands where a narrow page shows it, and the text names the column
    assert re.findall("<th>([^<]*)</th>", section.html)[:3] == ["task", "metric", "test"]
    assert "Only the column test says what they are worth" in section.html


def test_optimism_where_training_outputs_are_lacking(given: Evidence) -> None:
    rows = given.predictions
    [section] = optimism(Evidence(given.results, rows[rows["part"] != "train"], settings={"bootstrap": 20}))
    assert "no outputs of train patients" in section.html
    assert optimism(Evidence(given.results, rows[rows["part"] == "test"])) == []
