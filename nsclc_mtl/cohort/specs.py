"""Tasks as a cohort declares them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nsclc_mtl.cohort import times
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.tables import applicable, outcomes


def plain(declared: Mapping[str, Any]) -> dict[str, Any]:
    """The declaration as outcomes read it: a date as the column of its days, null for who has no such outcome."""
    return applicable.plain_map(times.plain(declared))


def task_spec(name: str, declared: Mapping[str, Any]) -> TaskSpec:
    """The task of a declaration. Raises UsageFault as `outcomes.task_spec` does."""
    return outcomes.task_spec(name, plain(declared))
