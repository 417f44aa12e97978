"""How far the members of an ensemble differ: what another training of the same model might have said of a patient.

Members that agree may be wrong together: their spread is a lower bound of what is not known, and no interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from torch import nn


def entropy(proba: ArrayLike) -> np.ndarray:
    """Shannon's entropy of each patient's classes, nats. proba: [..., class]; result [...].

    >>> entropy([[0.5, 0.5], [1.0, 0.0]]).round(4).tolist()
    [0.6931, 0.0]
    """
    p = np.asarray(proba, dtype=float)
    return np.asarray(np.sum(p * np.log(1 / np.where(p > 0, p, 1.0)), axis=-1))


def mutual_information(proba: ArrayLike) -> np.ndarray:
    """What the members' disagreement adds to the entropy of their mean, nats, [n]; 0 where they agree.

    proba: [member, n, class]. H(mean of p) - mean of H(p): Depeweg et al., "Decomposition of uncertainty in Bayesian
    deep learning" (ICML 2018), equation 3.

    >>> mutual_information([[[1.0, 0.0], [0.6, 0.4]], [[0.0, 1.0], [0.6, 0.4]]]).round(4).tolist()
    [0.6931, 0.0]
    """
    p = np.asarray(proba, dtype=float)
    return np.maximum(entropy(p.mean(axis=0)) - entropy(p).mean(axis=0), 0.0)


def deviation(value: ArrayLike) -> np.ndarray:
    """Standard deviation of a number between the members (n - 1 in the denominator), [n]; NaN for a single member.

    value: [member, n].

    >>> deviation([[1.0, 2.0], [3.0, 2.0]]).round(4).tolist()
    [1.4142, 0.0]
    """
    v = np.asarray(value, dtype=float)
    return v.std(axis=0, ddof=1) if len(v) > 1 else np.full(v.shape[1], np.nan)


def distance(proba: ArrayLike) -> np.ndarray:
    """Mean total variation between each member's probabilities and their mean, [n], 0 to 1. proba: [member, n, class].

    Half the sum of absolute differences: by so much a member moves the probability of some event.

    >>> distance([[[0.9, 0.1]], [[0.5, 0.5]]]).round(3).tolist()
    [0.2]
    """
    p = np.asarray(proba, dtype=float)
    return (np.abs(p - p.mean(axis=0)).sum(axis=-1) / 2).mean(axis=0)


def votes(proba: ArrayLike) -> np.ndarray:
    """How many members find the class of their mean the most probable one, int [n]. proba: [member, n, class].

    >>> votes([[[0.9, 0.1]], [[0.4, 0.6]], [[0.8, 0.2]]]).tolist()
    [2]
    """
    p = np.asarray(proba, dtype=float)
    return np.asarray((p.argmax(axis=-1) == p.mean(axis=0).argmax(axis=-1)).sum(axis=0))


@contextmanager
def dropping(model: nn.Module) -> Iterator[int]:
    """The model with its dropout layers at work and everything else as in prediction; gives how many there are.

    Gal and Ghahramani, "Dropout as a Bayesian approximation" (ICML 2016). Modalities are not hidden: that would be
    another question.
    """
    from torch import nn

    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
    layers = [m for m in model.modules() if isinstance(m, kinds) and m.p > 0]
    before = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.train()
        yield len(layers)
    finally:
        for layer, mode in zip(layers, before, strict=True):
            layer.train(mode)
