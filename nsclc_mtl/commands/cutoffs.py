"""Cut-offs of the risk and thresholds of probabilities that training fixed, for patients whom all folds predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from nsclc_mtl.records import TaskSpec

ALL = "-1"  # the fold of patients whom the mean of all folds predicts
LEVELS = {"median": 1 / 2, "lower_tertile": 1 / 3, "upper_tertile": 2 / 3}


def of_model(folder: Path, folds: Sequence[int]) -> dict[str, dict[str, float]]:
    """Task -> name of the level -> cut-off for patients predicted by these folds, of a run or a bundle."""
    from nsclc_mtl.commands import bundled
    from nsclc_mtl.commands.trained import read_table

    each = (
        bundled.opened(folder)["cutoffs"] if bundled.at(folder) else of_training(read_table(folder / "predictions.csv"))
    )
    return over_folds(each, folds)


def thresholds_of_model(
    folder: Path, folds: Sequence[int], tasks: Mapping[str, TaskSpec]
) -> dict[str, dict[str, float]]:
    """Binary task -> fold -> threshold of a run or a bundle; of fold -1, whom all `folds` predict, their mean."""
    from nsclc_mtl.commands import bundled
    from nsclc_mtl.commands.trained import read_table

    each: Mapping[str, Mapping[str, float]]
    if bundled.at(folder):
        each = bundled.opened(folder).get("thresholds") or {}  # bundles of before have none
    else:
        each = thresholds_of_training(read_table(folder / "predictions.csv"), tasks)
    names = [str(fold) for fold in folds]
    return {
        task: {**by, ALL: sum(by[fold] for fold in names) / len(names)}
        for task, by in each.items()
        if names and all(fold in by for fold in names)
    }


def thresholds_of_training(predictions: pd.DataFrame, tasks: Mapping[str, TaskSpec]) -> dict[str, dict[str, float]]:
    """Binary task -> fold -> the learner's threshold that the fold's training patients fix, from a predictions.csv."""
    from nsclc_mtl.report.evaluation import thresholds

    out: dict[str, dict[str, float]] = {}
    for name, task in tasks.items():
        if task.kind == "binary":
            made = thresholds(predictions[predictions["task"] == name], task)
            out[name] = {fold: at for (fold, _), at in made.items()}
    return out


def of_training(predictions: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Task -> fold -> name of the level -> risk of the fold's training patients, from a run's predictions.csv.

    Runs that kept no risks of training patients give those of the validation part, as the report takes them.
    """
    risks = predictions[predictions["output"] == "risk"].dropna(subset=["value"])
    out: dict[str, dict[str, dict[str, float]]] = {}
    for (task, fold), own in risks.groupby(["task", "fold"], sort=False):
        for part in ("train", "validation"):
            values = own.loc[own["part"] == part, "value"]
            if len(values):
                levels = {name: float(values.quantile(at)) for name, at in LEVELS.items()}
                out.setdefault(str(task), {})[str(fold)] = levels
                break
    return out


def over_folds(
    each: Mapping[str, Mapping[str, Mapping[str, float]]], folds: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Task -> name of the level -> mean over these folds: the cut-off of a risk that is the mean of theirs.

    Whose mean risk exceeds it exceeds the cut-offs of the folds on average. Tasks without one in a fold are left out.
    """
    names = [str(fold) for fold in folds]
    return {
        task: {level: sum(by[fold][level] for fold in names) / len(names) for level in LEVELS}
        for task, by in each.items()
        if names and all(fold in by for fold in names)
    }
