"""What a score adds to a known predictor: likelihood-ratio test of Cox, proportional odds, logistic and linear models.

The score of a cross-validated model is taken as if it were a covariate that was measured. It was fitted, on patients
who are tested in other folds, so that P is an approximation; it errs little where folds are many and patients more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from nsclc_mtl.baselines.likelihoods import CoxLikelihood, GradesLikelihood
from nsclc_mtl.baselines.ridge import newton
from nsclc_mtl.metrics.score import Score


@dataclass(frozen=True)
class LikelihoodRatio:
    """Twice the gain in log likelihood, its degrees of freedom and P."""

    statistic: Score
    freedom: int
    p: Score


class _StratifiedCox:
    """Log partial likelihood summed over strata: patients are compared within their own."""

    def __init__(self, z: np.ndarray, time: np.ndarray, event: np.ndarray, stratum: np.ndarray) -> None:
        of = [stratum == s for s in np.unique(stratum)]
        self.parts = [CoxLikelihood(z[rows], time[rows], event[rows]) for rows in of if event[rows].any()]
        self.width = z.shape[1]

    def __call__(self, beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, gradient, curvature = 0.0, np.zeros(self.width), np.zeros((self.width, self.width))
        for part in self.parts:
            v, g, c = part(beta)
            value, gradient, curvature = value + v, gradient + g, curvature + c
        return value, gradient, curvature


def within(score: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """The score less its mean and over its standard deviation in each stratum; 0 where it does not vary. float [n]."""
    out = np.zeros(len(score))
    for one in np.unique(stratum):
        of = stratum == one
        spread = score[of].std()
        out[of] = (score[of] - score[of].mean()) / spread if spread > 0 else 0.0
    return out


def survival_ratio(
    base: np.ndarray, added: np.ndarray, time: np.ndarray, event: np.ndarray, stratum: np.ndarray
) -> LikelihoodRatio:
    """Whether `added` [n, q] tells more of survival than `base` [n, p] alone: Cox with Efron's ties, strata apart."""
    if not event.any():
        return _none("no event")
    whole = _columns(base, added)
    if whole is None:
        return _none("the score does not vary beside what is known")
    small = _StratifiedCox(base, time, event, stratum)
    large = _StratifiedCox(whole, time, event, stratum)
    return _ratio(_top(small, np.zeros(base.shape[1]), 0), _top(large, np.zeros(whole.shape[1]), 0), added.shape[1])


def classes_ratio(base: np.ndarray, added: np.ndarray, label: np.ndarray, stratum: np.ndarray) -> LikelihoodRatio:
    """Whether `added` tells more of grades than `base` alone: proportional odds (two classes: logistic), the strata a
    factor. label: class numbers [n] in their order."""
    classes, y = np.unique(label, return_inverse=True)
    if len(classes) < 2:
        return _none("one class only")
    base = np.column_stack([base, _factor(stratum)])
    whole = _columns(base, added)
    if whole is None:
        return _none("the score does not vary beside what is known")
    tops = []
    for z in (base, whole):
        model = GradesLikelihood(z, y, len(classes))
        tops.append(_top(model, model.start(), len(classes) - 1))
    return _ratio(tops[0], tops[1], added.shape[1])


def number_ratio(base: np.ndarray, added: np.ndarray, value: np.ndarray, stratum: np.ndarray) -> LikelihoodRatio:
    """Whether `added` tells more of a number than `base` alone: n log of the ratio of squared errors, strata a
    factor."""
    base = np.column_stack([np.ones(len(value)), base, _factor(stratum)])
    whole = _columns(base, added)
    if whole is None:
        return _none("the score does not vary beside what is known")
    left = [float(np.square(value - z @ np.linalg.lstsq(z, value, rcond=None)[0]).sum()) for z in (base, whole)]
    if left[1] <= 0:
        return _none("nothing is left to explain")
    return _ratio(0.0, len(value) / 2 * float(np.log(left[0] / left[1])), added.shape[1])


def _factor(stratum: np.ndarray) -> np.ndarray:
    """A column a stratum but the first. [n, strata - 1]."""
    return np.asarray((stratum[:, None] == np.unique(stratum)[1:]).astype(float))


def _columns(base: np.ndarray, added: np.ndarray) -> np.ndarray | None:
    """Both side by side, None where the new columns are made of the old ones."""
    whole = np.column_stack([base, added])
    with_one = np.column_stack([np.ones(len(whole)), whole])
    rank = np.linalg.matrix_rank(with_one) - np.linalg.matrix_rank(with_one[:, : base.shape[1] + 1])
    return whole if rank == added.shape[1] else None


def _top(model: object, start: np.ndarray, free: int) -> float:
    """The largest log likelihood; where classes are separated, the value that it climbs to."""
    if not len(start):
        return float(model(start)[0])  # type: ignore[operator]
    at = newton(model, start, 0.0, free=free, tolerance=1e-12)  # type: ignore[arg-type]
    return float(model(at)[0])  # type: ignore[operator]


def _ratio(small: float, large: float, freedom: int) -> LikelihoodRatio:
    gain = max(0.0, 2 * (large - small))
    return LikelihoodRatio(Score(gain), freedom, Score(float(chi2.sf(gain, freedom))))


def _none(reason: str) -> LikelihoodRatio:
    return LikelihoodRatio(Score.missing(reason), 0, Score.missing(reason))
