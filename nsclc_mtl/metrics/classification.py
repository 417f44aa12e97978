"""How well scores order and classes are told: AUC and its relatives, average precision, kappa, rates at a threshold.

Labels are class numbers 0..K-1 as float or int; a NaN label means unknown and its patient is left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nsclc_mtl.metrics.measure import Measure, agreement, precision
from nsclc_mtl.metrics.score import Score


def midranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value, 1 = smallest, ties share their mean rank. float [n]."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    group = np.cumsum(first) - 1
    starts = np.flatnonzero(first)
    ends = np.r_[starts[1:], len(values)]
    ranks = np.empty(len(values))
    ranks[order] = ((starts + 1 + ends) / 2)[group]
    return ranks


def _known(label: ArrayLike, *others: ArrayLike) -> tuple[np.ndarray, ...]:
    """Label and companions as float arrays without the patients whose label is unknown."""
    y = np.asarray(label, dtype=float)
    rest = [np.asarray(o, dtype=float) for o in others]
    for o in rest:
        if len(o) != len(y):
            raise ValueError(f"{len(y)} labels but {len(o)} predictions")
    keep = ~np.isnan(y)
    return (y[keep], *[o[keep] for o in rest])


def auc(label: ArrayLike, score: ArrayLike) -> Score:
    """Probability that a positive (label 1) scores above a negative (label 0); ties count 1/2.

    label: [n] of 0, 1 or NaN. score: [n], higher = more positive. Mann-Whitney form with midranks.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    Score(0.75)
    """
    y, s = _known(label, score)
    positive = y == 1
    pos, neg = int(positive.sum()), int((y == 0).sum())
    if pos + neg != len(y):
        raise ValueError("labels of an AUC are 0, 1 or NaN")
    if pos == 0 or neg == 0:
        return Score.missing("no patients" if len(y) == 0 else f"one class only ({pos} positive of {len(y)})")
    if np.isnan(s).any():
        return Score.missing(f"{int(np.isnan(s).sum())} of {len(s)} scores are NaN")
    ranks = midranks(s)
    return Score((ranks[positive].sum() - pos * (pos + 1) / 2) / (pos * neg))


def ordinal_auc(label: ArrayLike, score: ArrayLike) -> Score:
    """Concordance of a score (the expected class) over all pairs of unequal grades; ties in the score count 1/2.

    With two grades it is the AUC.

    >>> ordinal_auc([0, 1, 2], [0.2, 1.1, 0.9])
    Score(0.6666666666666666)
    """
    y, s = _known(label, score)
    grades = np.unique(y)
    if len(grades) < 2:
        return Score.missing("no patients" if len(y) == 0 else "one class only")
    if np.isnan(s).any():
        return Score.missing(f"{int(np.isnan(s).sum())} of {len(s)} scores are NaN")
    won = pairs = 0.0
    for i, low in enumerate(grades):
        for high in grades[i + 1 :]:
            two = (y == low) | (y == high)
            count = float((y == low).sum() * (y == high).sum())
            won += auc((y[two] == high).astype(float), s[two]) * count
            pairs += count
    return Score(won / pairs)


def expected_class(proba: ArrayLike) -> np.ndarray:
    """Mean class number under the predicted probabilities. proba: [n, K]; result [n] in 0..K-1."""
    p = np.asarray(proba, dtype=float)
    return np.asarray(p @ np.arange(p.shape[1]))


def auc_per_cut(label: ArrayLike, proba: ArrayLike) -> list[Score]:
    """AUC of P(Y > k) against Y > k, for every cut k = 0..K-2. proba: [n, K]."""
    y, p = _known(label, proba)
    above = 1 - np.cumsum(p, axis=1)
    return [auc((y > k).astype(float), above[:, k]) for k in range(p.shape[1] - 1)]


def auc_one_vs_rest(label: ArrayLike, proba: ArrayLike) -> list[Score]:
    """AUC of each class against all others, by that class's probability. proba: [n, K]."""
    y, p = _known(label, proba)
    return [auc((y == k).astype(float), p[:, k]) for k in range(p.shape[1])]


def macro_auc(label: ArrayLike, proba: ArrayLike) -> Score:
    """Plain mean of the one-vs-rest AUCs; NaN where a class is without patients. proba: [n, K]."""
    each = auc_one_vs_rest(label, proba)
    for k, one in enumerate(each):
        if not one.known:
            return Score.missing(f"class {k}: {one.reason}")
    return Score(float(np.mean(each)))


def balanced_accuracy(label: ArrayLike, proba: ArrayLike) -> Score:
    """Mean recall over the classes that occur, the most probable class being the answer. proba: [n, K].

    Ties in the probabilities go to the lower class.
    """
    y, p = _known(label, proba)
    classes = np.unique(y)
    if len(classes) < 2:
        return Score.missing("no patients" if len(y) == 0 else "one class only")
    if np.isnan(p).any():
        return Score.missing("some probabilities are NaN")
    said = p.argmax(axis=1)
    return Score(float(np.mean([(said[y == k] == k).mean() for k in classes])))


def brier(label: ArrayLike, proba: ArrayLike) -> Score:
    """Mean squared distance between probabilities and outcome: 0 = perfect. proba: [n, K].

    Two classes: the usual (p - y)^2 in 0..1. More: summed over the classes, 0..2 (Brier, 1950).

    >>> brier([1, 0], [[0.2, 0.8], [0.6, 0.4]])
    Score(0.1)
    """
    y, p = _known(label, proba)
    if len(y) == 0:
        return Score.missing("no patients")
    if np.isnan(p).any():
        return Score.missing("some probabilities are NaN")
    return Score(float(brier_terms(y, p).mean()))


def brier_terms(label: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """What each patient adds to the Brier score. label [n], proba [n, K]; result [n]."""
    if proba.shape[1] == 2:
        return np.asarray((proba[:, 1] - label) ** 2)
    return np.asarray(((proba - np.eye(proba.shape[1])[label.astype(int)]) ** 2).sum(axis=1))


def average_precision(label: ArrayLike, score: ArrayLike) -> Score:
    """Area under the precision-recall curve, by steps: sum over the thresholds of (gain in recall) x precision.

    Chance is the share of positives, not 1/2. No interpolation between the steps: a straight line between two points
    of this curve promises what no threshold gives (Davis and Goadrich, ICML, 2006). Patients of equal score enter
    together. label: [n] of 0, 1 or NaN. score: [n], higher = more positive. scikit-learn's definition.

    >>> average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == (1 + 2 / 3) / 2
    True
    """
    y, s = _known(label, score)
    if not np.isin(y, (0, 1)).all():
        raise ValueError("labels of an average precision are 0, 1 or NaN")
    if np.isnan(s).any():
        return Score.missing(f"{int(np.isnan(s).sum())} of {len(s)} scores are NaN")
    if len(np.unique(y)) < 2:
        return Score.missing("no patients" if len(y) == 0 else f"one class only ({int(y.sum())} positive of {len(y)})")
    return _of_all(precision(y, s), len(y))


def quadratic_kappa(label: ArrayLike, said: ArrayLike, classes: int) -> Score:
    """Cohen's kappa with quadratic weights: 1 = same grades, 0 = as by chance from the same shares of grades.

    A step of two grades counts four times as much as one (Fleiss and Cohen, 1973); with two classes it is the plain
    kappa. A prediction that never varies has 0; NaN only where known and predicted class are one and the same for
    everybody. label, said: [n] class numbers 0..classes-1, NaN in `label` is left out.

    >>> quadratic_kappa([0, 1, 2, 2], [0, 1, 2, 0], 3) == 1 - 4 / 6.5
    True
    """
    y, s = _known(label, said)
    if np.isnan(s).any():
        return Score.missing(f"{int(np.isnan(s).sum())} of {len(s)} predicted classes are NaN")
    if not (np.isin(y, np.arange(classes)).all() and np.isin(s, np.arange(classes)).all()):
        raise ValueError(f"classes of a kappa are 0..{classes - 1}")
    if len(y) == 0:
        return Score.missing("no patients")
    if len({*y, *s}) == 1:
        return Score.missing("one class only, known and predicted")
    return _of_all(agreement(y, s, classes), len(y))


def sensitivity(label: ArrayLike, score: ArrayLike, threshold: float) -> Score:
    """Share of the positives that score at or above the threshold. label: [n] of 0, 1 or NaN; score: [n]."""
    y, s = _known(label, score)
    return _rate((s >= threshold)[y == 1], s, threshold, "no positive patient")


def specificity(label: ArrayLike, score: ArrayLike, threshold: float) -> Score:
    """Share of the negatives that score below the threshold. label: [n] of 0, 1 or NaN; score: [n]."""
    y, s = _known(label, score)
    return _rate((s < threshold)[y == 0], s, threshold, "no negative patient")


def youden_threshold(label: ArrayLike, score: ArrayLike) -> Score:
    """The threshold with the largest sensitivity + specificity - 1 (Youden, Cancer, 1950): fit it on training patients.

    Candidates lie midway between neighbouring scores, so that new patients are parted fairly; of several that are as
    good the lowest is taken, the most sensitive one. label: [n] of 0, 1 or NaN. score: [n].

    >>> youden_threshold([0, 0, 1, 1], [0.1, 0.2, 0.4, 0.9])
    Score(0.30000000000000004)
    """
    y, s = _known(label, score)
    if np.isnan(s).any():
        return Score.missing(f"{int(np.isnan(s).sum())} of {len(s)} scores are NaN")
    positive, negative = int((y == 1).sum()), int((y == 0).sum())
    if not positive or not negative:
        return Score.missing("no patients" if len(y) == 0 else f"one class only ({positive} positive of {len(y)})")
    at, which = np.unique(s, return_inverse=True)
    if len(at) < 2:
        return Score.missing("the scores do not vary")
    above = positive - np.cumsum(np.bincount(which, weights=y == 1))[:-1]  # positives over each candidate
    below = np.cumsum(np.bincount(which, weights=y == 0))[:-1]
    # whole numbers, so that equally good thresholds are seen to be equal
    best = int(np.argmax(np.rint(above * negative + below * positive)))
    return Score((at[best] + at[best + 1]) / 2)


def _rate(hit: np.ndarray, score: np.ndarray, threshold: float, nobody: str) -> Score:
    if np.isnan(threshold):
        return Score.missing("the threshold is NaN")
    if np.isnan(score).any():
        return Score.missing(f"{int(np.isnan(score).sum())} of {len(score)} scores are NaN")
    return Score(float(hit.mean())) if len(hit) else Score.missing(nobody)


def _of_all(measure: Measure, n: int) -> Score:
    """The measure of everybody, once each."""
    return Score(float(measure(np.ones((1, n)))[0]))
