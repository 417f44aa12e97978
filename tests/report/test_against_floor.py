"""Bold, above and below: what terminal, page and card say of the primary floor rests on the P that Holm adjusted."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.text import Text

from nsclc_mtl.commands.judging import evaluate_predictions, with_others
from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.report import card, page, terminal
from nsclc_mtl.report.against_floor import against_floor
from nsclc_mtl.report.contrast import striking
from nsclc_mtl.report.section import Evidence
from nsclc_mtl.report.sections import SECTIONS
from nsclc_mtl.report.sections.comparison import comparison

from .conftest import TASKS


def judged(toy: dict[str, Any], noise: float, tasks: list[str], seed: int = 0) -> Evidence:
    """The learner beside a floor that says the same, but for some tasks, of which it says the same with noise."""
    test = toy["predictions"][toy["predictions"]["part"] == "test"]
    other = test["value"] + noise * np.random.default_rng(seed).normal(size=len(test)) * test["task"].isin(tasks)
    floor = test.assign(model="floor:clinical", value=other)
    results = evaluate_predictions(with_others(toy["predictions"], floor), TASKS, toy["manifest"], toy["splits"], 1000)
    settings = {"primary_floor": "clinical", "bootstrap": 1000, "seed": 0}
    return Evidence(results, toy["predictions"], toy["manifest"], toy["splits"], settings)


def styles(evidence: Evidence) -> dict[str, str]:
    """Task -> style of the learner's row on the terminal."""
    made = terminal.table(evidence.results, "floor:clinical", None, boxed=False)
    names = [Text.from_markup(str(cell)).plain for cell in made.columns[0].cells]
    return {name: str(row.style or "") for name, row in zip(names, made.rows, strict=True) if name}


def cards(evidence: Evidence) -> dict[str, str]:
    """Task -> what the card at the head of the page says of the floor."""
    html = page.render(evidence, page.Story("toy", primary_floor="floor:clinical"), SECTIONS).html
    said = re.findall(r'<div class="what">(\w+).*?<div class="verdict">(.*?)</div>', html, flags=re.S)
    return {task: re.sub(r"<[^>]+>", "", words) for task, words in said}


def holm_of(evidence: Evidence) -> dict[str, tuple[float, float]]:
    """Task -> P and adjusted P, as metrics.json has them."""
    rows = [row for section in comparison(evidence) for row in section.rows]
    of = {word: {r["task"]: r["value"] for r in rows if r["metric"].startswith(word)} for word in ("p_d", "p_b", "p_h")}
    return {task: ((of["p_d"] | of["p_b"])[task], p) for task, p in of["p_h"].items()}


@pytest.fixture(scope="module")
def alone(toy: dict[str, Any]) -> Evidence:
    """Of four tasks one has an interval that leaves out 0; its P is above .05 once four questions are counted."""
    evidence = judged(toy, 0.4, ["response"], seed=2)
    gap = evidence.results["response"].difference("auc", "floor:clinical")
    p, adjusted = holm_of(evidence)["response"]
    assert gap.lo > 0
    assert p < 0.05 < adjusted
    return evidence


def test_an_interval_beside_zero_is_not_enough_where_holm_says_no(alone: Evidence) -> None:
    assert styles(alone) == dict.fromkeys(TASKS, "")
    said = cards(alone)
    assert set(said) == set(TASKS)
    assert all(words.startswith("Not told apart from the floor (clinical)") for words in said.values())
    assert f"P {holm_of(alone)['response'][1]:.2f}" in said["response"]
    assert "response: the model is not shown to be better than the linear floor (clinical)." in card.render(alone, "1")


def test_where_holm_says_yes_all_three_say_so(toy: dict[str, Any]) -> None:
    evidence = judged(toy, 3.0, list(TASKS))
    found = holm_of(evidence)
    earned = {task for task, (_, p) in found.items() if p < 0.05}
    assert earned
    assert {task for task, style in styles(evidence).items() if style == "bold"} == earned
    assert {task for task, words in cards(evidence).items() if words.startswith("Above the floor")} == earned
    text = card.render(evidence, "1")
    assert {task for task in TASKS if f"{task}: the model is not shown" not in text} == earned


def test_a_floor_that_is_better_is_said_to_be(toy: dict[str, Any]) -> None:
    turned = {**toy, "predictions": toy["predictions"].assign(value=-toy["predictions"]["value"])}
    test = toy["predictions"][toy["predictions"]["part"] == "test"].assign(model="floor:clinical")
    only = {"survival": TASKS["survival"]}
    results = evaluate_predictions(with_others(turned["predictions"], test), only, None, None, 1000)
    evidence = Evidence(results, turned["predictions"], settings={"primary_floor": "clinical"})
    assert cards(evidence)["survival"].startswith("Below the floor (clinical)")
    assert styles(evidence) == {"survival": "bold"}
    assert "survival: the model is shown to be worse than the linear floor (clinical)." in card.render(evidence, "1")


def test_a_floor_without_a_value_could_not_be_compared(toy: dict[str, Any]) -> None:
    test = toy["predictions"][toy["predictions"]["part"] == "test"].assign(model="floor:clinical", value=np.nan)
    only = {"survival": TASKS["survival"]}
    results = evaluate_predictions(with_others(toy["predictions"], test), only, None, None, 20)
    evidence = Evidence(results, toy["predictions"], settings={"primary_floor": "clinical"})
    text = card.render(evidence, "1")
    assert "survival: the model could not be compared with the linear floor (clinical)." in text
    assert "not shown to be better" not in text


def test_without_the_named_floor_nothing_is_bold(alone: Evidence) -> None:
    made = terminal.table(alone.results, "floor:stage", None, boxed=False)
    assert not any(row.style for row in made.rows if row.style != "dim")


def below_chance(toy: dict[str, Any], skill: float, others: bool = False) -> Evidence:
    """A floor that puts patients in the wrong order, beside a learner of `skill`; with others a floor that knows."""
    test = toy["predictions"]
    truth = toy["manifest"].labels["survival"].loc[test["patient_id"], "time_days"].to_numpy()
    risk = (test["task"] == "survival") & (test["output"] == "risk")
    noise = np.random.default_rng(4).normal(size=len(test))
    ours = toy["predictions"].assign(value=np.where(risk, noise - skill * np.log(truth), test["value"]))
    said = {"floor:clinical": np.log(truth) + 0.3 * noise}
    if others:
        said["floor:rna"] = -np.log(truth)
    floors = [ours.assign(model=model, value=v)[risk & (ours["part"] == "test")] for model, v in said.items()]
    only = {"survival": TASKS["survival"]}
    results = evaluate_predictions(with_others(ours, pd.concat(floors)), only, None, None, 500)
    return Evidence(results, ours, settings={"primary_floor": "clinical", "bootstrap": 500, "seed": 0})


def test_a_learner_that_knows_nothing_is_not_praised_for_a_floor_below_chance(toy: dict[str, Any]) -> None:
    evidence = below_chance(toy, 0.0)
    own = evidence.results["survival"].metrics["c_index"]
    ours, floor = own["learner"].interval(), own["floor:clinical"].interval()
    assert ours.lo < 0.5 < ours.hi
    assert floor.hi < 0.5
    assert holm_of(evidence)["survival"][1] < 0.05
    said = cards(evidence)["survival"]
    assert said.startswith("Higher than the floor (clinical)")
    below = f"floor lies below chance ({floor.value:.3f}); the learner is not told apart from chance"
    assert f"The {below}." in said
    assert styles(evidence) == {"survival": ""}
    [section] = comparison(evidence)
    assert "<strong>+" not in section.html
    assert f"The {below}." in section.html
    limit = f"survival: the model is higher than the linear floor (clinical), but the {below}."
    assert limit in card.render(evidence, "1")


def test_a_learner_above_chance_and_a_floor_below_it_is_above_and_the_floor_is_told(toy: dict[str, Any]) -> None:
    evidence = below_chance(toy, 2.0)
    said = cards(evidence)["survival"]
    assert said.startswith("Above the floor (clinical)")
    assert "The floor lies below chance (0." in said
    assert "not told apart from chance" not in said
    assert styles(evidence) == {"survival": "bold"}
    assert "<strong>+" in comparison(evidence)[0].html
    one = against_floor(evidence.results, "floor:clinical", None)["survival"]
    near = replace(one, floor=Interval(0.48, 0.41, 0.55))  # below 0.5, and not told apart from it
    assert near.remark == "The floor is no better than chance (0.480)."
    assert replace(one, floor=Interval(0.6, 0.55, 0.65)).remark == ""


def test_a_floor_that_was_not_named_and_is_higher_is_told(toy: dict[str, Any]) -> None:
    evidence = below_chance(toy, 2.0, others=True)
    other = float(evidence.results["survival"].metrics["c_index"]["floor:rna"].value)
    assert f"; another floor is higher than the learner: rna ({other:.3f})." in cards(evidence)["survival"]


def test_bold_is_a_small_p_and_where_ours_is_higher_an_interval_above_chance() -> None:
    gap, worse = Interval(0.1, 0.05, 0.15), Interval(-0.1, -0.15, -0.05)
    good, chance = Interval(0.6, 0.52, 0.7), Interval(0.55, 0.48, 0.6)
    assert striking(0.01, gap, good)
    assert not striking(0.06, gap, good)
    assert not striking(0.01, gap, chance)
    assert striking(0.01, worse, chance)
    assert striking(0.01, gap, Interval(1.0, float("nan"), float("nan"), "all resamples agree", agree=True))
    assert not striking(0.01, gap, Interval(0.6, float("nan"), float("nan"), "no interval"))
