"""Which metrics judge which kind of task, on the patients of one fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from nsclc_mtl.metrics import regression, survival
from nsclc_mtl.metrics.classification import brier_terms, expected_class
from nsclc_mtl.metrics.comparison import (
    Measure,
    average,
    classes_in_order,
    mean_of,
    ordering,
    recalls,
    survivors_in_order,
)
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.records import TaskSpec

LEARNER = "learner"
PRIMARY = {"binary": "auc", "multiclass": "auc", "ordinal": "ordinal_auc", "survival": "c_index",
           "regression": "concordance"}  # fmt: skip
HORIZONS_DAYS = {"1y": 365.25, "3y": 1095.75, "5y": 1826.25}
LOWER_IS_BETTER = ("brier", "ibs", "mae", "rmse")


@dataclass
class Fold:
    """The test patients of one fold of a task whose outcome is known, and what each model said of them."""

    fold: str
    patients: list[str]
    label: np.ndarray  # class number, the number of a regression, or time in days for survival
    event: np.ndarray  # 1 / 0 for survival, zeros else
    said: dict[str, pd.DataFrame] = field(default_factory=dict)  # model -> outputs, rows as `patients`
    censoring: survival.Curve | None = None  # G of the training patients, survival only


MeasureOf = Callable[[Fold, pd.DataFrame], Measure | Score]


def tried(measure_of: MeasureOf, fold: Fold, said: pd.DataFrame) -> Measure | Score:
    """The measure, or the reason why there is none: patients, classes or outputs that are missing."""
    if not fold.patients:
        return Score.missing("no patient with a known outcome")
    if said.shape[1] == 0 or said.isna().all(axis=None):
        return Score.missing("the model gives no output here")
    return measure_of(fold, said)


def metrics_of(task: TaskSpec, folds: Sequence[Fold]) -> dict[str, MeasureOf]:
    """The metrics of a kind of task, the primary one first."""
    if task.kind == "survival":
        each: dict[str, MeasureOf] = {"c_index": _c_index, "ibs": _no_ibs if task.causes else _ibs}
        longest = max((f.label.max() for f in folds if len(f.label)), default=0.0)
        for word, days in HORIZONS_DAYS.items():
            if days < longest:
                each[f"auc_{word}"] = _auc_at(days)
        return each
    if task.kind == "regression":
        each = {"concordance": lambda f, s: _ordered(f.label, score_of(task, s), "one value only")}
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
    each["brier"] = lambda f, s: _needs(task, f, s, lambda p: average(brier_terms(f.label, p)), classes=1)
    return each


def proba_of(task: TaskSpec, said: pd.DataFrame) -> np.ndarray | None:
    """Class probabilities in the order of the classes [patient, K], or None where the model gives only a score."""
    names = [f"p:{c}" for c in task.classes]
    return said[names].to_numpy(dtype=float) if set(names) <= set(said.columns) else None


def score_of(task: TaskSpec, said: pd.DataFrame) -> np.ndarray:
    """One number a patient that orders them: risk, P(positive), expected class, the number itself; or the given
    `score`. [patient]."""
    if task.kind == "regression":
        found = next((said[name] for name in ("value", "score") if name in said), None)
        return np.full(len(said), np.nan) if found is None else np.asarray(found, dtype=float)
    if task.kind == "survival":
        return np.asarray(said["risk"] if "risk" in said else said["score"], dtype=float)
    proba = proba_of(task, said)
    if proba is None:
        return np.asarray(said["score"] if "score" in said else np.full(len(said), np.nan), dtype=float)
    return np.asarray(proba[:, 1] if task.kind == "binary" else expected_class(proba))


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
        return _ordered((fold.label > k).astype(float), 1 - proba[:, : k + 1].sum(axis=1))

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


def _c_index(fold: Fold, said: pd.DataFrame) -> Measure | Score:
    risk = score_of(TaskSpec("", "survival"), said)
    plain = survival.c_index(risk, fold.label, fold.event)
    return survivors_in_order(risk, fold.label, fold.event) if plain.known else plain


def _auc_at(days: float) -> MeasureOf:
    def measure_of(fold: Fold, said: pd.DataFrame) -> Measure | Score:
        if fold.censoring is None:
            return Score.missing("no training outcomes for the censoring weights")
        risk = score_of(TaskSpec("", "survival"), said)
        plain = survival.auc_at(risk, fold.label, fold.event, days, fold.censoring)
        if not plain.known:
            return plain
        dead, alive = (fold.label <= days) & (fold.event == 1), fold.label > days
        g = fold.censoring.before(fold.label)
        return ordering(risk, np.outer(np.where(dead, 1 / np.where(g > 0, g, 1), 0), alive))

    return measure_of


def _ibs(fold: Fold, said: pd.DataFrame) -> Measure | Score:
    """Over the days at which the learner writes its curve in this fold, as far as training follow-up reaches."""
    if fold.censoring is None:
        return Score.missing("no training outcomes for the censoring weights")
    days = curve_days(fold.said[LEARNER])
    if not len(days):
        return Score.missing("the learner writes no survival curve")
    last = min(fold.censoring.time[fold.censoring.value > 0].max(initial=0.0), fold.label.max())
    grid = days[days < last]
    columns = [f"surv:{d:g}" for d in grid]
    curves = said.reindex(columns=columns).to_numpy(dtype=float)
    if np.isnan(curves).any():
        return Score.missing("no survival curve for some patients")
    terms = survival.integrated_brier_terms(curves, fold.label, fold.event, grid, fold.censoring)
    return terms if isinstance(terms, Score) else average(terms)


def _no_ibs(fold: Fold, said: pd.DataFrame) -> Score:
    """The curve is free of any event and the outcome is the first cause: one would not judge the other."""
    return Score.missing("competing causes: the survival curve is of any event, the outcome of the first cause")


def curve_days(said: pd.DataFrame) -> np.ndarray:
    """Days at which a model writes survival probabilities, ascending."""
    days = [float(c.split(":", 1)[1]) for c in said.columns if c.startswith("surv:") and said[c].notna().any()]
    return np.array(sorted(days))
