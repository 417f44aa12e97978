"""One number for how well a validation part is told: the mean over the tasks of the metric that each is judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from nsclc_mtl.metrics.classification import auc, expected_class, macro_auc, ordinal_auc
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import c_index
from nsclc_mtl.records import Target
from nsclc_mtl.tasks.task import Task


def main_metric(task: Task, raw: Tensor, target: Target) -> Score:
    """The metric that the evaluation judges this kind of task by, on the patients whose label is known.

    raw: what the head says, [patient, ...]. AUC (binary), its mean over the classes (multiclass), the concordance of
    the expected class over pairs of unequal grades (ordinal), Harrell's C (survival); for any other kind the
    concordance of the score with the value. Between 0 and 1, .5 = nothing is known; missing, with its reason, where
    the labels do not allow one.
    """
    known = target.known
    value = _numbers(target.value[known])
    raw = raw.detach()[known]
    if not len(value):
        return Score.missing("no patient with a known outcome")
    if task.spec.classes:
        proba = _numbers(torch.stack(list(task.predict(raw).values()), dim=1))
        if task.spec.kind == "ordinal":
            return ordinal_auc(value, expected_class(proba))
        return macro_auc(value, proba) if task.spec.kind == "multiclass" else auc(value, proba[:, 1])
    score = _numbers(task.score(raw))
    if target.event is not None:
        return c_index(score, value, _numbers(target.event[known] == 1))  # of competing causes the first
    return c_index(-score, value - value.min(), np.ones(len(value)))  # an event at each value: all pairs count


def scores(
    tasks: Mapping[str, Task], raw: Mapping[str, Tensor], targets: Mapping[str, Target]
) -> tuple[float | None, dict[str, Score]]:
    """The mean over the tasks that have their metric, and the metric of each task.

    The mean is None where no task has one. It is NaN where a task's outputs are not finite: a model that has lost
    itself must not be taken for one whose labels do not allow a metric.

    >>> scores({}, {}, {})
    (None, {})
    """
    each, lost = {}, False
    for name, task in tasks.items():
        if bool(torch.isfinite(raw[name]).all()):
            each[name] = main_metric(task, raw[name], targets[name])
        else:
            each[name], lost = Score.missing("outputs are not finite"), True
    known = [float(one) for one in each.values() if one.known]
    return (math.nan if lost else sum(known) / len(known) if known else None), each


def joined(targets: Sequence[Target]) -> Target:
    """The targets of several batches as those of one."""
    events = [target.event for target in targets if target.event is not None]
    return Target(
        torch.cat([target.known for target in targets]),
        torch.cat([target.value for target in targets]),
        torch.cat(events) if events else None,
    )


def _numbers(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()
