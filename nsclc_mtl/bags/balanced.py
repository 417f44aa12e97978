"""Patients drawn so that an epoch shows every class of a task alike often, or events as often as censorings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from nsclc_mtl.records import DataFault, Manifest, TaskSpec, UsageFault


def groups(manifest: Manifest, task: str, ids: list[str]) -> np.ndarray:
    """The group of every patient that `task` is balanced by, int [patient]: class, or event; -1 where not known.

    Raises UsageFault where the run does not train such a task, DataFault where only one group has patients.
    """
    kind = balanced_kind(manifest.tasks, task)
    labels = manifest.labels[task].loc[ids]
    known = labels.notna().all(axis=1).to_numpy()
    number = labels["event" if kind == "survival" else "value"].to_numpy(float)
    made = np.where(known, number, -1).astype(int)
    if len(np.unique(made[known])) < 2:
        raise DataFault(
            f"optim.sampler=balanced: the training patients of a fold hold one class (or no event) of {task}; "
            "use fewer folds, or optim.sampler=shuffled"
        )
    return made


def balanced_kind(specs: Mapping[str, TaskSpec], task: str) -> str:
    """The kind of the task to balance by. Raises UsageFault where there is none, or it has no groups."""
    if task not in specs:
        raise UsageFault(f"optim.sampler_task={task}: the run trains no such task; it trains {', '.join(specs)}")
    if specs[task].kind == "regression":
        raise UsageFault(f"optim.sampler_task={task}: a number has neither classes nor events to balance by")
    return specs[task].kind


def chances(group: np.ndarray) -> np.ndarray:
    """How often an epoch draws each patient on average, [patient]: patients without a group once, groups alike often.

    >>> chances(np.array([0, 0, 0, 1, -1])).round(3).tolist()
    [0.667, 0.667, 0.667, 2.0, 1.0]
    """
    group = np.asarray(group)
    known = group >= 0
    number = np.unique(group[known], return_inverse=True)[1]
    count = np.bincount(number)
    out = np.ones(len(group))
    out[known] = known.sum() / len(count) / count[number]
    return out


def draw(group: np.ndarray, generator: torch.Generator) -> list[int]:
    """An epoch of as many patients as there are, in random order, each group as often as the others (to one).

    A group's members come one after the other in a random order before any of them comes again. Who has no group comes
    once. It depends on the generator alone.
    """
    group = np.asarray(group)
    levels = np.unique(group[group >= 0])
    known = int((group >= 0).sum())
    quota = np.full(len(levels), known // len(levels))
    quota[torch.randperm(len(levels), generator=generator)[: known % len(levels)].numpy()] += 1
    taken = [np.flatnonzero(group < 0)]
    for level, wanted in zip(levels, quota, strict=True):
        members = np.flatnonzero(group == level)
        rounds = -(-wanted // len(members))
        orders = [torch.randperm(len(members), generator=generator).numpy() for _ in range(rounds)]
        taken.append(members[np.concatenate(orders)[:wanted]])
    whole = np.concatenate(taken)
    return [int(i) for i in whole[torch.randperm(len(whole), generator=generator).numpy()]]
