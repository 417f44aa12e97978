"""What a family of floor models is: spaces to fit in, paths of penalties to choose among, and what a fit says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Block = tuple[np.ndarray, np.ndarray]
"""One table as numbers: training patients [patient, column] and test patients [patient, column]."""
Said = Callable[[np.ndarray], np.ndarray]
"""From inputs [patient, axis] to risks or numbers [patient], or to probabilities [patient, class] of the classes that
occur."""


@dataclass(frozen=True)
class Outcome:
    """The known outcome of some patients."""

    y: np.ndarray  # time in days, a number, or class numbers 0..classes-1, every one of which occurs
    event: np.ndarray  # 1 / 0 for survival
    classes: int  # 0 for survival and numbers
    ordered: bool  # ordinal or binary: proportional odds
    number: bool = False  # a number: linear regression

    @property
    def survival(self) -> bool:
        """Whether it is a time with an event."""
        return self.classes == 0 and not self.number

    @property
    def nominal(self) -> bool:
        """Whether it is one of several classes without order."""
        return self.classes > 2 and not self.ordered

    def of(self, rows: np.ndarray) -> tuple[Outcome, np.ndarray]:
        """The outcome of some of the patients (bool [patient]), and which classes occur among them."""
        if self.survival or self.number:
            return Outcome(self.y[rows], self.event[rows], 0, self.ordered, self.number), np.zeros(0, dtype=int)
        there, number = np.unique(self.y[rows], return_inverse=True)
        return Outcome(number, self.event[rows], len(there), self.ordered), there.astype(int)


@dataclass(frozen=True)
class Space:
    """The inputs of a floor as a model takes them."""

    train: np.ndarray  # [patient, axis]
    test: np.ndarray
    scale: float = 1.0  # mean squared length of a training row: a penalty of scale / v gives the predictor variance v


class Path(Protocol):
    """Fits of growing freedom."""

    @property
    def penalties(self) -> np.ndarray:
        """The penalties, strongest first."""

    def walk(self, z: np.ndarray, outcome: Outcome) -> Iterator[Said]:
        """A fit a penalty, strongest first, as exact as a search needs."""

    def fit(self, z: np.ndarray, outcome: Outcome, step: int) -> Said:
        """The exact fit at the penalty of that number."""

    def alone(self, step: int) -> float:
        """What joining tables goes by where this step was best for one of them; NaN where it goes by nothing."""


class Model(Protocol):
    """A family of linear models; a new one is a file here and a file in conf/floor/."""

    inner: int  # folds of the search for the penalty, among the training patients

    def spaces(self, blocks: Sequence[Block], alone: Sequence[float]) -> list[Space]:
        """Ways to join the tables of a floor, to choose among. alone: `Path.alone` of each block's own floor."""

    def paths(self, space: Space, outcome: Outcome) -> Sequence[Path]:
        """Paths of penalties to choose among, for these training patients (rows of `space.train` with an outcome)."""
