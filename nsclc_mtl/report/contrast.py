"""Two models of one task on the same patients: the difference, its P, and the smallest that could have been shown.

Over repeated splits a difference has two P. That of the patients (DeLong, bootstrap) is conditional on the models as
trained; averaging over more of them makes it smaller, although they share their training patients. That of the splits
(Nadeau and Bengio) allows for the shared training patients, and takes every split for a sample of test patients. A
verdict needs both, so it goes by the larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nsclc_mtl.metrics import delong, paired
from nsclc_mtl.metrics.comparison import Bootstrapped, Interval, difference_draws, interval_of, repeated
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report.measures import CHANCE, Fold, proba_of, score_of

LEVEL = 0.05


@dataclass(frozen=True)
class Judged:
    """One model of a task: its folds, its name in their `said`, and a metric over them."""

    folds: Sequence[Fold]
    model: str
    values: Bootstrapped


@dataclass(frozen=True)
class Contrast:
    """Ours minus theirs in one metric."""

    difference: Interval  # percentile interval of the paired bootstrap
    p: Score  # two-sided
    test: str  # `DeLong` or `bootstrap`
    smallest: Score  # difference found with power 80 % at the two-sided level 5 %
    splits: paired.Compared | None = None  # the same over repeated splits; None where the patients were dealt once

    @property
    def ruling(self) -> Score:
        """P that a verdict goes by: `p`, or over repeated splits the larger of the two; 1 where they point apart."""
        if self.splits is None or not self.p.known:
            return self.p
        if not self.splits.p.known:  # where all splits agree there is nothing that they could add
            return self.p if self.splits.difference.agree else self.splits.p
        apart = self.difference.value * self.splits.difference.value < 0
        return Score(1.0) if apart else max(self.p, self.splits.p)

    @property
    def by(self) -> str:
        """In words which two P there are and that the larger one rules, where one alone is below .05; else ""."""
        if self.splits is None or not self.p.known or not self.splits.p.known:
            return ""
        if (self.p < LEVEL) == (self.splits.p < LEVEL):
            return ""
        return (
            f"P is {p_word(self.p)} by {self.test if self.test == 'DeLong' else 'the bootstrap'} and "
            f"{p_word(self.splits.p)} over the repeated splits: the larger one counts"
        )


def striking(p: float, difference: Interval, ours: Interval) -> bool:
    """Whether a difference in a primary metric is printed bold: its adjusted P is below .05 and, where ours is the
    higher one, the interval of ours lies above chance. Whatever is above a model that is worse than chance is not yet
    good."""
    return p < LEVEL and (difference.value < 0 or ours.above(CHANCE))


def contrast(task: TaskSpec, ours: Judged, theirs: Judged, splits: Sequence[pd.DataFrame]) -> Contrast:
    """Compares two models on the same patients and draws; within the same folds, or each within folds of its own.

    P is DeLong's for classes, added over folds, and the bootstrap's for survival and numbers, and where a fold has too
    few patients of a class for DeLong's variance. splits: those that the two were trained on, see `over_splits`.
    """
    alike = same_folds(ours.folds, theirs.folds)
    if alike:
        value, draws = difference_draws(ours.values, theirs.values)
    else:
        value, draws = _own_folds(ours.values, theirs.values)
    smallest = paired.smallest_difference(paired.standard_error(draws))
    p, test = paired.bootstrap_p(draws), "bootstrap"
    if task.kind not in ("survival", "regression") and value.known:
        found = _delong(task, ours, theirs, alike)
        if found.known:
            p, test = found, "DeLong"
    again = over_splits(ours, theirs, splits) if alike else None
    return Contrast(interval_of(value, draws), p if value.known else Score.missing(value.reason), test, smallest, again)


def over_splits(ours: Judged, theirs: Judged, splits: Sequence[pd.DataFrame]) -> paired.Compared | None:
    """Nadeau and Bengio's test of two models with the same folds, where the patients were dealt into them anew several
    times; else None. splits: the tables (patient_id, fold, part) that the models were trained on, one where it is the
    same, none where nothing is known of it; the one with fewer training patients beside its test patients counts."""
    if not splits or not repeated([f.patients for f in ours.folds]):
        return None
    gaps = [float(a) - float(b) for a, b in zip(ours.values.folds, theirs.values.folds, strict=True)]
    return paired.corrected_t(gaps, max(_test_share(split) for split in splits))


def _test_share(split: pd.DataFrame) -> float:
    """Test patients a training patient, on average over the folds."""
    count = split.groupby([split["fold"].astype(str), "part"]).size().unstack(fill_value=0)
    return float((count["test"] / count["train"]).mean())


def same_folds(ours: Sequence[Fold], theirs: Sequence[Fold]) -> bool:
    """Whether the folds hold the same patients in the same order."""
    return [f.patients for f in ours] == [f.patients for f in theirs]


def p_word(p: float) -> str:
    """P as it is printed.

    >>> p_word(0.0004), p_word(0.0312), p_word(0.4), p_word(float("nan"))
    ('<\u20090.001', '0.031', '0.40', '–')
    """
    if np.isnan(p):
        return "–"
    return "<\u20090.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def point(value: Score) -> Interval:
    """A number without an interval, as rows of metrics.json have it."""
    return Interval(float(value), float("nan"), float("nan"), value.reason)


def _own_folds(ours: Bootstrapped, theirs: Bootstrapped) -> tuple[Score, np.ndarray]:
    draws = ours.draws - theirs.draws
    if not ours.value.known or not theirs.value.known:
        return Score.missing(ours.value.reason or theirs.value.reason), draws
    reason = "; ".join(dict.fromkeys(r for r in (ours.value.reason, theirs.value.reason) if r))
    return Score(float(ours.value) - float(theirs.value), reason), draws


def _delong(task: TaskSpec, ours: Judged, theirs: Judged, alike: bool) -> Score:
    mine, others = ([_influence(task, f, one.model) for f in one.folds] for one in (ours, theirs))
    keep, kept = ([k for k, i in enumerate(each) if i.value.known] for each in (mine, others))
    if alike:  # over the folds where both have a value
        keep = kept = [k for k in keep if k in kept]
    found = delong.delong_test(
        [mine[k] for k in keep],
        [others[k] for k in kept],
        [ours.folds[k].patients for k in keep],
        [theirs.folds[k].patients for k in kept],
    )
    return found.p


def _influence(task: TaskSpec, fold: Fold, model: str) -> delong.Influence:
    said = fold.said[model]
    nothing = delong.Influence(Score.missing("no output"), np.full(len(fold.label), np.nan), "no output")
    if not fold.patients or said.shape[1] == 0:
        return nothing
    if task.kind == "multiclass":
        proba = proba_of(task, said)
        return nothing if proba is None else delong.macro_influence(fold.label, proba)
    return delong.auc_influence(fold.label, score_of(task, said))
