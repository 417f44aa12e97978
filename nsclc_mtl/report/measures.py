"""Which metrics judge which kind of task, on the patients of one fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from nsclc_mtl.metrics import regression
from nsclc_mtl.metrics.classification import average_precision, brier_terms
from nsclc_mtl.metrics.measure import Measure, agreement, average, mean_of, precision, ratio, recalls
from nsclc_mtl.metrics.pairs import classes_in_order
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report import survival_measures
from nsclc_mtl.report.fold import HORIZONS_DAYS, Fold, MeasureOf, proba_of, score_of

# what sections need beside the metrics can be had from here too
from nsclc_mtl.report.fold import LEARNER as LEARNER
from nsclc_mtl.report.fold import curve_days as curve_days
from nsclc_mtl.report.fold import tried as tried

PRIMARY = {"binary": "auc", "multiclass": "auc", "ordinal": "ordinal_auc", "survival": "c_index",
           "regression": "concordance"}  # fmt: skip
CHANCE = 0.5  # of every primary metric: what a score that knows nothing of the patients has
LOWER_IS_BETTER = ("brier", "ibs", *(f"brier_{word}" for word in HORIZONS_DAYS), "mae", "rmse")


def metrics_of(task: TaskSpec, folds: Sequence[Fold]) -> dict[str, MeasureOf]:
    """The metrics of a kind of task, the primary one first."""
    if task.kind == "survival":
        return survival_measures.measures(task, folds)
    if task.kind == "regression":
        each: dict[str, MeasureOf] = {
            "concordance": lambda f, s: _ordered(f.label, score_of(task, s), "one value only")
        }
        return each | {
            "mae": _numbers(regression.absolute_error),
            "rmse": _numbers(regression.squared_error_root),
            "r2": _numbers(regression.explained),
            "spearman": _numbers(regression.rank_correlation),
        }
    if task.kind == "ordinal":
        each = {"ordinal_auc": lambda f, s: _ordered(f.label, score_of(task, s))}
        for k in range(len(task.classes) - 1):
            each[f"auc_above_{task.classes[k]}"] = _cut(task, k)
    elif task.kind == "binary":
        each = {"auc": lambda f, s: _ordered(f.label, score_of(task, s))}
    else:
        each = {"auc": lambda f, s: _macro(task, f, s)}
        for k, name in enumerate(task.classes):
            each[f"auc_{name}"] = _one_class(task, k)
    each["balanced_accuracy"] = lambda f, s: _needs(task, f, s, lambda p: recalls(f.label, p))
    if task.kind == "ordinal":
        grades = len(task.classes)
        each["quadratic_kappa"] = lambda f, s: _needs(
            task, f, s, lambda p: agreement(f.label, p.argmax(axis=1), grades)
        )
    else:
        each["average_precision"] = lambda f, s: _precision(task, f, s)
    each["brier"] = lambda f, s: _needs(task, f, s, lambda p: average(brier_terms(f.label, p)), classes=1)
    if task.kind == "binary":
        each["sensitivity"] = lambda f, s: _rate(task, f, s, 1)
        each["specificity"] = lambda f, s: _rate(task, f, s, 0)
        each["balanced_accuracy_at_threshold"] = lambda f, s: _both_rates(task, f, s)
    return each


def _numbers(make: Callable[[np.ndarray, np.ndarray], Measure]) -> MeasureOf:
    """A measure of predicted numbers, where the model says them (a ceiling's score only orders)."""

    def measure_of(fold: Fold, said: pd.DataFrame) -> Measure | Score:
        value = said["value"].to_numpy(dtype=float) if "value" in said else np.full(len(said), np.nan)
        if np.isnan(value).any():
            return Score.missing("no number for some patients")
        return make(fold.label, value)

    return measure_of


def _ordered(label: np.ndarray, score: np.ndarray, alike: str = "one class only") -> Measure | Score:
    if np.isnan(score).any():
        return Score.missing(f"{int(np.isnan(score).sum())} of {len(score)} patients have no score")
    if len(np.unique(label)) < 2:
        return Score.missing(alike)
    return classes_in_order(label, score)


def _needs(
    task: TaskSpec, fold: Fold, said: pd.DataFrame, make: Callable[[np.ndarray], Measure], classes: int = 2
) -> Measure | Score:
    """A measure of probabilities, where there are some and enough classes occur."""
    proba = proba_of(task, said)
    if proba is None or np.isnan(proba).any():
        return Score.missing("no probabilities for some patients")
    if len(np.unique(fold.label)) < classes:
        return Score.missing("one class only")
    return make(proba)


def _cut(task: TaskSpec, k: int) -> MeasureOf:
    def measure_of(fold: Fold, said: pd.DataFrame) -> Measure | Score:
        proba = proba_of(task, said)
        if proba is None:
            return Score.missing("no probabilities")
        return _ordered((fold.label > k).astype(float), proba[:, k + 1 :].sum(axis=1))

    return measure_of


def _one_class(task: TaskSpec, k: int) -> MeasureOf:
    def measure_of(fold: Fold, said: pd.DataFrame) -> Measure | Score:
        proba = proba_of(task, said)
        if proba is None:
            return Score.missing("no probabilities")
        return _ordered((fold.label == k).astype(float), proba[:, k])

    return measure_of


def _macro(task: TaskSpec, fold: Fold, said: pd.DataFrame) -> Measure | Score:
    each = [_one_class(task, k)(fold, said) for k in range(len(task.classes))]
    for name, one in zip(task.classes, each, strict=True):
        if isinstance(one, Score):
            return Score.missing(f"class {name}: {one.reason}")
    return mean_of([m for m in each if not isinstance(m, Score)])


def _kappa(label: np.ndarray, proba: np.ndarray) -> Measure:
    return agreement(label, proba.argmax(axis=1), proba.shape[1])


def _precision(task: TaskSpec, fold: Fold, said: pd.DataFrame) -> Measure | Score:
    """Average precision; of more classes the mean over the classes, each against the rest."""
    if task.kind == "binary":
        score = score_of(task, said)
        plain = average_precision(fold.label, score)
        return precision(fold.label, score) if plain.known else plain
    proba = proba_of(task, said)
    if proba is None:
        return Score.missing("no probabilities")
    each = []
    for k, name in enumerate(task.classes):
        plain = average_precision(fold.label == k, proba[:, k])
        if not plain.known:
            return Score.missing(f"class {name}: {plain.reason}")
        each.append(precision((fold.label == k).astype(float), proba[:, k]))
    return mean_of(each)


def _rate(task: TaskSpec, fold: Fold, said: pd.DataFrame, label: int) -> Measure | Score:
    """Share of the patients of a label who are called so at the threshold that training patients fixed."""
    proba = proba_of(task, said)
    if proba is None or np.isnan(proba).any():
        return Score.missing("no probabilities for some patients")
    if "threshold" not in said:
        return Score.missing("no threshold: predictions of training patients are absent or do not vary")
    if not (fold.label == label).any():
        return Score.missing(f"nobody is '{task.classes[label]}'")
    if said["threshold"].isna().any():
        return Score.missing("the threshold is NaN")
    called = proba[:, 1] >= said["threshold"].to_numpy(dtype=float)
    own = (fold.label == label).astype(float)
    return ratio(own * (called == bool(label)), own)


def _both_rates(task: TaskSpec, fold: Fold, said: pd.DataFrame) -> Measure | Score:
    """Mean of sensitivity and specificity at the threshold that training patients fixed."""
    each = [_rate(task, fold, said, label) for label in (1, 0)]
    for one in each:
        if isinstance(one, Score):
            return one
    return mean_of([m for m in each if not isinstance(m, Score)])
