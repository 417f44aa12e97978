"""Lower bounds of survival times: days that a patient outlives with a probability stated beforehand.

A bound is the day at which the predicted curve has fallen to 1 - level. The level is chosen on calibration patients so
that the share of those who die before their bound is what was promised. Who is censored before his bound may or may not
have died before it: deaths are weighted by the inverse probability of being uncensored until then, as Candes, Lei and
Ren ("Conformalized survival analysis", JRSS B 2023) do for censoring times that are known for everybody, and Davidov et
al. ("Conformalized survival analysis for general right-censored data", ICLR 2025) for those that are not.

G is Kaplan-Meier's, the same for all: censoring is assumed not to depend on what the model sees (administrative ends of
study do not; loss of the frail does). Without censoring this is split conformal prediction, exact for any n; with
censoring it holds for many patients, and as far as that assumption does.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import Curve
from nsclc_mtl.records import UsageFault
from nsclc_mtl.trust.survival_calibration import cumulative_hazard

_EDGE = 1e-12


def fit(
    curve: ArrayLike,
    days: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    censoring: Curve,
    miss: float,
    until: float = math.inf,
) -> dict[str, float]:
    """{level, n, events}: how far the predicted curve may fall (1 - S) before the bound is reached.

    curve: predicted S(t) [n, day] of the calibration patients. time, event: [n]. censoring: G, of training patients.
    until: day beyond which no bound goes, and where enough patients are still followed (`followed_until`).
    The level is the largest value a of 1 - S at the patients' own deaths for which the weighted number of deaths below
    a, and the one patient who is to be predicted with the largest of their weights, is at most miss x (n + that
    weight). 0 (a bound of day 0, which says nothing) where n is too small for `miss`. Raises UsageFault unless
    0 < miss < 1.
    """
    if not 0 < miss < 1:
        raise UsageFault(f"trust.miss={miss:g} is a share between 0 and 1")
    s, d = np.asarray(curve, dtype=float), np.asarray(days, dtype=float)
    t, e = np.asarray(time, dtype=float), np.asarray(event, dtype=float)
    last = min(float(d[-1]), until)
    dead = (e == 1) & (t < last)  # nobody's bound lies beyond the last day: who lives until then is never missed
    fallen = 1 - np.exp(-cumulative_hazard(s[dead], d, t[dead]))
    g = censoring.before(t[dead])
    weight = 1 / np.maximum(g, 1 / max(len(t), 1))  # one patient never counts for more than all
    order = np.argsort(fallen, kind="stable")
    fallen, weight = fallen[order], weight[order]
    level = 0.0
    end = 1 - float(np.exp(-cumulative_hazard(s, d, np.full(len(s), last)).max())) if len(s) else 0.0
    for a in [*np.unique(fallen), max(end, _EDGE)]:
        below = weight[fallen < a]
        heaviest = max(below.max(initial=1.0), 1.0)
        if below.sum() + heaviest > miss * (len(t) + heaviest) + 1e-9:
            break
        level = float(a)
    return {"level": level, "n": len(t), "events": int(dead.sum())}


def followed_until(time: ArrayLike, share: float = 0.1) -> float:
    """The day beyond which this share of the patients is still followed: later, weights and curves rest on too few.

    >>> followed_until(range(101))
    90.0
    """
    return float(np.quantile(np.asarray(time, dtype=float), 1 - share))


def bounds(curve: ArrayLike, days: ArrayLike, level: float, until: float = math.inf) -> np.ndarray:
    """The day until which S(t) stays above 1 - level, [n]; at most `until` and the last day of the curves.

    >>> bounds([[0.9, 0.5], [0.99, 0.98]], [100, 200], 0.1).round().tolist()
    [100.0, 200.0]
    """
    s, d = np.asarray(curve, dtype=float), np.asarray(days, dtype=float)
    wanted = -math.log(max(1 - level, _EDGE))
    steps = np.concatenate([np.zeros((len(s), 1)), -np.log(np.clip(s, _EDGE, 1.0))], axis=1)
    grid = np.concatenate([[0.0], d])
    out = np.full(len(s), grid[-1])
    reached = steps[:, 1:] >= wanted
    some = reached.any(axis=1)
    at = reached.argmax(axis=1)[some]
    rows = np.flatnonzero(some)
    low, high = steps[rows, at], steps[rows, at + 1]
    share = np.where(high > low, (wanted - low) / np.where(high > low, high - low, 1.0), 0.0)
    out[rows] = grid[at] + np.clip(share, 0, 1) * (grid[at + 1] - grid[at])
    return np.asarray(np.minimum(out, until))


def covered(bound: ArrayLike, time: ArrayLike, event: ArrayLike, censoring: Curve) -> np.ndarray | Score:
    """What each patient adds to the coverage, [n], whose mean estimates the share who outlive their bound.

    1, less 1/G(t-) for who died before his bound: a single term may be negative, and the mean above 1 never is.
    bound, time, event: [n]. A missing Score where a weight is infinite.
    """
    b, t, e = (np.asarray(x, dtype=float) for x in (bound, time, event))
    early = (e == 1) & (t < b)
    g = censoring.before(t)
    if (g[early] <= 0).any():
        return Score.missing("a death lies beyond the last censoring time of the training patients")
    return np.asarray(1.0 - np.where(early, 1 / np.where(g > 0, g, 1.0), 0.0))
