"""Life tables: how many patients had the event, and how many were censored, on each day, and nothing else of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_MOST = 10_000_000  # patients of a table that is read: what a file claims is made into arrays


@dataclass(frozen=True)
class LifeTable:
    """Events and censorings by day: all that Kaplan-Meier, of the event or of the censoring, is computed from."""

    days: np.ndarray  # int [day], ascending: those on which somebody was last seen; the last is the longest follow-up
    events: np.ndarray  # int [day]
    censored: np.ndarray  # int [day]

    @classmethod
    def of(cls, time_days: ArrayLike, event: ArrayLike) -> LifeTable:
        """The table of these patients, times to the nearest whole day; who lacks either number is left out.

        time_days: [n]. event: [n], 1 = happened, 0 = censored.

        >>> LifeTable.of([10.2, 9.8, 30], [1, 0, 0]).state()
        {'days': [10, 30], 'events': [1, 0], 'censored': [1, 1]}
        """
        t, e = np.asarray(time_days, dtype=float), np.asarray(event, dtype=float)
        keep = ~(np.isnan(t) | np.isnan(e))
        return cls._counted(np.rint(t[keep]).astype(int), (e[keep] == 1).astype(int), (e[keep] != 1).astype(int))

    @classmethod
    def _counted(cls, days: np.ndarray, events: np.ndarray, censored: np.ndarray) -> LifeTable:
        steps, at = np.unique(days, return_inverse=True)
        both = [np.bincount(at, weights=many, minlength=len(steps)).astype(int) for many in (events, censored)]
        return cls(steps, *both)

    @classmethod
    def pooled(cls, tables: Iterable[LifeTable]) -> LifeTable:
        """One table of all: who is counted by several is counted as often.

        Of the k folds of a cross-validation each patient is counted k - 1 times, by every fold that he does not test.
        Events, censorings and patients at risk are then k - 1 times those of everybody, so that the curves of the
        pooled table are those of all patients, exactly.
        """
        each = list(tables)
        none = np.zeros(0, dtype=int)
        return cls._counted(
            *(np.concatenate([none, *(getattr(t, name) for t in each)]) for name in ("days", "events", "censored"))
        )

    def outcomes(self) -> tuple[np.ndarray, np.ndarray]:
        """Times in days and events of the patients counted, by day: ([n], [n])."""
        times = np.r_[np.repeat(self.days, self.events), np.repeat(self.days, self.censored)].astype(float)
        return times, np.repeat([1.0, 0.0], [int(self.events.sum()), int(self.censored.sum())])

    def state(self) -> dict[str, list[int]]:
        """Plain types, for JSON."""
        return {name: [int(v) for v in getattr(self, name)] for name in ("days", "events", "censored")}

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> LifeTable:
        """What `state()` came from. Raises ValueError, KeyError or TypeError where it is not such a table."""
        each = [np.asarray(state[name]) for name in ("days", "events", "censored")]
        if any(a.ndim != 1 or len(a) != len(each[0]) or (a.size and a.dtype.kind != "i") for a in each):
            raise ValueError("a life table is three lists of whole numbers, equally long")
        days, events, censored = (a.astype(np.int64) for a in each)
        if (np.diff(days) <= 0).any() or min(a.min(initial=0) for a in (days, events, censored)) < 0:
            raise ValueError("days of a life table ascend from 0 on, and its counts are not negative")
        if float(np.sum(events, dtype=float) + np.sum(censored, dtype=float)) > _MOST:
            raise ValueError("a life table counts more patients than there are")
        return cls(days, events, censored)
