"""Restricted mean survival time: the area under a Kaplan-Meier curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import _arrays, kaplan_meier


def restricted_mean(time: ArrayLike, event: ArrayLike, tau: float) -> tuple[Score, Score]:
    """Mean survival time up to `tau` and its standard error: the area under the Kaplan-Meier curve (Irwin, 1949).

    The error is Greenwood's, sum over the event times of (area from there to tau)^2 d / (n (n - d)), as `survfit` of R
    prints it; a time at which everybody left dies adds nothing. NaN where the curve is not known up to tau, because the
    last patient was censored before.

    >>> restricted_mean([1, 2, 3, 4], [1, 0, 1, 0], 3)[0]
    Score(2.5)
    """
    t, e = _arrays(time, event)
    if len(t) == 0 or not tau > 0:
        none = Score.missing("no patients" if len(t) == 0 else f"no time until {tau:g}")
        return none, none
    curve = kaplan_meier(t, e)
    if tau > curve.time[-1] and curve.value[-1] > 0:
        none = Score.missing(f"nobody is followed up to {tau:g}: the last patient was censored at {curve.time[-1]:g}")
        return none, none
    inside = curve.time < tau
    when, value = curve.time[inside], curve.value[inside]
    pieces = np.diff(np.r_[0.0, when, tau]) * np.r_[1.0, value]
    after = np.cumsum(pieces[::-1])[::-1][1:]  # from each step to tau
    n = curve.at_risk[inside].astype(float)
    d = np.bincount(np.searchsorted(when, t[(e == 1) & (t < tau)]), minlength=len(when))
    left = n - d
    variance = np.sum(np.where(left > 0, after**2 * d / (n * np.where(left > 0, left, 1)), 0.0))
    return Score(float(pieces.sum())), Score(float(np.sqrt(variance)))
