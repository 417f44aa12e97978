"""Ridge models in the space of the patients: Cox (Efron's ties), proportional odds, logistic, linear; by Newton.

A ridge fit depends on the inputs only through their inner products, so 1,556 genes of 300 patients are rotated to 300
columns first (`Rotation`) and every fit of a penalty path costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from nsclc_mtl.baselines.likelihoods import GradesLikelihood, NumberLikelihood
from nsclc_mtl.baselines.model import Block, Outcome, Said, Space
from nsclc_mtl.metrics.partial_likelihood import CoxLikelihood

_STEPS = 60
_ROUGH = 1e-5  # convergence while the penalty is searched; the final fit is exact
_SHARE = 0.99  # of the variance: a ridge shrinks the axes beyond to nothing, and a fit costs the cube of their number


class Ridge:
    """Ridge models, their penalty among `steps` from `strongest` to `weakest`: prior variances of the linear predictor.

    Tables are joined in two ways: each with equal weight whatever its width, and each by the penalty that it chose
    alone, which keeps hundreds of columns of noise from drowning three that matter.
    """

    def __init__(self, strongest: float = 0.003, weakest: float = 30.0, steps: int = 8, inner: int = 5) -> None:
        self.variances = np.geomspace(strongest, weakest, steps)
        self.inner = inner

    def spaces(self, blocks: Sequence[Block], alone: Sequence[float]) -> list[Space]:
        """Principal axes of the tables side by side, weighted. alone: the penalty that suited each block by itself."""
        if len(blocks) == 1:
            return [_space(blocks, [1.0])]
        made = [_space(blocks, [1 / np.sqrt(max(b[0].shape[1], 1)) for b in blocks])]
        if np.isfinite(alone).all():
            made.append(_space(blocks, [1 / np.sqrt(p) for p in alone]))
        return made

    def paths(self, space: Space, outcome: Outcome) -> list[RidgePath]:
        """The one path of penalties, strongest first."""
        return [RidgePath(space.scale / self.variances)]


@dataclass(frozen=True)
class RidgePath:
    """Ridge fits along penalties, each beginning where the stronger one ended."""

    penalties: np.ndarray

    def walk(self, z: np.ndarray, outcome: Outcome) -> Iterator[Said]:
        """What each penalty makes of these patients: a function from inputs to risks or probabilities."""
        if outcome.nominal:
            for penalty in self.penalties:
                yield _nominal(z, outcome, penalty)
            return
        likelihood, free = _likelihood(z, outcome)
        at = likelihood.start()
        for penalty in self.penalties:
            if not outcome.survival or len(likelihood.dead):  # type: ignore[union-attr]
                at = newton(likelihood, at, penalty, free=free, tolerance=_ROUGH)
            yield _said(likelihood, at)

    def fit(self, z: np.ndarray, outcome: Outcome, step: int) -> Said:
        """The exact fit at one penalty."""
        if outcome.nominal:
            return _nominal(z, outcome, self.penalties[step])
        likelihood, free = _likelihood(z, outcome)
        return _said(likelihood, newton(likelihood, likelihood.start(), self.penalties[step], free=free))

    def slope(self, z: np.ndarray, outcome: Outcome, step: int) -> np.ndarray:
        """The weights of the exact fit at one penalty, [axis, output]: one output, a class each where it is nominal."""
        if outcome.nominal:
            return np.asarray(_regression(z, outcome, self.penalties[step]).coef_.T)
        likelihood, free = _likelihood(z, outcome)
        unit = likelihood.sd if isinstance(likelihood, NumberLikelihood) else 1.0
        return newton(likelihood, likelihood.start(), self.penalties[step], free=free)[free:, None] * unit

    def alone(self, step: int) -> float:
        """The penalty that joining tables goes by."""
        return float(self.penalties[step])


def _space(blocks: Sequence[Block], weights: Sequence[float]) -> Space:
    """Tables side by side, each multiplied by its weight."""
    train = np.concatenate([b[0] * w for b, w in zip(blocks, weights, strict=True)], axis=1)
    test = np.concatenate([b[1] * w for b, w in zip(blocks, weights, strict=True)], axis=1)
    turn = Rotation.fit(train, _SHARE)
    return Space(turn(train), turn(test), float((train**2).sum() / max(len(train), 1)) or 1.0)


Likelihood = CoxLikelihood | GradesLikelihood | NumberLikelihood


def _likelihood(z: np.ndarray, outcome: Outcome) -> tuple[Likelihood, int]:
    """The likelihood of the patients, and how many of its parameters are not penalised."""
    if outcome.survival:
        return CoxLikelihood(z, outcome.y, outcome.event), 0
    if outcome.number:
        return NumberLikelihood(z, outcome.y), 1
    return GradesLikelihood(z, outcome.y, outcome.classes), outcome.classes - 1


def _said(likelihood: Likelihood, at: np.ndarray) -> Said:
    if isinstance(likelihood, CoxLikelihood):
        return lambda other: np.asarray(other @ at)
    if isinstance(likelihood, NumberLikelihood):
        return lambda other: likelihood.number(at, other)
    return lambda other: likelihood.proba(at, other)


def _nominal(z: np.ndarray, outcome: Outcome, penalty: float) -> Said:
    model = _regression(z, outcome, penalty)
    return lambda other: np.asarray(model.predict_proba(other))


def _regression(z: np.ndarray, outcome: Outcome, penalty: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1 / penalty, max_iter=500).fit(z, outcome.y)


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


def newton(
    likelihood: Likelihood,
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
