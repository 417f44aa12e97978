"""Survival metrics: concordance, Kaplan-Meier, log-rank, Brier score and AUC at a time.

time: [n] follow-up, any unit, the same everywhere. event: [n], 1 = happened, 0 = censored. risk: [n], higher = worse.
A patient whose time or event is NaN is left out.

Tied times: an event and a censoring at the same time are comparable (the censored patient is known to have outlived the
event); two events at the same time are not. Ties in risk count 1/2. That is the rule of R's survival::concordance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

# curves and Brier scores can be had from here too
from nsclc_mtl.metrics.kaplan_meier import Curve as Curve
from nsclc_mtl.metrics.kaplan_meier import censoring_curve as censoring_curve
from nsclc_mtl.metrics.kaplan_meier import kaplan_meier as kaplan_meier
from nsclc_mtl.metrics.kaplan_meier import known_outcomes
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival_brier import accuracy_index as accuracy_index
from nsclc_mtl.metrics.survival_brier import brier as brier
from nsclc_mtl.metrics.survival_brier import brier_terms as brier_terms
from nsclc_mtl.metrics.survival_brier import graf_weights as graf_weights
from nsclc_mtl.metrics.survival_brier import integrated_brier as integrated_brier
from nsclc_mtl.metrics.survival_brier import integrated_brier_terms as integrated_brier_terms

_ROWS = 1024  # events compared with everybody at a time: bounds memory at any cohort size


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
    t, e, r = known_outcomes(time, event, risk)
    return _concordance(r, t, e, None)


def uno_c(risk: ArrayLike, time: ArrayLike, event: ArrayLike, censoring: Curve, tau: float) -> Score:
    """Uno's concordance up to `tau`: pairs weighted 1/G(t-)^2 (Statistics in Medicine, 2011).

    Ours: events before tau count, one at tau does not (Uno's equation 6); G is that just before the event, because who
    has it is still under observation; pairs and ties in risk are those of Harrell's C. R's
    `survival::concordance(timewt="n/G2")` is the same but for the end (its `ymax` counts events at tau too);
    scikit-survival weighs by G(t), which differs where an event and a censoring share a time. An event that counts
    beyond the last training patient's time has no weight, as in AUC(t) and Brier(t): G is not known there. With no
    such event `tau` may lie beyond it.
    censoring: the curve G of `censoring_curve`, from training patients; one tau for all models that are compared.
    """
    t, e, r = known_outcomes(time, event, risk)
    weight = uno_weights(t, e, censoring, tau)
    return weight if isinstance(weight, Score) else _concordance(r, t, e, weight)


def uno_weights(time: np.ndarray, event: np.ndarray, censoring: Curve, tau: float) -> np.ndarray | Score:
    """1/G(t-)^2 of every event before `tau`, 0 of everybody else [n]; or why Uno's C cannot be had."""
    inside = (event == 1) & (time < tau)
    if not inside.any():
        return Score.missing(f"no event before {tau:g}")
    late = time[inside].max()
    if late > censoring.time.max(initial=-np.inf):  # G of the last day is not that of later ones
        return Score.missing(f"no training patient is followed up to the event at {late:g}")
    g = censoring.before(time)
    if (g[inside] <= 0).any():
        return Score.missing("an event lies beyond the last censoring time of the training patients")
    return np.where(inside, 1 / np.where(g > 0, g, 1) ** 2, 0.0)


def log_rank(time: ArrayLike, event: ArrayLike, group: ArrayLike, strata: ArrayLike | None = None) -> tuple[Score, int]:
    """Log-rank chi-square and its degrees of freedom (groups - 1). group: [n] of any numbers, NaN = left out.

    Mantel's form with hypergeometric variance. strata: [n] of any numbers, NaN = left out; patients are compared within
    their stratum alone, and what is observed, expected and its variance are summed over the strata. No P value here:
    risk groups of a cross-validated model are not independent of the outcome, so the chi-square table does not hold.
    """
    t, e, g, s = known_outcomes(time, event, group, np.zeros(len(np.asarray(time))) if strata is None else strata)
    known = ~(np.isnan(g) | np.isnan(s))
    t, e, g, s = t[known], e[known], g[known], s[known]
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


def auc_at(risk: ArrayLike, time: ArrayLike, event: ArrayLike, when: float, censoring: Curve) -> Score:
    """AUC of events until `when` against patients seen event-free after it, events weighted 1/G(T-).

    Cumulative/dynamic definition (Uno et al., JASA, 2007; Hung and Chiang, 2010). Censored before `when`: left out.
    """
    t, e, r = known_outcomes(time, event, risk)
    if np.isnan(r).any():
        return Score.missing(f"{int(np.isnan(r).sum())} of {len(r)} risks are NaN")
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
