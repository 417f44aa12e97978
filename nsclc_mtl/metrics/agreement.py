"""Agreement of repeated measurements: the intraclass correlation with its interval."""

from __future__ import annotations

import numpy as np
from scipy import stats


def icc_consistency(values: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ICC(3,1) with the lower and upper bound of its interval, each [feature], of values [feature, subject, rater].

    Two-way mixed effects, consistency, single measurement: (MSR - MSE) / (MSR + (k - 1) MSE). Shrout & Fleiss, Psychol
    Bull 86 (1979) 420, case 3; the interval is that of McGraw & Wong, Psychol Methods 1 (1996) 30, ICC(C,1).
    A constant offset of one rater (an eroded volume is always smaller) is no disagreement. NaN where a value is
    missing, where there are fewer than 3 subjects or 2 raters, and where nothing varies.

    >>> ratings = np.array([[[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]])
    >>> [round(float(x[0]), 2) for x in icc_consistency(ratings)]
    [0.71, 0.34, 0.95]
    """
    values = np.asarray(values, dtype=float)
    features, n, k = values.shape
    nothing = np.full(features, np.nan)
    if n < 3 or k < 2:
        return nothing, nothing.copy(), nothing.copy()
    centred = values - values.mean(axis=(1, 2), keepdims=True)  # volumes of 1e5 must not eat the digits of the squares
    of_subjects, of_raters = centred.mean(axis=2), centred.mean(axis=1)
    rest = centred - of_subjects[:, :, None] - of_raters[:, None, :]
    between = k * np.square(of_subjects).sum(axis=1) / (n - 1)
    error = np.square(rest).sum(axis=(1, 2)) / ((n - 1) * (k - 1))
    scale = np.square(values).mean(axis=(1, 2))
    error = np.where(error < 1e-24 * scale, 0.0, error)  # what rounding leaves of nothing
    between = np.where(between < 1e-24 * scale, 0.0, between)
    with np.errstate(divide="ignore", invalid="ignore"):
        icc = (between - error) / (between + (k - 1) * error)
        ratio = between / error
        tail = 1 - (1 - level) / 2
        low = ratio / stats.f.ppf(tail, n - 1, (n - 1) * (k - 1))
        high = ratio * stats.f.ppf(tail, (n - 1) * (k - 1), n - 1)
        bounds = [np.where(np.isposinf(ratio), 1.0, (f - 1) / (f + k - 1)) for f in (low, high)]
    return icc, bounds[0], bounds[1]
