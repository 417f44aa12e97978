"""Brier score of survival at a time, its average over times, and what it gains on Kaplan-Meier.

survival: predicted probability to be event-free. time: [n] follow-up, any unit, the same everywhere. event: [n],
1 = happened, 0 = censored. A patient whose time or event is NaN is left out.

Patients who are censored before the horizon have no weight; those who had the event, or are seen beyond it, stand for
them by 1/G. That needs somebody to stand for them: if the patient seen last was censored by the horizon, nothing says
whether he and those like him outlived it, and what is left of the sum judges the dead alone (or nobody, which would
look like a perfect 0). So there is a score only where the patient seen last is seen beyond the horizon or had the
event. By G of the very patients these are the cases in which the weights add up to their number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nsclc_mtl.metrics.kaplan_meier import Curve, known_outcomes
from nsclc_mtl.metrics.score import Score


def graf_weights(time: np.ndarray, event: np.ndarray, when: float, censoring: Curve) -> np.ndarray | Score:
    """What each patient weighs in the Brier score at `when` [n]; or why it cannot be had.

    1/G(T-) for events until then, 1/G(t) for those seen alive after, 0 for those censored before. By G of these very
    patients the weights add up to n. None where the patient seen last was censored by then.
    """
    dead = (time <= when) & (event == 1)
    alive = time > when
    g_dead, g_now = censoring.before(time), float(censoring.at(when))
    if len(censoring.time) == 0 or not when <= censoring.time[-1]:
        return Score.missing(f"no training patient is followed up to {when:g}")
    if not alive.any() and not time[dead].max(initial=-np.inf) > time[event == 0].max(initial=-np.inf):
        return Score.missing(f"nobody who is judged is followed up to {when:g}")
    if (alive.any() and g_now <= 0) or (g_dead[dead] <= 0).any():
        return Score.missing(f"censoring weights are infinite at {when:g}")
    return np.where(dead, 1 / np.where(g_dead > 0, g_dead, 1), np.where(alive, 1 / (g_now or 1), 0.0))


def brier_terms(
    survival: np.ndarray, time: np.ndarray, event: np.ndarray, when: float, censoring: Curve
) -> np.ndarray | Score:
    """What each patient adds to the Brier score at `when` [n]; or why it cannot be had.

    Graf's weights (Statistics in Medicine, 1999): 1/G(T-) for events until then, 1/G(t) for those seen alive after,
    0 for those censored before: unknown, not negative. survival: [n] predicted S(when).
    """
    if np.isnan(survival).any():
        return Score.missing(f"{int(np.isnan(survival).sum())} of {len(survival)} survival probabilities are NaN")
    weight = graf_weights(time, event, when, censoring)
    return weight if isinstance(weight, Score) else np.asarray(weight * (survival - (time > when)) ** 2)


def brier(survival: ArrayLike, time: ArrayLike, event: ArrayLike, when: float, censoring: Curve) -> Score:
    """IPCW Brier score of S(when): 0 = perfect. survival: [n] predicted probability to be event-free at `when`."""
    t, e, s = known_outcomes(time, event, survival)
    if len(t) == 0:
        return Score.missing("no patients")
    terms = brier_terms(s, t, e, when, censoring)
    return terms if isinstance(terms, Score) else Score(float(terms.mean()))


def integrated_brier_terms(
    survival: np.ndarray, time: np.ndarray, event: np.ndarray, grid: np.ndarray, censoring: Curve
) -> np.ndarray | Score:
    """What each patient adds to the Brier score averaged over the grid [n] (trapezoid rule). survival: [n, grid]."""
    if len(grid) < 2:
        return Score.missing("fewer than two times")
    terms = []
    for k, when in enumerate(grid):
        one = brier_terms(survival[:, k], time, event, float(when), censoring)
        if isinstance(one, Score):
            return one
        terms.append(one)
    steps = np.diff(grid)
    stacked = np.stack(terms, axis=1)
    return np.asarray(((stacked[:, 1:] + stacked[:, :-1]) / 2 @ steps) / steps.sum())


def integrated_brier(
    survival: ArrayLike, time: ArrayLike, event: ArrayLike, grid: ArrayLike, censoring: Curve
) -> Score:
    """IPCW Brier score averaged over the times of the grid. survival: [n, grid] predicted S at each of them."""
    t, e, s = known_outcomes(time, event, survival)
    if len(t) == 0:
        return Score.missing("no patients")
    terms = integrated_brier_terms(s, t, e, np.asarray(grid, dtype=float), censoring)
    return terms if isinstance(terms, Score) else Score(float(terms.mean()))


def accuracy_index(
    survival: ArrayLike, time: ArrayLike, event: ArrayLike, grid: ArrayLike, censoring: Curve, reference: Curve
) -> Score:
    """Index of prediction accuracy: 1 - IBS / IBS of a Kaplan-Meier curve; 0 = no better than it, below 0 = worse.

    Graf et al., 1999 (as R^2); Kattan and Gerds, Diagn Progn Res, 2018. With one time it is that of the Brier score.
    The reference is the curve of the TRAINING patients, which a model has to beat on new patients;
    `riskRegression::Score` takes the curve of the very patients that are judged, which knows more than a model may.
    survival: [n, grid] predicted S. reference: `kaplan_meier` of the training patients.
    """
    t, e, s = known_outcomes(time, event, survival)
    days = np.asarray(grid, dtype=float)
    if len(t) == 0:
        return Score.missing("no patients")
    both = []
    for curves in (s, np.tile(reference.at(days), (len(t), 1))):
        if len(days) == 1:
            terms = brier_terms(curves[:, 0], t, e, float(days[0]), censoring)
        else:
            terms = integrated_brier_terms(curves, t, e, days, censoring)
        if isinstance(terms, Score):
            return terms
        both.append(float(terms.mean()))
    return Score(1 - both[0] / both[1]) if both[1] > 0 else Score.missing("the Kaplan-Meier curve makes no error")
