"""Folds whose patients are followed for unlike times: none is judged beyond what is known, all over the same days."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.metrics import survival
from nsclc_mtl.metrics.comparison import bootstrap, resamples
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report.evaluation import TaskResult, judge, metric_rows
from nsclc_mtl.report.fold import Fold, own_censoring, tried
from nsclc_mtl.report.probabilities import targets_of
from nsclc_mtl.report.survival_measures import curves_end, ends, measures

TASK = TaskSpec("os", "survival")
DAYS = np.array([200.0, 400.0, 600.0, 800.0, 1000.0, 1095.0, 1200.0])


def fold(name: str, until: float, n: int = 30, event: float | None = None) -> Fold:
    """Patients who are followed to `until` at most; training patients to 1500."""
    rng = np.random.default_rng([7, *name.encode()])
    x = rng.normal(size=n)
    t, u = rng.exponential(900 * np.exp(-x)), np.minimum(rng.exponential(2500, n), until)
    happened = (t <= u) * 1.0 if event is None else np.full(n, event)
    said = pd.DataFrame({"risk": x} | {f"surv:{d:g}": np.exp(-d / 900 * np.exp(x)) for d in DAYS})
    train = np.minimum(rng.exponential(900, 200), 1500), (rng.random(200) < 0.6) * 1.0
    train[0][0], train[1][0] = 1500.0, 0.0
    train[0][1], train[1][1] = 1499.0, 1.0
    return Fold(
        name, [f"{name}{i}" for i in range(n)], np.minimum(t, u), happened, {"learner": said},
        survival.censoring_curve(*train), survival.kaplan_meier(*train),
    )  # fmt: skip


def values(folds: list[Fold], metric: str) -> list[Score]:
    of = measures(TASK, folds)[metric]
    weights = resamples([len(f.label) for f in folds], 50, np.random.default_rng(0))
    return bootstrap([tried(of, f, f.said["learner"]) for f in folds], weights).folds


def test_a_fold_that_nobody_is_followed_in_to_the_horizon_is_left_out() -> None:
    folds = [fold("a", 1400), fold("b", 1400), fold("c", 900)]
    folds[2].label[0], folds[2].event[0] = 900.0, 0.0
    found = values(folds, "brier_3y")
    assert [v.known for v in found] == [True, True, False]
    assert "followed up to 1095" in found[2].reason
    nobody = fold("d", 900, event=0.0)
    assert not values([*folds[:2], nobody], "brier_3y")[2].known
    of, weights = measures(TASK, [*folds[:2], nobody])["brier_3y"], [np.ones((1, 30))] * 3
    over = bootstrap([tried(of, f, f.said["learner"]) for f in [*folds[:2], nobody]], weights).value
    assert over == pytest.approx(np.mean(found[:2]))
    assert "1 of 3 folds left out" in over.reason


@pytest.mark.parametrize("metric", ["ibs", "ipa"])
def test_all_folds_are_integrated_over_the_same_days(metric: str) -> None:
    folds = [fold("a", 1400), fold("b", 1400), fold("c", 900)]
    for f, last in zip(folds, (1400.0, 1300.0, 900.0), strict=True):
        f.label[0], f.event[0] = last, 0.0
    assert curves_end(folds) == 900
    same = DAYS[DAYS < 900]
    for f, value in zip(folds, values(folds, metric), strict=True):
        assert f.censoring is not None
        assert f.survival is not None
        curves = f.said["learner"][[f"surv:{d:g}" for d in same]].to_numpy()
        outcome = (curves, f.label, f.event, same, f.censoring)
        known = (
            survival.integrated_brier(*outcome) if metric == "ibs" else survival.accuracy_index(*outcome, f.survival)
        )
        assert value == pytest.approx(known)
    assert ends(folds) == {"uno_c": "events before day 1500", "ibs": "day 200 to 800", "ipa": "day 200 to 800"}
    assert curves_end([own_censoring(folds[0])]) == curves_end([folds[0]]) == 1400


def test_a_fold_that_reaches_no_second_day_does_not_end_the_others() -> None:
    folds = [fold("a", 1400), fold("b", 300)]
    folds[0].label[0], folds[0].event[0] = 1400.0, 0.0
    folds[1].label[0], folds[1].event[0] = 300.0, 0.0
    found = values(folds, "ibs")
    assert curves_end(folds) == 1400
    assert found[0].known
    assert "nobody who is judged is followed" in found[1].reason
    assert curves_end([]) == np.inf
    assert ends([]) == {}


def test_a_draw_of_nobody_whose_state_is_known_has_no_score() -> None:
    one = fold("a", 1400)
    one.label[:], one.event[:] = 100.0, 0.0
    one.label[:10] = 1400.0
    for metric in ("brier_3y", "ibs", "ipa"):
        measure = measures(TASK, [one])[metric](one, one.said["learner"])
        assert not isinstance(measure, Score)
        drawn = np.ones((2, 30))
        drawn[1, :10] = 0
        assert np.isnan(measure(drawn)).tolist() == [False, True]


def test_a_horizon_that_few_are_followed_to_is_refused_by_the_rule_of_the_calibration() -> None:
    """Nine patients beyond three years: no AUC and no Brier score there, but rows that say why."""
    folds = [fold("a", 1000), fold("b", 1000)]
    folds[0].label[:9], folds[0].event[:9] = 1200.0, 0.0
    told = "9 test patients are followed so far, at least 10 are needed"
    for metric in ("auc_3y", "brier_3y"):
        assert [v.reason for v in values(folds, metric)] == [told, told]
    assert values(folds, "auc_1y")[0].known
    nobody = "0 test patients are followed so far, at least 10 are needed"
    assert [v.reason for v in values(folds, "auc_5y")] == [nobody, nobody]
    result = TaskResult(TASK, folds)
    result.metrics["c_index"] = {}
    assert f"at 3 years: {told}" in targets_of(result, ["learner"])[1]
    folds[1].label[0] = 1200.0
    assert values(folds, "brier_3y")[0].known
    twice = [*folds, fold("a", 1000)]  # another repeat tests the same patients
    twice[0].label[:9], twice[1].label[0], twice[2].label[:9] = 1200.0, 500.0, 1200.0
    assert values(twice, "auc_3y")[0].reason == told


def test_what_is_refused_has_its_row_with_the_reason() -> None:
    rng, n = np.random.default_rng(3), 40
    time = np.r_[rng.uniform(100, 900, n - 3), [1300.0] * 3]
    risk, event = rng.normal(size=n), (rng.random(n) < 0.7) * 1.0
    event[-3:] = 0
    said = {"risk": risk} | {f"surv:{d:g}": np.exp(-d / 900 * np.exp(risk)) for d in DAYS}
    rows = [
        (f"p{i}", "os", 0, "test", output, value[i], "", event[i], time[i])
        for output, value in said.items()
        for i in range(n)
    ]
    columns = ["patient_id", "task", "fold", "part", "output", "value", "target", "event", "time_days"]
    training = pd.DataFrame({"event": (rng.random(200) < 0.6) * 1.0, "time_days": rng.uniform(50, 1500, 200)})
    results = judge(pd.DataFrame(rows, columns=columns), {"os": TASK}, {"os": {"0": training}}, draws=20)
    found = {r["metric"]: r for r in metric_rows(results) if r["fold"] == "all"}
    for metric in ("auc_3y", "brier_3y"):
        assert found[metric]["value"] is None
        assert found[metric]["reason"] == "3 test patients are followed so far, at least 10 are needed"
    assert found["auc_1y"]["value"] is not None
