"""Hazard ratios between groups of patients, by Cox's model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nsclc_mtl.metrics.partial_likelihood import CoxLikelihood
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import _arrays

_Z = 1.959963984540054
_FAR = 30.0  # a log hazard ratio beyond this grows without end


@dataclass(frozen=True)
class Cox:
    """A fitted Cox regression (Efron's ties), or the reason why there is none."""

    coef: np.ndarray  # [column]
    covariance: np.ndarray  # [column, column]
    loglik: float  # log partial likelihood there
    loglik_null: float  # ... without any covariate
    reason: str = ""


@dataclass(frozen=True)
class HazardRatio:
    """Hazard of a group over that of the reference group, with its 95 % interval (Wald, on the log scale)."""

    group: float
    value: Score
    lo: float
    hi: float


def cox(time: ArrayLike, event: ArrayLike, x: ArrayLike) -> Cox:
    """Cox regression on the columns of x [n, column] by Newton's method: R's `coxph(ties = "efron")`.

    Coefficients are NaN, with the reason, where there is no event, where a column is a combination of others, and where
    the likelihood has no maximum (a group without events, groups that die one after the other).
    """
    t, e, z = _arrays(time, event, x)
    z = z.reshape(len(t), -1)
    columns = z.shape[1]

    def none(reason: str) -> Cox:
        return Cox(np.full(columns, np.nan), np.full((columns, columns), np.nan), math.nan, math.nan, reason)

    if not e.any():
        return none(f"no event among {len(t)} patients")
    if np.isnan(z).any():
        return none("a covariate is NaN")
    scale = z.std(axis=0)
    if (scale == 0).any() or np.linalg.matrix_rank((z - z.mean(axis=0)) / np.where(scale > 0, scale, 1)) < columns:
        return none("a covariate is constant or a combination of others")
    likelihood = CoxLikelihood((z - z.mean(axis=0)) / scale, t, e)
    beta = np.zeros(columns)
    value, slope, curvature = likelihood(beta)
    null = value
    for _ in range(60):
        if np.linalg.matrix_rank(curvature, tol=1e-10) < columns:
            break
        step = np.linalg.solve(curvature, slope)
        while likelihood.value(beta + step) < value - 1e-10 * abs(value) and np.abs(step).max() > 1e-12:
            step /= 2
        beta = beta + step
        value, slope, curvature = likelihood(beta)
        if np.abs(beta).max() > _FAR:
            break
        if np.abs(step).max() < 1e-10:
            covariance = np.linalg.inv(curvature) / np.outer(scale, scale)
            return Cox(beta / scale, covariance, value, null)
    return none("no finite hazard ratio: the groups' events do not overlap")


def hazard_ratios(time: ArrayLike, event: ArrayLike, group: ArrayLike) -> list[HazardRatio]:
    """Hazard ratio of every group against the lowest one, in ascending order. group: [n] of any numbers.

    The interval takes the groups as given beforehand: for risk groups of a cross-validated model it is too narrow.

    >>> round(hazard_ratios([1, 2, 3, 4, 5, 6], [1] * 6, [1, 1, 0, 1, 0, 0])[0].value, 2)
    5.41
    """
    t, e, g = _arrays(time, event, group)
    names, member = np.unique(g, return_inverse=True)
    if len(names) < 2:
        return []
    without = [name for k, name in enumerate(names) if not e[member == k].any()]
    if without:
        reason = f"group {without[0]:g} has no event" if e.any() else f"no event among {len(t)} patients"
        return [HazardRatio(float(name), Score.missing(reason), math.nan, math.nan) for name in names[1:]]
    fit = cox(t, e, np.eye(len(names))[member][:, 1:])
    made = []
    for k, name in enumerate(names[1:]):
        if fit.reason:
            made.append(HazardRatio(float(name), Score.missing(fit.reason), math.nan, math.nan))
            continue
        at, half = float(fit.coef[k]), _Z * math.sqrt(float(fit.covariance[k, k]))
        made.append(HazardRatio(float(name), Score(math.exp(at)), math.exp(at - half), math.exp(at + half)))
    return made
