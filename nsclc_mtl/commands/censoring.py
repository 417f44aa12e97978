"""Censoring weights of patients whom no fold has seen: the follow-up of the training patients, kept with every fold.

A fold keeps a life table of each survival task (`fitted.json`, `follow_up`): how many of the patients who do not test
it had the event, and how many were censored, on each whole day. A bundle carries it. No id and no feature is kept: the
table gives what a published Kaplan-Meier curve gives that shows all its steps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.metrics.life_table import LifeTable
from nsclc_mtl.records import IntegrityFault, Manifest, TaskSpec

if TYPE_CHECKING:
    import pandas as pd

Tables = dict[str, dict[str, LifeTable]]  # task -> fold -> follow-up of the patients who do not test it
MEAN = "-1"  # the fold of patients who are predicted by the mean of several


def kept(manifest: Manifest, ids: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """Survival task -> life table of these patients, as plain types (see `LifeTable.state`)."""
    found = {}
    for task, spec in manifest.tasks.items():
        if spec.kind == "survival" and task in manifest.labels:
            label = manifest.labels[task].reindex(list(ids))
            found[task] = LifeTable.of(label["time_days"], label["event"]).state()
    return found


@dataclass
class FollowUp:
    """The follow-up of the training patients, and why there is none of the tasks that it lacks."""

    tables: Tables = field(default_factory=dict)
    reason: str = ""

    def without(self, tasks: Collection[str], reason: str) -> FollowUp:
        """The follow-up without that of these tasks, for this reason beside the one there was."""
        kept = {task: each for task, each in self.tables.items() if task not in tasks}
        return FollowUp(kept, "; ".join(filter(None, (self.reason, reason)))) if tasks else self

    def outcomes(self) -> dict[str, dict[str, pd.DataFrame]]:
        """Task -> fold -> event and time_days of those whom the censoring is estimated on, for `evaluation.judge`.

        For patients whom the mean of the folds predicts (fold -1) that is everybody whom one of these folds knows, by
        the pooled tables, and not the mean of the folds' own G. Both estimate the same; but the pooled one is, of the
        folds of a cross-validation, Kaplan-Meier's estimate on all training patients, so that anybody who has them can
        compute it with any program, and it does not depend on how they were split. It is one G, hence one tau, for the
        learner and the floors, which are fitted on the same patients.
        """
        import pandas as pd

        made: dict[str, dict[str, pd.DataFrame]] = {}
        for task, each in self.tables.items():
            for fold, table in {**each, MEAN: LifeTable.pooled(each.values())}.items():
                time, event = table.outcomes()
                made.setdefault(task, {})[fold] = pd.DataFrame({"event": event, "time_days": time})
        return made


def of_training(
    folder: Path,
    folds: Sequence[str],
    tasks: Mapping[str, TaskSpec],
    cohort: Manifest | None = None,
    splits: pd.DataFrame | None = None,
) -> FollowUp:
    """The follow-up that these folds (`fold<k>`) of a run or bundle keep.

    Of a run that was trained before folds kept it, it is counted in the training cohort, where that can be opened
    (`cohort`, `splits`). A task that neither has is left out. Raises IntegrityFault where a file is not ours.
    """
    from nsclc_mtl.commands import bundled

    wanted = [name for name, task in tasks.items() if task.kind == "survival"]
    found, lacking = FollowUp(), list[str]()
    states = {name.removeprefix("fold"): _of_fold(folder / name) for name in folds}
    for task in wanted:
        if states and all(task in state for state in states.values()):
            found.tables[task] = {fold: _table(folder, state[task]) for fold, state in states.items()}
        elif cohort is not None and splits is not None and task in cohort.labels:
            counted = {}
            for fold in states:
                rows = splits[(splits["fold"].astype(str) == fold) & (splits["part"] != "test")]
                counted[fold] = LifeTable.load(kept(cohort, list(rows["patient_id"]))[task])
            found.tables[task] = counted
        else:
            lacking.append(task)
    if lacking:
        found.reason = (
            "the bundle holds no follow-up of its training patients: give the run folder as ckpt=, or a bundle with it"
            if bundled.at(folder)
            else "no censoring weights: the run keeps no follow-up of its training patients, and their cohort is not "
            "at hand: put it back, or train again"
        )
    return found


def _of_fold(fold: Path) -> Mapping[str, Any]:
    """What a fold keeps, task -> life table; {} of a fold of before, which keeps none."""
    from nsclc_mtl.commands import bundled, fold_files, sealed

    if not bundled.at(fold.parent):
        sealed.unbroken(fold)
    told = fold_files.fitted_state(fold).get("follow_up")
    return told if isinstance(told, dict) else {}


def _table(folder: Path, state: Any) -> LifeTable:
    try:
        return LifeTable.load(state)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise IntegrityFault(
            f"'{folder.name}' keeps a follow-up of the training patients that cannot be read: {error}"
        ) from error
