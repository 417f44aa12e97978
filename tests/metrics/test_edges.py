"""Every public metric where there is little to go by: the right value, or NaN that says why."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nsclc_mtl.metrics import calibration as cal
from nsclc_mtl.metrics import classification as c
from nsclc_mtl.metrics import regression as reg
from nsclc_mtl.metrics import risk_groups as rg
from nsclc_mtl.metrics import survival as s
from nsclc_mtl.metrics import survival_calibration as scal
from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.metrics.concordance import antolini_c
from nsclc_mtl.metrics.decision import net_benefit, net_benefit_at
from nsclc_mtl.metrics.delong import auc_influence, macro_influence
from nsclc_mtl.metrics.follow_up import follow_up

NAN = math.nan
N = 12  # patients where nothing else is said
WHEN = 6.0  # the horizon: half of the patients are seen beyond it
G = s.censoring_curve(np.arange(1.0, 21), [1, 0] * 10)  # of training patients who are followed to 20
KM = s.kaplan_meier(np.arange(1.0, 21), [1, 0] * 10)

LABEL = np.array([0, 1] * (N // 2), dtype=float)
TIME, EVENT = np.arange(1.0, N + 1), np.array([1, 1, 0] * (N // 3), dtype=float)


def two(p: np.ndarray) -> np.ndarray:
    return np.stack([1 - p, p], axis=1)


def twice(p: np.ndarray) -> np.ndarray:
    """Curves at WHEN - 1 and WHEN."""
    return np.stack([1 - p / 2, 1 - p], axis=1)


# name -> (metric of label and prediction in 0..1, its value where the prediction is perfect, reversed, constant 1/2)
CLASSES: dict[str, tuple[Callable[..., Any], float | None, float | None, float | None]] = {
    "auc": (c.auc, 1, 0, 0.5),
    "ordinal_auc": (c.ordinal_auc, 1, 0, 0.5),
    "macro_auc": (lambda y, p: c.macro_auc(y, two(p)), 1, 0, 0.5),
    "auc_per_cut": (lambda y, p: c.auc_per_cut(y, two(p))[0], 1, 0, 0.5),
    "auc_one_vs_rest": (lambda y, p: c.auc_one_vs_rest(y, two(p))[0], 1, 0, 0.5),
    "balanced_accuracy": (lambda y, p: c.balanced_accuracy(y, two(p)), 1, 0, 0.5),
    "brier": (lambda y, p: c.brier(y, two(p)), 0, 1, 0.25),
    "average_precision": (c.average_precision, 1, None, 0.5),
    "quadratic_kappa": (lambda y, p: c.quadratic_kappa(y, np.where(np.isnan(p), NAN, p > 0.5), 2), 1, -1, 0),
    "sensitivity": (lambda y, p: c.sensitivity(y, p, 0.5), 1, 0, 1),
    "specificity": (lambda y, p: c.specificity(y, p, 0.5), 1, 0, 0),
    "youden_threshold": (c.youden_threshold, 0.5, 0.5, None),
    "calibration_slope": (lambda y, p: cal.calibration_slope(y, p)[0], None, None, None),
    "in_the_large": (cal.in_the_large, None, None, 0),
    "ici": (lambda y, p: cal.integrated_index(y, p)[0], None, None, 0),
    "calibration_error": (lambda y, p: cal.calibration_error(y, two(p)), 0, 1, 0),
    "auc_influence": (lambda y, p: auc_influence(y, p).value, 1, 0, 0.5),
    "macro_influence": (lambda y, p: macro_influence(y, two(p)).value, 1, 0, 0.5),
}

# the same of risk in 0..1, time and event
SURVIVAL: dict[str, tuple[Callable[..., Any], float | None, float | None, float | None]] = {
    "c_index": (s.c_index, 1, 0, 0.5),
    "uno_c": (lambda r, t, e: s.uno_c(r, t, e, G, 20.0), 1, 0, 0.5),
    "antolini_c": (lambda r, t, e: antolini_c(twice(r), [WHEN - 1, WHEN], t, e), None, None, 0.5),
    "auc_at": (lambda r, t, e: s.auc_at(r, t, e, WHEN, G), 1, 0, 0.5),
    "brier_at": (lambda r, t, e: s.brier(1 - r, t, e, WHEN, G), None, None, None),
    "integrated_brier": (lambda r, t, e: s.integrated_brier(twice(r), t, e, [WHEN - 1, WHEN], G), None, None, None),
    "accuracy_index": (lambda r, t, e: s.accuracy_index(twice(r), t, e, [WHEN - 1, WHEN], G, KM), None, None, None),
    "accuracy_index_once": (lambda r, t, e: s.accuracy_index(twice(r)[:, 1:], t, e, [WHEN], G, KM), None, None, None),
    "slope_at": (lambda r, t, e: scal.assess_at(r, t, e, WHEN).values["slope"], None, None, None),
    "ici_at": (lambda r, t, e: scal.assess_at(r, t, e, WHEN).values["ici"], None, None, None),
    "d_calibration": (lambda r, t, e: scal.d_calibration(1 - r, e).p, None, None, None),
}

NUMBERS: dict[str, tuple[Callable[..., Any], float | None, float | None, float | None]] = {
    "mae": (reg.mae, 0, None, None),
    "rmse": (reg.rmse, 0, None, None),
    "r2": (reg.r2, 1, -3, None),
    "spearman": (reg.spearman, 1, -1, None),
}


def told(made: Any) -> Any:
    """A number, or NaN with a reason that is not empty; never an unexplained one."""
    value = made.value if isinstance(made, Interval) else float(made)
    assert math.isfinite(value) or (math.isnan(value) and made.reason), made
    return made


def missing(made: Any) -> None:
    value = made.value if isinstance(made, Interval) else float(made)
    assert math.isnan(value), made
    assert made.reason


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name: str) -> None:
    metric, perfect, turned, constant = CLASSES[name]
    for p, value in ((LABEL, perfect), (1 - LABEL, turned), (np.full(N, 0.5), constant)):
        made = told(metric(LABEL, p))
        assert value is None or made == pytest.approx(value, abs=1e-6)
    some, every = np.where(np.arange(N) == 3, NAN, LABEL), np.full(N, NAN)
    missing(metric(LABEL, some))
    missing(metric(LABEL, every))
    missing(metric([], np.zeros(0)))
    missing(metric(np.full(N, NAN), LABEL))  # nobody's class is known
    told(metric(np.ones(N), np.linspace(0.1, 0.9, N)))
    told(metric(np.zeros(N), np.linspace(0.1, 0.9, N)))
    for y in (0.0, 1.0):
        told(metric([y], np.array([0.7])))
    if constant == 0.5:  # it puts in order, or wants both classes
        missing(metric(np.zeros(N), np.linspace(0.1, 0.9, N)))


@pytest.mark.parametrize("name", SURVIVAL)
def test_survival(name: str) -> None:
    metric, perfect, turned, constant = SURVIVAL[name]
    risk = 1 - TIME / (N + 1)
    for r, value in ((risk, perfect), (1 - risk, turned), (np.full(N, 0.5), constant)):
        made = told(metric(r, TIME, EVENT))
        assert value is None or made == pytest.approx(value)
    missing(metric(np.where(np.arange(N) == 3, NAN, risk), TIME, EVENT))
    missing(metric(np.full(N, NAN), TIME, EVENT))
    missing(metric(np.zeros(0), [], []))
    if name != "d_calibration":  # which knows no time
        missing(metric(risk, np.full(N, NAN), EVENT))
    told(metric(risk, TIME, np.zeros(N)))
    early = TIME / N * (WHEN - 2)
    missing(metric(risk, early, np.zeros(N)))  # everybody is censored before the horizon
    for t, e in ((1.0, 1), (1.0, 0), (9.0, 1), (9.0, 0)):
        told(metric(np.array([0.3]), [t], [e]))
    missing(metric(np.array([0.3]), [1.0], [0]))


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str) -> None:
    metric, perfect, turned, _ = NUMBERS[name]
    assert metric(TIME, TIME) == pytest.approx(perfect)
    assert turned is None or metric(TIME, TIME[::-1]) == pytest.approx(turned)
    told(metric(TIME, np.full(N, 3.0)))
    told(metric(np.full(N, 3.0), TIME))
    told(metric([1.0], np.array([2.0])))
    missing(metric(TIME, np.where(TIME == 3, NAN, TIME)))
    missing(metric([], np.zeros(0)))
    missing(metric(np.full(N, NAN), TIME))


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (lambda: c.sensitivity([0, 1], [0.1, 0.9], NAN), "threshold"),
        (lambda: c.specificity([0, 1], [0.1, 0.9], NAN), "threshold"),
        (lambda: rg.restricted_mean([1, 2, 3], [1, 1, 0], -1), "horizon"),
        (lambda: rg.restricted_mean([1, 2, 3], [1, 1, 0], NAN), "horizon"),
        (lambda: rg.restricted_mean([1, 2, 3], [1, 1, 0], 4), "followed"),
        (lambda: rg.restricted_mean([], [], 3), "no patients"),
        (lambda: rg.restricted_mean_difference(([1, 2], [1, 1]), ([], []), 1), "no patients"),
        (lambda: rg.median_survival([], []), "no patients"),
        (lambda: rg.median_survival([1, 2], [0, 0]), "fewer than half"),
        (lambda: rg.maximally_selected([1, 2, 3, 4], [5, 5, 5, 5], [1, 1, 1, 1]), "alike"),
        (lambda: rg.maximally_selected([1, 2, 3, 4], [1, 5, 5, 5], [0, 1, 1, 1]), "alike"),
        (lambda: rg.maximally_selected([NAN, NAN], [1, 2], [1, 1]), "no event"),
        (lambda: rg.maximally_selected([], [], []), "no event"),
        (lambda: rg.hazard_ratios([0, 1], [1, 2], [0, 0])[0], "no event"),
        (lambda: s.log_rank([], [], [])[0], "group"),
        (lambda: s.log_rank([1, 2], [1, 1], [0, NAN])[0], "one group only"),
        (lambda: s.log_rank([1, 2], [0, 0], [0, 1])[0], "no event"),
        (lambda: follow_up([], []).median, "no patient"),
        (lambda: follow_up([1, 2], [1, 1]).median, "fewer than half"),
    ],
)
def test_what_has_no_value_says_why(made: Callable[[], Any], word: str) -> None:
    missing(made())
    assert word in made().reason


def test_nobody_followed_to_the_horizon_is_no_perfect_score() -> None:
    """The patient seen last is seen beyond it, or had the event: else what became of the others is not known."""
    for e, why in (([0, 0, 0], "nobody"), ([1, 0, 0], "nobody"), ([1, 1, 0], "nobody")):
        made = s.brier([0.5, 0.5, 0.5], [1, 2, 3], e, 5.0, G)
        missing(made)
        assert why in made.reason
        assert "5" in made.reason
        missing(s.integrated_brier(np.full((3, 2), 0.5), [1, 2, 3], e, [1.5, 5.0], G))
        missing(s.accuracy_index(np.full((3, 2), 0.5), [1, 2, 3], e, [1.5, 5.0], G, KM))
    assert s.brier([0.5], [1], [1], 5.0, G) == 0.25  # every state is known
    assert s.brier([0.5, 0.5], [1, 2], [0, 1], 5.0, G) == 0.125 / G.before(2.0)
    ended = s.censoring_curve([1, 2, 5], [0, 1, 0])  # G is 0 from 5 on
    missing(s.brier([0.5, 0.5], [1, 2], [0, 0], 5.0, ended))
    missing(s.brier([0.5], [9], [0], NAN, G))


def test_no_metric_weighs_beyond_the_training_follow_up() -> None:
    """Where G of the training patients ends above 0: Uno's C, AUC(t) and Brier(t) agree that it is not known later."""
    g = s.censoring_curve([1, 2, 3], [0, 0, 1])
    risk, time, event = [3, 2, 1], [2, 4, 5], [1, 1, 0]
    for made in (
        s.uno_c(risk, time, event, g, 4.5),
        s.uno_c(risk, time, event, s.censoring_curve([], []), 4.5),
        s.auc_at(risk, time, event, 4.5, g),
        s.brier([0.5] * 3, time, event, 4.5, g),
    ):
        missing(made)
        assert "followed" in made.reason
    assert s.uno_c(risk, time, event, g, 4.0) == 1  # the event at 4 does not count
    assert s.uno_c(risk, time, [1, 0, 0], g, np.inf) == 1  # no event lies beyond


def test_unknown_groups_are_left_out_and_unknown_risks_have_none() -> None:
    time, event, group = [1, 2, 3, 4, 5], [1, 1, 1, 1, 1], [0, 1, 0, 1, NAN]
    assert s.log_rank(time, event, group) == s.log_rank(time[:4], event[:4], group[:4])
    strata = [0, 0, 0, 0, NAN]
    assert s.log_rank(time, event, [0, 1, 0, 1, 1], strata) == s.log_rank(time[:4], event[:4], group[:4], strata[:4])
    assert rg.groups_of([NAN, 1, 9], [3]).tolist() == [-1, 0, 1]
    assert rg.groups_of([1, 9], [NAN]).tolist() == [-1, -1]


def test_net_benefit_without_a_probability_is_nan() -> None:
    assert np.isnan(net_benefit([0, 1], [NAN, 0.5], [0.2])).all()
    assert np.isnan(net_benefit([], [], [0.2])).all()
    assert np.isnan(net_benefit_at([NAN, 0.5], [1, 2], [1, 0], 1.5, [0.2])).all()
    assert np.isnan(net_benefit_at([0.9, 0.9], [1, 2], [0, 0], 5, [0.2])).all()  # nobody is followed so far


def test_a_restricted_mean_without_end_is_the_mean() -> None:
    assert rg.restricted_mean([1, 3], [1, 1], np.inf).value == 2
