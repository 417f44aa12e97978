"""Predictions of the floor: linear models of every table, of all tables, of the stage alone, on the learner's folds.

Same patients, folds and inputs as the learner: who lacks a table gets imputed values and a flag. Each penalty is chosen
by cross-validated likelihood among the non-test patients of the fold; test patients are only ever predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nsclc_mtl.baselines.design import Design
from nsclc_mtl.baselines.likelihoods import baseline_hazard
from nsclc_mtl.baselines.model import Model, Outcome, Space
from nsclc_mtl.baselines.ridge import Ridge
from nsclc_mtl.baselines.tuning import choose, held_out, inner_folds
from nsclc_mtl.records import Repeated, TaskSpec
from nsclc_mtl.tables.robust import robust_features

ALL = "all tables"
STAGE = "stage"
VOLUME = "tumour volume"
ALL_AND_VOLUME = "all tables + volume"
Prepare = Callable[[pd.DataFrame, list[str]], pd.DataFrame]
"""From a table and the training patients of a fold to the table with something fitted on them taken out of it."""
_FEWEST = 2  # training patients of the rarer class, or events, below which nothing is fitted


def floor_tables(tables: Iterable[str], apart: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """Which tables each floor sees: {floor: tables}. What stands apart (stage, volume, mean slide feature) is no part
    of `all tables`."""
    joined, separate = tuple(tables), tuple(apart)
    floors: dict[str, tuple[str, ...]] = {name: (name,) for name in (*separate, *joined)}
    if len(joined) > 1:
        floors[ALL] = joined
        if VOLUME in separate:
            floors[ALL_AND_VOLUME] = (*joined, VOLUME)
    return floors


def fit_floors(
    tables: Mapping[str, pd.DataFrame],
    tasks: Mapping[str, TaskSpec],
    labels: Mapping[str, pd.DataFrame],
    splits: pd.DataFrame,
    stage: str | None,
    seed: int,
    horizons: Mapping[str, Sequence[float]] | None = None,
    only: Sequence[str] | None = None,
    apart: Mapping[str, pd.DataFrame] | None = None,
    repeated: Mapping[str, Repeated] | None = None,
    prepare: Mapping[str, Prepare] | None = None,
    model: Model | None = None,
) -> pd.DataFrame:
    """Test-part predictions of every floor, in the long format of predictions.csv plus the column `model`.

    Binary tasks have rows of part `train` too, to find a threshold by: the probabilities of all non-test patients whose
    outcome is known, each from the fit on the other inner folds of the search for the penalty. Those of the fit on all
    of them would lie further apart than new patients' do.

    tables: {name: frame indexed by patient_id}, numeric, boolean or text; cells and whole rows may be missing.
    labels: as `Manifest.labels`. splits: columns patient_id, fold, part. stage: the task that is the TNM stage.
    horizons: {survival task: days} at which survival curves are written. only: names of the floors wanted.
    apart: further tables with a floor of their own that `all tables` does not see, among them `stage`, the stage as an
    input; without it the labels of the task `stage` are taken. That task gets no stage floor.
    repeated: tables measured again under perturbed masks; like the learner, a floor sees only their robust columns.
    prepare: what is fitted on a fold's training patients and taken out of a table before anything else (ComBat).
    model: the family of linear models, `Ridge()` where none is given.
    """
    family: Model = Ridge() if model is None else model
    extra = dict(apart or {})
    if STAGE not in extra and stage is not None and stage in labels and stage in tasks:
        extra = {STAGE: _stage_table(labels[stage], tasks[stage]), **extra}
    if set(extra) & set(tables) or {ALL, ALL_AND_VOLUME} & {*extra, *tables}:
        raise ValueError(f"two floors of one name among {[*extra, *tables]}")
    inputs = {**extra, **tables}
    floors = floor_tables(list(tables), extra)
    if only is not None:
        floors = {name: sees for name, sees in floors.items() if name in only}
    frames = []
    for fold, rows in splits.groupby("fold", sort=True):
        test = sorted(rows.loc[rows["part"] == "test", "patient_id"])
        training = sorted(rows.loc[rows["part"] != "test", "patient_id"])
        if not test or not training:
            continue
        seen = {name: inputs[name] for sees in floors.values() for name in sees}
        for name in set(seen) & set(repeated or {}):
            seen[name] = seen[name][robust_features(seen[name], (repeated or {})[name], training, name).kept]
        for name in set(seen) & set(prepare or {}):
            seen[name] = (prepare or {})[name](seen[name], training)
        designs = {name: Design(table, training) for name, table in seen.items()}
        blocks = {name: (design(seen[name], training), design(seen[name], test)) for name, design in designs.items()}
        plain = {name: family.spaces([block], []) for name, block in blocks.items()}
        found: dict[tuple[str, str], float] = {}  # what suited a task on one table alone
        for name, sees in floors.items():
            for task in tasks.values():
                if task.name == stage and name == STAGE:
                    continue
                spaces = plain[sees[0]]
                if len(sees) > 1:
                    alone = [found.get((task.name, b), np.nan) for b in sees]
                    spaces = family.spaces([blocks[b] for b in sees], alone)
                rng = np.random.default_rng([seed, _number(str(fold)), _number(name), _number(task.name)])
                days = (horizons or {}).get(task.name)
                told = _predict(family, task, spaces, labels[task.name].reindex(training), rng, days)
                if len(sees) == 1:
                    found[task.name, sees[0]] = told.alone
                model_name, label = f"floor:{name}", labels[task.name]
                frames.append(_long(model_name, task, fold, "test", test, told.outputs, label))
                if told.crossed:
                    people = [training[k] for k in told.known]
                    frames.append(_long(model_name, task, fold, "train", people, told.crossed, label))
    columns = ["model", "patient_id", "task", "fold", "part", "output", "value", "target", "event", "time_days"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


class _Told(NamedTuple):
    """What a floor says of a task in a fold."""

    outputs: dict[str, np.ndarray]  # output -> [test patient]; NaN where training allows no fit
    alone: float  # what joining goes by
    known: np.ndarray = np.zeros(0, dtype=int)  # training patients with an outcome
    crossed: Mapping[str, np.ndarray] = {}  # output -> [known patient], each by the fit without its inner fold


def _predict(
    model: Model,
    task: TaskSpec,
    spaces: list[Space],
    label: pd.DataFrame,
    rng: np.random.Generator,
    days: Sequence[float] | None,
) -> _Told:
    """Outputs of the test patients, and of a binary task held-out ones of the training patients."""
    survival = task.kind == "survival"
    y = label["time_days" if survival else "value"].to_numpy(dtype=float)
    event = label["event"].to_numpy(dtype=float) if survival else np.zeros(len(y))
    known = np.flatnonzero(~(np.isnan(y) | np.isnan(event)))
    y, event = y[known], event[known]
    if task.kind == "regression":
        return _predict_number(model, spaces, y, known, rng)
    names = ["risk"] + [f"surv:{d:g}" for d in days or ()] if survival else [f"p:{c}" for c in task.classes]
    counts = np.unique(event[event == 1] if survival else y, return_counts=True)[1]
    if len(counts) < (1 if survival else 2) or counts.min() < _FEWEST:
        return _Told({name: np.full(len(spaces[0].test), np.nan) for name in names}, np.nan)
    inner = inner_folds(event if survival else y, model.inner, rng)
    classes, number = (np.zeros(0), y) if survival else np.unique(y, return_inverse=True)
    outcome = Outcome(number, event, len(classes), task.kind != "multiclass")
    space, path, step = choose(model, spaces, known, outcome, inner)
    z = space.train[known]
    said = path.fit(z, outcome, step)
    if survival:
        risk = said(space.test)
        hazard = baseline_hazard(said(z), y, event, np.asarray(days or (), dtype=float))
        curves = np.exp(-hazard * np.exp(risk)[:, None])
        return _Told(dict(zip(names, [risk, *curves.T], strict=True)), path.alone(step))
    proba = np.zeros((len(space.test), len(task.classes)))
    proba[:, classes.astype(int)] = said(space.test)  # a class without training patients gets probability 0
    outputs, alone = dict(zip(names, proba.T, strict=True)), path.alone(step)
    if task.kind != "binary":
        return _Told(outputs, alone)
    crossed = held_out(path, z, outcome, step, inner)  # both classes occur, so the columns are those of the task
    return _Told(outputs, alone, known, dict(zip(names, crossed.T, strict=True)))


def _predict_number(
    model: Model, spaces: list[Space], y: np.ndarray, known: np.ndarray, rng: np.random.Generator
) -> _Told:
    """`value` of the test patients and what joining goes by; NaN where the known numbers allow no fit."""
    if len(y) < 2 * model.inner or np.ptp(y) == 0:
        return _Told({"value": np.full(len(spaces[0].test), np.nan)}, np.nan)
    order = rng.permutation(len(y))  # ties are dealt by chance
    inner = np.empty(len(y), int)
    inner[order] = inner_folds(np.argsort(np.argsort(y[order], kind="stable"), kind="stable"), model.inner, rng)
    outcome = Outcome(y, np.zeros(len(y)), 0, True, number=True)
    space, path, step = choose(model, spaces, known, outcome, inner)
    return _Told({"value": path.fit(space.train[known], outcome, step)(space.test)}, path.alone(step))


def _stage_table(label: pd.DataFrame, task: TaskSpec) -> pd.DataFrame:
    """The stage as a number and as a level, so that a linear model may use it either way."""
    known = label["value"].dropna()
    return pd.DataFrame({"number": known, "level": [task.classes[int(v)] for v in known]}, index=known.index)


def _long(
    model: str,
    task: TaskSpec,
    fold: Any,
    part: str,
    patients: list[str],
    outputs: Mapping[str, np.ndarray],
    label: pd.DataFrame,
) -> pd.DataFrame:
    """Outputs of the patients of a part as rows of predictions.csv."""
    own = label.reindex(patients)
    frame = pd.DataFrame({"patient_id": patients})
    if task.kind == "survival":
        frame["target"], frame["event"], frame["time_days"] = "", own["event"].to_numpy(), own["time_days"].to_numpy()
    else:
        word = (lambda v: f"{v:.10g}") if task.kind == "regression" else (lambda v: task.classes[int(v)])
        frame["target"] = ["" if pd.isna(v) else word(v) for v in own["value"]]
        frame["event"], frame["time_days"] = np.nan, np.nan
    rows = [frame.assign(output=name, value=value) for name, value in outputs.items()]
    return pd.concat(rows, ignore_index=True).assign(model=model, task=task.name, fold=fold, part=part)


def _number(text: str) -> int:
    """A stable number of a name, for seeds."""
    return int.from_bytes(text.encode()[:16].ljust(1, b"0"), "little")
