"""Whether inputs have moved since training: standardised differences, Kolmogorov-Smirnov's distance, the population
stability index, all against summaries of the training patients, who need not be at hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

LEAST = 20  # training patients of a column below which nothing of it is kept, and new ones below which nothing is said
LEVELS = np.arange(1, 10) / 10
"""Levels of the quantiles that are kept of a column: no extreme value, which would be a patient's own."""


def deciles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nine deciles of each column, [level, column], and the share of the values that do not exceed them.

    values: float [patient, column], NaN where not measured. With ties the shares are larger than the levels. Columns of
    fewer than `LEAST` values are NaN.
    """
    known = np.isfinite(values)
    enough = known.sum(0) >= LEAST
    at, below = np.full((2, len(LEVELS), values.shape[1]), np.nan)
    if enough.any():
        at[:, enough] = np.nanquantile(np.where(known, values, np.nan)[:, enough], LEVELS, axis=0)
        # summaries are kept with few digits; the share is that of what is kept
        at[:, enough] = rounded(at[:, enough])
        below[:, enough] = share_below(values[:, enough], at[:, enough])
    return at, below


def share_below(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Share of the measured values [patient, column] that do not exceed `at` [level, column]; [level, column]."""
    known = np.isfinite(values).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([(values <= level).sum(0) / known for level in at])


def rounded(values: np.ndarray, digits: int = 5) -> np.ndarray:
    """The values at so many significant digits."""
    with np.errstate(divide="ignore", invalid="ignore"):
        power = 10.0 ** (digits - 1 - np.floor(np.log10(np.abs(values))))
    power = np.where(np.isfinite(power), power, 1.0)
    return np.round(values * power) / power


def standardised_difference(values: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Mean of the measured values minus that of training, in SD of training (Glass's delta), [column].

    NaN where fewer than `LEAST` values are measured, or where training had no spread.

    >>> standardised_difference(np.full((20, 1), 3.0), np.array([1.0]), np.array([2.0]))
    array([1.])
    """
    known = np.isfinite(values)
    count = known.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = (np.where(known, values, 0.0).sum(0) / count - mean) / sd
    return np.where((count >= LEAST) & (sd > 1e-9), gap, np.nan)


def distance(values: np.ndarray, at: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Kolmogorov-Smirnov's distance of each column to training, looked at where the training deciles lie, [column].

    A lower bound of the distance between both samples. at, below: of `deciles`. NaN where either side has fewer than
    `LEAST` values.
    """
    gap = np.abs(share_below(values, at) - below).max(axis=0)
    return np.where(np.isfinite(values).sum(0) >= LEAST, gap, np.nan)


def stability(
    values: np.ndarray, at: np.ndarray, below: np.ndarray, trained: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Population stability index of each column [column], and what it is on average where nothing moved [column].

    Bins lie between the training deciles. values: float [patient, column], NaN where not measured. at, below: of
    `deciles`; deciles that ties made one bound no bin. trained: training patients who were measured, [column]. NaN
    where either side has fewer than `LEAST` values. See `index`.
    """
    known = np.isfinite(values).sum(0)
    before = np.asarray(trained, dtype=float)
    shares = [np.diff(np.r_[np.zeros((1, s.shape[1])), s, np.ones((1, s.shape[1]))], axis=0)
              for s in (share_below(values, at), below)]  # fmt: skip
    now, then = (np.rint(share * n) for share, n in zip(shares, (known, before), strict=True))
    told, usual = index(now, then)
    enough = (known >= LEAST) & np.isfinite(at).all(0) & (before >= LEAST)
    return np.where(enough, told, np.nan), np.where(enough, usual, np.nan)


def index(now: np.ndarray, then: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Population stability index of counts [bin, ...], and its mean where both are draws from one distribution.

    The sum over the bins of (q - p) ln(q / p), p the share in training and q the share now (Siddiqi, "Credit risk
    scorecards", 2006), which is Jeffreys' divergence. Half a patient is added to each bin of both sides, so that an
    empty one gives a finite number; bins that are empty on both sides are none. By convention below .1 is called
    stable and .25 or more moved: that fits thousands of patients. Where nothing moved its mean is about
    (bins - 1)(1/n + 1/m) for n and m patients (Yurdakul and Naranjo, Journal of Risk Model Validation, 2020): with ten
    bins and 40 patients against 100 that is .32.

    >>> tuple(float(v.round(3)) for v in index(np.array([20, 20]), np.array([20, 20])))
    (0.0, 0.05)
    """
    there = (now + then) > 0
    bins = there.sum(0)
    n, m = now.sum(0), then.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        q, p = (now + 0.5) / (n + bins / 2), (then + 0.5) / (m + bins / 2)
        return np.where(there, (q - p) * np.log(q / p), 0.0).sum(0), (bins - 1) * (1 / n + 1 / m)


def chance(
    difference: np.ndarray, n: Sequence[float] | np.ndarray, trained: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Two-sided P of a standardised difference, were there none: normal, of means of n and of `trained` patients."""
    with np.errstate(divide="ignore"):  # of nobody there is no difference
        z = np.abs(difference) / np.sqrt(1 / np.asarray(n, float) + 1 / np.asarray(trained, float))
    return 2 * ndtr(-z)


def chance_of_shares(now: float, before: float, n: int, trained: int) -> float:
    """Two-sided P of two shares of n and of `trained` patients, were they one: normal, pooled.

    >>> chance_of_shares(0.5, 0.5, 10, 10)
    1.0
    """
    if now == before or not n or not trained:
        return 1.0
    pooled = (now * n + before * trained) / (n + trained)
    return float(2 * ndtr(-abs(now - before) / np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / trained))))
