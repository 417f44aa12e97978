"""Predicted probabilities of the test patients of all folds: of a class, a grade above a cut, an event until a day.

Scores of different folds share no scale; probabilities do, since each claims how often a thing happens. So they are
pooled here, and only here: what they claim is compared with what happened, never one patient's with another's. The unit
is the patient: who is tested in several repeats stands in the pool once (`fold.once`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.metrics.comparison import Bootstrapped, Interval, resamples_of
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival_calibration import interpolated
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report.evaluation import TaskResult
from nsclc_mtl.report.fold import once, too_few_followed
from nsclc_mtl.report.measures import HORIZONS_DAYS, LEARNER, Fold, curve_days, proba_of
from nsclc_mtl.report.section import Evidence

DRAWS = 200  # resamples behind the intervals: each costs some regressions
REACH_DAYS = (
    7.0  # a saved curve runs on so many days with its last hazard: 5 years are 1826 days, the last saved is 1825
)
YEARS = {"1y": "1 year", "3y": "3 years", "5y": "5 years"}


@dataclass
class Target:
    """One thing that has a probability, and the test patients of all folds of whom it is known whether it happened."""

    name: str  # as a reader says it
    suffix: str  # of metric names: "" for a binary task, else _above_G1, _adeno, _1y
    patients: list[str]
    happened: np.ndarray  # [n] 1 and 0; of survival: the event was seen until the day
    time: np.ndarray  # [n] days, of survival
    event: np.ndarray  # [n] of survival
    when: float | None = None  # days, of survival
    said: dict[str, np.ndarray] = field(default_factory=dict)  # model -> probability [n]
    lacking: dict[str, str] = field(default_factory=dict)  # model -> why it says none
    hazard: dict[str, np.ndarray] = field(default_factory=dict)  # of survival: model -> cumulative until seen or `when`

    @property
    def prevalence(self) -> float:
        """Share of the patients in whom it was seen to happen."""
        return float(self.happened.mean()) if len(self.happened) else float("nan")


def primary_floor(evidence: Evidence) -> str:
    """The floor that was named beforehand, as a model."""
    return f"floor:{evidence.settings.get('primary_floor') or 'all tables'}"


def draws_of(evidence: Evidence, result: TaskResult) -> np.ndarray:
    """How often each test patient is drawn, within folds, in the order of the targets: [draw, n]; each once."""
    rng = np.random.default_rng([int(evidence.settings.get("seed") or 0), *result.task.name.encode()])
    count = min(DRAWS, int(evidence.settings.get("bootstrap") or DRAWS))
    return np.hstack(resamples_of([fold.patients for fold in once(result.folds)], count, rng)).astype(float)


def targets_of(result: TaskResult, models: Sequence[str]) -> tuple[list[Target], list[str]]:
    """What of the task has a probability, and why other things have none. Nothing for regression."""
    task, folds = result.task, once(result.folds)
    if task.kind == "survival":
        return _horizons(task, folds, models)
    if task.kind == "regression":
        return [], []
    label = _all([f.label for f in folds])
    if task.kind == "ordinal":
        what = [(f"above {c}", f"_above_{c}", k) for k, c in enumerate(task.classes[:-1])]
    elif task.kind == "binary":
        what = [(task.classes[1], "", 1)]
    else:
        what = [(c, f"_{c}", k) for k, c in enumerate(task.classes)]
    out = []
    for name, suffix, k in what:
        above = task.kind == "ordinal"
        target = _empty(name, suffix, folds, (label > k if above else label == k).astype(float))
        for model in models:
            each = [proba_of(task, f.said[model]) if model in f.said else None for f in folds]
            if any(p is None for p in each):
                target.lacking[model] = "it gives no probabilities"
                continue
            whole = np.concatenate([p for p in each if p is not None])
            p = whole[:, k + 1 :].sum(axis=1) if above else whole[:, k]
            _keep(target, model, np.clip(p, 0, 1))
        out.append(target)
    return out, []


def _horizons(task: TaskSpec, folds: Sequence[Fold], models: Sequence[str]) -> tuple[list[Target], list[str]]:
    if task.causes:
        return [], ["competing causes: the saved curves are of any event, the outcome is the first cause"]
    time, event = _all([f.label for f in folds]), _all([f.event for f in folds])
    out, why = [], []
    for word, days in HORIZONS_DAYS.items():
        if few := too_few_followed(int((time >= days).sum())):
            why.append(f"at {YEARS[word]}: {few}")
            continue
        target = _empty(f"event within {YEARS[word]}", f"_{word}", folds, ((time <= days) & (event == 1)) * 1.0)
        target.time, target.event, target.when = time, event, days
        for model in models:
            _keep(target, model, 1 - survival_at(folds, model, np.full(len(time), days), REACH_DAYS))
            target.hazard[model] = -np.log(survival_at(folds, model, np.minimum(time, days), REACH_DAYS))
        if LEARNER in target.lacking:
            why.append(f"at {YEARS[word]}: the learner’s survival curves do not reach so far")
        else:
            out.append(target)
    return out, why


def survival_at(folds: Sequence[Fold], model: str, when: np.ndarray, reach: float = 0.0) -> np.ndarray:
    """The model's S of each test patient at a day of his own, [n]: the hazard is constant between the saved days. NaN
    where there is no curve, or it ends before."""
    out, start = [], 0
    for fold in folds:
        said, stop = fold.said.get(model, pd.DataFrame(index=fold.patients)), start + len(fold.patients)
        days = curve_days(said)
        if len(days):
            curve = said[[f"surv:{d:g}" for d in days]].to_numpy(dtype=float)
            out.append(interpolated(days, curve, when[start:stop], reach))
        else:
            out.append(np.full(stop - start, np.nan))
        start = stop
    return _all(out)


def last_day(folds: Sequence[Fold], model: str) -> float:
    """The last day at which the model writes a curve in every fold; 0 where it writes none."""
    return float(min((curve_days(f.said.get(model, pd.DataFrame())).max(initial=0.0) for f in folds), default=0.0))


def interval_of(value: Score, draws: np.ndarray, n: int) -> Interval:
    """A number of all folds with its bootstrap interval."""
    return Bootstrapped([value], [n], value, draws, [draws]).interval()


def row(result: TaskResult, target: Target | None, metric: str, model: str, at: Interval) -> dict[str, Any]:
    """A row of metrics.json, of the test patients of all folds."""
    if target is None:
        people = {p for f in result.folds for p in f.patients}
        events: int | None = result.events
    else:
        people = set(target.patients)
        events = len({p for p, y in zip(target.patients, target.happened, strict=True) if y})
    numbers = {
        k: float(v) if math.isfinite(v) else None for k, v in (("value", at.value), ("lo", at.lo), ("hi", at.hi))
    }
    same = {"task": result.task.name, "metric": metric, "part": "test", "fold": "all", "model": model}
    return {**same, **numbers, "n": len(people), "n_events": events, "reason": at.reason}


def spoken(model: str) -> str:
    """The model as a figure's legend says it."""
    return model.replace("floor:", "")


def joined(lacking: Mapping[str, str]) -> list[str]:
    """Why models say nothing, as sentences begin."""
    return [f"{spoken(model)}: {why}" for model, why in lacking.items()]


def _empty(name: str, suffix: str, folds: Sequence[Fold], happened: np.ndarray) -> Target:
    return Target(name, suffix, [p for f in folds for p in f.patients], happened, np.zeros(0), np.zeros(0))


def _keep(target: Target, model: str, p: np.ndarray) -> None:
    if np.isnan(p).any():
        lost = int(np.isnan(p).sum())
        target.lacking[model] = f"no probability for {lost} of {len(p)} patients" if lost < len(p) else "none are saved"
    else:
        target.said[model] = p


def _all(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if len(parts) else np.zeros(0)
