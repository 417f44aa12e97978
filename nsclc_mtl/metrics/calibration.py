"""Do probabilities mean what they say: calibration slope and intercept, expected calibration error."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nsclc_mtl.metrics.score import Score

_EDGE = 1e-6  # probabilities are kept this far from 0 and 1 before the logit
_FEW = 5  # fewer patients of either outcome than this: a slope would be noise


def calibration_slope(label: ArrayLike, probability: ArrayLike) -> tuple[Score, Score]:
    """Slope and intercept of the outcome's logit on the predicted logit (Cox, 1958): 1 and 0 = calibrated.

    A slope below 1: predictions are too extreme. label: [n] of 0, 1, NaN. probability: [n] of the positive class.
    """
    y, p = np.asarray(label, dtype=float), np.asarray(probability, dtype=float)
    keep = ~np.isnan(y)
    y, p = y[keep], np.clip(p[keep], _EDGE, 1 - _EDGE)
    if min(y.sum(), (1 - y).sum()) < _FEW:
        none = Score.missing(f"{int(y.sum())} positive of {len(y)}: at least {_FEW} of either are needed")
        return none, none
    if np.isnan(p).any() or np.ptp(p) == 0:
        none = Score.missing("probabilities are constant or NaN")
        return none, none
    x = np.stack([np.log(p / (1 - p)), np.ones(len(p))], axis=1)
    beta = np.zeros(2)
    for _ in range(50):
        said = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        weight = np.maximum(said * (1 - said), 1e-12)
        step = np.linalg.pinv(x.T @ (x * weight[:, None])) @ (x.T @ (y - said))
        step *= min(1.0, 5 / max(np.abs(step).max(), 1e-12))  # a long first step must not leave the valley
        beta += step
        if np.abs(step).max() < 1e-10:
            return Score(float(beta[0])), Score(float(beta[1]))
    none = Score.missing("outcomes are perfectly separated: no finite slope")
    return none, none


def calibration_error(label: ArrayLike, proba: ArrayLike, bins: int = 10) -> Score:
    """Expected calibration error of the most probable class, bins of equal width (Guo et al., 2017): 0 = calibrated.

    label: [n] class numbers, NaN unknown. proba: [n, K]. It is biased upwards for few patients.
    """
    y, p = np.asarray(label, dtype=float), np.asarray(proba, dtype=float)
    keep = ~np.isnan(y)
    y, p = y[keep], p[keep]
    if len(y) == 0:
        return Score.missing("no patients")
    if np.isnan(p).any():
        return Score.missing("some probabilities are NaN")
    sure = p.max(axis=1)
    right = p.argmax(axis=1) == y
    bin_of = np.minimum((sure * bins).astype(int), bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    gap = np.abs(np.bincount(bin_of, weights=right - sure, minlength=bins))
    return Score(float(gap[count > 0].sum() / len(y)))
