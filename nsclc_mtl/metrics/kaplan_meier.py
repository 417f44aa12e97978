"""Kaplan-Meier curves: of the event, and of the censoring.

time: [n] follow-up, any unit, the same everywhere. event: [n], 1 = happened, 0 = censored.
A patient whose time or event is NaN is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


def known_outcomes(time: ArrayLike, event: ArrayLike, *others: ArrayLike) -> tuple[np.ndarray, ...]:
    """Float arrays without the patients whose outcome is unknown."""
    t, e = np.asarray(time, dtype=float), np.asarray(event, dtype=float)
    rest = [np.asarray(o, dtype=float) for o in others]
    if any(len(o) != len(t) for o in [e, *rest]):
        raise ValueError(f"lengths differ: {len(t)} times, {[len(o) for o in [e, *rest]]} others")
    keep = ~(np.isnan(t) | np.isnan(e))
    if not np.isin(e[keep], (0, 1)).all():
        raise ValueError("event is 1 (happened) or 0 (censored)")
    return (t[keep], e[keep], *[o[keep] for o in rest])


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
    t, e = known_outcomes(time, event)
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
    t, e = known_outcomes(time, event)
    steps, which = np.unique(t, return_inverse=True)
    deaths = np.bincount(which, weights=e, minlength=len(steps))
    leaving = np.bincount(which, minlength=len(steps)).astype(float)
    at_risk = len(t) - np.r_[0.0, np.cumsum(leaving)[:-1]] - deaths if len(steps) else np.zeros(0)
    censored = leaving - deaths
    value = np.cumprod(1 - np.divide(censored, at_risk, out=np.zeros_like(at_risk), where=at_risk > 0))
    blank = np.full(len(steps), np.nan)
    return Curve(steps, value, blank, blank.copy(), at_risk.astype(int))
