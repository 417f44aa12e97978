"""What members of a fold say of a task's patients in words and numbers, and how far they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import confidence
from nsclc_mtl.records import TaskSpec

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def horizon(trust: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Horizon of a survival task that all folds can answer for; SD of a regression."""
    days = [one["horizon_days"] for one in trust if "horizon_days" in one]
    sd = [one["sd"] for one in trust if "sd" in one]
    return ({"horizon_days": min(days)} if days else {}) | ({"sd": sum(sd) / len(sd)} if sd else {})


def _at_horizon(wide: pd.DataFrame, of: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """Probability to be event-free at the horizon, [patient]."""
    import numpy as np

    from nsclc_mtl.trust.survival_calibration import cumulative_hazard

    days, curve = confidence.curves(wide)
    when = np.full(len(wide), of.get("horizon_days", confidence.HORIZON_DAYS))
    return np.exp(-cumulative_hazard(curve, days, when))


def said(spec: TaskSpec, wide: pd.DataFrame, of: Mapping[str, Any]) -> tuple[Any, Any]:
    """What is predicted, in words, and with what probability; of a number none is known."""
    import numpy as np

    if spec.kind == "regression":
        return wide["value"].to_numpy(float), np.full(len(wide), np.nan)
    if spec.kind == "survival":
        free = _at_horizon(wide, of)
        return np.where(free >= 0.5, "event-free", "event"), np.maximum(free, 1 - free)
    p = wide[[f"p:{c}" for c in spec.classes]].to_numpy(float)
    return np.array(spec.classes)[p.argmax(axis=1)], p.max(axis=1)


def spread(spec: TaskSpec, members: Sequence[pd.DataFrame], of: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """How far members differ, each [patient]: `spread` (SD of the probability of the predicted class, of being
    event-free at the horizon, of the number), of survival also `spread:<day>` (SD of S at each predicted day),
    `distance` (mean total variation; of a number the mean deviation in SD of the training patients), and of classes
    `mutual_information` (nats) and `votes`."""
    import numpy as np

    from nsclc_mtl.trust import ensemble

    if spec.kind == "regression":
        value = np.stack([m["value"].to_numpy(float) for m in members])
        far = np.abs(value - value.mean(axis=0)).mean(axis=0)
        return {"spread": ensemble.deviation(value), **({"distance": far / of["sd"]} if of.get("sd") else {})}
    if spec.kind == "survival":
        free = np.stack([_at_horizon(m, of) for m in members])
        pairs = np.stack([free, 1 - free], axis=2)
        days, _ = confidence.curves(members[0])
        at = np.stack([confidence.curves(m)[1] for m in members])  # [member, patient, day]
        each = {f"spread:{day:g}": ensemble.deviation(at[:, :, k]) for k, day in enumerate(days)}
        return {"spread": ensemble.deviation(free), **each, "distance": ensemble.distance(pairs)}
    p = np.stack([m[[f"p:{c}" for c in spec.classes]].to_numpy(float) for m in members])
    top = p.mean(axis=0).argmax(axis=1)
    return {
        "spread": ensemble.deviation(p[:, np.arange(p.shape[1]), top]),
        "distance": ensemble.distance(p),
        "mutual_information": ensemble.mutual_information(p),
        "votes": ensemble.votes(p),
    }


def disagreement(spec: TaskSpec, members: Sequence[pd.DataFrame], of: Mapping[str, Any]) -> list[str]:
    """How members disagree, in words, by patient."""
    import numpy as np

    from nsclc_mtl.trust import ensemble

    if not spec.classes:
        on = f" on survival beyond {of['horizon_days']:.0f} days" if "horizon_days" in of else ""
        return [f"disagree{on}"] * len(members[0])
    p = np.stack([m[[f"p:{c}" for c in spec.classes]].to_numpy(float) for m in members])
    told = []
    for n, k in zip(ensemble.votes(p), p.mean(axis=0).argmax(axis=1), strict=True):
        name = spec.classes[k]
        few = f"disagree ({n} of {len(p)} say {name})"
        told.append(few if n < len(p) else f"agree on {name}, but not on how probable it is")
    return told
