"""Metrics of one fold as functions of how often each patient was drawn: what a bootstrap works with.

A `Measure` takes weights [draw, n] to values [draw], NaN where a draw has no value. A thousand draws then cost a few
passes over an array, and two models are compared on the same draws. Concordance over pairs: `metrics/pairs.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Measure = Callable[[np.ndarray], np.ndarray]
_CELLS = 1_000_000  # of weights worked on at a time: they stay near the processor, and memory is bounded


def mean_of(measures: Sequence[Measure]) -> Measure:
    """Plain mean of several measures of the same patients, NaN where one is."""
    return lambda weights: np.mean([m(weights) for m in measures], axis=0)


def average(terms: np.ndarray) -> Measure:
    """Mean of what each patient adds (Brier scores). terms: [n]."""
    return ratio(terms, np.ones(len(terms)))


def ratio(top: np.ndarray, bottom: np.ndarray) -> Measure:
    """Sum of what each patient adds to the top over the sum of the bottom (a share among some). top, bottom: [n]."""

    def measure(weights: np.ndarray) -> np.ndarray:
        below = weights @ bottom
        return np.divide(weights @ top, below, out=np.full(len(weights), np.nan), where=below > 0)

    return measure


def gain(terms: np.ndarray, reference: np.ndarray) -> Measure:
    """1 - mean loss / mean loss of the reference (index of prediction accuracy). terms, reference: [n]."""
    share = ratio(terms, reference)
    return lambda weights: 1 - share(weights)


def recalls(label: np.ndarray, proba: np.ndarray) -> Measure:
    """Balanced accuracy. label [n], proba [n, K]; the mean is over the classes that occur in the fold."""
    classes = np.unique(label)
    member = (label[:, None] == classes).astype(float)
    right = member * (proba.argmax(axis=1) == label)[:, None]

    def measure(weights: np.ndarray) -> np.ndarray:
        count = weights @ member
        value = np.divide(weights @ right, count, out=np.full(count.shape, np.nan), where=count > 0)
        return np.asarray(value.mean(axis=1) if len(classes) > 1 else np.full(len(weights), np.nan))

    return measure


def agreement(label: np.ndarray, said: np.ndarray, classes: int) -> Measure:
    """Quadratic weighted kappa of the known and the predicted class. label, said: [n] of 0..classes-1."""
    cell = label.astype(int) * classes + said.astype(int)
    member = np.zeros((len(label), classes * classes))
    member[np.arange(len(label)), cell] = 1.0
    number = np.arange(classes)
    apart = np.square(number[:, None] - number).astype(float)

    def measure(weights: np.ndarray) -> np.ndarray:
        seen = (weights @ member).reshape(-1, classes, classes)
        rows, columns = seen.sum(axis=2), seen.sum(axis=1)
        total = rows.sum(axis=1)
        chance = np.einsum("bi,ij,bj->b", rows, apart, columns)
        wrong = (seen * apart).sum(axis=(1, 2)) * total
        return 1 - np.divide(wrong, chance, out=np.full(len(total), np.nan), where=chance > 0)

    return measure


def precision(label: np.ndarray, score: np.ndarray) -> Measure:
    """Average precision: what `classification.average_precision` says. label: [n] of 0, 1. score: [n], no NaN."""
    order, starts = levels(-score)
    positive = label[order] == 1

    def some(weights: np.ndarray) -> np.ndarray:
        drawn = weights[:, order].astype(float)
        hits = grouped(drawn * positive, starts)
        found, called = np.cumsum(hits, axis=1), np.cumsum(grouped(drawn, starts), axis=1)
        at = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
        total = found[:, -1]
        return np.divide((hits * at).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)

    return lambda weights: in_parts(some, weights)


def levels(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order of the values, lowest first, and where each distinct one begins in it."""
    order = np.argsort(values, kind="stable")
    return order, np.flatnonzero(np.r_[True, np.diff(values[order]) > 0])


def grouped(ordered: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums over the groups that begin at `starts`, [draw, group]. ordered: [draw, n]."""
    return ordered if len(starts) == ordered.shape[1] else np.add.reduceat(ordered, starts, axis=1)


def in_parts(measure: Measure, weights: np.ndarray, cells: int = _CELLS) -> np.ndarray:
    """The measure, as many draws at a time as make so many weights. [draw]."""
    step = max(1, cells // max(weights.shape[1], 1))
    if len(weights) <= step:
        return measure(weights)
    return np.concatenate([measure(weights[k : k + step]) for k in range(0, len(weights), step)])
