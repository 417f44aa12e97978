"""Do probabilities mean what they say: calibration of classes, in the large, by a slope, by a smooth curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from nsclc_mtl.metrics.fits import logistic
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.splines import knots_of, restricted_cubic

_EDGE = 1e-6  # probabilities are kept this far from 0 and 1 before the logit
FEW = 5  # fewer patients of either outcome than this: a slope would be noise


@dataclass(frozen=True)
class Assessed:
    """What calibration a prediction has: each number, its bootstrap draws, and the smooth curve on a grid."""

    values: dict[str, Score]
    draws: dict[str, np.ndarray] = field(default_factory=dict)  # the same names, each [draw]
    grid: np.ndarray = field(default_factory=lambda: np.zeros(0))  # predicted probabilities
    curve: np.ndarray = field(default_factory=lambda: np.zeros(0))  # [grid] observed ones
    curve_draws: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))  # [draw, grid]


NAMES = ("slope", "intercept", "in_the_large", "observed_expected", "ici", "e50", "e90")


def assess(
    label: ArrayLike, probability: ArrayLike, weights: np.ndarray | None = None, grid: ArrayLike = ()
) -> Assessed:
    """Calibration of the probability of one outcome.

    slope, intercept: the outcome's logit on the predicted logit (Cox, Biometrika, 1958): 1 and 0 = calibrated; a slope
    below 1 says that predictions are too extreme. in_the_large: the intercept where the slope is 1: above 0,
    predictions are too low. observed_expected: outcomes over the sum of the probabilities. ici, e50, e90: mean, median
    and 90th percentile of the distance between predicted and smooth observed probability over the patients (Austin and
    Steyerberg, Statistics in Medicine, 2019). The smooth curve is a logistic regression on a restricted cubic spline of
    the predicted logit, knots at its 10th, 50th and 90th percentile (a straight line where these are not three); R's
    `val.prob` takes loess instead, and its numbers are others. A constant prediction has the observed rate as its
    curve.

    Probabilities nearer to 0 or 1 than 1e-6 are clipped there, and what rests on their logits says how many. They tell
    no intercept, however near to 1e-6 they are clipped, where the outcomes among the others leave it no finite value;
    and no slope where fewer than five of either outcome are among the others.

    label: [n] of 0, 1, NaN = left out. probability: [n] of label 1. weights: [draw, n], how often each patient was
    drawn; knots stay where they are. grid: probabilities at which the curve is wanted.
    """
    y, p = np.asarray(label, dtype=float), np.asarray(probability, dtype=float)
    known = ~np.isnan(y)
    y, p = y[known], p[known]
    at = np.asarray(grid, dtype=float)
    w = np.ones((1, len(y))) if weights is None else np.vstack([np.ones(len(y)), weights[:, known]])
    why = "no patients" if not len(y) else "some probabilities are NaN" if np.isnan(p).any() else ""
    if why:
        return unknown(why, NAMES, len(w) - 1, at)
    drawn = w.sum(axis=1)
    observed, expected = w @ y / drawn, w @ p / drawn
    found = {"observed_expected": observed / np.where(expected > 0, expected, np.nan)}
    reasons = {"observed_expected": "every probability is 0"}
    x = _logit(p)
    one = np.ones((len(y), 1))
    fewest = int(min(y.sum(), (1 - y).sum()))
    if fewest:
        found["in_the_large"] = logistic(one, y, w, offset=x)[:, 0]
    reasons["in_the_large"] = f"one outcome only ({int(y.sum())} of {len(y)}): the intercept is infinite"
    inside = (p >= _EDGE) & (p <= 1 - _EDGE)
    note = clipped(inside, "probabilities", "1e-6")
    if fewest:
        left = w @ (y - (p > 1 - _EDGE))  # outcomes that the others have to account for
        found["in_the_large"][(left <= 0) | (left >= w @ inside)] = np.nan
        reasons["in_the_large"] = f"{note}: the intercept is infinite" if note else _SEPARATED
    few = f"{int(y.sum())} positive of {len(y)}: at least {FEW} of either are needed" if fewest < FEW else ""
    constant = "probabilities are constant" if np.ptp(p) == 0 else ""
    reasons |= dict.fromkeys(("slope", "intercept", "ici", "e50", "e90"), few or constant or _SEPARATED)
    held = int(min(y[inside].sum(), (1 - y[inside]).sum()))
    if note and not few and not constant and (held < FEW or np.ptp(p[inside]) == 0):
        reasons |= dict.fromkeys(("slope", "intercept"), f"{note}: the others are too few or too alike for a slope")
    elif not few and not constant:
        found["slope"], found["intercept"] = logistic(np.hstack([x[:, None], one]), y, w).T
    if constant:
        curve = np.repeat(observed[:, None], len(at), axis=1)
        found |= distances(np.repeat(observed[:, None], len(p), axis=1) - p, w)
    elif not few:
        knots = knots_of(x)
        beta = logistic(np.hstack([one, restricted_cubic(x, knots)]), y, w)
        found |= distances(_said(beta, x, knots) - p, w)
        curve = _said(beta, _logit(at), knots)
    else:
        curve = np.full((len(w), len(at)), np.nan)
    return told(found, reasons, NAMES, at, curve, {} if constant else dict.fromkeys(_OF_LOGITS, note))


_OF_LOGITS = ("slope", "intercept", "in_the_large", "ici", "e50", "e90")
_SEPARATED = "outcomes are perfectly separated: no finite fit"


def _said(beta: np.ndarray, x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    basis = np.hstack([np.ones((len(x), 1)), restricted_cubic(x, knots)])
    return np.asarray(1 / (1 + np.exp(-np.clip(beta @ basis.T, -35, 35))))


def _logit(p: np.ndarray) -> np.ndarray:
    inside = np.clip(p, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside / (1 - inside)))


def clipped(inside: np.ndarray, what: str, at: str) -> str:
    """How many were clipped, in words; "" where none was. inside: bool [n], of those that were not."""
    lost = int((~inside).sum())
    return f"{lost} of {len(inside)} {what} clipped at {at}" if lost else ""


def unknown(reason: str, names: tuple[str, ...], draws: int, grid: np.ndarray) -> Assessed:
    """Nothing but the reason why."""
    return Assessed(
        {name: Score.missing(reason) for name in names},
        {name: np.full(draws, np.nan) for name in names},
        grid,
        np.full(len(grid), np.nan),
        np.full((draws, len(grid)), np.nan),
    )


def told(
    found: dict[str, np.ndarray],
    reasons: dict[str, str],
    names: tuple[str, ...],
    grid: np.ndarray,
    curve: np.ndarray,
    notes: Mapping[str, str],
) -> Assessed:
    """Of arrays whose first row is the patients as they are: values, with reasons where there are none, and draws.

    notes: name -> what a value that there is has to say beside it.
    """
    lacking = np.full(len(curve), np.nan)
    every = {name: found.get(name, lacking) for name in names}
    values = {
        name: Score(float(v[0]), notes.get(name, "")) if np.isfinite(v[0]) else Score.missing(reasons[name])
        for name, v in every.items()
    }
    return Assessed(values, {name: v[1:] for name, v in every.items()}, grid, curve[0], curve[1:])


def distances(gap: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """ICI, E50 and E90, each [draw], of the gaps between the curve and the predictions, [draw, n]."""
    far = np.abs(gap)
    whole = weights.sum(axis=1)
    return {
        "ici": (far * weights).sum(axis=1) / whole,
        "e50": _quantile(far, weights, 0.5),
        "e90": _quantile(far, weights, 0.9),
    }


def _quantile(values: np.ndarray, weights: np.ndarray, q: float) -> np.ndarray:
    """The q-quantile (Hyndman and Fan's type 7) of each row, each value taken `weights` times. [draw]."""
    order = np.argsort(values, axis=1)
    v = np.take_along_axis(values, order, axis=1)
    count = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    place = (count[:, -1] - 1) * q
    ends = []
    for rank in (np.floor(place), np.ceil(place)):
        k = (count <= rank[:, None]).sum(axis=1)
        ends.append(v[np.arange(len(v)), np.minimum(k, v.shape[1] - 1)])
    return np.asarray(ends[0] + (place - np.floor(place)) * (ends[1] - ends[0]))


def calibration_slope(label: ArrayLike, probability: ArrayLike) -> tuple[Score, Score]:
    """Slope and intercept of the outcome's logit on the predicted logit (Cox, 1958): 1 and 0 = calibrated.

    A slope below 1: predictions are too extreme. label: [n] of 0, 1, NaN. probability: [n] of the positive class.
    """
    values = assess(label, probability).values
    return values["slope"], values["intercept"]


def in_the_large(label: ArrayLike, probability: ArrayLike) -> Score:
    """The intercept on the logit scale where the slope is held at 1: 0 = as many outcomes as predicted.

    >>> round(in_the_large([1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]), 4)  # log(1/3)
    -1.0986
    """
    return assess(label, probability).values["in_the_large"]


def integrated_index(label: ArrayLike, probability: ArrayLike) -> tuple[Score, Score, Score]:
    """ICI, E50 and E90 of `assess`: 0 = calibrated.

    >>> ici, e50, e90 = integrated_index([1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5])
    >>> ici
    Score(0.25)
    """
    values = assess(label, probability).values
    return values["ici"], values["e50"], values["e90"]


@dataclass(frozen=True)
class Group:
    """Patients with like predictions: their number, mean prediction, and what was observed with its 95 % interval."""

    n: int
    predicted: float
    observed: float
    lo: float
    hi: float


Observe = Callable[[np.ndarray], tuple[float, float, float]]


def groups(probability: ArrayLike, observe: Observe, most: int = 10, least: int = 10) -> list[Group]:
    """Groups of ascending probability and equal size: `most` of them, fewer where they would hold under `least`.

    Equal probabilities stay together. observe: bool [n] -> observed probability with its interval.
    """
    p = np.asarray(probability, dtype=float)
    wanted = max(1, min(most, len(p) // least))
    cuts = np.unique(np.quantile(p, np.arange(1, wanted) / wanted)) if len(p) else np.zeros(0)
    number = np.searchsorted(cuts, p, side="left")
    out = []
    for k in np.unique(number):
        inside = number == k
        out.append(Group(int(inside.sum()), float(p[inside].mean()), *observe(inside)))
    return out


def rates(label: ArrayLike) -> Observe:
    """For `groups`: the share with label 1 and Wilson's interval (JASA, 1927)."""
    y = np.asarray(label, dtype=float)
    z = float(norm.ppf(0.975))

    def observe(inside: np.ndarray) -> tuple[float, float, float]:
        n, share = int(inside.sum()), float(y[inside].mean())
        middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
        return share, float((middle - half) / (1 + z**2 / n)), float((middle + half) / (1 + z**2 / n))

    return observe


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
