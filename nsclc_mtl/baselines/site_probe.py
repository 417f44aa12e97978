"""How well a linear model tells the site from a table, and what the tasks are worth at a site that it never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nsclc_mtl.baselines.floor import Prepare, fit_floors
from nsclc_mtl.baselines.model import Model
from nsclc_mtl.cohort.splits import k_fold
from nsclc_mtl.records import TaskSpec

TASK = "site"


def site_task(site: pd.Series, least: int) -> tuple[TaskSpec, pd.DataFrame]:
    """Sites of at least `least` patients as a task, and everybody's label: `value`, NaN at smaller sites.

    >>> spec, label = site_task(pd.Series(["A", "B", "A", "B", "C"]), least=2)
    >>> spec.classes, spec.kind, label["value"].tolist()
    (('A', 'B'), 'binary', [0.0, 1.0, 0.0, 1.0, nan])
    """
    counts = site[site != ""].value_counts()
    names = tuple(sorted(str(s) for s, n in counts.items() if n >= least))
    number = {name: float(i) for i, name in enumerate(names)}
    label = pd.DataFrame({"value": site.map(number).astype(float)}, index=site.index)
    return TaskSpec(TASK, "binary" if len(names) == 2 else "multiclass", names), label


def tell_sites(
    name: str,
    table: pd.DataFrame,
    task: TaskSpec,
    label: pd.DataFrame,
    *,
    folds: int,
    seed: int,
    prepare: Prepare | None = None,
    model: Model | None = None,
) -> pd.DataFrame:
    """Test-part probabilities of the sites from one table, cross-validated, as `fit_floors` gives them.

    Of the patients who have the table and a site of the task, folds stratified by site. prepare: what is fitted on a
    fold's training patients and taken out of the table first, for everybody.
    """
    known = label.loc[[p for p in table.index if p in label.index]].dropna()
    splits = k_fold({TASK: known}, list(known.index), folds=folds, seed=seed, validation=0.0)
    own = {} if prepare is None else {name: prepare}
    return fit_floors({name: table}, {TASK: task}, {TASK: known}, splits, None, seed, prepare=own, model=model)


def leave_one_site_out(site: pd.Series, sites: Sequence[str]) -> pd.DataFrame:
    """Table patient_id, fold, part: each of the sites is the test part of one fold, everybody else trains.

    >>> made = leave_one_site_out(pd.Series(["A", "B", "C"], ["p", "q", "r"]), ["A", "B"])
    >>> made[made["part"] == "test"].to_numpy().tolist()
    [['p', 0, 'test'], ['q', 1, 'test']]
    """
    parts = [np.where(site == name, "test", "train") for name in sites]
    frames = [pd.DataFrame({"patient_id": site.index, "fold": k, "part": part}) for k, part in enumerate(parts)]
    return pd.concat(frames, ignore_index=True)


def elsewhere(
    tables: Mapping[str, pd.DataFrame],
    apart: Mapping[str, pd.DataFrame],
    tasks: Mapping[str, TaskSpec],
    labels: Mapping[str, pd.DataFrame],
    splits: pd.DataFrame,
    *,
    seed: int,
    prepare: Mapping[str, Prepare] | None = None,
    model: Model | None = None,
) -> pd.DataFrame:
    """What the floors say of each site's patients when they are fitted on all other sites, as `fit_floors` gives it."""
    return fit_floors(tables, tasks, labels, splits, None, seed, apart=apart, prepare=prepare, model=model)
