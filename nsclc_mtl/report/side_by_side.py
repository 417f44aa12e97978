"""Several runs on the same test patients: metrics of each, and paired differences to one of them.

A run's scores are only ever compared within its own folds. Where all runs have the same folds, patients are drawn
within them; where not, whoever is drawn counts in every run wherever that run tested them, so that the difference is
paired by patient still. Survival is weighed alike in all runs, however each was trained (`shared_censoring`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from nsclc_mtl.metrics.comparison import bootstrap, repeated, resamples_of
from nsclc_mtl.metrics.multiplicity import holm
from nsclc_mtl.records import DataFault, TaskSpec
from nsclc_mtl.report import shared_censoring
from nsclc_mtl.report.contrast import Contrast, Judged, contrast, same_folds
from nsclc_mtl.report.evaluation import TaskResult, folds_of
from nsclc_mtl.report.measures import LEARNER, PRIMARY, Fold, MeasureOf, metrics_of, tried

SECOND = {"survival": ("ibs",)}  # kind -> what is compared beside the primary metric: shown with its P, not adjusted


@dataclass(frozen=True)
class Entry:
    """A run: what it is called, its tasks and its predictions of all parts (`read_table` types)."""

    label: str
    tasks: Mapping[str, TaskSpec]
    predictions: pd.DataFrame
    split: pd.DataFrame | None = None  # patient_id, fold, part; None for patients of another cohort


@dataclass
class Beside:
    """One task of several runs, all judged on the same patients."""

    task: TaskSpec
    results: dict[str, TaskResult]  # label -> metrics under the name of the learner; the reference first
    same: bool  # whether the patients stand in the same folds in all runs
    left_out: dict[str, int]  # label -> its test patients that another run did not test
    contrasts: dict[str, Contrast] = field(default_factory=dict)  # label -> that run minus the reference
    second: dict[str, dict[str, Contrast]] = field(default_factory=dict)  # further metric -> the same
    adjusted: dict[str, float] = field(default_factory=dict)  # label -> P by Holm, over all tasks and runs

    @property
    def every(self) -> dict[str, dict[str, Contrast]]:
        """Metric -> label -> that run minus the reference; the primary metric first."""
        return {PRIMARY[self.task.kind]: self.contrasts, **self.second}

    @property
    def reference(self) -> str:
        """The run that the others are compared with."""
        return next(iter(self.results))


def side_by_side(entries: Sequence[Entry], draws: int, seed: int) -> dict[str, Beside]:
    """Every task that two runs or more have; the first entry is the reference, or the first that has the task.

    Raises DataFault where the runs know different outcomes of a patient, or a task differs in kind or classes.
    """
    made = {}
    for name in dict.fromkeys(name for entry in entries for name in entry.tasks):
        having = {e.label: (e.tasks[name], _test_rows(e, name)) for e in entries if name in e.tasks}
        having = {label: given for label, given in having.items() if len(given[1])}
        if len(having) > 1:
            made[name] = _beside(name, having, {e.label: e for e in entries}, draws, seed)
    pairs = [(name, label) for name, one in made.items() for label in one.contrasts]
    adjusted = holm([float(made[name].contrasts[label].ruling) for name, label in pairs])
    for (name, label), p in zip(pairs, adjusted, strict=True):
        made[name].adjusted[label] = p
    return made


def _test_rows(entry: Entry, task: str) -> pd.DataFrame:
    rows = entry.predictions
    return rows[(rows["task"] == task) & (rows["part"] == "test")].assign(model=LEARNER)


def _beside(
    name: str,
    having: Mapping[str, tuple[TaskSpec, pd.DataFrame]],
    entries: Mapping[str, Entry],
    draws: int,
    seed: int,
) -> Beside:
    first, (task, _) = next(iter(having.items()))
    for label, (other, _) in having.items():
        if (other.kind, other.classes, other.causes) != (task.kind, task.classes, task.causes):
            raise DataFault(
                f"task '{name}' is {_what(task)} in {first} and {_what(other)} in {label}: only the same outcome can "
                "be compared"
            )
    tested = {label: _outcomes(rows, task) for label, (_, rows) in having.items()}
    common = sorted(set.intersection(*(set(outcome.index) for outcome in tested.values())))
    if not common:
        raise DataFault(f"task '{name}': no patient with a known outcome was tested in all of {', '.join(having)}")
    for label, outcome in tested.items():
        _agree(name, task, tested[first].loc[common], outcome.loc[common], first, label)
    folds = {}
    for label, rows in _common_curve({label: rows for label, (_, rows) in having.items()}).items():
        kept = rows[rows["patient_id"].isin(common)]
        folds[label] = [f for f in folds_of(kept, task, {}) if f.patients]
    same = all(same_folds(folds[first], each) for each in folds.values())
    if task.kind == "survival":
        training = {label: training_outcomes(entries[label].predictions, name) for label in folds}
        shared_censoring.share(folds, training, same)
    # one end and one set of horizons for all runs
    kinds = metrics_of(task, [f for each in folds.values() for f in each])
    weights = _weights(folds, same, common, draws, np.random.default_rng([seed, *name.encode()]))
    results = {label: _result(task, each, weights[label], kinds) for label, each in folds.items()}
    made = Beside(task, results, same, {label: len(outcome) - len(common) for label, outcome in tested.items()})
    splits = {label: entries[label].split for label in folds}
    made.contrasts = _contrasts(made, PRIMARY[task.kind], splits)
    made.second = {metric: found for metric in SECOND.get(task.kind, ()) if (found := _contrasts(made, metric, splits))}
    return made


def _contrasts(made: Beside, metric: str, splits: Mapping[str, pd.DataFrame | None]) -> dict[str, Contrast]:
    """The runs minus the reference; of metrics beside the primary one those that have a value, if the reference has."""
    each = {label: r.metrics[metric][LEARNER] for label, r in made.results.items()}
    has = {label: values for label, values in each.items() if metric == PRIMARY[made.task.kind] or values.value.known}
    first = made.reference
    found = {}
    for label in has if first in has else ():
        if label != first:
            ours, theirs = (Judged(made.results[run].folds, LEARNER, has[run]) for run in (label, first))
            trained = [split for run in (label, first) if (split := splits[run]) is not None]
            found[label] = contrast(made.task, ours, theirs, trained)
    return found


def _result(
    task: TaskSpec, folds: list[Fold], weights: Sequence[np.ndarray], kinds: Mapping[str, MeasureOf]
) -> TaskResult:
    result = TaskResult(task, folds)
    repeats = repeated([f.patients for f in folds])
    for metric, of in kinds.items():
        measures = [tried(of, f, f.said[LEARNER]) for f in folds]
        result.metrics[metric] = {LEARNER: bootstrap(measures, weights, repeats)}
    return result


def _weights(
    folds: Mapping[str, list[Fold]], same: bool, common: Sequence[str], draws: int, rng: np.random.Generator
) -> dict[str, list[np.ndarray]]:
    """How often each patient is drawn, run by run and fold by fold [draw, n_fold]; alike in all runs."""
    if same:
        shared = resamples_of([f.patients for f in next(iter(folds.values()))], draws, rng)
        return dict.fromkeys(folds, shared)
    place = {patient: i for i, patient in enumerate(common)}
    drawn = rng.multinomial(len(common), np.full(len(common), 1 / len(common)), size=draws)
    return {label: [drawn[:, [place[p] for p in f.patients]] for f in each] for label, each in folds.items()}


def _outcomes(rows: pd.DataFrame, task: TaskSpec) -> pd.DataFrame:
    """What a run knows of its test patients, who have an outcome; indexed by patient."""
    columns = ["event", "time_days"] if task.kind == "survival" else ["target"]
    one = rows.drop_duplicates("patient_id").set_index("patient_id")[columns]
    if task.kind == "survival":
        return one[one.notna().all(axis=1)]
    if task.kind == "regression":
        number = one.assign(target=pd.to_numeric(one["target"], errors="coerce"))
        return number[number["target"].notna()]
    return one[one["target"].isin(task.classes)]


def _agree(name: str, task: TaskSpec, ours: pd.DataFrame, theirs: pd.DataFrame, first: str, label: str) -> None:
    if task.kind in ("survival", "regression"):
        unlike = ~np.isclose(ours.to_numpy(float), theirs.to_numpy(float), rtol=1e-5, atol=1e-6).all(axis=1)
    else:
        unlike = (ours["target"] != theirs["target"]).to_numpy()
    if unlike.any():
        raise DataFault(
            f"task '{name}': {first} and {label} know different outcomes of {int(unlike.sum())} of {len(ours)} "
            f"patients (such as {ours.index[unlike.argmax()]}): they were trained on different tables"
        )


def _common_curve(rows: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The rows without the days of survival curves that another run does not write: Brier scores need one grid."""
    days = [{o for o in each["output"].unique() if str(o).startswith("surv:")} for each in rows.values()]
    shared = set.intersection(*days)
    return {
        label: each[~each["output"].str.startswith("surv:") | each["output"].isin(shared)]
        for label, each in rows.items()
    }


def training_outcomes(predictions: pd.DataFrame, task: str) -> dict[str, pd.DataFrame]:
    """Outcomes of the non-test patients of each fold by patient, from the run's own predictions of them."""
    own = predictions[(predictions["task"] == task) & (predictions["part"] != "test")]
    known = own[own["event"].notna() & own["time_days"].notna()].drop_duplicates(["fold", "patient_id"])
    known = known.assign(event=(known["event"] == 1).astype(float)).set_index("patient_id")
    return {str(fold): rows[["event", "time_days"]] for fold, rows in known.groupby(known["fold"].astype(str))}


def _what(task: TaskSpec) -> str:
    return f"{task.kind} ({', '.join(task.classes)})" if task.classes else task.kind
