"""Every number of an evaluation, from saved predictions: metrics, intervals, differences to the floor.

Patients are the unit; metrics are computed within each fold and averaged with the number of patients as weight; all
models of a task are judged on the patients the learner predicted, and on the same bootstrap draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.metrics import survival
from nsclc_mtl.metrics.classification import youden_threshold
from nsclc_mtl.metrics.comparison import (
    Bootstrapped,
    Interval,
    bootstrap,
    interval_of,
    paired_difference,
    repeated,
    resamples_of,
)
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.records import DataFault, TaskSpec
from nsclc_mtl.report.fold import MEAN
from nsclc_mtl.report.measures import CHANCE, LEARNER, LOWER_IS_BETTER, PRIMARY, Fold, metrics_of, tried

_FITTED = ("train", "validation")  # whose outputs fix a cut-off: the first that is there (older runs keep no train)
_GAP = 0.02  # a ceiling closer to its reference than this carries no share


@dataclass
class TaskResult:
    """What came out for one task: its folds and every metric of every model."""

    task: TaskSpec
    folds: list[Fold]
    metrics: dict[str, dict[str, Bootstrapped]] = field(default_factory=dict)  # metric -> model -> values

    @property
    def averaged(self) -> bool:
        """Whether the mean of the folds predicted the patients, whom none of them knows."""
        return [fold.fold for fold in self.folds] == [MEAN]

    @property
    def primary(self) -> str:
        """The metric that the task is judged by."""
        return PRIMARY[self.task.kind]

    @property
    def n(self) -> int:
        """Test patients with a known outcome, over all folds."""
        return _n(self.folds)

    @property
    def events(self) -> int | None:
        """Events (survival), positives (binary), None for more classes."""
        return _events(self.task, self.folds)

    def difference(self, metric: str, model: str) -> Interval:
        """Learner minus another model, paired by patient."""
        return paired_difference(self.metrics[metric][LEARNER], self.metrics[metric][model])

    def models(self, prefix: str) -> list[str]:
        """Models whose name begins with `prefix`, in their order."""
        return [m for m in self.metrics[self.primary] if m.startswith(prefix)]


def judge(
    predictions: pd.DataFrame,
    tasks: Mapping[str, TaskSpec],
    training: Mapping[str, Mapping[str, pd.DataFrame]] | None = None,
    draws: int = 1000,
    seed: int = 0,
    unweighed: str = "",
    fixed: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, TaskResult]:
    """Every metric of every model. {task: result}.

    predictions: rows of predictions.csv with a column `model` (absent: all are the learner's); the part test is judged,
    training patients fix the threshold of a binary task. training: {survival task: {fold: frame with event and
    time_days of its non-test patients}}; without it there are no censoring weights, hence no Uno's C, no AUC at a time
    and no Brier score of survival, for the reason `unweighed`. fixed: {binary task: {fold: the learner's threshold}},
    where its training patients are not among the rows.
    """
    rows = predictions[predictions["part"] == "test"]
    if "model" not in rows:
        rows = rows.assign(model=LEARNER)
    results = {}
    for name, task in tasks.items():
        own = rows[rows["task"] == name]
        if own.empty or not (own["model"] == LEARNER).any():
            continue
        before = predictions[predictions["task"] == name]
        folds = folds_of(own, task, (training or {}).get(name, {}), before, (fixed or {}).get(name, {}))
        for fold in folds if unweighed else ():
            fold.unweighed = unweighed
        result = TaskResult(task, folds)
        rng = np.random.default_rng([seed, *name.encode()])
        people = [f.patients for f in folds]
        weights = resamples_of(people, draws, rng)
        models = list(dict.fromkeys(own["model"]))
        for metric, measure_of in metrics_of(task, folds).items():
            per_model = {}
            for model in models:
                measures = [tried(measure_of, f, f.said[model]) for f in folds]
                # the learner has a row of every metric, with the reason where there is no value
                if metric == PRIMARY[task.kind] or model == LEARNER or not all(isinstance(m, Score) for m in measures):
                    per_model[model] = bootstrap(measures, weights, repeated(people))
            result.metrics[metric] = per_model
        results[name] = result
    if not results:
        raise DataFault("predictions.csv holds no test-part rows of the configured tasks: run `mtl train` again")
    return results


def folds_of(
    rows: pd.DataFrame,
    task: TaskSpec,
    training: Mapping[str, pd.DataFrame],
    before: pd.DataFrame | None = None,
    fixed: Mapping[str, float] | None = None,
) -> list[Fold]:
    """The learner's patients with a known outcome, fold by fold, with every model's outputs aligned to them.

    rows: of one part of one task, with a column `model`. training: fold -> outcomes that the censoring is taken from.
    before: rows of the task, of all parts: thresholds are fitted on those of training patients. fixed: fold -> a
    threshold of the learner that was fitted already. Without either there are none.
    """
    folds = []
    cuts = {(fold, LEARNER): at for fold, at in (fixed or {}).items()}
    if task.kind == "binary" and before is not None:
        cuts |= thresholds(before, task)
    for name, inside in rows.groupby(rows["fold"].astype(str), sort=False):
        ours = inside[inside["model"] == LEARNER].drop_duplicates("patient_id").set_index("patient_id").sort_index()
        if task.kind == "survival":
            known = ours[ours["event"].notna() & ours["time_days"].notna()]
            label = known["time_days"].to_numpy(dtype=float)
            event = (known["event"].to_numpy(dtype=float) == 1).astype(float)  # of competing causes the first
        elif task.kind == "regression":
            number = pd.to_numeric(ours["target"], errors="coerce")
            known = ours[number.notna()]
            label, event = number[number.notna()].to_numpy(dtype=float), np.zeros(len(known))
        else:
            known = ours[ours["target"].isin(task.classes)]
            label = known["target"].map({c: i for i, c in enumerate(task.classes)}).to_numpy(dtype=float)
            event = np.zeros(len(known))
        fold = Fold(str(name), list(known.index), label, event)
        for model, said in inside.groupby("model", sort=False):
            wide = said.pivot_table(index="patient_id", columns="output", values="value", aggfunc="first", sort=False)
            fold.said[str(model)] = wide.reindex(known.index)
            if (str(name), str(model)) in cuts:
                fold.said[str(model)]["threshold"] = cuts[str(name), str(model)]
        for model in rows["model"].unique():
            fold.said.setdefault(str(model), pd.DataFrame(index=known.index))
        if str(name) in training:
            frame = training[str(name)]
            fold.censoring = survival.censoring_curve(frame["time_days"], frame["event"])
            fold.survival = survival.kaplan_meier(frame["time_days"], frame["event"])
        folds.append(fold)
    return sorted(folds, key=lambda f: (len(f.fold), f.fold))


def thresholds(before: pd.DataFrame, task: TaskSpec) -> dict[tuple[str, str], float]:
    """Youden's threshold of P(positive) on the training patients of each fold, {(fold, model): threshold}."""
    fitted = before["part"].isin(_FITTED)
    own = before[fitted & (before["output"] == f"p:{task.classes[1]}") & before["target"].isin(task.classes)]
    own = own.assign(model=own.get("model", LEARNER), fold=own["fold"].astype(str))
    made = {}
    for (fold, model), rows in own.groupby(["fold", "model"]):
        part = next(p for p in _FITTED if (rows["part"] == p).any())
        inside = rows[rows["part"] == part]
        cut = youden_threshold(inside["target"] == task.classes[1], inside["value"])
        if cut.known:
            made[str(fold), str(model)] = float(cut)
    return made


def metric_rows(results: Mapping[str, TaskResult]) -> list[dict[str, Any]]:
    """The rows of metrics.json: each metric per fold and over all; then differences and shares of the ceilings."""
    rows: list[dict[str, Any]] = []
    for name, result in results.items():
        for metric, models in result.metrics.items():
            for model, values in models.items():
                for k, fold in enumerate(result.folds):
                    one = values.fold_interval(k)
                    rows.append(row(result.task, metric, fold.fold, model, one, [fold]))
                rows.append(row(result.task, metric, "all", model, values.interval(), used(result.folds, values)))
        for metric in (result.primary, *LOWER_IS_BETTER):
            for model in result.metrics.get(metric, {}):
                if model.startswith("floor:"):
                    gap = result.difference(metric, model)
                    both = used(result.folds, result.metrics[metric][LEARNER], result.metrics[metric][model])
                    rows.append(row(result.task, f"difference:{metric}", "all", model, gap, both))
        for metric, share in shares(result).items():
            ours = used(result.folds, result.metrics[result.primary][LEARNER])
            rows.append(row(result.task, metric, "all", LEARNER, share, ours))
        if name != result.task.name:
            raise ValueError(f"results of task {result.task.name!r} stand under {name!r}")
    return rows


def used(folds: Sequence[Fold], *values: Bootstrapped) -> list[Fold]:
    """The folds that a number stands on: those in which all of `values` are known; all where there are none, since a
    missing number says why of all of them."""
    each = zip(folds, *(one.folds for one in values), strict=True)
    return [fold for fold, *scores in each if all(score.known for score in scores)] or list(folds)


def shares(result: TaskResult) -> dict[str, Interval]:
    """How much of what can be known the learner knows: share of the attainable margin, and of fusion's part of it."""
    models = result.metrics[result.primary]
    out: dict[str, Interval] = {}
    ours, top, additive = (models.get(m) for m in (LEARNER, "oracle:attainable", "oracle:additive"))
    if ours is None or top is None:
        return out
    chance = Bootstrapped([], [], Score(CHANCE), np.full(len(ours.draws), CHANCE), [])
    out["share"] = _share(ours, top, chance, "was there to be known", "chance")
    if additive is not None:
        beyond = "beyond the sum of the modalities was there to be learnt"
        out["fusion_share"] = _share(ours, top, additive, beyond, "additive")
    return out


def _share(ours: Bootstrapped, top: Bootstrapped, base: Bootstrapped, what: str, word: str) -> Interval:
    """How much of the margin from base to top the learner has; where there is none `what` there was not, in words."""
    nan = float("nan")
    for missing in (top, base):
        if not missing.value.known:
            return Interval(nan, nan, nan, missing.value.reason or "the ceiling has no value")
    gap = float(top.value) - float(base.value)
    if not gap > _GAP:
        shown = round(gap, 3) + 0.0  # no minus before 0
        much = "next to nothing" if shown > 0 else "nothing"
        said = f"{shown:.3f}".replace("-", "−")
        return Interval(nan, nan, nan, f"{much} {what} (attainable minus {word} {said})")
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = (ours.draws - base.draws) / (top.draws - base.draws)
    value = Score((float(ours.value) - float(base.value)) / gap, ours.value.reason)
    return interval_of(value, np.where(np.isfinite(draws), draws, np.nan))


def _n(folds: Iterable[Fold]) -> int:
    return len({patient for fold in folds for patient in fold.patients})


def _events(task: TaskSpec, folds: Iterable[Fold]) -> int | None:
    """Events or positives among the patients; who is tested in several folds counts once."""
    if task.kind not in ("survival", "binary"):
        return None
    had: dict[str, bool] = {}
    for fold in folds:
        happened = fold.event == 1 if task.kind == "survival" else fold.label == 1
        had |= dict(zip(fold.patients, map(bool, happened), strict=True))
    return sum(had.values())


def row(
    task: TaskSpec, metric: str, fold: str, model: str, at: Interval, folds: Sequence[Fold], part: str = "test"
) -> dict[str, Any]:
    """A row of metrics.json; `folds` say of whom."""
    return {
        "task": task.name,
        "metric": metric,
        "part": part,
        "fold": fold,
        "model": model,
        "value": _plain(at.value),
        "lo": _plain(at.lo),
        "hi": _plain(at.hi),
        "n": _n(folds),
        "n_events": _events(task, folds),
        "reason": at.reason,
    }


def _plain(value: float) -> float | None:
    """A number that JSON has, None for NaN."""
    return float(value) if math.isfinite(value) else None
