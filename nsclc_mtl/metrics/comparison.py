"""Intervals and paired differences over folds, by bootstrap of patients within each fold.

Scores of different folds share no scale, so nothing is ever compared across folds: a metric is computed within each
fold and averaged with the number of patients as weight. Intervals are conditional on the trained models.

A `Measure` is a metric of one fold as a function of how often each patient was drawn: weights [draw, n] -> values
[draw]. Pairs of patients are compared once; each bootstrap sample is then a quadratic form w' M w, so that a thousand
of them cost two matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import comparable

Measure = Callable[[np.ndarray], np.ndarray]
_ROWS = 2048


def ordering(score: np.ndarray, compared: np.ndarray) -> Measure:
    """Concordance over pairs: compared [n, n] true where i must score above j; ties in the score count 1/2."""
    n = len(score)
    won = np.zeros((n, n), dtype=np.float32)
    for start in range(0, n, _ROWS):
        rows = slice(start, start + _ROWS)
        mine = score[rows, None]
        won[rows] = (mine > score) + 0.5 * (mine == score).astype(np.float32)
    pairs = compared.astype(np.float32)
    won *= pairs
    broken = bool(np.isnan(score).any())

    def measure(weights: np.ndarray) -> np.ndarray:
        w = weights.astype(np.float32)
        # einsum in float64: sums of n^2 pair counts outgrow float32
        top = np.einsum("bi,bi->b", (w @ won).astype(float), weights)
        bottom = np.einsum("bi,bi->b", (w @ pairs).astype(float), weights)
        value = np.divide(top, bottom, out=np.full(len(w), np.nan), where=bottom > 0)
        return np.full(len(w), np.nan) if broken else value

    return measure


def classes_in_order(label: np.ndarray, score: np.ndarray) -> Measure:
    """Ordinal AUC (with two classes: the AUC). label, score: [n]."""
    return ordering(score, label[:, None] > label)


def survivors_in_order(risk: np.ndarray, time: np.ndarray, event: np.ndarray) -> Measure:
    """Harrell's C. risk, time, event: [n]."""
    return ordering(risk, comparable(time, event))


def mean_of(measures: Sequence[Measure]) -> Measure:
    """Plain mean of several measures of the same patients, NaN where one is."""
    return lambda weights: np.mean([m(weights) for m in measures], axis=0)


def average(terms: np.ndarray) -> Measure:
    """Mean of what each patient adds (Brier scores). terms: [n]."""

    def measure(weights: np.ndarray) -> np.ndarray:
        drawn = weights.sum(axis=1)
        return np.divide(weights @ terms, drawn, out=np.full(len(weights), np.nan), where=drawn > 0)

    return measure


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


def resamples(sizes: Sequence[int], draws: int, rng: np.random.Generator) -> list[np.ndarray]:
    """How often each patient of each fold is drawn: one array [draws, n_fold] a fold, rows sum to n_fold."""
    return [rng.multinomial(n, np.full(n, 1 / n), size=draws) if n else np.zeros((draws, 0)) for n in sizes]


def resamples_of(patients: Sequence[Sequence[str]], draws: int, rng: np.random.Generator) -> list[np.ndarray]:
    """`resamples` of these patients of each fold. Who is tested in several folds (repeated cross-validation) is drawn
    once and counts alike in all of them: the unit is the patient, not the prediction. [fold] of [draws, n_fold]."""
    if not repeated(patients):
        return resamples([len(ids) for ids in patients], draws, rng)
    people = {p: i for i, p in enumerate(sorted({p for ids in patients for p in ids}))}
    drawn = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=draws)
    return [drawn[:, [people[p] for p in ids]] for ids in patients]


def repeated(patients: Sequence[Sequence[str]]) -> bool:
    """Whether somebody is tested in more than one fold."""
    everyone = [p for ids in patients for p in ids]
    return len(set(everyone)) < len(everyone)


def over_folds(values: Sequence[np.ndarray], sizes: Sequence[int], repeats: bool = False) -> np.ndarray:
    """Patient-weighted mean over folds, folds without a value left out. values: [fold] of [draw]; result [draw].

    A fold that has a value on its own patients but none in a draw makes that draw NaN: leaving it out would let
    single draws average over other folds than the estimate does. Of many repeated small folds some lack a class in
    nearly every draw; with `repeats` a draw averages over those that have a value.
    """
    stacked = np.stack([np.asarray(v, dtype=float) for v in values])
    weight = np.asarray(sizes, dtype=float)
    if not repeats:
        return np.asarray(weight @ stacked / weight.sum())
    known = ~np.isnan(stacked)
    total = weight @ known
    return np.divide(weight @ np.where(known, stacked, 0), total, out=np.full(len(total), np.nan), where=total > 0)


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; NaN with a reason where there is none."""

    value: float
    lo: float
    hi: float
    reason: str = ""


@dataclass(frozen=True)
class Bootstrapped:
    """A metric of one model: per fold, over all folds, and its bootstrap distribution."""

    folds: list[Score]
    sizes: list[int]
    value: Score
    draws: np.ndarray  # [draw], NaN where a draw has no value
    fold_draws: list[np.ndarray]
    repeats: bool = False  # patients are tested in several folds

    def interval(self, level: float = 0.95) -> Interval:
        """Value and percentile interval of the patient-weighted mean of within-fold metrics."""
        return interval_of(self.value, self.draws, level)

    def fold_interval(self, k: int, level: float = 0.95) -> Interval:
        """Value and percentile interval of one fold."""
        return interval_of(self.folds[k], self.fold_draws[k], level)


def interval_of(value: Score, draws: np.ndarray, level: float = 0.95) -> Interval:
    """A value with the percentile interval of its draws, or why it has none."""
    if not value.known:
        return Interval(float("nan"), float("nan"), float("nan"), value.reason)
    good = draws[~np.isnan(draws)]
    reasons = [value.reason] if value.reason else []
    if len(draws) and not len(good):
        return Interval(float(value), float("nan"), float("nan"), "; ".join([*reasons, "no interval is made for it"]))
    if len(good) < len(draws) / 2 or len(good) < 20:
        reasons.append(f"no interval: only {len(good)} of {len(draws)} resamples have a value")
        return Interval(float(value), float("nan"), float("nan"), "; ".join(reasons))
    if len(good) < 0.9 * len(draws):
        reasons.append(f"interval from {len(good)} of {len(draws)} resamples")
    lo, hi = np.quantile(good, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(lo), float(hi), "; ".join(reasons))


def bootstrap(
    measures: Iterable[Measure | Score], weights: Sequence[np.ndarray], repeats: bool = False
) -> Bootstrapped:
    """A metric over folds with its bootstrap distribution.

    measures: one a fold, or the reason (a missing Score) why the fold has none. weights: `resamples_of` the folds; hand
    the same ones to two models to compare them on the same draws. repeats: see `over_folds`.
    """
    sizes = [w.shape[1] for w in weights]
    draws = len(weights[0]) if weights else 0
    folds: list[Score] = []
    fold_draws: list[np.ndarray] = []
    for measure, w in zip(measures, weights, strict=True):
        if isinstance(measure, Score):
            folds.append(measure)
            fold_draws.append(np.full(draws, np.nan))
            continue
        value = float(measure(np.ones((1, w.shape[1])))[0]) if w.shape[1] else float("nan")
        folds.append(Score(value, "" if value == value else "not defined on these patients"))
        fold_draws.append(measure(w) if value == value else np.full(draws, np.nan))
    used = [k for k, v in enumerate(folds) if v.known]
    if not used:
        reasons = sorted({f.reason for f in folds if f.reason}) or ["no folds"]
        return Bootstrapped(folds, sizes, Score.missing("; ".join(reasons)), np.full(draws, np.nan), fold_draws)
    of = [sizes[k] for k in used]
    value = float(over_folds([np.array([folds[k]]) for k in used], of)[0])
    reason = ""
    if len(used) < len(folds):
        left = "; ".join(sorted({f.reason for f in folds if not f.known}))
        reason = f"{len(folds) - len(used)} of {len(folds)} folds left out: {left}"
    spread = over_folds([fold_draws[k] for k in used], of, repeats)
    return Bootstrapped(folds, sizes, Score(value, reason), spread, fold_draws, repeats)


def paired_difference(ours: Bootstrapped, theirs: Bootstrapped, level: float = 0.95) -> Interval:
    """Ours minus theirs on the same patients and the same draws, over the folds where both have a value."""
    return interval_of(*difference_draws(ours, theirs), level)


def difference_draws(ours: Bootstrapped, theirs: Bootstrapped) -> tuple[Score, np.ndarray]:
    """Ours minus theirs over the folds where both have a value, and its bootstrap distribution [draw]."""
    if ours.sizes != theirs.sizes or len(ours.draws) != len(theirs.draws):
        raise ValueError("a paired difference needs the same patients and the same resamples for both models")
    both = [k for k in range(len(ours.folds)) if ours.folds[k].known and theirs.folds[k].known]
    if not both:
        missing = Score.missing(ours.value.reason or theirs.value.reason or "no fold in common")
        return missing, np.full(len(ours.draws), np.nan)
    sizes = [ours.sizes[k] for k in both]
    value = over_folds([np.array([ours.folds[k] - theirs.folds[k]]) for k in both], sizes)[0]
    draws = over_folds([ours.fold_draws[k] - theirs.fold_draws[k] for k in both], sizes, ours.repeats)
    reason = "" if len(both) == len(ours.folds) else f"{len(both)} of {len(ours.folds)} folds have both"
    return Score(float(value), reason), draws
