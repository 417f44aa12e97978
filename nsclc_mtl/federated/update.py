"""What a site makes of a model in a round, and what the sites' updates make of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nsclc_mtl.records import DataFault

State = Mapping[str, np.ndarray]
"""Numbers of a model by name: what travels of it."""


@dataclass(frozen=True)
class Update:
    """The model as a site has trained it on `n` patients, and what it says of the training (no patient's data)."""

    site: str
    state: State
    n: int
    metrics: Mapping[str, Any] = field(default_factory=dict)


def mean(updates: Sequence[Update]) -> dict[str, np.ndarray]:
    """FedAvg: the mean of the sites' models, weighed by their patients (McMahan et al., AISTATS 2017).

    Sums are taken in double precision and in the order of the sites' names, so that the order of arrival is nothing.

    >>> state = lambda x: {"w": np.array([x], np.float32)}
    >>> mean([Update("B", state(3.0), 1), Update("A", state(0.0), 2)])["w"].tolist()
    [1.0]
    """
    ordered = _ordered(updates)
    total = sum(update.n for update in ordered)
    return {
        name: _as(sum(u.n * u.state[name].astype(np.float64) for u in ordered) / total, first)
        for name, first in ordered[0].state.items()
    }


def trimmed_mean(updates: Sequence[Update], trim: int) -> dict[str, np.ndarray]:
    """The mean of every number without the `trim` lowest and highest sites (Yin et al., ICML 2018); sites weigh alike.

    Raises DataFault where no site would be left.

    >>> each = [Update(str(i), {"w": np.array([x])}, 1) for i, x in enumerate((1.0, 2.0, 900.0))]
    >>> trimmed_mean(each, 1)["w"].tolist()
    [2.0]
    """
    ordered = _ordered(updates)
    if len(ordered) <= 2 * trim:
        raise DataFault(f"a mean without the {trim} lowest and highest of {len(ordered)} sites has nobody left")
    kept = slice(trim, len(ordered) - trim)
    return {
        name: _as(np.sort(np.stack([u.state[name].astype(np.float64) for u in ordered]), axis=0)[kept].mean(0), first)
        for name, first in ordered[0].state.items()
    }


def _ordered(updates: Sequence[Update]) -> list[Update]:
    if not updates:
        raise DataFault("no site has an update")
    return sorted(updates, key=lambda update: update.site)


def _as(values: Any, like: np.ndarray) -> np.ndarray:
    return np.asarray(values).astype(like.dtype)
