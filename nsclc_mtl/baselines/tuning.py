"""The penalty of a floor: the one whose fits, made without a part of the training patients, suit that part best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from nsclc_mtl.baselines.model import Model, Outcome, Path, Space
from nsclc_mtl.metrics.partial_likelihood import CoxLikelihood


class Choice(NamedTuple):
    """The best step of the best path in the best space."""

    space: Space
    path: Path
    step: int


def choose(model: Model, spaces: Sequence[Space], known: np.ndarray, outcome: Outcome, inner: np.ndarray) -> Choice:
    """The space, path and step of the largest held-out log likelihood. known: rows of the spaces with an outcome."""
    best, found = -np.inf, None
    for space in spaces:
        own = replace(space, train=space.train[known])
        for path in model.paths(own, outcome):
            scores = path_scores(path, own.train, outcome, inner)
            if found is None or scores.max() > best:
                best, found = scores.max(), Choice(space, path, int(scores.argmax()))
    if found is None:
        raise ValueError("a model without a path")
    return found


def path_scores(path: Path, z: np.ndarray, outcome: Outcome, inner: np.ndarray) -> np.ndarray:
    """Held-out log likelihood of each penalty, summed over the inner folds; -inf where the path was left. [penalty].

    Past the summit (two steps down) the weaker, slower fits are not made.
    """
    judge = _survival if outcome.survival else _numbers if outcome.number else _classes
    judged = [judge(path, z, outcome, inner != k) for k in range(inner.max() + 1)]
    scores = np.full(len(path.penalties), -np.inf)
    for i in range(len(path.penalties)):
        scores[i] = sum(next(held_out) for held_out in judged)
        if i >= 2 and scores[i] < scores[i - 1] < scores[i - 2]:
            break
    return scores


def held_out(path: Path, z: np.ndarray, outcome: Outcome, step: int, inner: np.ndarray) -> np.ndarray:
    """Class probabilities of each patient by the exact fit on the other inner folds, [patient, class].

    A class that the others lack has probability 0; NaN where they are of one class. The penalty was chosen on the same
    inner folds: that is one choice among few, but not none.
    """
    proba = np.full((len(z), outcome.classes), np.nan)
    for k in np.unique(inner):
        fit = inner != k
        ours, there = outcome.of(fit)
        if len(there) > 1:
            proba[~fit] = 0
            proba[np.ix_(~fit, there)] = path.fit(z[fit], ours, step)(z[~fit])
    return proba


def _survival(path: Path, z: np.ndarray, outcome: Outcome, fit: np.ndarray) -> Iterator[float]:
    """What the held-out patients add to the partial likelihood (Verweij and van Houwelingen, 1993), per penalty."""
    ours, _ = outcome.of(fit)
    whole = CoxLikelihood(z, outcome.y, outcome.event)
    part = CoxLikelihood(z[fit], ours.y, ours.event)
    for said in path.walk(z[fit], ours):
        eta = said(z)
        yield whole.value_of(eta) - part.value_of(eta[fit])


def _classes(path: Path, z: np.ndarray, outcome: Outcome, fit: np.ndarray) -> Iterator[float]:
    """Log likelihood of the held-out patients whose class occurs among the others, per penalty."""
    ours, there = outcome.of(fit)
    usable = ~fit & np.isin(outcome.y, there)
    truth = np.searchsorted(there, outcome.y[usable])
    if len(there) < 2:
        yield from (0.0 for _ in path.penalties)
        return
    for said in path.walk(z[fit], ours):
        proba = said(z[usable])
        yield float(np.log(np.maximum(proba[np.arange(len(truth)), truth], 1e-12)).sum())


def _numbers(path: Path, z: np.ndarray, outcome: Outcome, fit: np.ndarray) -> Iterator[float]:
    """Normal log likelihood of the held-out patients at the variance of all outcomes, per penalty."""
    ours, _ = outcome.of(fit)
    variance = max(float(np.var(outcome.y)), 1e-300)
    for said in path.walk(z[fit], ours):
        yield -float(((outcome.y[~fit] - said(z[~fit])) ** 2).sum()) / variance / 2


def inner_folds(strata: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Inner fold of each training patient; events, classes or the ranks of a number spread evenly. int [patient]."""
    fold = np.empty(len(strata), dtype=int)
    dealt = 0
    for level in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == level))
        fold[members] = (dealt + np.arange(len(members))) % folds
        dealt += len(members)
    return fold
