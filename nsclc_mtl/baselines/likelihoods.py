"""What the floors maximise beside Cox's partial likelihood, with derivatives: proportional odds, normal errors."""

from __future__ import annotations

from copy import copy
from typing import Self

import numpy as np

from nsclc_mtl.metrics.partial_likelihood import CoxLikelihood as CoxLikelihood  # kept lower: metrics need it


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

    def columns(self, some: np.ndarray) -> Self:
        """The same patients with some of the columns."""
        made = copy(self)
        made.z = self.z[:, some]
        return made

    def slopes(self, parameters: np.ndarray) -> np.ndarray:
        """The gradient of beta alone, of all columns."""
        sa, sb, _ = self._sides(parameters)
        return np.asarray(self.z.T @ (1 - sa - sb))

    def value(self, parameters: np.ndarray) -> float:
        """The log likelihood alone."""
        p = self._sides(parameters)[2]
        return float(np.log(p).sum()) if (p > 0).all() else -np.inf

    def _sides(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """P(Y >= y), P(Y > y) and P(Y = y) of every patient's own class y."""
        cuts = self.classes - 1
        theta, eta = parameters[:cuts], self.z @ parameters[cuts:]
        a, b = np.full(len(eta), np.inf), np.full(len(eta), -np.inf)
        a[self.lower] = eta[self.lower] - theta[self.y[self.lower] - 1]
        b[self.upper] = eta[self.upper] - theta[self.y[self.upper]]
        sa, sb = _sigma(a), _sigma(b)
        # p = sigma(a) - sigma(b), written so that two values near 1 do not cancel
        return sa, sb, np.where(b > 0, _sigma(-b) - _sigma(-a), sa - sb)

    def __call__(self, parameters: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and negative Hessian at (theta, beta)."""
        cuts = self.classes - 1
        n = len(self.y)
        sa, sb, p = self._sides(parameters)
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


class NumberLikelihood:
    """Log likelihood of a linear model with normal errors, of y on its own scale: mean 0 and deviation 1.

    Parameters: the intercept (not penalised), then beta. The variance of the errors is held at 1, that of y, so that a
    penalty means the same for every outcome and the likelihood goes by the squared error.
    """

    def __init__(self, z: np.ndarray, y: np.ndarray) -> None:
        self.z, self.mean = z, float(np.mean(y)) if len(y) else 0.0
        spread = float(np.std(y)) if len(y) else 0.0
        self.sd = spread if spread > 0 else 1.0
        self.y = (y - self.mean) / self.sd

    def start(self) -> np.ndarray:
        """The mean, no slope."""
        return np.zeros(1 + self.z.shape[1])

    def columns(self, some: np.ndarray) -> Self:
        """The same patients with some of the columns."""
        made = copy(self)
        made.z = self.z[:, some]
        return made

    def slopes(self, parameters: np.ndarray) -> np.ndarray:
        """The gradient of beta alone, of all columns."""
        return np.asarray(self.z.T @ self._left(parameters))

    def value(self, parameters: np.ndarray) -> float:
        """The log likelihood alone, without its constant."""
        return -float((self._left(parameters) ** 2).sum()) / 2

    def _left(self, parameters: np.ndarray) -> np.ndarray:
        return np.asarray(self.y - parameters[0] - self.z @ parameters[1:])

    def __call__(self, parameters: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and negative Hessian at (intercept, beta)."""
        left = self._left(parameters)
        gradient = np.r_[left.sum(), self.z.T @ left]
        curvature = np.empty((len(parameters), len(parameters)))
        curvature[0, 0], curvature[1:, 1:] = len(left), self.z.T @ self.z
        curvature[0, 1:] = curvature[1:, 0] = self.z.sum(axis=0)
        return -float((left**2).sum()) / 2, gradient, curvature

    def number(self, parameters: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Expected outcome of other patients, in its unit. [patient]."""
        return np.asarray((parameters[0] + z @ parameters[1:]) * self.sd + self.mean)


def baseline_hazard(risk: np.ndarray, time: np.ndarray, event: np.ndarray, when: np.ndarray) -> np.ndarray:
    """Breslow's cumulative hazard of a patient of risk 0, at the times asked for. [when]."""
    order = np.argsort(time, kind="stable")
    t, e, r = time[order], event[order], np.exp(risk[order])
    at_risk = np.cumsum(r[::-1])[::-1][np.searchsorted(t, t, side="left")]
    total = np.cumsum(e / at_risk)
    return np.asarray(np.r_[0.0, total][np.searchsorted(t, when, side="right")])


def _sigma(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -700, 700))))
