"""The learner against the floor that was named beforehand: one question a task, P adjusted over the tasks by Holm.

Whatever is bold, above or below on the terminal, the page and the card rests on this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from nsclc_mtl.metrics.multiplicity import holm
from nsclc_mtl.report.contrast import Contrast, Judged, contrast
from nsclc_mtl.report.evaluation import TaskResult
from nsclc_mtl.report.measures import LEARNER

LEVEL = 0.05


@dataclass(frozen=True)
class AgainstFloor:
    """The learner minus the primary floor in the primary metric of a task, and its P by Holm over the tasks."""

    at: Contrast
    adjusted: float

    @property
    def apart(self) -> bool:
        """Whether the two are told apart: the adjusted P is below .05."""
        return self.adjusted < LEVEL

    @property
    def above(self) -> bool:
        """Whether the learner is shown to be better."""
        return self.apart and self.at.difference.value > 0

    @property
    def word(self) -> str:
        """What is said of the learner, before `the floor`."""
        if math.isnan(self.adjusted):
            return "not compared with"
        return "not told apart from" if not self.apart else "above" if self.above else "below"


def against_floor(results: Mapping[str, TaskResult], floor: str) -> dict[str, AgainstFloor]:
    """{task: the learner against the floor}, of the tasks in which both have a value. floor: as a model."""
    asked = {name: of_floor(result, floor) for name, result in results.items() if compared(result, floor)}
    adjusted = holm([float(at.p) for at in asked.values()])
    return {name: AgainstFloor(at, p) for (name, at), p in zip(asked.items(), adjusted, strict=True)}


def compared(result: TaskResult, floor: str) -> bool:
    """Whether learner and floor have a value of the primary metric."""
    each = result.metrics[result.primary]
    return floor in each and each[floor].value.known and each[LEARNER].value.known


def of_floor(result: TaskResult, floor: str) -> Contrast:
    """The learner against one floor, P as it is."""
    return contrast(result.task, *both(result, floor))


def both(result: TaskResult, floor: str) -> tuple[Judged, Judged]:
    """The learner and a floor with what they said and how they were judged."""
    each = result.metrics[result.primary]
    return Judged(result.folds, LEARNER, each[LEARNER]), Judged(result.folds, floor, each[floor])
