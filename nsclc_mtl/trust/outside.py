"""How far a patient lies outside of what training saw: Mahalanobis' distance, and its rank among known patients.

Lee et al., "A simple unified framework for detecting out-of-distribution samples and adversarial attacks" (NeurIPS
2018), without their classes. A distance says that a patient is unusual, not that the prediction is wrong, nor the
reverse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

LEAST = 8  # patients whose spread is measured
DIRECTIONS = 32  # most directions with a variance of their own
_PARTS = 10  # of the training patients, each scored by what the others taught


@dataclass(frozen=True)
class Cloud:
    """Where the training patients lie: mean, leading directions with their variances, and the variance elsewhere."""

    mean: np.ndarray  # float [dim]
    directions: np.ndarray  # float [direction, dim], orthonormal
    variance: np.ndarray  # float [direction]
    rest: float  # variance in each of the other directions

    @classmethod
    def fit(cls, rows: ArrayLike) -> Cloud:
        """Mean and covariance of rows [n, dim], shrunk towards a multiple of the identity.

        Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices" (J Multivariate
        Analysis, 2004). Beyond the 32 widest directions all have the mean variance of the others, as in probabilistic
        PCA (Tipping and Bishop, 1999): what is kept stays small.
        """
        x = np.asarray(rows, dtype=float)
        mean = x.mean(axis=0)
        centred = x - mean
        n, dim = x.shape
        _, singular, axes = np.linalg.svd(centred, full_matrices=False)
        own = singular**2 / n
        shrunk = shrinkage(centred)
        middle = own.sum() / dim
        values = (1 - shrunk) * own + shrunk * middle
        floor = max(1e-9 * middle, 1e-12)
        kept = min(DIRECTIONS, len(values))
        left = dim - kept
        others = values[kept:].sum() + (dim - len(values)) * shrunk * middle
        rest = max(others / left, floor) if left else 1.0
        return cls(mean, axes[:kept], np.maximum(values[:kept], floor), float(rest))

    def distance(self, rows: ArrayLike) -> np.ndarray:
        """Squared distance of Mahalanobis, divided by the number of dimensions, [n]."""
        centred = np.asarray(rows, dtype=float) - self.mean
        along = centred @ self.directions.T
        beside = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        if len(self.directions) >= len(self.mean):
            beside = beside * 0.0
        return np.asarray(((along**2 / self.variance).sum(axis=1) + beside / self.rest) / len(self.mean))

    def state(self) -> dict[str, Any]:
        """Plain types, for JSON; six digits."""
        return {
            "mean": _digits(self.mean),
            "directions": [_digits(row) for row in self.directions],
            "variance": _digits(self.variance),
            "rest": self.rest,
        }

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Cloud:
        """What `state()` came from."""
        mean = np.asarray(state["mean"], dtype=float)
        axes = np.asarray(state["directions"], dtype=float).reshape(-1, len(mean))
        return cls(mean, axes, np.asarray(state["variance"], dtype=float), float(state["rest"]))


def shrinkage(centred: np.ndarray) -> float:
    """How far the covariance of centred rows [n, dim] is drawn to a multiple of the identity, 0 to 1 (Ledoit, Wolf).

    >>> shrinkage(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    1.0
    """
    n, dim = centred.shape
    gram = centred @ centred.T if n < dim else centred.T @ centred
    middle = np.trace(gram) / (n * dim)
    off = float((gram**2).sum()) / n**2 / dim - middle**2  # |S - mu I|^2 / dim
    each = (centred**2).sum(axis=1)
    noise = (float((each**2).sum()) / n - float((gram**2).sum()) / n**2) / n / dim
    if off <= 1e-15 * max(middle**2, 1e-300):
        return 1.0
    return float(min(max(noise, 0.0) / off, 1.0))


def crossed(rows: ArrayLike, seed: int = 0) -> np.ndarray:
    """Distance of each row from a cloud of the others, [n]: ten parts, each scored by what the other nine taught."""
    x = np.asarray(rows, dtype=float)
    part = np.random.default_rng([seed, len(x)]).permutation(len(x)) % min(_PARTS, len(x))
    out = np.empty(len(x))
    for k in np.unique(part):
        out[part == k] = Cloud.fit(x[part != k]).distance(x[part == k])
    return out


@dataclass(frozen=True)
class Scale:
    """What distances mean: those of the training patients themselves, each scored by a cloud of the others."""

    cloud: Cloud
    sorted: np.ndarray  # distances of the training patients, ascending
    middle: float  # mean of their logarithms
    spread: float  # and its standard deviation

    @classmethod
    def fit(cls, rows: ArrayLike) -> Scale:
        """From rows [n, dim] of the training patients who have the modality, at least `LEAST`."""
        far = np.sort(crossed(rows))
        log = np.log(np.maximum(far, 1e-12))
        return cls(Cloud.fit(rows), far, float(log.mean()), float(max(log.std(), 1e-6)))

    def score(self, rows: ArrayLike) -> np.ndarray:
        """Standardised logarithm of the distance, [n]: 0 = as far as training patients are, higher = further."""
        return self.standard(self.cloud.distance(rows))

    def standard(self, distance: ArrayLike) -> np.ndarray:
        """The same of distances, [n]."""
        return np.asarray((np.log(np.maximum(np.asarray(distance, dtype=float), 1e-12)) - self.middle) / self.spread)

    def percentile(self, rows: ArrayLike) -> np.ndarray:
        """Share of the training patients who lie nearer, [n], 0 to 1."""
        return np.searchsorted(self.sorted, self.cloud.distance(rows), side="left") / len(self.sorted)

    def state(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            "cloud": self.cloud.state(),
            "sorted": _digits(self.sorted),
            "middle": self.middle,
            "spread": self.spread,
        }

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Scale:
        """What `state()` came from."""
        return cls(Cloud.load(state["cloud"]), np.asarray(state["sorted"], float), state["middle"], state["spread"])


def rarity(score: ArrayLike, known: ArrayLike) -> np.ndarray:
    """Share of known patients who are at least as far out, counting the patient himself, [n]: a conformal P value.

    Of patients who are exchangeable with the known ones at most a share r has a rarity of r or less. score: [n];
    known: [m]. Bates et al., "Testing for outliers with conformal p-values" (Annals of Statistics, 2023).

    >>> rarity([3.0, 0.0], [0.0, 1.0, 2.0]).tolist()
    [0.25, 1.0]
    """
    far = np.sort(np.asarray(known, dtype=float))
    beyond = len(far) - np.searchsorted(far, np.asarray(score, dtype=float), side="left")
    return np.asarray((1 + beyond) / (len(far) + 1))


def enough(rate: float) -> int:
    """How many known patients a flag of this rate needs: fewer could never raise it.

    >>> enough(0.05)
    19
    """
    return math.ceil(1 / rate - 1e-9) - 1


def _digits(values: np.ndarray) -> list[float]:
    return [float(f"{v:.6g}") for v in np.asarray(values, dtype=float)]
