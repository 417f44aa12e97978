"""Repeated cross-validation: the unit is the patient, so nothing on the page counts one several times."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.commands.judging import evaluate_predictions, with_others
from nsclc_mtl.report import page
from nsclc_mtl.report.fold import dealt, dealt_rows, once, once_rows
from nsclc_mtl.report.section import Evidence, Section
from nsclc_mtl.report.sections import SECTIONS
from nsclc_mtl.report.sections.abstention import abstention
from nsclc_mtl.report.sections.calibration import calibration
from nsclc_mtl.report.sections.decision import decision
from nsclc_mtl.report.sections.trust import trust

from .conftest import TASKS, again

SETTINGS = {"primary_floor": "clinical", "seed": 0, "bootstrap": 40}
REPEATS = 3


def judged(toy: dict[str, Any], predictions: pd.DataFrame) -> Evidence:
    floor = predictions[predictions["part"] == "test"].assign(model="floor:clinical")
    results = evaluate_predictions(with_others(predictions, floor), TASKS, toy["manifest"], None, 40)
    test = predictions[predictions["part"] == "test"]
    rows = []
    for (patient, fold, task), said in test.groupby(["patient_id", "fold", "task"]):
        p = said.set_index("output")["value"]
        sure = max(v for o, v in p.items() if o != "risk")
        rows += [(patient, fold, task, "confidence", f"{sure:.6g}")]
        if TASKS[task].classes:
            words = "|".join(c for c in TASKS[task].classes if p[f"p:{c}"] > 0.3)
            rows += [(patient, fold, task, "set", words), (patient, fold, task, "flag:several", str(int("|" in words)))]
        else:
            rows += [(patient, fold, task, "lower_bound_days", "30")]
    for fold in predictions["fold"].unique():
        rows += [("", fold, t, what, v) for t in TASKS for what, v in (("n_calibration", "20"), ("miss", "0.1"))]
    table = pd.DataFrame(rows, columns=["patient_id", "fold", "task", "what", "value"]).astype(str)
    trained = {"folds": {"n": 3, "repeats": predictions["fold"].nunique() // 3}}
    return Evidence(results, predictions, toy["manifest"], settings=SETTINGS, trained=trained, trust=table)


@pytest.fixture(scope="module")
def single(toy: dict[str, Any]) -> Evidence:
    return judged(toy, toy["predictions"])


@pytest.fixture(scope="module")
def several(toy: dict[str, Any]) -> Evidence:
    return judged(toy, again(toy, REPEATS))


def told(section: Section) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", section.html))


def test_who_is_tested_several_times_stands_in_the_first_fold_that_tests_him(several: Evidence) -> None:
    for result in several.results.values():
        folds = once(result.folds)
        people = [p for f in folds for p in f.patients]
        assert len(people) == len(set(people)) == result.n
        assert sum(len(f.patients) for f in result.folds) == REPEATS * result.n
        assert [f.fold for f in folds] == ["0", "1", "2"]
        assert [f.patients for f in folds] == [f.patients for f in result.folds[:3]]
    part = result.folds[3]  # of the second repeat: who stands in the first fold of the first is left out there
    less = once([result.folds[0], part])[1]
    assert less.patients == [p for p in part.patients if p not in result.folds[0].patients]
    at = [part.patients.index(p) for p in less.patients]
    assert np.array_equal(less.label, part.label[at])
    assert less.said["learner"].equals(part.said["learner"].iloc[at])


@pytest.mark.parametrize("make", [calibration, decision])
def test_pooled_probabilities_are_those_of_the_first_repeat(make: Any, single: Evidence, several: Evidence) -> None:
    """Of the same first repeat: every number, interval, count and figure is what it is without the others."""
    for one, more in zip(make(single), make(several), strict=True):
        assert one.rows == more.rows
        assert len(one.rows)
        for a, b in zip(one.figures, more.figures, strict=True):
            assert a.data.equals(b.data)
            n = several.results[one.task].n
            assert f"{n} test patients of all folds" in b.caption
            assert "with the first" in b.caption
            assert "with the first" not in a.caption


def test_d_calibration_is_of_patients(single: Evidence, several: Evidence) -> None:
    [section] = [s for s in calibration(several) if s.task == "survival"]
    n = several.results["survival"].n
    assert f"D-calibration over the whole curve (learner, {n} patients)" in told(section)
    assert "Test patients of all 3 folds are taken together" in told(section)
    assert "Who was tested in several repeats stands here once, with the first." in told(section)
    rows = {r["metric"]: r for r in section.rows if r["model"] == "learner"}
    assert rows["d_calibration_chi2"]["n"] == n
    [bins] = [t for name, t in section.tables.items() if name.endswith("d-calibration")]
    assert bins["learner"].sum() == pytest.approx(1)
    [alone] = [s for s in calibration(single) if s.task == "survival"]
    assert {r["metric"]: r["value"] for r in alone.rows if r["model"] == "learner"} == {
        name: r["value"] for name, r in rows.items()
    }


def test_a_horizon_is_reached_by_patients_not_by_rows(toy: dict[str, Any]) -> None:
    """Four of the patients are followed to three years: twelve rows are no twelve patients."""
    predictions = again(toy, REPEATS)
    time = predictions.loc[predictions["task"] == "survival", ["patient_id", "time_days"]].drop_duplicates("patient_id")
    kept = set(time.nlargest(4, "time_days")["patient_id"])
    own, far = predictions["task"] == "survival", predictions["patient_id"].isin(kept)
    capped = predictions.assign(time_days=predictions["time_days"].clip(upper=1000.0).mask(own & far, 1200.0))
    [section] = [s for s in calibration(judged(toy, capped)) if s.task == "survival"]
    assert "at 3 years: 4 test patients are followed so far, at least 10 are needed" in told(section)


def test_abstention_and_flags_count_patients(single: Evidence, several: Evidence) -> None:
    for one, more in zip(abstention(single), abstention(several), strict=True):
        [a], [b] = one.tables.values(), more.tables.values()
        assert a.equals(b)
        assert b["n"].max() == several.results[one.task].n
        assert "with the first" in told(more)
    [one], [more] = trust(single), trust(several)
    assert one.tables["trust-flags"].equals(more.tables["trust-flags"])
    whole = more.tables["trust-sets"]
    whole = whole[whole["fold"] == "all"].set_index("task")["n"]
    assert whole.to_dict() == {task: r.n for task, r in several.results.items() if task != "survival"}
    bounds = {r["metric"]: r["n"] for r in more.rows if r["task"] == "survival"}
    assert set(bounds.values()) == {several.results["survival"].n}
    assert "he counts as one patient" in told(more)
    assert "he counts as one patient" not in told(one)


def test_no_count_on_the_page_is_of_rows(several: Evidence) -> None:
    made = page.render(several, page.Story("toy", primary_floor="floor:clinical"), SECTIONS)
    most = len(several.manifest.patients)  # type: ignore[union-attr]
    found = [int(n) for n in re.findall(r"(\d+) (?:test )?patients", re.sub(r"<[^>]+>", "", made.html))]
    assert found
    assert max(found) <= most
    assert all(r["n"] <= most for r in made.rows)
    assert "within each fold (3 folds, 3 repeats)" in " ".join(made.html.split())
    assert "cross-validation over 3 folds, in 3 repeats" in made.html
    assert "3 folds, dealt anew in 3 repeats" in made.html


def test_rows_of_the_first_fold_in_the_order_of_their_numbers() -> None:
    rows = pd.DataFrame({"patient_id": ["a", "a", "b", "a"], "fold": ["10", "9", "10", "9"], "value": [1, 2, 3, 4]})
    assert list(once_rows(rows)["value"]) == [2, 3, 4]
    assert once_rows(rows.iloc[:0]).empty


def test_folds_and_repeats_are_told_from_who_is_tested(toy: dict[str, Any]) -> None:
    assert dealt_rows(toy["splits"]) == "3 folds"
    assert dealt_rows(again(toy, REPEATS)) == "3 folds, 3 repeats"
    assert dealt([["a", "b"], ["a", "b"]]) == "1 fold, 2 repeats"  # the same patients, trained twice
    assert dealt([["a", "b"], ["c"], ["a"]]) == "3 folds, each patient is tested in up to 2 of them"
    assert dealt([]) == "0 folds"
