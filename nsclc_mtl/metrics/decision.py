"""Net benefit: is a decision by the predicted probability better than to treat everybody or nobody.

Who has a probability of at least the threshold is treated. A threshold of 20 % says that one is willing to treat five
patients for the sake of the one who has the outcome. Net benefit counts true positives as a share of all patients,
minus false positives weighed by the odds of the threshold (Vickers and Elkin, Medical Decision Making, 2006). To treat
nobody has 0; to treat everybody is the net benefit of a probability that is 1 for all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nsclc_mtl.metrics.survival_calibration import observed_risk


def net_benefit(
    label: ArrayLike, probability: ArrayLike, thresholds: ArrayLike, weights: np.ndarray | None = None
) -> np.ndarray:
    """Net benefit at each threshold, [draw, threshold]; one row without weights. NaN where there are no patients.

    label: [n] of 0 and 1, NaN = left out; probability: [n] of label 1; thresholds: above 0, below 1.
    weights: [draw, n], how often each patient was drawn. Raises ValueError for a threshold that is no probability.

    >>> net_benefit([1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1], [0.5]).tolist()  # one right, one wrong, of four
    [[0.0]]
    """
    y, p, odds = np.asarray(label, dtype=float), np.asarray(probability, dtype=float), _odds(thresholds)
    known = ~np.isnan(y)
    y, p = y[known], p[known]
    w = np.ones((1, len(y))) if weights is None else weights[:, known]
    if not len(y) or np.isnan(p).any():
        return np.full((len(w), len(odds)), np.nan)
    treated = (p[:, None] >= np.asarray(thresholds, dtype=float)).astype(float)
    right, wrong = w @ (treated * y[:, None]), w @ (treated * (1 - y[:, None]))
    return np.asarray((right - wrong * odds) / w.sum(axis=1, keepdims=True))


def net_benefit_at(
    risk: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    when: float,
    thresholds: ArrayLike,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Net benefit of predicted risks of the event until `when`, [draw, threshold]; one row without weights.

    Among those above the threshold 1 - Kaplan-Meier at `when` is the share of true positives (Vickers et al., BMC
    Medical Informatics and Decision Making, 2008). 0 where nobody is above it. NaN where nobody above it is followed up
    to `when`: so many are censored that their risk is unknown. risk, time, event: [n]; weights: [draw, n].
    """
    r, t, e = (np.asarray(v, dtype=float) for v in (risk, time, event))
    at, odds = np.asarray(thresholds, dtype=float), _odds(thresholds)
    known = ~(np.isnan(t) | np.isnan(e))
    r, t, e = r[known], t[known], e[known]
    w = np.ones((1, len(t))) if weights is None else np.asarray(weights[:, known], dtype=float)
    out = np.full((len(w), len(at)), np.nan)
    if not len(t) or np.isnan(r).any():
        return out
    for k, threshold in enumerate(at):
        inside = r >= threshold
        share = w[:, inside].sum(axis=1) / w.sum(axis=1)
        had = observed_risk(t[inside], e[inside], when, w[:, inside]) if inside.any() else np.zeros(len(w))
        out[:, k] = np.where(share > 0, share * (had - (1 - had) * odds[k]), 0.0)
    return out


def _odds(thresholds: ArrayLike) -> np.ndarray:
    at = np.asarray(thresholds, dtype=float)
    if not ((at > 0) & (at < 1)).all():
        raise ValueError("a threshold of a decision curve lies between 0 and 1")
    return np.asarray(at / (1 - at))
