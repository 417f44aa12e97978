"""Heads of a binary and of an ordinal task, at random weights that are the same every time."""

from __future__ import annotations

import torch
from torch import nn

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.tasks.classes import Binary
from nsclc_mtl.tasks.ordinal import Ordinal
from nsclc_mtl.tasks.task import Task


def two_tasks() -> dict[str, Task]:
    """response and grade, for views of 8."""
    torch.manual_seed(0)
    tasks: dict[str, Task] = {
        "response": Binary(TaskSpec("response", "binary", ("no", "yes")), 8, {}),
        "grade": Ordinal(TaskSpec("grade", "ordinal", ("1", "2", "3")), 8, {}),
    }
    for task in tasks.values():
        nn.init.normal_(task.linear.weight)
    return tasks
