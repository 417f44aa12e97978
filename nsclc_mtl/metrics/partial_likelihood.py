"""Cox's partial likelihood with its derivatives."""

from __future__ import annotations

from copy import copy
from typing import Self

import numpy as np


class CoxLikelihood:
    """Log partial likelihood with Efron's correction for ties (JASA, 1977), its slope and curvature."""

    def __init__(self, z: np.ndarray, time: np.ndarray, event: np.ndarray) -> None:
        order = np.argsort(time, kind="stable")
        self.order = order
        self.z, self.time, self.event = z[order], time[order], event[order]
        dead = self.event == 1
        times, counts = np.unique(self.time[dead], return_counts=True)
        self.start_of = np.searchsorted(self.time, times, side="left")  # a risk set is a suffix of the sorted patients
        self.group_of_dead = np.searchsorted(times, self.time[dead])
        self.dead = np.flatnonzero(dead)
        self.first_dead = np.r_[0, np.cumsum(counts)[:-1]].astype(int) if len(counts) else np.zeros(0, dtype=int)
        self.seen = np.searchsorted(times, self.time, side="right")  # event times up to and including one's own
        self.term = np.repeat(np.arange(len(times)), counts)
        self.fraction = np.concatenate([np.arange(d) / d for d in counts]) if len(counts) else np.zeros(0)

    def start(self) -> np.ndarray:
        """No slope."""
        return np.zeros(self.z.shape[1])

    def columns(self, some: np.ndarray) -> Self:
        """The same patients with some of the columns."""
        made = copy(self)
        made.z = self.z[:, some]
        return made

    def value(self, beta: np.ndarray) -> float:
        """The log partial likelihood alone."""
        return self._value(self.z @ beta)

    def value_of(self, eta: np.ndarray) -> float:
        """The log partial likelihood of linear predictors, patients in the order in which they were given."""
        return self._value(eta[self.order])

    def _value(self, eta: np.ndarray) -> float:
        shift = eta.max()
        e = np.exp(eta - shift)
        died = np.bincount(self.group_of_dead, weights=e[self.dead], minlength=len(self.start_of))
        phi = np.cumsum(e[::-1])[::-1][self.start_of][self.term] - self.fraction * died[self.term]
        return float(eta[self.dead].sum() - np.log(phi).sum() - shift * len(phi))

    def slopes(self, beta: np.ndarray) -> np.ndarray:
        """The gradient alone, of all columns."""
        eta = self.z @ beta
        e = np.exp(eta - (eta.max() if len(eta) else 0.0))
        load, _ = self._load(e)
        return np.asarray(self.z.T @ (self.event - e * load))

    def _load(self, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hazard that each patient has seen up to its own time, and the denominator of every death."""
        groups = len(self.start_of)
        died = np.bincount(self.group_of_dead, weights=e[self.dead], minlength=groups)
        phi = np.cumsum(e[::-1])[::-1][self.start_of][self.term] - self.fraction * died[self.term]
        first = np.r_[0.0, np.cumsum(np.bincount(self.term, weights=1 / phi, minlength=groups))]
        load = first[self.seen]
        own = np.bincount(self.term, weights=self.fraction / phi, minlength=groups)
        load[self.dead] -= own[self.group_of_dead]
        return load, phi

    def __call__(self, beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient [axis] and negative Hessian [axis, axis] at the coefficients."""
        eta = self.z @ beta
        shift = eta.max() if len(eta) else 0.0
        e = np.exp(eta - shift)
        groups = len(self.start_of)
        load, phi = self._load(e)
        value = float(eta[self.dead].sum() - np.log(phi).sum() - shift * len(phi))
        gradient = self.z.T @ (self.event - e * load)
        ez = e[:, None] * self.z
        sums = np.cumsum(ez[::-1], axis=0)[::-1][self.start_of]
        # the dead are sorted by time, so each tied group is a stretch of them
        tied = np.add.reduceat(ez[self.dead], self.first_dead, axis=0) if groups else sums
        mean = (sums[self.term] - self.fraction[:, None] * tied[self.term]) / phi[:, None]
        curvature = self.z.T @ (ez * load[:, None]) - mean.T @ mean
        return value, gradient, curvature
