"""Survival metrics: concordance, Kaplan-Meier, log-rank, Brier score and AUC at a time.

time: [n] follow-up, any unit, the same everywhere. event: [n], 1 = happened, 0 = censored. risk: [n], higher = worse.
A patient whose time or event is NaN is left out.

Tied times: an event and a censoring at the same time are comparable (the censored patient is known to have outlived the
event); two events at the same time are not. Ties in risk count 1/2. That is the rule of R's survival::concordance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nsclc_mtl.metrics.score import Score

_ROWS = 1024  # events compared with everybody at a time: bounds memory at any cohort size


def _arrays(time: ArrayLike, event: ArrayLike, *others: ArrayLike) -> tuple[np.ndarray, ...]:
    """Float arrays without the patients whose outcome is unknown."""
    t, e = np.asarray(time, dtype=float), np.asarray(event, dtype=float)
    rest = [np.asarray(o, dtype=float) for o in others]
    if any(len(o) != len(t) for o in [e, *rest]):
        raise ValueError(f"lengths differ: {len(t)} times, {[len(o) for o in [e, *rest]]} others")
    keep = ~(np.isnan(t) | np.isnan(e))
    if not np.isin(e[keep], (0, 1)).all():
        raise ValueError("event is 1 (happened) or 0 (censored)")
    return (t[keep], e[keep], *[o[keep] for o in rest])


def comparable(time: np.ndarray, event: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Which pairs can be compared: [i, j] true where i had the event before j was last seen. bool [rows, n]."""
    rows = np.arange(len(time)) if rows is None else rows
    ti = time[rows][:, None]
    later = (time > ti) | ((time == ti) & (event == 0))
    return np.asarray(later & (event[rows] == 1)[:, None])


def _concordance(risk: np.ndarray, time: np.ndarray, event: np.ndarray, weight: np.ndarray | None) -> Score:
    if len(time) == 0:
        return Score.missing("no patients")
    if np.isnan(risk).any():
        return Score.missing(f"{int(np.isnan(risk).sum())} of {len(risk)} risks are NaN")
    if not event.any():
        return Score.missing(f"no event among {len(time)} patients")
    first = np.flatnonzero(event == 1)
    won = pairs = 0.0
    for start in range(0, len(first), _ROWS):
        rows = first[start : start + _ROWS]
        able = comparable(time, event, rows)
        higher = risk[rows][:, None] > risk
        equal = risk[rows][:, None] == risk
        w = np.ones(len(rows)) if weight is None else weight[rows]
        won += float(w @ ((able & higher).sum(axis=1) + 0.5 * (able & equal).sum(axis=1)))
        pairs += float(w @ able.sum(axis=1))
    if pairs == 0:
        return Score.missing("no comparable pair")
    return Score(won / pairs)


def c_index(risk: ArrayLike, time: ArrayLike, event: ArrayLike) -> Score:
    """Harrell's concordance: share of comparable pairs in which the earlier event had the higher risk. Exact.

    >>> c_index(risk=[3, 2, 1], time=[1, 2, 3], event=[1, 1, 1])
    Score(1.0)
    """
    t, e, r = _arrays(time, event, risk)
    return _concordance(r, t, e, None)


def uno_c(risk: ArrayLike, time: ArrayLike, event: ArrayLike, censoring: Curve, tau: float) -> Score:
    """Uno's concordance up to `tau`: pairs weighted 1/G(t-)^2 (Statistics in Medicine, 2011).

    Ours: events before tau count, one at tau does not (Uno's equation 6); G is that just before the event, because who
    has it is still under observation; pairs and ties in risk are those of Harrell's C. R's
    `survival::concordance(timewt="n/G2")` is the same but for the end (its `ymax` counts events at tau too);
    scikit-survival weighs by G(t), which differs where an event and a censoring share a time.
    censoring: the curve G of `censoring_curve`, from training patients; one tau for all models that are compared.
    """
    t, e, r = _arrays(time, event, risk)
    weight = uno_weights(t, e, censoring, tau)
    return weight if isinstance(weight, Score) else _concordance(r, t, e, weight)


def uno_weights(time: np.ndarray, event: np.ndarray, censoring: Curve, tau: float) -> np.ndarray | Score:
    """1/G(t-)^2 of every event before `tau`, 0 of everybody else [n]; or why Uno's C cannot be had."""
    inside = (event == 1) & (time < tau)
    if not inside.any():
        return Score.missing(f"no event before {tau:g}")
    g = censoring.before(time)
    if (g[inside] <= 0).any():
        return Score.missing("an event lies beyond the last censoring time of the training patients")
    return np.where(inside, 1 / np.where(g > 0, g, 1) ** 2, 0.0)


@dataclass(frozen=True)
class Curve:
    """A step function that starts at 1: Kaplan-Meier, with its band where asked for."""

    time: np.ndarray  # float [step], ascending
    value: np.ndarray  # float [step], value from this time on
    lo: np.ndarray  # float [step], 95 % band
    hi: np.ndarray
    at_risk: np.ndarray  # int [step], under observation just before

    def at(self, when: ArrayLike) -> np.ndarray:
        """Value at the times asked for (right-continuous). float [n]."""
        where = np.searchsorted(self.time, np.asarray(when, dtype=float), side="right")
        return np.asarray(np.r_[1.0, self.value][where])

    def before(self, when: ArrayLike) -> np.ndarray:
        """Value just before the times asked for (left limit). float [n]."""
        where = np.searchsorted(self.time, np.asarray(when, dtype=float), side="left")
        return np.asarray(np.r_[1.0, self.value][where])


def kaplan_meier(time: ArrayLike, event: ArrayLike) -> Curve:
    """Survival curve with its 95 % band: Greenwood's variance on the log-log scale (Kalbfleisch and Prentice).

    The band is NaN where it is not defined (survival still 1, or already 0).

    >>> kaplan_meier([1, 2, 3, 4], [1, 0, 1, 0]).value.tolist()
    [0.75, 0.75, 0.375, 0.375]
    """
    t, e = _arrays(time, event)
    steps, which = np.unique(t, return_inverse=True)
    deaths = np.bincount(which, weights=e, minlength=len(steps))
    leaving = np.bincount(which, minlength=len(steps))
    at_risk = len(t) - np.r_[0, np.cumsum(leaving)[:-1]] if len(steps) else np.zeros(0, dtype=int)
    value = np.cumprod(1 - deaths / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(deaths / (at_risk * (at_risk - deaths)))
        log = np.log(value)
        half = 1.959963984540054 * np.sqrt(greenwood) / np.abs(log)
        lo, hi = value ** np.exp(half), value ** np.exp(-half)
    undefined = (value >= 1) | (value <= 0)
    lo[undefined] = hi[undefined] = np.nan
    return Curve(steps, value, lo, hi, at_risk.astype(int))


def censoring_curve(time: ArrayLike, event: ArrayLike) -> Curve:
    """G(t), the probability of not being censored by t, by reverse Kaplan-Meier.

    At a tied time events come first: who had the event at t is not under risk of being censored at t.
    """
    t, e = _arrays(time, event)
    steps, which = np.unique(t, return_inverse=True)
    deaths = np.bincount(which, weights=e, minlength=len(steps))
    leaving = np.bincount(which, minlength=len(steps)).astype(float)
    at_risk = len(t) - np.r_[0.0, np.cumsum(leaving)[:-1]] - deaths if len(steps) else np.zeros(0)
    censored = leaving - deaths
    value = np.cumprod(1 - np.divide(censored, at_risk, out=np.zeros_like(at_risk), where=at_risk > 0))
    blank = np.full(len(steps), np.nan)
    return Curve(steps, value, blank, blank.copy(), at_risk.astype(int))


def log_rank(time: ArrayLike, event: ArrayLike, group: ArrayLike, strata: ArrayLike | None = None) -> tuple[Score, int]:
    """Log-rank chi-square and its degrees of freedom (groups - 1). group: [n] of any numbers.

    Mantel's form with hypergeometric variance. strata: [n] of any numbers; patients are compared within their stratum
    alone, and what is observed, expected and its variance are summed over the strata. No P value here: risk groups of a
    cross-validated model are not independent of the outcome, so the chi-square table does not hold for them.
    """
    t, e, g, s = _arrays(time, event, group, np.zeros(len(np.asarray(time))) if strata is None else strata)
    names, member = np.unique(g, return_inverse=True)
    if len(names) < 2:
        return Score.missing("one group only"), 0
    if not e.any():
        return Score.missing("no event"), len(names) - 1
    one_hot = np.eye(len(names))[member]
    excess = np.zeros(len(names))
    variance = np.zeros((len(names), len(names)))
    for stratum in np.unique(s):
        inside = s == stratum
        for when in np.unique(t[inside & (e == 1)]):
            risk = one_hot[inside & (t >= when)].sum(axis=0)
            dead = one_hot[inside & (t == when) & (e == 1)].sum(axis=0)
            n, d = risk.sum(), dead.sum()
            share = risk / n
            excess += dead - d * share
            if n > 1:
                variance += d * (n - d) / (n - 1) * (np.diag(share) - np.outer(share, share))
    if not variance.any():
        return Score.missing("no stratum holds two groups at risk"), len(names) - 1
    chi = excess[:-1] @ np.linalg.pinv(variance[:-1, :-1]) @ excess[:-1]
    return Score(float(chi)), len(names) - 1


def graf_weights(time: np.ndarray, event: np.ndarray, when: float, censoring: Curve) -> np.ndarray | Score:
    """What each patient weighs in the Brier score at `when` [n]; or why it cannot be had.

    1/G(T-) for events until then, 1/G(t) for those seen alive after, 0 for those censored before. By G of these very
    patients the weights add up to n, as long as G(t) > 0.
    """
    dead = (time <= when) & (event == 1)
    alive = time > when
    g_dead, g_now = censoring.before(time), float(censoring.at(when))
    if len(censoring.time) == 0 or when > censoring.time[-1]:
        return Score.missing(f"no training patient is followed up to {when:g}")
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
    weight = graf_weights(time, event, when, censoring)
    return weight if isinstance(weight, Score) else np.asarray(weight * (survival - (time > when)) ** 2)


def brier(survival: ArrayLike, time: ArrayLike, event: ArrayLike, when: float, censoring: Curve) -> Score:
    """IPCW Brier score of S(when): 0 = perfect. survival: [n] predicted probability to be event-free at `when`."""
    t, e, s = _arrays(time, event, survival)
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
    t, e, s = _arrays(time, event, survival)
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
    t, e, s = _arrays(time, event, survival)
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


def auc_at(risk: ArrayLike, time: ArrayLike, event: ArrayLike, when: float, censoring: Curve) -> Score:
    """AUC of events until `when` against patients seen event-free after it, events weighted 1/G(T-).

    Cumulative/dynamic definition (Uno et al., JASA, 2007; Hung and Chiang, 2010). Censored before `when`: left out.
    """
    t, e, r = _arrays(time, event, risk)
    dead, alive = (t <= when) & (e == 1), t > when
    if not dead.any() or not alive.any():
        return Score.missing(f"{int(dead.sum())} events until {when:g} and {int(alive.sum())} patients beyond")
    if len(censoring.time) == 0 or when > censoring.time[-1]:  # G of the last day is not that of later ones
        return Score.missing(f"no training patient is followed up to {when:g}")
    g = censoring.before(t[dead])
    if (g <= 0).any():
        return Score.missing(f"censoring weights are infinite at {when:g}")
    won = (r[dead][:, None] > r[alive]).mean(axis=1) + 0.5 * (r[dead][:, None] == r[alive]).mean(axis=1)
    return Score(float((won / g).sum() / (1 / g).sum()))
