"""Weights of classes, and the way back from weighted or drawn classes to the shares that a population has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nsclc_mtl.records import DataFault, TaskSpec, UsageFault


def shares(value: np.ndarray, classes: int, chance: np.ndarray | None = None) -> dict[str, list[float]]:
    """`shares` of the classes among the training patients and, as training draws them, `drawn`; each sums to one.

    value: class numbers [patient]. chance: how often an epoch draws each of them [patient]; None: all alike.
    """
    number = np.asarray(value, int)
    plain = np.bincount(number, minlength=classes).astype(float)
    drawn = plain if chance is None else np.bincount(number, weights=chance, minlength=classes)
    return {"shares": _parts(plain), "drawn": _parts(drawn)}


def _parts(counts: np.ndarray) -> list[float]:
    total = counts.sum()
    return (counts / total if total else np.full(len(counts), 1 / len(counts))).tolist()


def class_weights(spec: TaskSpec, said: Any, drawn: Sequence[float]) -> np.ndarray:
    """The weight of every class in the loss, [class]; their mean over the patients as drawn is one.

    said: `none`; `balanced` (one over the class's share, King and Zeng, Political Analysis 2001); or {class: weight},
    1 where a class is not named, which may also be {task: {class: weight}}. Raises UsageFault on anything else.
    """
    share, count = np.asarray(drawn, float), len(spec.classes)
    if isinstance(said, Mapping):
        named = of_task(spec, said, "weights")
        weights = np.array([_number(spec, "weights", c, named.get(c, 1.0)) for c in spec.classes])
        if (weights <= 0).any():
            raise UsageFault(f"weights of task {spec.name}: {named} holds a weight that is not above zero")
    elif said in (None, "none"):
        weights = np.ones(count)
    elif said == "balanced":
        weights = np.where(share > 0, 1 / np.where(share > 0, share, 1), 1.0)  # of a class that nobody has: nothing
    else:
        raise UsageFault(f"weights={said!r} of task {spec.name}: say none, balanced, or a weight a class")
    mean = float(share @ weights)
    return weights / mean if mean > 0 else weights


def of_task(spec: TaskSpec, said: Mapping[str, Any], word: str) -> dict[str, Any]:
    """{class: number} for one task, of a mapping by class or by task and class; nothing where it names other tasks.

    Raises UsageFault where some of the names by class are classes of the task and others are not.
    """
    if said and all(isinstance(inner, Mapping) for inner in said.values()):
        inner = {str(c): n for c, n in (said.get(spec.name) or {}).items()}
        if strange := [c for c in inner if c not in spec.classes]:
            raise UsageFault(f"{word}.{spec.name}: no class '{strange[0]}'; there are {', '.join(spec.classes)}")
        return inner
    named = {str(c): n for c, n in said.items()}
    strange = [c for c in named if c not in spec.classes]
    if strange and len(strange) < len(named):
        raise UsageFault(f"{word} of task {spec.name}: no class '{strange[0]}'; there are {', '.join(spec.classes)}")
    return {} if strange else named


def population(spec: TaskSpec, said: Any, trained: Sequence[float]) -> np.ndarray | None:
    """Log of the share of every class in the stated population over its share in training, [class]; None: the same.

    said: `training`, or {class: share} of all classes, which may also be {task: {class: share}}. Raises UsageFault on
    shares that do not sum to one, DataFault where no training patient has a class of the population.
    """
    if said in (None, "training"):
        return None
    if not isinstance(said, Mapping):
        raise UsageFault(f"prevalence={said!r} of task {spec.name}: say training, or a share a class")
    named = of_task(spec, said, "prevalence")
    if not named:
        return None
    if set(named) != set(spec.classes):
        raise UsageFault(f"prevalence of task {spec.name}: give a share of each of {', '.join(spec.classes)}")
    wanted = np.array([_number(spec, "prevalence", c, named[c]) for c in spec.classes])
    if (wanted <= 0).any() or abs(wanted.sum() - 1) > 1e-3:
        raise UsageFault(f"prevalence of task {spec.name}: {named} are no shares above zero that sum to one")
    if absent := [c for c, share in zip(spec.classes, trained, strict=True) if share <= 0]:
        raise DataFault(
            f"prevalence of task {spec.name}: no training patient of a fold has the class {absent[0]}; join classes, "
            "or leave prevalence=training"
        )
    return log_ratio(wanted / wanted.sum(), trained)


def log_ratio(to: ArrayLike, from_: ArrayLike) -> np.ndarray:
    """Log of one share over another, [class]; 0 where a class is in neither or in one only: nothing is known of it."""
    a, b = np.asarray(to, float), np.asarray(from_, float)
    both = (a > 0) & (b > 0)
    return np.where(both, np.log(np.where(both, a, 1) / np.where(both, b, 1)), 0.0)


def moved(proba: ArrayLike, ratio: ArrayLike) -> np.ndarray:
    """Probabilities [patient, class] where the classes have other shares: p times exp(ratio), to sum to one again.

    The inputs are taken to be distributed alike within a class. Saerens, Latinne and Decaestecker, "Adjusting the
    outputs of a classifier to new a priori probabilities" (Neural Computation, 2002), equation 2.4.

    >>> moved([[0.5, 0.5]], log_ratio([0.9, 0.1], [0.5, 0.5])).round(2).tolist()
    [[0.9, 0.1]]
    """
    weighed = np.asarray(proba, float) * np.exp(np.asarray(ratio, float))
    return np.asarray(weighed / weighed.sum(axis=1, keepdims=True))


def _number(spec: TaskSpec, word: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise UsageFault(f"{word} of task {spec.name}: class '{name}' is given {value!r}, which is no number")
    return float(value)
