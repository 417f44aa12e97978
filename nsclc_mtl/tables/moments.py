"""Number, mean and spread of columns, added up over groups of patients without losing digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Values of columns: how many, their mean, and their sum of squares about it, each float [column]."""

    n: np.ndarray
    mean: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, least: int = 1) -> Moments:
        """Of the finite values of each column [patient, column]; a column with fewer than `least` counts as empty."""
        seen = np.isfinite(values)
        seen &= seen.sum(0) >= least
        n = seen.sum(0).astype(float)
        filled = np.where(seen, values, 0.0)
        mean = filled.sum(0) / np.maximum(n, 1)
        return cls(n, mean, (np.where(seen, filled - mean, 0.0) ** 2).sum(0))

    @property
    def sd(self) -> np.ndarray:
        """Standard deviation of each column (divided by n), 0 where it has no value."""
        return np.sqrt(self.square / np.maximum(self.n, 1))


def together(parts: Sequence[Moments]) -> Moments:
    """The moments of all groups' values (Chan, Golub and LeVeque, The American Statistician 1983).

    >>> a, b = np.array([[1.0], [2.0]]), np.array([[6.0]])
    >>> both = together([Moments.of(a), Moments.of(b)])
    >>> both.mean.tolist(), both.square.tolist()
    ([3.0], [14.0])
    """
    n = sum(part.n for part in parts)
    total = np.maximum(n, 1)
    mean = sum(part.n * part.mean for part in parts) / total
    square = sum(part.square + part.n * (part.mean - mean) ** 2 for part in parts)
    return Moments(np.asarray(n), np.asarray(mean), np.asarray(square))
