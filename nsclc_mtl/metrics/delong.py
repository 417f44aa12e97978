"""DeLong's variance of an AUC and of the paired difference of two, within folds and never on pooled scores.

What a patient adds to the error of an AUC is its share of pairs won, less the mean of its class: its `terms`. Their
squares add up to the variance of DeLong, DeLong and Clarke-Pearson (Biometrics, 1988), here by midranks in
O(n log n) as Sun and Xu (IEEE Signal Processing Letters, 2014) have it. Over folds the AUCs are averaged with patients
as weights and the terms of a patient are added, so that the variance of a sum of independent folds is the sum of their
variances, two models may have other folds than each other, and a patient who is tested several times counts once.

The number of patients of each class is taken as given, and so are the trained models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from nsclc_mtl.metrics.classification import midranks
from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.metrics.paired import Compared
from nsclc_mtl.metrics.score import Score


@dataclass(frozen=True)
class Influence:
    """An AUC of some patients and what each adds to its error; the squares of `terms` add up to its variance."""

    value: Score
    terms: np.ndarray  # float [n]; NaN where there is no variance
    reason: str = ""  # why there is none


def auc_influence(label: ArrayLike, score: ArrayLike) -> Influence:
    """The AUC (more grades: the ordinal AUC) with its terms. label: class numbers [n]; score: [n], higher = higher.

    With more than two grades the pairs of all unequal grades count and the variance is that of DeLong's argument within
    each grade; with two it is DeLong's.

    >>> round(float((auc_influence([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]).terms ** 2).sum()), 6)
    0.125
    """
    y, s = np.asarray(label, dtype=float), np.asarray(score, dtype=float)
    won, pairs = _shares(y, s)
    return _influence(y, won / pairs if pairs else won, won.sum() / 2 / pairs if pairs else math.nan, s)


def macro_influence(label: ArrayLike, proba: ArrayLike) -> Influence:
    """The mean of the one-vs-rest AUCs with its terms; NaN where a class is without patients. proba: [n, K].

    The patients of each class are a sample of their own, also among the rest.
    """
    y, p = np.asarray(label, dtype=float), np.asarray(proba, dtype=float)
    own, value = np.zeros(len(y)), 0.0
    for k in range(p.shape[1]):
        won, pairs = _shares((y == k).astype(float), p[:, k])
        if not pairs:
            return Influence(Score.missing(f"class {k}: one class only"), own * math.nan, "one class only")
        own += won / pairs / p.shape[1]
        value += won.sum() / 2 / pairs / p.shape[1]
    return _influence(y, own, value, p)


def _shares(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, float]:
    """Pairs that each patient takes part in and that are in order, ties 1/2 [n]; and the number of all pairs."""
    won, pairs = np.zeros(len(label)), 0.0
    grades = np.unique(label)
    for i, low in enumerate(grades):
        below = label == low
        for high in grades[i + 1 :]:
            above = label == high
            n, m = int(below.sum()), int(above.sum())
            both = midranks(np.r_[score[below], score[above]])
            won[below] += m - (both[:n] - midranks(score[below]))
            won[above] += both[n:] - midranks(score[above])
            pairs += n * m
    return won, pairs


def _influence(label: np.ndarray, share: np.ndarray, value: float, score: np.ndarray) -> Influence:
    if len(np.unique(label)) < 2:
        return Influence(Score.missing("one class only"), np.full(len(label), np.nan), "one class only")
    if np.isnan(score).any():
        return Influence(Score.missing("some scores are NaN"), np.full(len(label), np.nan), "some scores are NaN")
    terms = np.empty(len(label))
    for one in np.unique(label):
        of = label == one
        n = int(of.sum())
        if n < 2:
            return Influence(Score(value), np.full(len(label), np.nan), "a class with one patient has no variance")
        terms[of] = (share[of] - share[of].mean()) * math.sqrt(n / (n - 1))
    return Influence(Score(value), terms)


def over_folds(folds: Sequence[Influence], patients: Sequence[Sequence[str]]) -> tuple[float, dict[str, float], str]:
    """Patient-weighted mean of the AUCs, the terms by patient, and why there is no variance ('' where there is one).

    Every fold has a value: leave out those that have none first.
    """
    total = sum(map(len, patients))
    value, reasons = 0.0, []
    terms: dict[str, float] = {}
    for fold, ids in zip(folds, patients, strict=True):
        weight = len(ids) / total
        value += weight * float(fold.value)
        reasons += [fold.reason] if fold.reason else []
        for patient, term in zip(ids, fold.terms, strict=True):
            terms[patient] = terms.get(patient, 0.0) + weight * float(term)
    return value, terms, "; ".join(sorted(set(reasons)))


def delong(folds: Sequence[Influence], patients: Sequence[Sequence[str]], level: float = 0.95) -> Interval:
    """The AUC over folds with its normal interval. patients: ids of each fold, in the order of the terms."""
    if not folds:
        return Interval(math.nan, math.nan, math.nan, "no fold with a value")
    value, terms, reason = over_folds(folds, patients)
    if reason:
        return Interval(value, math.nan, math.nan, reason)
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt(sum(t * t for t in terms.values()))
    return Interval(value, value - half, value + half)


def delong_test(
    ours: Sequence[Influence],
    theirs: Sequence[Influence],
    patients: Sequence[Sequence[str]],
    others: Sequence[Sequence[str]] | None = None,
    level: float = 0.95,
) -> Compared:
    """Ours minus theirs, paired by patient, with normal interval and two-sided P.

    patients: ids of the folds of ours, and of theirs unless `others` are given.
    """
    if not ours or not theirs:
        return Compared(Interval(math.nan, math.nan, math.nan, "no fold with a value"), Score.missing("no fold"))
    a, first, why = over_folds(ours, patients)
    b, second, why_not = over_folds(theirs, patients if others is None else others)
    gap, reason = a - b, why or why_not
    if reason:
        return Compared(Interval(gap, math.nan, math.nan, reason), Score.missing(reason))
    spread = math.sqrt(sum((first.get(p, 0.0) - second.get(p, 0.0)) ** 2 for p in {**first, **second}))
    half = float(norm.ppf((1 + level) / 2)) * spread
    if spread < 1e-12:  # the same order of patients
        p = Score(1.0) if abs(gap) < 1e-12 else Score.missing("the difference has no variance")
    else:
        p = Score(float(2 * norm.sf(abs(gap) / spread)))
    return Compared(Interval(gap, gap - half, gap + half), p)
