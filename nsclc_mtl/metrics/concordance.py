"""Concordance of survival curves that may cross. Of one risk a patient (Harrell, Uno): `metrics/survival.py`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nsclc_mtl.metrics.kaplan_meier import known_outcomes
from nsclc_mtl.metrics.pairs import curves_in_order
from nsclc_mtl.metrics.score import Score


def antolini_c(survival: ArrayLike, days: ArrayLike, time: ArrayLike, event: ArrayLike) -> Score:
    """Time-dependent concordance: share of comparable pairs in which who had the event had the lower S at that time.

    Antolini, Boracchi and Biganzoli, Statistics in Medicine, 2005. Pairs are those of Harrell's C (an event and a
    censoring at one time are compared, two events are not), and equal curves count 1/2, so that for curves which never
    cross it IS Harrell's C; without the half, the same probabilities for everybody would score 0. S between two days is
    on the straight line between them, S(0) = 1; after the last day it stays. survival: [n, days]; days: ascending, > 0.

    >>> antolini_c([[0.2, 0.1], [0.9, 0.1]], [1, 2], [1, 3], [1, 1])
    Score(1.0)
    """
    grid = np.asarray(days, dtype=float)
    t, e, s = known_outcomes(time, event, survival)
    if len(grid) == 0:
        return Score.missing("no survival curve")
    if (np.diff(grid) <= 0).any() or grid[0] <= 0:
        raise ValueError("days of survival curves ascend from above 0")
    if len(t) == 0:
        return Score.missing("no patients")
    if np.isnan(s).any():
        return Score.missing(f"{int(np.isnan(s).any(axis=1).sum())} of {len(s)} survival curves are NaN")
    if not e.any():
        return Score.missing(f"no event among {len(t)} patients")
    value = float(curves_in_order(s, grid, t, e)(np.ones((1, len(t))))[0])
    return Score(value) if value == value else Score.missing("no comparable pair")
