"""Class probabilities that are as spread as they are right, and as high on average as the classes are frequent.

Two things are wrong with a network's probabilities, and different patients can tell them. The *levels*, how frequent
each class is said to be, are wrong where training ended before the cut points had come far enough: the training
patients themselves tell that, because the share of a class has nothing to do with fitting them too well. The *slope*,
how far the probabilities of different patients lie apart, is told by patients whom the model was not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, minimize

from nsclc_mtl.records import DataFault

SPREAD = 0.5  # SD of the log slope before anything is known: two slopes of three lie between .6 and 1.65
_EDGE = 1e-6
_FAR = 40.0  # logits beyond which a probability is 0 or 1


def slope(proba: ArrayLike, label: ArrayLike, ordered: bool = False, share: float = 1.0) -> float:
    """The factor by which log odds are to be stretched, above 0: below 1 the model was too sure.

    proba: [n, class] of patients whom the model had not seen. label: [n] class numbers. With `ordered` classes, and
    with two, it is the slope of a logistic regression of lying above each cut on the predicted log odds of that (Cox,
    Biometrika 1958): one slope for all cuts, an intercept for each, every patient counted once. Without an order it is
    that of a multinomial regression on the log probabilities. It maximises the likelihood times a log-normal prior
    around 1, of which `SPREAD` is the SD: few patients, or predictions that say little, leave it near 1.

    share: of the patients that the model will be trained on, how many were there when these were predicted. What a
    slope below 1 lacks comes from fitting noise and falls with the number of patients (Copas, JRSS B 1983): that share
    of it is taken.

    Raises DataFault without a patient.

    >>> p = np.repeat([[0.9, 0.1], [0.1, 0.9]], 1000, axis=0)
    >>> round(slope(p, np.tile([0, 0, 1], 667)[:2000]), 2) < 0.3
    True
    """
    p, y = np.asarray(proba, float), np.asarray(label, int)
    if not len(p):
        raise DataFault("no patient to fit a slope of the probabilities on")
    lines = _lines(p, ordered)
    middle = lines.mean(axis=0)
    count = lines.shape[1]
    cuts = _by_cuts(p, ordered)
    above = y[:, None] > np.arange(count) if cuts else np.eye(count)[y]

    def cost(at: np.ndarray) -> tuple[float, np.ndarray]:
        stretched = np.exp(at[0]) * (lines - middle)
        z = middle + stretched + at[1:]
        if cuts:
            loss = (np.logaddexp(0, z) - above * z).sum() / count
            pull = (1 / (1 + np.exp(-np.clip(z, -_FAR, _FAR))) - above) / count
        else:
            told = _softmax(z)
            loss = -np.log(np.maximum((told * above).sum(axis=1), 1e-300)).sum()
            pull = told - above
        gradient = np.concatenate([[(pull * stretched).sum() + at[0] / SPREAD**2], pull.sum(axis=0) + at[1:] * 1e-3])
        return float(loss + 0.5 * (at[0] / SPREAD) ** 2 + 0.5e-3 * (at[1:] ** 2).sum()), gradient

    found = float(np.exp(minimize(cost, np.zeros(1 + count), jac=True, method="L-BFGS-B").x[0]))
    return found if found >= 1 else 1 - (1 - found) * share


def levels(proba: ArrayLike, label: ArrayLike, steep: float = 1.0, ordered: bool = False) -> dict[str, Any]:
    """{slope, centre, shift}: with log odds stretched by `steep` around their means (`centre`), the shifts with which
    the training patients' mean probabilities are the shares of their classes.

    proba: [n, class] of the training patients. label: [n] class numbers. centre, shift: of each cut between `ordered`
    classes or between two, [class - 1]; else of each class, [class]. A class that nobody has counts as that of half a
    patient.
    Raises DataFault without a patient.

    >>> levels([[0.7, 0.3], [0.7, 0.3]], [0, 1])["shift"][0].__round__(3)  # log odds 0 instead of -.847
    0.847
    """
    p, y = np.asarray(proba, float), np.asarray(label, int)
    if not len(p):
        raise DataFault("no training patient to fit the levels of the probabilities on")
    lines = _lines(p, ordered)
    middle = lines.mean(axis=0)
    z = middle + steep * (lines - middle)
    half = 0.5 / len(y)
    if _by_cuts(p, ordered):
        shares = np.clip([(y > k).mean() for k in range(z.shape[1])], half, 1 - half)
        shift = np.array([_shift(z[:, k], share) for k, share in enumerate(shares)])
    else:
        shares = np.maximum(np.bincount(y, minlength=z.shape[1]) / len(y), half)
        shift = _shifts(z, shares / shares.sum())
    return {"slope": float(steep), "centre": middle.tolist(), "shift": shift.tolist()}


def scaled(proba: ArrayLike, of: Mapping[str, Any], ordered: bool = False) -> np.ndarray:
    """Probabilities [n, class] with the slope and the levels that `levels` gave.

    Of two classes, the order of the patients never changes. Of ordered classes P(above a cut) keeps its order among the
    patients at each cut, and never rises from cut to cut.

    >>> scaled([[0.7, 0.3]], {"slope": 1.0, "centre": [0.0], "shift": [0.0]}).round(3).tolist()
    [[0.7, 0.3]]
    """
    p = np.asarray(proba, float)
    middle = np.asarray(of["centre"], float)
    z = middle + float(of["slope"]) * (_lines(p, ordered) - middle) + np.asarray(of["shift"], float)
    if not _by_cuts(p, ordered):
        return _softmax(z)
    above = np.minimum.accumulate(_expit(z), axis=1)
    edges = np.concatenate([np.ones((len(p), 1)), above, np.zeros((len(p), 1))], axis=1)
    return edges[:, :-1] - edges[:, 1:]


def _by_cuts(proba: np.ndarray, ordered: bool) -> bool:
    return ordered or proba.shape[1] == 2


def _lines(proba: np.ndarray, ordered: bool) -> np.ndarray:
    """Log odds of lying above each cut, [n, class - 1], or log probabilities, [n, class]."""
    if not _by_cuts(proba, ordered):
        return np.asarray(np.log(np.clip(proba, _EDGE, 1.0)))
    # from the end that is near: 1 - P(above) of a rare class would lose its digits
    above = np.cumsum(proba[:, ::-1], axis=1)[:, ::-1][:, 1:]
    below = np.cumsum(proba, axis=1)[:, :-1]
    return np.asarray(np.log(np.maximum(above, _EDGE)) - np.log(np.maximum(below, _EDGE)))


def _shift(z: np.ndarray, share: float) -> float:
    """What to add to log odds so that their probabilities have this mean."""
    ends = -np.max(z) - _FAR, -np.min(z) + _FAR
    return float(brentq(lambda by: _expit(z + by).mean() - share, *ends))


def _shifts(z: np.ndarray, shares: np.ndarray, rounds: int = 500) -> np.ndarray:
    """What to add to log probabilities so that the classes have these mean probabilities; its sum is zero."""
    by = np.zeros(z.shape[1])
    for _ in range(rounds):
        step = np.log(shares) - np.log(np.maximum(_softmax(z + by).mean(axis=0), 1e-300))
        by += step
        if np.abs(step).max() < 1e-9:
            break
    return np.asarray(by - by.mean())


def _expit(z: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -700, 700))))


def _softmax(z: np.ndarray) -> np.ndarray:
    weight = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))
