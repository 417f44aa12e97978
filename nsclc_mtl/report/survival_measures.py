"""Which metrics judge a survival task, on the patients of one fold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nsclc_mtl.metrics import survival
from nsclc_mtl.metrics.measure import Measure, average, gain
from nsclc_mtl.metrics.pairs import curves_in_order, survivors_in_order, two_in_order
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report.fold import (
    HORIZONS_DAYS,
    LEARNER,
    Fold,
    MeasureOf,
    curve_days,
    curves_until,
    score_of,
    too_few_followed,
)

_HEAVIEST = 0.1  # Uno's C ends where G of the training patients falls below it: no pair weighs more than a hundred
_NEAR = 0.01  # a curve is read at a horizon from a day that is not farther from it than this share


def measures(task: TaskSpec, folds: Sequence[Fold], tau: float | None = None) -> dict[str, MeasureOf]:
    """The metrics of a survival task, the primary one first. tau: end of Uno's C in days; None: `last_day`."""
    each: dict[str, MeasureOf] = {"c_index": _c_index, "uno_c": _uno_c(last_day(folds) if tau is None else tau)}
    until = curves_end(folds)
    curves = {"antolini_c": _antolini_c, "ibs": _ibs(until), "ipa": _ipa(until)}
    each |= dict.fromkeys(curves, _other_causes) if task.causes else curves
    seen = {patient: float(time) for f in folds for patient, time in zip(f.patients, f.label, strict=True)}
    for word, days in HORIZONS_DAYS.items():
        few = too_few_followed(sum(time >= days for time in seen.values()))
        each[f"auc_{word}"] = _refused(few) if few else _auc_at(days)
        each[f"brier_{word}"] = _other_causes if task.causes else _refused(few) if few else _brier_at(days)
    return each


def _refused(why: str) -> MeasureOf:
    return lambda _, __: Score.missing(why)


def last_day(folds: Sequence[Fold]) -> float:
    """The end of Uno's C, one for all models and folds: until then a tenth of the training patients of every fold would
    still be under observation, by G. NaN without training outcomes."""
    ends = []
    for fold in folds:
        if fold.censoring is not None:
            low = fold.censoring.time[fold.censoring.value < _HEAVIEST]
            ends.append(float(low[0] if len(low) else fold.censoring.time[-1:].max(initial=0.0)))
    return min(ends, default=float("nan"))


def curves_end(folds: Sequence[Fold]) -> float:
    """The day before which the integrated Brier score ends, one for all models and folds: as far as the training and
    the test patients of every fold are followed. Scores over other days are not comparable, and late days are harder.
    A fold that does not reach the second day of the learner's curve has no score, and does not end those of the others.
    Infinite without training outcomes."""
    reached = ((fold, curves_until(fold)) for fold in folds if len(fold.label) and LEARNER in fold.said)
    return min((until for fold, until in reached if len(_grid(fold, until)) > 1), default=np.inf)


def ends(folds: Sequence[Fold]) -> dict[str, str]:
    """Metric -> the days that it judges, in words, where its name does not tell."""
    made, tau = {}, last_day(folds)
    if np.isfinite(tau):
        made["uno_c"] = f"events before day {tau:.0f}"
    days = [_grid(fold, curves_end(folds)) for fold in folds if fold.censoring is not None and LEARNER in fold.said]
    days = [own for own in days if len(own) > 1]
    if days:
        made |= dict.fromkeys(("ibs", "ipa"), f"day {days[0][0]:.0f} to {days[0][-1]:.0f}")
    return made


def _c_index(fold: Fold, said: pd.DataFrame) -> Measure | Score:
    risk = score_of(TaskSpec("", "survival"), said)
    plain = survival.c_index(risk, fold.label, fold.event)
    return survivors_in_order(risk, fold.label, fold.event) if plain.known else plain


def _uno_c(tau: float) -> MeasureOf:
    def measure_of(fold: Fold, said: pd.DataFrame) -> Measure | Score:
        if fold.censoring is None:
            return Score.missing(fold.unweighed)
        risk = score_of(TaskSpec("", "survival"), said)
        plain = survival.uno_c(risk, fold.label, fold.event, fold.censoring, tau)
        weight = survival.uno_weights(fold.label, fold.event, fold.censoring, tau)
        if isinstance(weight, Score) or not plain.known:
            return plain
        return survivors_in_order(risk, fold.label, fold.event, weight)

    return measure_of


def _auc_at(days: float) -> MeasureOf:
    def measure_of(fold: Fold, said: pd.DataFrame) -> Measure | Score:
        if fold.censoring is None:
            return Score.missing(fold.unweighed)
        risk = score_of(TaskSpec("", "survival"), said)
        if np.isnan(risk).any():
            return Score.missing(f"{int(np.isnan(risk).sum())} of {len(risk)} patients have no risk")
        plain = survival.auc_at(risk, fold.label, fold.event, days, fold.censoring)
        if not plain.known:
            return plain
        dead, alive = (fold.label <= days) & (fold.event == 1), fold.label > days
        g = fold.censoring.before(fold.label)
        return two_in_order(risk, np.where(dead, 1 / np.where(g > 0, g, 1), 0.0), alive.astype(float))

    return measure_of


def _antolini_c(fold: Fold, said: pd.DataFrame) -> Measure | Score:
    """Over all days at which the learner writes its curve in this fold."""
    days = curve_days(fold.said[LEARNER])
    curves = _curves(said, days)
    if isinstance(curves, Score):
        return curves
    if not fold.event.any():
        return Score.missing(f"no event among {len(fold.event)} patients")
    return curves_in_order(curves, days, fold.label, fold.event)


def _brier_at(days: float) -> MeasureOf:
    """At the day nearest to the horizon at which the learner writes its curve."""

    def measure_of(fold: Fold, said: pd.DataFrame) -> Measure | Score:
        if fold.censoring is None:
            return Score.missing(fold.unweighed)
        near = [d for d in curve_days(fold.said[LEARNER]) if abs(d - days) <= _NEAR * days]
        if not near:
            return Score.missing(f"the learner writes no survival near {days:g} days")
        day = min(near, key=lambda d: abs(d - days))
        curves = _curves(said, np.array([day]))
        if isinstance(curves, Score):
            return curves
        terms = survival.brier_terms(curves[:, 0], fold.label, fold.event, day, fold.censoring)
        return terms if isinstance(terms, Score) else _of_known(average(terms), fold, day)

    return measure_of


def _ibs(until: float) -> MeasureOf:
    """Over the days before `until` at which the learner writes its curve."""

    def measure_of(fold: Fold, said: pd.DataFrame) -> Measure | Score:
        if fold.censoring is None:
            return Score.missing(fold.unweighed)
        grid = _grid(fold, until)
        curves = _curves(said, grid)
        if isinstance(curves, Score):
            return curves
        terms = survival.integrated_brier_terms(curves, fold.label, fold.event, grid, fold.censoring)
        return terms if isinstance(terms, Score) else _of_known(average(terms), fold, float(grid[-1]))

    return measure_of


def _ipa(until: float) -> MeasureOf:
    """1 - integrated Brier score / that of the training patients' Kaplan-Meier curve."""

    def measure_of(fold: Fold, said: pd.DataFrame) -> Measure | Score:
        if fold.censoring is None or fold.survival is None:
            return Score.missing(fold.unweighed)
        grid = _grid(fold, until)
        curves = _curves(said, grid)
        if isinstance(curves, Score):
            return curves
        same = np.tile(fold.survival.at(grid), (len(fold.label), 1))
        outcome = (fold.label, fold.event, grid, fold.censoring)
        terms = survival.integrated_brier_terms(curves, *outcome)
        reference = survival.integrated_brier_terms(same, *outcome)
        if isinstance(terms, Score):
            return terms
        if isinstance(reference, Score):
            return reference
        return _of_known(gain(terms, reference), fold, float(grid[-1]))

    return measure_of


def _of_known(measure: Measure, fold: Fold, day: float) -> Measure:
    """The measure; NaN in a draw of nobody whose state on the day is known, which would lose nothing."""
    known = ((fold.label > day) | (fold.event == 1)).astype(float)
    return lambda weights: np.where(weights @ known > 0, measure(weights), np.nan)


def _grid(fold: Fold, until: float) -> np.ndarray:
    """Days before `until` at which the learner writes its curve."""
    days = curve_days(fold.said[LEARNER])
    return days[days < until]


def _curves(said: pd.DataFrame, days: np.ndarray) -> np.ndarray | Score:
    """Survival at the days [patient, day], or why it is not there."""
    if not len(days):
        return Score.missing("the learner writes no survival curve within the follow-up")
    curves = said.reindex(columns=[f"surv:{d:g}" for d in days]).to_numpy(dtype=float)
    return Score.missing("no survival curve for some patients") if np.isnan(curves).any() else curves


def _other_causes(fold: Fold, said: pd.DataFrame) -> Score:
    """The curve is free of any event and the outcome is the first cause: one would not judge the other."""
    return Score.missing("competing causes: the survival curve is of any event, the outcome of the first cause")
