"""How long patients were followed: the reverse Kaplan-Meier curve, its median and the interval of the median."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import kaplan_meier


@dataclass(frozen=True)
class FollowUp:
    """Median follow-up with its 95 % interval, in the unit of the times; NaN where a limit is not reached."""

    median: Score  # NaN with the reason where the curve does not fall to a half
    lo: float
    hi: float
    observed: float  # the plain median of the times: what is left where nobody is censored
    patients: int
    events: int


def follow_up(time: ArrayLike, event: ArrayLike) -> FollowUp:
    """Follow-up by reverse Kaplan-Meier (Schemper and Smith, Controlled Clinical Trials, 1996).

    time: [n] any unit; event: [n], 0 = censored, 1 = happened, 2, 3, ... = another cause; NaN = left out. Whatever
    happened ends the follow-up before a censoring could; `events` counts the first cause. The interval holds the times
    at which the log-log band of the curve covers a half (Brookmeyer and Crowley, Biometrics, 1982). Events at a tied
    time leave after those who were censored.

    >>> float(follow_up(time=[1, 2, 3, 4, 5, 6, 7], event=[1, 0, 1, 0, 1, 0, 1]).median)
    6.0
    """
    t, e = np.asarray(time, dtype=float), np.asarray(event, dtype=float)
    known = ~(np.isnan(t) | np.isnan(e))
    t, e = t[known], e[known]
    if len(t) == 0:
        return FollowUp(Score.missing("no patient with a known time"), math.nan, math.nan, math.nan, 0, 0)
    curve = kaplan_meier(t, (e == 0) * 1.0)
    median = first_half(curve.time, curve.value)
    score = Score(median) if not math.isnan(median) else Score.missing("fewer than half were censored by the last time")
    lo, hi = first_half(curve.time, curve.lo), first_half(curve.time, curve.hi)
    return FollowUp(score, lo, hi, float(np.median(t)), len(t), int((e == 1).sum()))


def first_half(time: np.ndarray, value: np.ndarray) -> float:
    """The first time at which the curve is at most a half (rounding of the product aside), NaN where it never is."""
    with np.errstate(invalid="ignore"):
        below = np.flatnonzero(value <= 0.5 + 1e-9)
    return float(time[below[0]]) if len(below) else math.nan
