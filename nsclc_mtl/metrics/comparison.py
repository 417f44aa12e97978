"""Intervals and paired differences over folds, by bootstrap of patients within each fold.

Scores of different folds share no scale, so nothing is ever compared across folds: a metric is computed within each
fold and averaged with the number of patients as weight. Intervals are conditional on the trained models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

# the measures that are compared can be had from here too
from nsclc_mtl.metrics.measure import Measure as Measure
from nsclc_mtl.metrics.measure import average as average
from nsclc_mtl.metrics.measure import mean_of as mean_of
from nsclc_mtl.metrics.measure import recalls as recalls
from nsclc_mtl.metrics.pairs import classes_in_order as classes_in_order
from nsclc_mtl.metrics.pairs import survivors_in_order as survivors_in_order
from nsclc_mtl.metrics.score import Score

_SAME = 1e-12  # values that differ by less are one, but for rounding


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


def times_dealt(patients: Sequence[Sequence[str]]) -> int:
    """How often all patients were dealt into folds: in how many folds everybody is tested; 1 where not alike often.

    >>> times_dealt([["a", "b"], ["c"], ["a"], ["b", "c"]]), times_dealt([["a", "b"], ["a", "c"]])
    (2, 1)
    """
    times = set(Counter(p for ids in patients for p in ids).values())
    often = times.pop() if len(times) == 1 else 1
    return often if len(patients) % often == 0 else 1


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
    agree: bool = False  # every resample has this very value: that there is no interval does not make it uncertain

    @property
    def ends(self) -> tuple[float, float]:
        """What a verdict goes by: the ends of the interval; where all resamples agree, the value twice."""
        return (self.value, self.value) if self.agree else (self.lo, self.hi)

    def above(self, line: float) -> bool:
        """Whether all of the interval lies above a line."""
        return self.ends[0] > line

    def below(self, line: float) -> bool:
        """Whether all of the interval lies below a line."""
        return self.ends[1] < line


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
    if np.abs(good - float(value)).max() < _SAME:
        reasons.append("all resamples agree: no interval can be told")
        return Interval(float(value), float("nan"), float("nan"), "; ".join(reasons), agree=True)
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
