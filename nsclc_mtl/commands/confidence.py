"""What a fold's calibration patients teach of its predictions: a temperature and prediction sets a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import Manifest

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Outputs = Mapping[str, "pd.DataFrame"]  # task -> patients x outputs


def fit(
    outputs: Outputs, manifest: Manifest, miss: float, populations: Mapping[str, Any] | None = None
) -> dict[str, dict[str, float]]:
    """Task -> temperature, threshold, miss, n; of the tasks with classes of which a calibration patient is labelled.
    Of a regression: half_width of its interval, miss, n.

    The threshold is for probabilities as `scaled` gives them, with the same `populations`; its promise holds for
    patients like those of the calibration part, whatever population is stated.
    """
    from nsclc_mtl.tasks import prior
    from nsclc_mtl.trust import conformal, temperature

    found = {}
    for task, wide in outputs.items():
        classes = manifest.tasks[task].classes
        known = manifest.labels[task].loc[wide.index].dropna()
        if manifest.tasks[task].kind == "regression" and len(known):
            half = conformal.half_width(known["value"], wide.loc[known.index, "value"], miss)
            found[task] = {"half_width": half, "miss": miss, "n": len(known)}
        if not classes or known.empty:
            continue
        proba, label = _proba(wide.loc[known.index], classes), known["value"].to_numpy(int)
        warmth = temperature.fit(proba, label)
        told = temperature.scaled(proba, warmth)
        if task in (populations or {}):
            told = prior.moved(told, populations[task])  # type: ignore[index]
        at = conformal.threshold(told, label, miss)
        found[task] = {"temperature": warmth, "threshold": at, "miss": miss, "n": len(known)}
    return found


def scaled(
    outputs: Outputs,
    manifest: Manifest,
    trust: Mapping[str, Mapping[str, float]],
    populations: Mapping[str, Any] | None = None,
) -> dict[str, pd.DataFrame]:
    """The outputs with probabilities at the temperatures of `trust`, then at the prevalence of the stated populations.

    `populations`: task -> log ratio of the classes' shares (see `tasks.prior.population`). The others as they are.
    """
    from nsclc_mtl.tasks import prior
    from nsclc_mtl.trust import temperature

    made, stated = dict(outputs), populations or {}
    for task in (trust.keys() | stated.keys()) & made.keys():
        columns = [f"p:{name}" for name in manifest.tasks[task].classes]
        wide = made[task].copy()
        if "temperature" in trust.get(task, {}):
            wide[columns] = temperature.scaled(wide[columns].to_numpy(float), trust[task]["temperature"])
        if task in stated:
            wide[columns] = prior.moved(wide[columns].to_numpy(float), stated[task])
        made[task] = wide
    return made


def sets(each: Sequence[tuple[Outputs, Mapping[str, Mapping[str, float]]]], manifest: Manifest) -> pd.DataFrame:
    """Prediction sets in words (`G2|G3`), a column `set:<task>`, from the outputs and `trust` of one or more folds.
    Of a regression the interval, `12.5 to 18.2`.

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
        if not classes:
            said = [(o[task].loc[wide.index, "value"].to_numpy(float), t[task]["half_width"]) for o, t in each]
            low, high = conformal.joined([v - half for v, half in said], [v + half for v, half in said])
            made[f"set:{task}"] = [f"{a:.5g} to {b:.5g}" for a, b in zip(low, high, strict=True)]
            continue
        votes = np.mean(
            [conformal.sets(_proba(o[task].loc[wide.index], classes), t[task]["threshold"]) for o, t in each], axis=0
        )
        made[f"set:{task}"] = ["|".join(c for c, v in zip(classes, row, strict=True) if v >= 0.5) for row in votes]
    return made


def _proba(wide: pd.DataFrame, classes: Sequence[str]) -> np.ndarray[Any, Any]:
    return wide[[f"p:{name}" for name in classes]].to_numpy(float)
