"""The modality audit: what each task loses when a modality is permuted among test patients, or dropped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.metrics import comparison
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.records import TaskSpec

NULL_BOUND = 0.02
"""A modality whose loss is shown to lie below this (upper end of the interval) is equivalent to nothing."""


def summarise(
    spoiled: pd.DataFrame, tasks: Mapping[str, TaskSpec], labels: Mapping[str, pd.DataFrame], draws: int, seed: int
) -> list[dict[str, Any]]:
    """Rows {task, modality, mode, metric, loss, lo, hi, verdict}: loss of the metric with its 95 % interval.

    `spoiled` has the columns patient_id, fold, task, modality, mode, repeat, output, value (the scores that
    `influence.audit` gives; modality '' = untouched; output is a class of a multiclass task, else ''). Losses are taken
    within folds on the same resampled patients, and averaged over the repeats. Classes without an order are judged by
    the mean of their AUCs against the rest.
    """
    rows = []
    for name, spec in tasks.items():
        known = labels[name].dropna()
        mine = spoiled[(spoiled["task"] == name) & spoiled["patient_id"].isin(known.index)]
        if mine.empty:  # nobody's label is known: nothing to lose
            continue
        folds = sorted(mine["fold"].unique())
        # in the order of the rows, which is that of the scores in `_measure`
        whole_of = mine[(mine["modality"] == "") & (mine["output"] == mine["output"].iloc[0])]
        people = [list(whole_of.loc[whole_of["fold"] == fold, "patient_id"]) for fold in folds]
        weights = comparison.resamples_of(people, draws, np.random.Generator(np.random.PCG64([seed, 401])))
        again = comparison.repeated(people)
        made = {
            key: comparison.bootstrap([_measure(spec, known, rows_of, fold) for fold in folds], weights, again)
            for key, rows_of in mine.groupby(["modality", "mode", "repeat"])
        }
        whole = made.pop(("", "", 0))
        for modality, mode in dict.fromkeys((m, d) for m, d, _ in made):
            losses = [(whole, spoilt) for (m, d, _), spoilt in made.items() if (m, d) == (modality, mode)]
            value = float(np.mean([a.value - b.value for a, b in losses]))
            spread = np.mean([a.draws - b.draws for a, b in losses], axis=0)
            lo, hi = np.nanquantile(spread, [0.025, 0.975]) if np.isfinite(spread).any() else (np.nan, np.nan)
            rows.append(
                {
                    "task": name,
                    "modality": modality,
                    "mode": mode,
                    "metric": {"survival": "c_index", "regression": "concordance"}.get(spec.kind, "auc"),
                    "loss": _number(value),
                    "lo": _number(float(lo)),
                    "hi": _number(float(hi)),
                    "verdict": _verdict(float(lo), float(hi)),
                }
            )
    return rows


def _measure(spec: TaskSpec, known: pd.DataFrame, rows: pd.DataFrame, fold: int) -> comparison.Measure | Score:
    here = rows[rows["fold"] == fold]
    if spec.kind == "multiclass":
        said = here.pivot(index="patient_id", columns="output", values="value")
        number = known.loc[said.index, "value"].to_numpy()
        if not set(range(len(spec.classes))) <= set(number):
            return Score.missing("a class that nobody has")
        each = enumerate(spec.classes)
        return comparison.mean_of(
            [comparison.classes_in_order((number == k) * 1.0, said[name].to_numpy()) for k, name in each]
        )
    label, value = known.loc[here["patient_id"]], here["value"].to_numpy()
    if spec.kind == "survival":
        if label["event"].sum() == 0:
            return Score.missing("no events")
        return comparison.survivors_in_order(value, label["time_days"].to_numpy(), label["event"].to_numpy())
    if label["value"].nunique() < 2:
        return Score.missing("one value only" if spec.kind == "regression" else "one class only")
    return comparison.classes_in_order(label["value"].to_numpy(), value)


def _verdict(lo: float, hi: float) -> str:
    if lo > 0:
        return "needed"
    if hi < 0:
        return "misleads"  # the task is predicted better without it
    return "equivalent to nothing" if hi < NULL_BOUND else "unclear"


def _number(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return round(value, 5) if math.isfinite(value) else None
