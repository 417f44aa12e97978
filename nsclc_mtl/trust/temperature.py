"""Temperature: one number that makes the probabilities of classes as sure as they are right."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from nsclc_mtl.records import DataFault

_LEAST, _MOST = 0.05, 20.0  # beyond these the probabilities are one class, or uniform
_EDGE = 1e-12


def fit(proba: ArrayLike, label: ArrayLike) -> float:
    """The temperature with the least log loss on patients whom neither training nor early stopping saw.

    proba: [n, class], label: [n] class numbers. Above 1 the model was too sure. Raises DataFault without a patient.
    Guo et al., "On calibration of modern neural networks" (ICML 2017).

    >>> round(fit([[0.99, 0.01], [0.99, 0.01], [0.99, 0.01], [0.01, 0.99]], [0, 0, 1, 1]), 1)
    4.2
    """
    p, y = np.asarray(proba, dtype=float), np.asarray(label, dtype=int)
    if len(p) == 0:
        raise DataFault("no patient to fit a temperature on")
    logit = np.log(np.clip(p, _EDGE, 1))

    def loss(log_temperature: float) -> float:
        scaled = logit / np.exp(log_temperature)
        return float(np.mean(_log_sum_exp(scaled) - scaled[np.arange(len(y)), y]))

    found = minimize_scalar(loss, bounds=(np.log(_LEAST), np.log(_MOST)), method="bounded")
    return float(np.exp(found.x))


def scaled(proba: ArrayLike, temperature: float) -> np.ndarray:
    """Probabilities [n, class] at a temperature; the order of the classes of a patient never changes.

    >>> scaled([[0.8, 0.2]], 1.0).round(3).tolist()
    [[0.8, 0.2]]
    """
    logit = np.log(np.clip(np.asarray(proba, dtype=float), _EDGE, 1)) / temperature
    return np.exp(logit - _log_sum_exp(logit)[:, None])


def _log_sum_exp(x: np.ndarray) -> np.ndarray:
    top = x.max(axis=1)
    return top + np.log(np.exp(x - top[:, None]).sum(axis=1))
