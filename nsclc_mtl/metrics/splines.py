"""Restricted cubic splines: smooth curves that are straight beyond their outer knots."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

OUTER_AND_MIDDLE = (0.1, 0.5, 0.9)  # Harrell's quantiles for three knots (Regression Modeling Strategies, table 2.3)


def knots_of(x: ArrayLike, quantiles: tuple[float, ...] = OUTER_AND_MIDDLE) -> np.ndarray:
    """Knots at quantiles of x, float [knot]; empty where fewer than three of them, or of x, differ: a line is left."""
    v = np.asarray(x, dtype=float)
    found = np.unique(np.quantile(v, quantiles))
    return found if min(len(found), len(np.unique(v))) >= 3 else np.zeros(0)


def restricted_cubic(x: ArrayLike, knots: np.ndarray) -> np.ndarray:
    """The basis [n, max(1, knots - 1)]: x itself, then the cubic terms.

    Truncated powers over the squared distance of the outer knots, as `rms::rcs` (Harrell, section 2.4.5).
    """
    v = np.asarray(x, dtype=float)
    if not len(knots):
        return v[:, None]

    def cubed(knot: float) -> np.ndarray:
        return np.asarray(np.maximum(v - knot, 0) ** 3)

    last, before = knots[-1], knots[-2]
    terms = [v]
    for knot in knots[:-2]:
        bent = (
            cubed(knot)
            - cubed(before) * (last - knot) / (last - before)
            + cubed(last) * (before - knot) / (last - before)
        )
        terms.append(bent / (last - knots[0]) ** 2)
    return np.stack(terms, axis=1)
