"""What a fold's calibration patients teach of its predictions: a temperature and prediction sets a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import Manifest

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Outputs = Mapping[str, "pd.DataFrame"]  # task -> patients x outputs


def fit(outputs: Outputs, manifest: Manifest, miss: float) -> dict[str, dict[str, float]]:
    """Task -> temperature, threshold, miss, n; of the tasks with classes of which a calibration patient is labelled."""
    from nsclc_mtl.trust import conformal, temperature

    found = {}
    for task, wide in outputs.items():
        classes = manifest.tasks[task].classes
        known = manifest.labels[task].loc[wide.index].dropna()
        if not classes or known.empty:
            continue
        proba, label = _proba(wide.loc[known.index], classes), known["value"].to_numpy(int)
        warmth = temperature.fit(proba, label)
        at = conformal.threshold(temperature.scaled(proba, warmth), label, miss)
        found[task] = {"temperature": warmth, "threshold": at, "miss": miss, "n": len(known)}
    return found


def scaled(outputs: Outputs, manifest: Manifest, trust: Mapping[str, Mapping[str, float]]) -> dict[str, pd.DataFrame]:
    """The outputs with probabilities at the temperatures of `trust`; the others as they are."""
    from nsclc_mtl.trust import temperature

    made = dict(outputs)
    for task in trust.keys() & made.keys():
        columns = [f"p:{name}" for name in manifest.tasks[task].classes]
        wide = made[task].copy()
        wide[columns] = temperature.scaled(wide[columns].to_numpy(float), trust[task]["temperature"])
        made[task] = wide
    return made


def sets(each: Sequence[tuple[Outputs, Mapping[str, Mapping[str, float]]]], manifest: Manifest) -> pd.DataFrame:
    """Prediction sets in words (`G2|G3`), a column `set:<task>`, from the outputs and `trust` of one or more folds.

    Of several folds a class belongs to the set when at least half of their sets hold it; whatever the folds share, such
    a vote misses at most twice as often as one set (Gasparin and Ramdas, 2024).
    """
    import numpy as np
    import pandas as pd

    from nsclc_mtl.trust import conformal

    first = each[0][0]
    made = pd.DataFrame(index=next(iter(first.values())).index)
    for task, wide in first.items():
        if any(task not in trust for _, trust in each):
            continue
        classes = manifest.tasks[task].classes
        votes = np.mean(
            [conformal.sets(_proba(o[task].loc[wide.index], classes), t[task]["threshold"]) for o, t in each], axis=0
        )
        made[f"set:{task}"] = ["|".join(c for c, v in zip(classes, row, strict=True) if v >= 0.5) for row in votes]
    return made


def _proba(wide: pd.DataFrame, classes: Sequence[str]) -> np.ndarray[Any, Any]:
    return wide[[f"p:{name}" for name in classes]].to_numpy(float)
