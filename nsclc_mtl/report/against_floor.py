"""The learner against the floor that was named beforehand: one question a task, P adjusted over the tasks by Holm.
Over repeated splits it is the larger of two P (`Contrast.ruling`).

Whatever is bold, above or below on the terminal, the page and the card rests on this. A floor can be worse than chance,
and a floor that nobody named can be higher than the learner; then *above the floor* alone would mislead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.metrics.multiplicity import holm
from nsclc_mtl.report.contrast import LEVEL, Contrast, Judged, contrast, striking
from nsclc_mtl.report.evaluation import TaskResult
from nsclc_mtl.report.measures import CHANCE, LEARNER


@dataclass(frozen=True)
class AgainstFloor:
    """The learner minus the primary floor in the primary metric of a task, and its P by Holm over the tasks."""

    at: Contrast
    adjusted: float
    ours: Interval  # the learner's own value
    floor: Interval  # that of the primary floor
    higher: tuple[str, float] | None = None  # the highest of the other floors, where it is higher than the learner

    @property
    def apart(self) -> bool:
        """Whether the two are told apart: the adjusted P is below .05."""
        return self.adjusted < LEVEL

    @property
    def better(self) -> bool:
        """Whether the learner is told apart from the floor and is the higher one, be both no better than chance."""
        return self.apart and self.at.difference.value > 0

    @property
    def bold(self) -> bool:
        """Whether the difference is printed bold."""
        return striking(self.adjusted, self.at.difference, self.ours)

    @property
    def above(self) -> bool:
        """Whether the learner is shown to be better, than the floor and than chance."""
        return self.better and self.bold

    @property
    def word(self) -> str:
        """What is said of the learner, before `the floor`."""
        if math.isnan(self.adjusted):
            return "not compared with"
        if not self.apart:
            return "not told apart from"
        return "above" if self.above else "higher than" if self.better else "below"

    @property
    def remark(self) -> str:
        """What has to be said beside the word, as a sentence; "" where there is nothing."""
        if not self.better:
            return f"{self.at.by}." if self.at.by and not self.apart else ""
        said = []
        if self.floor.value < CHANCE:
            what = "lies below chance" if self.floor.below(CHANCE) else "is no better than chance"
            said.append(f"the floor {what} ({self.floor.value:.3f})")
        if not self.above:
            said.append("the learner is not told apart from chance")
        if self.higher:
            said.append(f"another floor is higher than the learner: {self.higher[0]} ({self.higher[1]:.3f})")
        text = "; ".join(said)
        return f"{text[:1].upper()}{text[1:]}." if text else ""


def against_floor(
    results: Mapping[str, TaskResult], floor: str, splits: pd.DataFrame | None
) -> dict[str, AgainstFloor]:
    """{task: the learner against the floor}, of the tasks in which both have a value.

    floor: as a model. splits: what both were trained on (patient_id, fold, part), None for patients of another cohort.
    """
    asked = {name: of_floor(result, floor, splits) for name, result in results.items() if compared(result, floor)}
    adjusted = holm([float(at.ruling) for at in asked.values()])
    return {name: _beside(results[name], floor, at, p) for (name, at), p in zip(asked.items(), adjusted, strict=True)}


def _beside(result: TaskResult, floor: str, at: Contrast, adjusted: float) -> AgainstFloor:
    each = {model: values.interval() for model, values in result.metrics[result.primary].items()}
    others = {m: each[m].value for m in result.models("floor:") if m != floor and each[m].value > each[LEARNER].value}
    best = max(others, key=lambda model: others[model], default=None)
    higher = None if best is None else (best.removeprefix("floor:"), others[best])
    return AgainstFloor(at, adjusted, each[LEARNER], each[floor], higher)


def compared(result: TaskResult, floor: str) -> bool:
    """Whether learner and floor have a value of the primary metric."""
    each = result.metrics[result.primary]
    return floor in each and each[floor].value.known and each[LEARNER].value.known


def of_floor(result: TaskResult, floor: str, splits: pd.DataFrame | None) -> Contrast:
    """The learner against one floor, P as it is."""
    each = result.metrics[result.primary]
    ours, theirs = (Judged(result.folds, model, each[model]) for model in (LEARNER, floor))
    return contrast(result.task, ours, theirs, [] if splits is None else [splits])
