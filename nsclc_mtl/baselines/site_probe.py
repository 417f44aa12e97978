"""How well a linear model tells the site from a table, and what the tasks are worth at a site that it never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nsclc_mtl.baselines.design import Design
from nsclc_mtl.baselines.floor import Prepare, fit_floors
from nsclc_mtl.baselines.model import Model
from nsclc_mtl.cohort.splits import deal, k_fold
from nsclc_mtl.metrics.comparison import Measure, classes_in_order, mean_of
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


# ---------------------------------------------------------------------------------------------------------------------
# Within a part: of few patients, many times
# ---------------------------------------------------------------------------------------------------------------------

_CELL = 8  # patients of every site in a fold of the probe, so that hardly a resample lacks a site
_FEWEST = 4  # of a site, so that each of two folds trains on two
_PENALTIES = np.geomspace(1e-2, 1e2, 9)  # a row, of columns at unit variance


@dataclass(frozen=True)
class Cell:
    """Patients whose site a probe told that was fitted on others of their part."""

    patients: list[str]
    label: np.ndarray  # int [patient], number among the sites of the part
    score: np.ndarray  # float [patient, site]

    @property
    def measure(self) -> Measure:
        """AUC of each site against the rest, mean over the sites."""
        sites = range(self.score.shape[1])
        return mean_of([classes_in_order((self.label == k).astype(float), self.score[:, k]) for k in sites])


def large_sites(site: pd.Series, least: int) -> pd.Series:
    """The patients of a part at sites with `least` of them (four at least), by patient; nobody where that is one site.

    >>> large_sites(pd.Series(list("AAAABBBBC"), list("pqrstuvwx")), least=2).nunique()
    2
    """
    counts = site[site != ""].value_counts()
    large = counts.index[counts >= max(least, _FEWEST)]
    return site[site.isin(large)] if len(large) > 1 else site[:0]


def tell_within(table: pd.DataFrame, site: pd.Series, *, folds: int, seed: Sequence[int]) -> list[Cell]:
    """How a linear model tells the site of each patient from a table, cross-validated among these patients.

    The folds are at most `folds` and at least two, and so few that each holds eight patients of every site where that
    is possible. Missing cells are imputed and flagged. table: a row for each patient of `site`.
    """
    names, label = np.unique(site.to_numpy(dtype=str), return_inverse=True)
    few = int(np.bincount(label).min())
    piles = max(2, min(folds, few // _CELL))
    pile = deal(site.to_numpy(dtype=str), [1.0] * piles, np.random.default_rng(list(seed)))
    cells, everyone = [], np.array(site.index, dtype=object)
    for k in range(piles):
        fit, held = list(everyone[pile != k]), list(everyone[pile == k])
        design = Design(table, fit)
        wanted = np.eye(len(names))[label[pile != k]]
        score = ridge_scores(design(table, fit), wanted, design(table, held))
        cells.append(Cell([str(p) for p in held], label[pile == k], score))
    return cells


def ridge_scores(train: np.ndarray, wanted: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Scores [test patient, output] of a ridge regression with an intercept that is not penalised.

    The penalty is the one of nine with the least squared error where each training patient is left out in turn, which
    the hat matrix gives without refitting (Golub, Heath and Wahba, Technometrics 1979). train: [patient, column].
    wanted: [patient, output].
    """
    n, middle, level = len(train), train.mean(0), wanted.mean(0)
    u, s, v = np.linalg.svd(train - middle, full_matrices=False)
    turned, best, chosen = u.T @ (wanted - level), np.inf, 1.0
    for penalty in _PENALTIES * n:
        kept = s**2 / (s**2 + penalty)
        own = np.minimum((u**2 * kept).sum(1) + 1 / n, 1 - 1e-9)
        error = float(np.square((wanted - level - (u * kept) @ turned) / (1 - own)[:, None]).sum())
        if error < best:
            best, chosen = error, penalty
    return level + (test - middle) @ (v.T * (s / (s**2 + chosen))) @ turned


def permuted(
    tables: Sequence[pd.DataFrame], sites: Sequence[pd.Series], *, folds: int, seed: int, times: int
) -> np.ndarray:
    """What the probe reaches where the sites are dealt anew among the patients of each part, AUC [time].

    Mean over the parts by their patients, as for the true sites. tables, sites: one a part.
    """
    found = []
    for time in range(times):
        rng, cells = np.random.default_rng([seed, 7919, time]), []
        for part, (table, site) in enumerate(zip(tables, sites, strict=True)):
            dealt = pd.Series(rng.permutation(site.to_numpy()), site.index)
            cells += tell_within(table, dealt, folds=folds, seed=[seed, part])
        values = [float(cell.measure(np.ones((1, len(cell.label))))[0]) for cell in cells]
        found.append(float(np.average(values, weights=[len(cell.label) for cell in cells])))
    return np.array(found)
