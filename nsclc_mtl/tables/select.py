"""Which columns of a wide table are kept: by variance, or by what each knows of the tasks, on training patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import chi2, f, rankdata
from scipy.stats import t as student

from nsclc_mtl.records import DataFault, TaskSpec, UsageFault

RULES = ("none", "variance", "univariate")
Labels = Mapping[str, tuple[TaskSpec, pd.DataFrame]]
"""Task -> its declaration and the labels of the training patients, as the manifest holds them."""


def cox_scores(values: np.ndarray, time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Score statistic of Cox's model of every column alone, at no effect (chi-square, 1 df). [column].

    Ties as Breslow has them (Cox, JRSS B 1972): the information is the variance of the column within each risk set. A
    column that varies in no risk set gives 0.

    >>> x = np.array([[1.0], [2.0], [3.0], [4.0]])
    >>> cox_scores(x, np.array([4.0, 3, 2, 1]), np.ones(4)).round(4).tolist()
    [4.1538]
    """
    score, information, tiny = cox_parts(values, time, event)
    return np.where(information > tiny, score**2 / np.maximum(information, 1e-300), 0.0)


def cox_parts(values: np.ndarray, time: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score and information of every column alone at no effect, and the information that counts as none. [column]."""
    order = np.argsort(-np.asarray(time, float), kind="stable")
    x, when, happened = values[order] - values.mean(axis=0), np.asarray(time, float)[order], event[order] == 1
    # a risk set ends with the last patient of its time, as the longest times stand first
    last = np.searchsorted(-when, -when[happened], side="right")
    total, square = np.cumsum(x, axis=0)[last - 1], np.cumsum(x**2, axis=0)[last - 1]
    mean = total / last[:, None]
    score = (x[happened] - mean).sum(axis=0)
    information = (square / last[:, None] - mean**2).sum(axis=0)
    tiny = 1e-12 * (x**2).sum(axis=0) + 1e-18 * (values**2).sum(axis=0)
    return score, information, tiny


def anova(values: np.ndarray, label: np.ndarray) -> np.ndarray:
    """P of a one-way analysis of variance of every column over the classes. [column].

    A column without variance gives 1.
    """
    classes, number = np.unique(label, return_inverse=True)
    x = values - values.mean(axis=0)
    total = (x**2).sum(axis=0)
    hot = (number[:, None] == np.arange(len(classes))).astype(float)
    between = ((hot.T @ x) ** 2 / hot.sum(axis=0)[:, None]).sum(axis=0)
    within = np.maximum(total - between, 1e-12 * total)
    free = len(label) - len(classes)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (between / (len(classes) - 1)) / (within / free)
    return np.where(total > 1e-18 * (values**2).sum(axis=0), f.sf(ratio, len(classes) - 1, free), 1.0)


def spearman(values: np.ndarray, label: np.ndarray) -> np.ndarray:
    """P of Spearman's rank correlation of every column with the class number (t approximation). [column]."""
    r, free = np.clip(spearman_r(values, label), -1, 1), len(label) - 2
    with np.errstate(divide="ignore"):
        return np.asarray(2 * student.sf(np.abs(r) * np.sqrt(free / np.maximum(1 - r**2, 0)), free))


def spearman_r(values: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of every column with a number a patient; 0 for a column that does not vary."""
    x, y = rankdata(values, axis=0), rankdata(label)
    x, y = x - x.mean(axis=0), y - y.mean()
    spread = np.sqrt((x**2).sum(axis=0) * (y**2).sum())
    return np.asarray(np.divide(y @ x, spread, out=np.zeros(x.shape[1]), where=spread > 0))


def p_values(values: np.ndarray, spec: TaskSpec, labels: pd.DataFrame) -> np.ndarray | None:
    """P of each column [patient, column] alone for one task; None where its labels cannot tell.

    Survival: Cox's score test. Ordered classes and numbers: Spearman. Other classes: analysis of variance.
    """
    known = labels.notna().all(axis=1).to_numpy()
    x = values[known]
    if spec.kind == "survival":
        event = labels["event"].to_numpy()[known]
        if event.sum() < 2:
            return None
        return np.asarray(chi2.sf(cox_scores(x, labels["time_days"].to_numpy()[known], event), 1))
    label = labels["value"].to_numpy()[known]
    if spec.kind == "regression":
        return spearman(x, label) if len(label) > 3 and np.ptp(label) > 0 else None
    if len(np.unique(label)) < 2 or len(label) < len(np.unique(label)) + 2:
        return None
    return spearman(x, label) if spec.kind == "ordinal" else anova(x, label)


def univariate(values: np.ndarray, labels: Labels, keep: int, index: pd.Index) -> np.ndarray:
    """Positions of the `keep` columns that know most of any task, in their order. int [keep].

    Each task ranks the columns by P; a column counts by its best rank, then by its mean rank, so that every task brings
    its own. `index` names the rows of `values`. Raises DataFault where no task has labels to judge by.
    """
    found = (p_values(values, spec, frame.reindex(index)) for spec, frame in labels.values())
    return best([p for p in found if p is not None], keep)


def best(found: Sequence[np.ndarray], keep: int) -> np.ndarray:
    """Positions of the `keep` columns that rank best by the P of each task [column]. DataFault without tasks."""
    ranks = [rankdata(p, method="min") for p in found]
    if not ranks:
        raise DataFault(
            "select=univariate: no task has two classes or two events among the training patients of this table; "
            "use select=variance, or fewer folds (folds.n)"
        )
    order = np.lexsort((np.mean(ranks, axis=0), np.min(ranks, axis=0)))
    return np.sort(order[:keep])


def positions(
    rule: str, values: np.ndarray, sd: np.ndarray, keep: int | None, labels: Labels | None, index: pd.Index
) -> np.ndarray:
    """Positions of the columns [patient, column] that the rule keeps, in their order. Raises UsageFault.

    `sd` is each column's standard deviation, which `variance` goes by.
    """
    if rule not in RULES:
        raise UsageFault(f"select={rule!r} is none of {', '.join(RULES)}")
    everything = np.arange(values.shape[1])
    if rule == "none":
        return everything
    if keep is None or keep < 1:
        raise UsageFault(f"select={rule} needs keep=K, the number of columns to keep, not {keep}")
    if values.shape[1] <= keep:
        return everything
    if rule == "variance":
        return np.sort(np.argsort(-sd, kind="stable")[:keep])
    if labels is None:
        raise UsageFault("select=univariate needs the labels of the training patients")
    return univariate(values, labels, keep, index)
