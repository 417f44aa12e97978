"""How well numbers are predicted: errors in the unit of the outcome, share of its variance, and rank correlation.

Each metric is also a `Measure`: a function of how often each patient was drawn, so that a bootstrap needs no loop.
value, said: known outcomes and predictions, [n].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nsclc_mtl.metrics.comparison import Measure, average
from nsclc_mtl.metrics.score import Score


def mae(value: ArrayLike, said: ArrayLike) -> Score:
    """Mean absolute error, in the unit of the outcome.

    >>> mae([1, 2, 4], [1, 3, 2])
    Score(1.0)
    """
    return _plain(value, said, absolute_error)


def rmse(value: ArrayLike, said: ArrayLike) -> Score:
    """Root of the mean squared error, in the unit of the outcome.

    >>> rmse([1, 2, 4], [1, 2, 1]) == 3 ** 0.5
    True
    """
    return _plain(value, said, squared_error_root)


def r2(value: ArrayLike, said: ArrayLike) -> Score:
    """Share of the outcome's variance that is explained, 1 - error / variance; negative where the mean does better.

    >>> r2([1, 2, 3], [1, 2, 3]), r2([1, 2, 3], [2, 2, 2])
    (Score(1.0), Score(0.0))
    """
    return _plain(value, said, explained, varied=True)


def spearman(value: ArrayLike, said: ArrayLike) -> Score:
    """Spearman's rank correlation, with midranks for ties; NaN where outcome or prediction does not vary.

    >>> round(spearman([1, 2, 3, 4], [2, 1, 4, 3]), 3)
    0.6
    """
    return _plain(value, said, rank_correlation, varied=True)


def absolute_error(value: np.ndarray, said: np.ndarray) -> Measure:
    """Mean absolute error."""
    return average(np.abs(value - said))


def squared_error_root(value: np.ndarray, said: np.ndarray) -> Measure:
    """Root of the mean squared error."""
    mean = average((value - said) ** 2)
    return lambda weights: np.sqrt(mean(weights))


def explained(value: np.ndarray, said: np.ndarray) -> Measure:
    """R2, against the mean of the patients as drawn."""
    centred = value - value.mean()  # so that large values keep their digits
    error = (value - said) ** 2

    def measure(weights: np.ndarray) -> np.ndarray:
        drawn = np.maximum(weights.sum(axis=1), 1e-12)
        spread = weights @ centred**2 - (weights @ centred) ** 2 / drawn
        tiny = 1e-12 * np.maximum(weights @ centred**2, 1e-300)
        return np.where(spread > tiny, 1 - (weights @ error) / np.where(spread > tiny, spread, 1), np.nan)

    return measure


def rank_correlation(value: np.ndarray, said: np.ndarray) -> Measure:
    """Spearman's correlation: ranks are taken anew among the patients as drawn."""
    first, second = _groups(value), _groups(said)

    def measure(weights: np.ndarray) -> np.ndarray:
        w = np.asarray(weights, float)
        total = np.maximum(w.sum(axis=1, keepdims=True), 1e-12)
        a, b = _midranks(w, first), _midranks(w, second)
        a -= (w * a).sum(axis=1, keepdims=True) / total
        b -= (w * b).sum(axis=1, keepdims=True) / total
        spread = np.sqrt((w * a**2).sum(axis=1) * (w * b**2).sum(axis=1))
        return np.divide((w * a * b).sum(axis=1), spread, out=np.full(len(w), np.nan), where=spread > 1e-12)

    return measure


def _groups(values: np.ndarray) -> np.ndarray:
    """Number of each patient's level, lowest first."""
    return np.unique(values, return_inverse=True)[1]


def _midranks(weights: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Midrank of every patient where each is drawn `weights` times, [draw, n]."""
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(level[order]) > 0])
    count = np.add.reduceat(weights[:, order], starts, axis=1)
    below = np.cumsum(count, axis=1) - count
    return np.asarray((below + (count + 1) / 2)[:, level])


def _plain(value: ArrayLike, said: ArrayLike, make: object, varied: bool = False) -> Score:
    y, p = np.asarray(value, float), np.asarray(said, float)
    if len(y) != len(p):
        raise ValueError(f"{len(y)} outcomes but {len(p)} predictions")
    known = ~np.isnan(y)
    y, p = y[known], p[known]
    if len(y) == 0:
        return Score.missing("no patients")
    if np.isnan(p).any():
        return Score.missing(f"{int(np.isnan(p).sum())} of {len(p)} predictions are NaN")
    if varied and np.ptp(y) == 0:
        return Score.missing("the outcome does not vary")
    found = float(make(y, p)(np.ones((1, len(y))))[0])  # type: ignore[operator]
    return Score(found) if found == found else Score.missing("the prediction does not vary")
