"""Several questions asked of one cohort: P values adjusted for their number, and whether groups differ at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2

from nsclc_mtl.metrics.score import Score


def holm(p: Sequence[float]) -> list[float]:
    """P values adjusted by Holm (Scandinavian Journal of Statistics, 1979), in their order; NaN stays, uncounted.

    Reject where the adjusted value is below the level: the chance of one false rejection among all is then below it,
    whatever the questions have to do with each other.

    >>> [round(v, 6) for v in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    given = np.asarray(p, dtype=float)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    out = np.full(len(given), np.nan)
    steps = given[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(order) else steps
    return [float(v) for v in out]


def heterogeneity(values: Sequence[float], errors: Sequence[float]) -> tuple[Score, int, Score]:
    """Cochran's Q of independent estimates with standard errors, its degrees of freedom, and P that all are equal.

    Q = sum of (value - weighted mean)^2 / error^2 (Cochran, Biometrics, 1954); with two groups the square of the z of
    their difference. Groups without a value or without an error are left out.

    >>> q, freedom, p = heterogeneity([0.7, 0.6], [0.03, 0.04])
    >>> round(q, 6), freedom, round(p, 4)
    (4.0, 1, 0.0455)
    """
    pairs = [(v, e) for v, e in zip(values, errors, strict=True) if math.isfinite(v) and math.isfinite(e) and e > 0]
    if len(pairs) < 2:
        why = "fewer than two groups have a value with a standard error"
        return Score.missing(why), 0, Score.missing(why)
    value, error = np.array(pairs).T
    weight = 1 / error**2
    q = float(weight @ (value - weight @ value / weight.sum()) ** 2)
    return Score(q), len(pairs) - 1, Score(float(chi2.sf(q, len(pairs) - 1)))
