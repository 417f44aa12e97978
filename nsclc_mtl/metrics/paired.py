"""What stands beside a paired difference: its P by bootstrap or repeated splits, and what could be shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.metrics.score import Score


@dataclass(frozen=True)
class Compared:
    """A difference with its interval and the two-sided P that it is 0."""

    difference: Interval
    p: Score


def bootstrap_p(draws: np.ndarray) -> Score:
    """Two-sided P of a paired difference from its bootstrap draws: twice the rarer side of 0, at most 1.

    By inverting the percentile interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, 15.4): below .05
    where the 95 % interval leaves out 0. One draw is added to either side (Davison and Hinkley, 1997, 4.11), so that P
    is never 0. NaN draws are left out. draws: [draw].

    >>> float(bootstrap_p(np.r_[np.full(99, 0.1), -0.1]))
    0.039603960396039604
    """
    good = draws[~np.isnan(draws)]
    if len(good) < max(20, len(draws) / 2):
        return Score.missing(f"only {len(good)} of {len(draws)} resamples have a value")
    if not good.any():  # the same model twice
        return Score(1.0)
    rarer = min(int((good <= 0).sum()), int((good >= 0).sum()))
    return Score(min(1.0, 2 * (rarer + 1) / (len(good) + 1)))


def standard_error(draws: np.ndarray) -> Score:
    """Standard deviation of the bootstrap draws; NaN draws are left out."""
    good = draws[~np.isnan(draws)]
    if len(good) < max(20, len(draws) / 2):
        return Score.missing(f"only {len(good)} of {len(draws)} resamples have a value")
    return Score(float(good.std(ddof=1)))


def smallest_difference(error: Score, power: float = 0.8, level: float = 0.95) -> Score:
    """The difference that a two-sided test at 1 - `level` would find with this power: (z + z) x standard error.

    It says what this cohort could have shown, not what was found.

    >>> round(float(smallest_difference(Score(0.01))), 5)
    0.02802
    """
    if not error.known:
        return error
    return Score(float((norm.ppf((1 + level) / 2) + norm.ppf(power)) * error))


def corrected_t(differences: Sequence[float], test_share: float, level: float = 0.95) -> Compared:
    """Mean difference over J random splits with the corrected resampled t-test of Nadeau and Bengio (2003).

    differences: one a split. test_share: n_test / n_train. The variance of the mean is (1/J + n_test/n_train) times the
    sample variance, with J - 1 degrees of freedom: training parts overlap, and 1/J alone would call differences real
    that are not. For splits drawn anew at random (or k folds dealt anew several times: Bouckaert and Frank, 2004), not
    for one partition into folds.

    >>> round(float(corrected_t([0.02, 0.01, 0.04, 0.00, 0.03], 0.25).p), 3)
    0.132
    """
    given = np.asarray([d for d in differences if not math.isnan(d)], dtype=float)
    nan = math.nan
    if len(given) < 2:
        reason = f"{len(given)} of {len(differences)} splits have a difference"
        return Compared(Interval(float(given.mean()) if len(given) else nan, nan, nan, reason), Score.missing(reason))
    mean, freedom = float(given.mean()), len(given) - 1
    error = math.sqrt((1 / len(given) + test_share) * float(given.var(ddof=1)))
    if error < 1e-15:
        reason = "the difference is the same in every split"
        p = Score(1.0) if abs(mean) < 1e-15 else Score.missing(reason)
        return Compared(Interval(mean, nan, nan, reason, agree=True), p)
    half = float(t.ppf((1 + level) / 2, freedom)) * error
    p = Score(float(2 * t.sf(abs(mean) / error, freedom)))
    return Compared(Interval(mean, mean - half, mean + half), p)
