"""Predictions of the floor: ridge models of every table, of all tables, and of the stage alone, on the learner's folds.

Same patients, folds and inputs as the learner: who lacks a table gets imputed values and a flag. Each penalty is chosen
by cross-validated likelihood among the non-test patients of the fold; test patients are only ever predicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.baselines.design import Design
from nsclc_mtl.baselines.ridge import CoxLikelihood, GradesLikelihood, Rotation, baseline_hazard, newton
from nsclc_mtl.records import Repeated, TaskSpec
from nsclc_mtl.tables.robust import robust_features

ALL = "all tables"
STAGE = "stage"
# Prior variance of the linear predictor, strongest penalty first: each fit starts where the stronger one ended.
_VARIANCES = np.geomspace(0.003, 30, 8)
_INNER = 5
_ROUGH = 1e-5  # convergence while the penalty is searched; the final fit is exact
_SHARE = 0.99  # of the variance: a ridge shrinks the axes beyond to nothing, and a fit costs the cube of their number
_FEWEST = 2  # training patients of the rarer class, or events, below which nothing is fitted


def floor_tables(tables: Iterable[str], apart: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """Which tables each floor sees: {floor: tables}. What stands apart (stage, volume) is no part of `all tables`."""
    floors: dict[str, tuple[str, ...]] = {name: (name,) for name in (*apart, *tables)}
    joined = tuple(tables)
    return {**floors, ALL: joined} if len(joined) > 1 else floors


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
) -> pd.DataFrame:
    """Test-part predictions of every floor, in the long format of predictions.csv plus the column `model`.

    tables: {name: frame indexed by patient_id}, numeric, boolean or text; cells and whole rows may be missing.
    labels: as `Manifest.labels`. splits: columns patient_id, fold, part. stage: the task that is the TNM stage.
    horizons: {survival task: days} at which survival curves are written. only: names of the floors wanted.
    apart: further tables with a floor of their own that `all tables` does not see, among them `stage`, the stage as an
    input; without it the labels of the task `stage` are taken. That task gets no stage floor.
    repeated: tables measured again under perturbed masks; like the learner, a floor sees only their robust columns.
    """
    extra = dict(apart or {})
    if STAGE not in extra and stage is not None and stage in labels and stage in tasks:
        extra = {STAGE: _stage_table(labels[stage], tasks[stage]), **extra}
    if set(extra) & set(tables) or ALL in {*extra, *tables}:
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
        designs = {name: Design(table, training) for name, table in seen.items()}
        blocks = {name: (design(seen[name], training), design(seen[name], test)) for name, design in designs.items()}
        plain = {name: _space([block], [1.0]) for name, block in blocks.items()}
        found: dict[tuple[str, str], float] = {}  # penalty that suited a task on one table alone
        for name, sees in floors.items():
            for task in tasks.values():
                if task.name == stage and name == STAGE:
                    continue
                if len(sees) == 1:
                    spaces = [plain[sees[0]]]
                else:
                    spaces = _joint([blocks[b] for b in sees], [found.get((task.name, b), np.nan) for b in sees])
                rng = np.random.default_rng([seed, _number(str(fold)), _number(name), _number(task.name)])
                days = (horizons or {}).get(task.name)
                outputs, penalty = _predict(task, spaces, labels[task.name].reindex(training), rng, days)
                if len(sees) == 1:
                    found[task.name, sees[0]] = penalty
                frames.append(_long(f"floor:{name}", task, fold, test, outputs, labels[task.name]))
    columns = ["model", "patient_id", "task", "fold", "part", "output", "value", "target", "event", "time_days"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


@dataclass(frozen=True)
class _Space:
    """The inputs of a floor on the principal axes of its training patients."""

    train: np.ndarray  # [patient, axis]
    test: np.ndarray
    scale: float  # mean squared length of a training row: a penalty of scale / v gives the predictor variance v


def _space(blocks: list[tuple[np.ndarray, np.ndarray]], weights: Sequence[float]) -> _Space:
    """Tables side by side, each multiplied by its weight."""
    train = np.concatenate([b[0] * w for b, w in zip(blocks, weights, strict=True)], axis=1)
    test = np.concatenate([b[1] * w for b, w in zip(blocks, weights, strict=True)], axis=1)
    turn = Rotation.fit(train, _SHARE)
    return _Space(turn(train), turn(test), float((train**2).sum() / max(len(train), 1)) or 1.0)


def _joint(blocks: list[tuple[np.ndarray, np.ndarray]], penalties: Sequence[float]) -> list[_Space]:
    """Two ways to join tables: each with equal weight whatever its width, and each by the penalty it chose alone.

    The second keeps hundreds of columns of noise from drowning three that matter.
    """
    spaces = [_space(blocks, [1 / np.sqrt(max(b[0].shape[1], 1)) for b in blocks])]
    if np.isfinite(penalties).all():
        spaces.append(_space(blocks, [1 / np.sqrt(p) for p in penalties]))
    return spaces


def _predict(
    task: TaskSpec, spaces: list[_Space], label: pd.DataFrame, rng: np.random.Generator, days: Sequence[float] | None
) -> tuple[dict[str, np.ndarray], float]:
    """Outputs of the test patients {output: [patient]} and the penalty; NaN where the training part allows no fit."""
    survival = task.kind == "survival"
    y = label["time_days" if survival else "value"].to_numpy(dtype=float)
    event = label["event"].to_numpy(dtype=float) if survival else np.zeros(len(y))
    known = np.flatnonzero(~(np.isnan(y) | np.isnan(event)))
    y, event = y[known], event[known]
    names = ["risk"] + [f"surv:{d:g}" for d in days or ()] if survival else [f"p:{c}" for c in task.classes]
    strata = event if survival else y
    counts = np.unique(event[event == 1] if survival else y, return_counts=True)[1]
    if len(counts) < (1 if survival else 2) or counts.min() < _FEWEST:
        return {name: np.full(len(spaces[0].test), np.nan) for name in names}, np.nan
    inner = _inner_folds(strata, rng)
    best, chosen, penalty = -np.inf, spaces[0], np.inf
    for space in spaces:
        scores = _path_scores(task, space.train[known], y, event, space.scale / _VARIANCES, inner)
        if scores.max() > best:
            best, chosen, penalty = scores.max(), space, space.scale / _VARIANCES[int(scores.argmax())]
    z = chosen.train[known]
    if survival:
        beta = newton(CoxLikelihood(z, y, event), np.zeros(z.shape[1]), penalty)
        risk = chosen.test @ beta
        hazard = baseline_hazard(z @ beta, y, event, np.asarray(days or (), dtype=float))
        curves = np.exp(-hazard * np.exp(risk)[:, None])
        return dict(zip(names, [risk, *curves.T], strict=True)), float(penalty)
    proba = np.zeros((len(chosen.test), len(task.classes)))
    classes, number = np.unique(y, return_inverse=True)  # a class without training patients gets probability 0
    proba[:, classes.astype(int)] = _fit_classes(task, z, number, penalty)(chosen.test)
    return dict(zip(names, proba.T, strict=True)), float(penalty)


def _fit_classes(task: TaskSpec, z: np.ndarray, y: np.ndarray, penalty: float) -> Any:
    """A function from inputs to probabilities of the classes that occur."""
    classes = int(y.max()) + 1
    if task.kind == "multiclass" and classes > 2:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=1 / penalty, max_iter=500).fit(z, y)
        return model.predict_proba
    likelihood = GradesLikelihood(z, y, classes)
    fitted = newton(likelihood, likelihood.start(), penalty, free=classes - 1)
    return lambda other: likelihood.proba(fitted, other)


def _path_scores(
    task: TaskSpec, z: np.ndarray, y: np.ndarray, event: np.ndarray, penalties: np.ndarray, inner: np.ndarray
) -> np.ndarray:
    """Held-out log likelihood of each penalty, summed over the inner folds; -inf where the path was left. [penalty].

    From the strongest penalty on, each fit starting where the last one ended; past the summit (two steps down) the
    weaker, slower fits are not made.
    """
    judge = _survival_path if task.kind == "survival" else _class_path
    paths = [judge(task, z, y, event, inner != k, penalties) for k in range(inner.max() + 1)]
    scores = np.full(len(penalties), -np.inf)
    for i in range(len(penalties)):
        scores[i] = sum(next(path) for path in paths)
        if i >= 2 and scores[i] < scores[i - 1] < scores[i - 2]:
            break
    return scores


def _survival_path(
    task: TaskSpec, z: np.ndarray, y: np.ndarray, event: np.ndarray, fit: np.ndarray, penalties: np.ndarray
) -> Iterator[float]:
    """What the held-out patients add to the partial likelihood (Verweij and van Houwelingen, 1993), per penalty."""
    whole, part = CoxLikelihood(z, y, event), CoxLikelihood(z[fit], y[fit], event[fit])
    beta = np.zeros(z.shape[1])
    for penalty in penalties:
        if len(part.dead):
            beta = newton(part, beta, penalty, tolerance=_ROUGH)
        yield whole.value(beta) - part.value(beta)


def _class_path(
    task: TaskSpec, z: np.ndarray, y: np.ndarray, event: np.ndarray, fit: np.ndarray, penalties: np.ndarray
) -> Iterator[float]:
    """Log likelihood of the held-out patients whose class occurs among the others, per penalty."""
    classes, number = np.unique(y[fit], return_inverse=True)
    usable = ~fit & np.isin(y, classes)
    truth = np.searchsorted(classes, y[usable])
    plain = task.kind == "multiclass" and len(classes) > 2
    likelihood = GradesLikelihood(z[fit], number, len(classes))
    at = likelihood.start()
    for penalty in penalties:
        if len(classes) < 2:
            yield 0.0
            continue
        if plain:
            proba = _fit_classes(task, z[fit], number, penalty)(z[usable])
        else:
            at = newton(likelihood, at, penalty, free=len(classes) - 1, tolerance=_ROUGH)
            proba = likelihood.proba(at, z[usable])
        yield float(np.log(np.maximum(proba[np.arange(len(truth)), truth], 1e-12)).sum())


def _inner_folds(strata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Inner fold of each training patient, events or classes spread evenly. int [patient]."""
    fold = np.empty(len(strata), dtype=int)
    dealt = 0
    for level in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == level))
        fold[members] = (dealt + np.arange(len(members))) % _INNER
        dealt += len(members)
    return fold


def _stage_table(label: pd.DataFrame, task: TaskSpec) -> pd.DataFrame:
    """The stage as a number and as a level, so that a linear model may use it either way."""
    known = label["value"].dropna()
    return pd.DataFrame({"number": known, "level": [task.classes[int(v)] for v in known]}, index=known.index)


def _long(
    model: str, task: TaskSpec, fold: Any, patients: list[str], outputs: dict[str, np.ndarray], label: pd.DataFrame
) -> pd.DataFrame:
    """Outputs of the test patients as rows of predictions.csv."""
    own = label.reindex(patients)
    frame = pd.DataFrame({"patient_id": patients})
    if task.kind == "survival":
        frame["target"], frame["event"], frame["time_days"] = "", own["event"].to_numpy(), own["time_days"].to_numpy()
    else:
        frame["target"] = ["" if pd.isna(v) else task.classes[int(v)] for v in own["value"]]
        frame["event"], frame["time_days"] = np.nan, np.nan
    rows = [frame.assign(output=name, value=value) for name, value in outputs.items()]
    return pd.concat(rows, ignore_index=True).assign(model=model, task=task.name, fold=fold, part="test")


def _number(text: str) -> int:
    """A stable number of a name, for seeds."""
    return int.from_bytes(text.encode()[:16].ljust(1, b"0"), "little")
