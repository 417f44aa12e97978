"""Whether the parts of a split hold enough to train and to judge, and how many folds would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, Manifest, NoEvents, OneClass

MOST_FOLDS = 20  # so many are tried


@dataclass(frozen=True)
class Shortfall:
    """A part of a fold that has too few events or values, or one class alone, of a task."""

    task: str
    kind: str
    fold: int
    part: str
    have: int  # events, different values, or classes
    least: int
    patients: int  # with a known label
    classes: int = 0  # that the task has

    def __str__(self) -> str:
        who = f"the {self.part} patients of fold {self.fold}"
        if self.kind == "survival":
            return (
                f"task {self.task}: {self.have} events among {who} ({self.patients} with a label), {self.least} asked"
            )
        if self.kind == "regression":
            return f"task {self.task}: {self.have} different values among {who}, {self.least} asked"
        return f"task {self.task}: {who} hold {self.have} of {self.classes} classes ({self.patients} with a label)"


def shortfalls(manifest: Manifest, splits: pd.DataFrame, least: Mapping[str, int]) -> Iterator[Shortfall]:
    """Parts with too little, worst first within a task. `least`: events by part, for a number different values
    (two at least to train); a class task needs two classes to train, and in another part where its `least` is above 0.
    """
    parts: dict[Any, Any] = dict(splits.groupby(["fold", "part"]).indices)  # (fold, part) -> its rows of `splits`
    for name, spec in manifest.tasks.items():
        found = []
        label = manifest.labels[name].loc[list(splits["patient_id"])]
        told = label.notna().all(axis=1).to_numpy()
        outcome = label["event" if spec.kind == "survival" else "value"].to_numpy()
        for (fold, part), rows in sorted(parts.items()):
            asked = int(least.get(str(part), 0))
            known = np.asarray(rows)[told[rows]]
            if spec.kind == "survival":
                have, need = int(outcome[known].sum()), asked
            else:
                have = len(pd.unique(outcome[known]))
                if spec.kind == "regression":
                    need = max(asked, 2) if part == "train" else asked
                else:
                    need = 2 if part == "train" or asked > 0 else 0
            if have < need:
                found.append(
                    Shortfall(name, spec.kind, int(str(fold)), str(part), have, need, len(known), len(spec.classes))
                )
        yield from sorted(found, key=lambda s: (s.have - s.least, s.fold))


def enough(
    manifest: Manifest,
    splits: pd.DataFrame,
    least: Mapping[str, int],
    *,
    deal: Callable[[int], pd.DataFrame] | None = None,
    folds: int = 0,
) -> None:
    """Raises NoEvents (survival), OneClass or DataFault (numbers) where a part has too little, with what would do.

    `deal` makes the same kind of split with another number of folds (None = the folds are given), `folds` is the
    present number.
    """
    found = list(shortfalls(manifest, splits, least))
    if not found:
        return
    first = found[0]
    others = f", and {len(found) - 1} more such parts" if len(found) > 1 else ""
    told = f"{first}{others}; {_proposal(manifest, found, least, deal, folds)}"
    raise {"survival": NoEvents, "regression": DataFault}.get(first.kind, OneClass)(told)


def _proposal(
    manifest: Manifest,
    found: list[Shortfall],
    least: Mapping[str, int],
    deal: Callable[[int], pd.DataFrame] | None,
    folds: int,
) -> str:
    """What would do, found by trying: the nearest number of folds, else the minima that the folds at hand keep."""
    tasks = sorted({s.task for s in found})
    leave = f"leave the task out (tasks=[{','.join(t for t in manifest.tasks if t not in tasks)}])"
    if len(tasks) == len(manifest.tasks):
        leave = "find more patients"
    if deal is not None:
        works = _works(manifest, least, deal, folds)
        if works:
            return f"set folds.n={works}, the nearest number of folds that has enough, or {leave}"
        leave = f"no number of folds up to {MOST_FOLDS} has enough: {leave}"
    lower: dict[str, int] = {}
    for s in found:
        if s.kind in ("survival", "regression"):
            lower[s.part] = min(s.have, lower.get(s.part, s.have))
    keys = {"train": "min_events", "validation": "min_validation", "test": "min_test"}
    words = [f"folds.{keys[part]}={n}" for part, n in lower.items() if part in keys and (part != "train" or n > 0)]
    return leave + (f", or ask for less ({', '.join(words)})" if words else "")


def _works(manifest: Manifest, least: Mapping[str, int], deal: Callable[[int], pd.DataFrame], folds: int) -> int | None:
    """The number of folds nearest to `folds` whose parts have enough (of two, the larger), None where none has."""
    for n in sorted(range(2, MOST_FOLDS + 1), key=lambda n: (abs(n - folds), -n)):
        if n == folds:
            continue
        try:
            made = deal(n)
        except DataFault:
            continue
        if next(shortfalls(manifest, made, least), None) is None:
            return n
    return None
