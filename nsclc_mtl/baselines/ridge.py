"""Ridge models in the space of the patients: Cox (Efron's ties) and proportional odds, by Newton's method.

A ridge fit depends on the inputs only through their inner products, so 1,556 genes of 300 patients are rotated to 300
columns first (`Rotation`) and every fit of a penalty path costs milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

_STEPS = 60


@dataclass(frozen=True)
class Rotation:
    """Columns turned onto the principal axes of the training patients; nothing is lost and p >> n becomes n x n."""

    axes: np.ndarray  # [column, axis]

    @classmethod
    def fit(cls, x: np.ndarray, share: float = 1.0) -> Rotation:
        """Axes of the training rows that hold this share of their variance. x: [patient, column]."""
        n, p = x.shape
        if p == 0:
            return cls(np.zeros((0, 0)))
        if p <= n:
            return cls(np.eye(p))
        values, vectors = np.linalg.eigh(x @ x.T)
        left = values.cumsum() / values.sum()  # share of the variance up to and including each axis, smallest first
        keep = (left > 1 - share) & (values > values[-1] * 1e-10)
        return cls(x.T @ (vectors[:, keep] / np.sqrt(values[keep])))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The rows on the axes. [patient, axis]."""
        return np.asarray(x @ self.axes)


class CoxLikelihood:
    """Log partial likelihood with Efron's correction for ties (JASA, 1977), its slope and curvature."""

    def __init__(self, z: np.ndarray, time: np.ndarray, event: np.ndarray) -> None:
        order = np.argsort(time, kind="stable")
        self.z, self.time, self.event = z[order], time[order], event[order]
        dead = self.event == 1
        times, counts = np.unique(self.time[dead], return_counts=True)
        self.start = np.searchsorted(self.time, times, side="left")  # a risk set is a suffix of the sorted patients
        self.group_of_dead = np.searchsorted(times, self.time[dead])
        self.dead = np.flatnonzero(dead)
        self.first_dead = np.r_[0, np.cumsum(counts)[:-1]].astype(int) if len(counts) else np.zeros(0, dtype=int)
        self.seen = np.searchsorted(times, self.time, side="right")  # event times up to and including one's own
        self.term = np.repeat(np.arange(len(times)), counts)
        self.fraction = np.concatenate([np.arange(d) / d for d in counts]) if len(counts) else np.zeros(0)

    def value(self, beta: np.ndarray) -> float:
        """The log partial likelihood alone."""
        eta = self.z @ beta
        shift = eta.max()
        e = np.exp(eta - shift)
        died = np.bincount(self.group_of_dead, weights=e[self.dead], minlength=len(self.start))
        phi = np.cumsum(e[::-1])[::-1][self.start][self.term] - self.fraction * died[self.term]
        return float(eta[self.dead].sum() - np.log(phi).sum() - shift * len(phi))

    def __call__(self, beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient [axis] and negative Hessian [axis, axis] at the coefficients."""
        eta = self.z @ beta
        shift = eta.max() if len(eta) else 0.0
        e = np.exp(eta - shift)
        groups = len(self.start)
        suffix = np.cumsum(e[::-1])[::-1]
        died = np.bincount(self.group_of_dead, weights=e[self.dead], minlength=groups)
        phi = suffix[self.start][self.term] - self.fraction * died[self.term]
        value = float(eta[self.dead].sum() - np.log(phi).sum() - shift * len(phi))
        first = np.r_[0.0, np.cumsum(np.bincount(self.term, weights=1 / phi, minlength=groups))]
        load = first[self.seen]
        own = np.bincount(self.term, weights=self.fraction / phi, minlength=groups)
        load[self.dead] -= own[self.group_of_dead]
        gradient = self.z.T @ (self.event - e * load)
        ez = e[:, None] * self.z
        sums = np.cumsum(ez[::-1], axis=0)[::-1][self.start]
        # the dead are sorted by time, so each tied group is a stretch of them
        tied = np.add.reduceat(ez[self.dead], self.first_dead, axis=0) if groups else sums
        mean = (sums[self.term] - self.fraction[:, None] * tied[self.term]) / phi[:, None]
        curvature = self.z.T @ (ez * load[:, None]) - mean.T @ mean
        return value, gradient, curvature


class GradesLikelihood:
    """Log likelihood of proportional odds, P(Y > k) = sigma(z beta - theta_k); with two classes the logistic model.

    Parameters: K - 1 cut-offs theta (not penalised), then beta. y: class numbers 0..K-1, every class occurring.
    """

    def __init__(self, z: np.ndarray, y: np.ndarray, classes: int) -> None:
        self.z, self.y, self.classes = z, y.astype(int), classes
        self.lower, self.upper = np.flatnonzero(self.y > 0), np.flatnonzero(self.y < classes - 1)

    def start(self) -> np.ndarray:
        """Cut-offs of the base rates, no slope."""
        above = np.array([(self.y > k).mean() for k in range(self.classes - 1)])
        return np.r_[-np.log(above / (1 - above)), np.zeros(self.z.shape[1])]

    def __call__(self, parameters: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and negative Hessian at (theta, beta)."""
        cuts = self.classes - 1
        theta, eta = parameters[:cuts], self.z @ parameters[cuts:]
        n = len(eta)
        a, b = np.full(n, np.inf), np.full(n, -np.inf)
        a[self.lower] = eta[self.lower] - theta[self.y[self.lower] - 1]
        b[self.upper] = eta[self.upper] - theta[self.y[self.upper]]
        sa, sb = _sigma(a), _sigma(b)
        # p = sigma(a) - sigma(b), written so that two values near 1 do not cancel
        p = np.where(b > 0, _sigma(-b) - _sigma(-a), sa - sb)
        if (p <= 0).any():
            return -np.inf, np.zeros(len(parameters)), np.eye(len(parameters))
        da, db = sa * (1 - sa), sb * (1 - sb)
        pull_a, pull_b = da / p, db / p
        cut_gradient = np.bincount(self.y[self.upper], weights=pull_b[self.upper], minlength=cuts) - np.bincount(
            self.y[self.lower] - 1, weights=pull_a[self.lower], minlength=cuts
        )
        gradient = np.r_[cut_gradient, self.z.T @ (1 - sa - sb)]
        # second derivatives of log p in a and b; eta moves both, a cut-off only its own
        aa = pull_a**2 - da * (1 - 2 * sa) / p
        bb = pull_b**2 + db * (1 - 2 * sb) / p
        ab = -pull_a * pull_b
        of_a, of_b = np.zeros((n, cuts)), np.zeros((n, cuts))
        of_a[self.lower, self.y[self.lower] - 1] = 1
        of_b[self.upper, self.y[self.upper]] = 1
        curvature = np.empty((len(parameters), len(parameters)))
        curvature[cuts:, cuts:] = self.z.T @ (self.z * (da + db)[:, None])
        cross = -(of_a * (aa + ab)[:, None] + of_b * (bb + ab)[:, None]).T @ self.z
        curvature[:cuts, cuts:], curvature[cuts:, :cuts] = cross, cross.T
        mixed = (of_a * ab[:, None]).T @ of_b
        curvature[:cuts, :cuts] = of_a.T @ (of_a * aa[:, None]) + of_b.T @ (of_b * bb[:, None]) + mixed + mixed.T
        return float(np.log(p).sum()), gradient, curvature

    def proba(self, parameters: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Class probabilities of other patients. [patient, K]."""
        cuts = self.classes - 1
        above = _sigma((z @ parameters[cuts:])[:, None] - parameters[:cuts])
        edges = np.concatenate([np.ones((len(z), 1)), above, np.zeros((len(z), 1))], axis=1)
        return np.asarray(np.maximum(edges[:, :-1] - edges[:, 1:], 0))


def newton(
    likelihood: CoxLikelihood | GradesLikelihood,
    start: np.ndarray,
    penalty: float,
    free: int = 0,
    tolerance: float = 1e-9,
) -> np.ndarray:
    """Maximum of the likelihood minus penalty/2 |beta|^2, the first `free` parameters unpenalised; step halving."""
    load = np.r_[np.zeros(free), np.full(len(start) - free, penalty)]
    at = start.astype(float)
    value, gradient, curvature = likelihood(at)
    value -= float(load @ at**2) / 2
    for _ in range(_STEPS):
        slope = gradient - load * at
        system = curvature + np.diag(load + 1e-9)
        step = cho_solve(cho_factor(system, check_finite=False), slope, check_finite=False)
        gain = float(slope @ step)
        if gain < tolerance * (1 + abs(value)):
            return np.asarray(at + step)
        for halving in range(30):
            there = at + step / 2**halving
            new, new_gradient, new_curvature = likelihood(there)
            new -= float(load @ there**2) / 2
            if np.isfinite(new) and new >= value - 1e-12:
                break
        else:
            return at
        at, value, gradient, curvature = there, new, new_gradient, new_curvature
    return at


def baseline_hazard(risk: np.ndarray, time: np.ndarray, event: np.ndarray, when: np.ndarray) -> np.ndarray:
    """Breslow's cumulative hazard of a patient of risk 0, at the times asked for. [when]."""
    order = np.argsort(time, kind="stable")
    t, e, r = time[order], event[order], np.exp(risk[order])
    at_risk = np.cumsum(r[::-1])[::-1][np.searchsorted(t, t, side="left")]
    total = np.cumsum(e / at_risk)
    return np.asarray(np.r_[0.0, total][np.searchsorted(t, when, side="right")])


def _sigma(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -700, 700))))
