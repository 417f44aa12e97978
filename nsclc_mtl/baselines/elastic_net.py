"""Elastic-net Cox, proportional odds, logistic and linear models: few columns of many, by proximal Newton steps.

Maximised is log likelihood / n - lambda (ratio |beta|_1 + (1 - ratio) / 2 |beta|^2), cut-offs not penalised (Friedman,
Hastie and Tibshirani, J Stat Softw 2010; Simon et al., J Stat Softw 2011; Efron's ties instead of Breslow's).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nsclc_mtl.baselines.likelihoods import GradesLikelihood, NumberLikelihood
from nsclc_mtl.baselines.model import Block, Outcome, Said, Space
from nsclc_mtl.metrics.partial_likelihood import CoxLikelihood
from nsclc_mtl.records import UsageFault

_NEWTON = 40
_SWEEPS = 200
_ROUGH, _EXACT = 1e-5, 1e-10  # relative change of the objective at which a fit ends: in the search, and at last


Likelihood = CoxLikelihood | GradesLikelihood | NumberLikelihood


class ElasticNet:
    """Elastic-net models: the share `l1_ratio` of the lasso and the penalty are chosen among the training patients.

    The penalties of a path run in `steps` from the one that leaves no column to `weakest` of it. Tables are joined side
    by side: what is not needed is not taken.
    """

    def __init__(
        self,
        l1_ratio: Sequence[float] | float = (0.2, 0.5, 0.9),
        steps: int = 15,
        weakest: float = 0.01,
        inner: int = 5,
    ) -> None:
        self.ratios, self.inner = tuple(map(float, np.atleast_1d(l1_ratio))), inner
        if not self.ratios or min(self.ratios) <= 0 or max(self.ratios) > 1:
            raise UsageFault(f"floor.l1_ratio={list(self.ratios)} must lie above 0 and up to 1; 0 is floor=ridge")
        self.shares = np.geomspace(1.0, weakest, steps)

    def spaces(self, blocks: Sequence[Block], alone: Sequence[float]) -> list[Space]:
        """The tables side by side."""
        train, test = (np.concatenate(side, axis=1) for side in zip(*blocks, strict=True))
        return [Space(train, test)]

    def paths(self, space: Space, outcome: Outcome) -> list[NetPath]:
        """A path a share of the lasso, all from the weakest penalty that leaves no column."""
        steepest = max(_null_slope(space.train, one) for one in _one_each(outcome))
        return [NetPath(self.shares * max(steepest, 1e-6) / ratio, ratio) for ratio in self.ratios]


@dataclass(frozen=True)
class NetPath:
    """Elastic-net fits along penalties (lambda), each beginning where the stronger one ended."""

    penalties: np.ndarray
    ratio: float

    def walk(self, z: np.ndarray, outcome: Outcome) -> Iterator[Said]:
        """What each penalty makes of these patients: a function from inputs to risks or probabilities."""
        yield from self._walk(z, outcome, len(self.penalties) - 1, _ROUGH)

    def fit(self, z: np.ndarray, outcome: Outcome, step: int) -> Said:
        """The exact fit at one penalty, reached along the path."""
        *_, last = self._walk(z, outcome, step, _EXACT)
        return last

    def alone(self, step: int) -> float:
        """NaN: joining goes by nothing."""
        return float("nan")

    def _walk(self, z: np.ndarray, outcome: Outcome, last: int, tolerance: float) -> Iterator[Said]:
        each = [_likelihood(z, one) for one in _one_each(outcome)]
        at = [likelihood.start() for likelihood in each]
        for penalty in self.penalties[: last + 1]:
            at = [elastic_net(of, b, penalty, self.ratio, tolerance) for of, b in zip(each, at, strict=True)]
            yield _said(each, at)


def elastic_net(
    likelihood: Likelihood,
    start: np.ndarray,
    penalty: float,
    ratio: float,
    tolerance: float = _EXACT,
) -> np.ndarray:
    """The maximising parameters: unpenalised cut-offs first (proportional odds), then beta.

    Newton's quadratic model of the columns in use and of those whose slope exceeds the penalty is minimised by
    coordinate descent; then the slopes of all columns are looked at again.
    """
    n, free = len(likelihood.z), len(start) - likelihood.z.shape[1]
    lasso, ridge = penalty * ratio, penalty * (1 - ratio)
    at = np.array(start, dtype=float)
    if isinstance(likelihood, CoxLikelihood) and not len(likelihood.dead):
        return at
    for _ in range(_NEWTON):
        beta = at[free:]
        slope = likelihood.slopes(at) / n
        used = (beta != 0) | (np.abs(slope) > lasso * (1 + 1e-9))
        some = np.flatnonzero(used)
        part = likelihood.columns(some)
        whole = np.r_[np.arange(free), free + some]
        l1 = np.r_[np.zeros(free), np.full(len(some), lasso)]
        l2 = np.r_[np.zeros(free), np.full(len(some), ridge)]
        before = at[whole]
        value, gradient, curvature = part(before)
        cost = -value / n + float(l1 @ np.abs(before) + l2 @ before**2 / 2)
        aim = _descended(before, gradient / n, curvature / n, l1, l2, tolerance)
        for halving in range(30):
            there = before + (aim - before) / 2**halving
            new = -part.value(there) / n + float(l1 @ np.abs(there) + l2 @ there**2 / 2)
            if np.isfinite(new) and new <= cost + 1e-14:
                break
        else:
            return at
        at[whole] = there
        if cost - new < tolerance * (1 + abs(cost)):
            slope = likelihood.slopes(at) / n
            if not ((at[free:] == 0) & (np.abs(slope) > lasso * (1 + 1e-6) + 1e-9) & ~used).any():
                break
    return at


def _descended(
    at: np.ndarray, gradient: np.ndarray, curvature: np.ndarray, l1: np.ndarray, l2: np.ndarray, tolerance: float
) -> np.ndarray:
    """Minimum of the quadratic model around `at`, by cyclic coordinate descent with soft thresholds."""
    b = at.copy()
    left = gradient.copy()  # slope of the log likelihood's quadratic model at b
    width = np.diag(curvature) + 1e-9
    for _ in range(_SWEEPS):
        moved = 0.0
        for j in range(len(b)):
            pull = left[j] + width[j] * b[j]
            size = abs(pull) - l1[j]
            new = 0.0 if size <= 0 else (size if pull > 0 else -size) / (width[j] + l2[j])
            step = new - b[j]
            if step:
                left -= curvature[j] * step
                left[j] -= 1e-9 * step
                b[j] = new
                moved = max(moved, width[j] * step * step)
        if moved < tolerance * 0.1:
            break
    return b


def _one_each(outcome: Outcome) -> list[Outcome]:
    """The outcome itself; of several classes without order, each against the rest."""
    if not outcome.nominal:
        return [outcome]
    return [Outcome((outcome.y == k).astype(int), outcome.event, 2, True) for k in range(outcome.classes)]


def _likelihood(z: np.ndarray, outcome: Outcome) -> Likelihood:
    if outcome.survival:
        return CoxLikelihood(z, outcome.y, outcome.event)
    if outcome.number:
        return NumberLikelihood(z, outcome.y)
    return GradesLikelihood(z, outcome.y, outcome.classes)


def _null_slope(z: np.ndarray, outcome: Outcome) -> float:
    """The largest slope of a column where none is used: the lasso penalty that leaves no column."""
    likelihood = _likelihood(z, outcome)
    return float(np.abs(likelihood.slopes(likelihood.start())).max(initial=0.0) / max(len(z), 1))


def _said(each: Sequence[Likelihood], at: Sequence[np.ndarray]) -> Said:
    first, kept = each[0], [b.copy() for b in at]
    if isinstance(first, CoxLikelihood):
        return lambda other: np.asarray(other @ kept[0])
    if isinstance(first, NumberLikelihood):
        return lambda other: first.number(kept[0], other)
    if len(kept) == 1:
        return lambda other: first.proba(kept[0], other)

    def against_the_rest(other: np.ndarray) -> np.ndarray:
        said = [of.proba(b, other)[:, 1] for of, b in zip(each, kept, strict=True)]  # type: ignore[union-attr]
        chances = np.stack(said, axis=1)
        return np.asarray(chances / chances.sum(axis=1, keepdims=True))

    return against_the_rest
