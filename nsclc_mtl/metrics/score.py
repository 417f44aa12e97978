"""A number that says why it is missing."""

from __future__ import annotations

import math


class Score(float):
    """A metric's value; NaN carries its `reason`. A metric that cannot be computed is never 0.

    >>> Score(0.7) + 0.1 < 0.9
    True
    >>> Score.missing("one class only").reason
    'one class only'
    """

    reason: str

    def __new__(cls, value: float, reason: str = "") -> Score:
        """The value with its reason (empty where the value is sound)."""
        made = super().__new__(cls, value)
        made.reason = reason
        return made

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]
        return float(self), self.reason

    @classmethod
    def missing(cls, reason: str) -> Score:
        """NaN with the reason why."""
        return cls(math.nan, reason)

    @property
    def known(self) -> bool:
        """True where there is a number."""
        return not math.isnan(self)

    def __repr__(self) -> str:
        return f"Score(nan, {self.reason!r})" if not self.known else f"Score({float(self)!r})"
