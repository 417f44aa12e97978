"""The modality audit: what each task loses when a modality is spoiled, and what each modality adds (Shapley)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.explain import shapley
from nsclc_mtl.explain.spoiling import MODES
from nsclc_mtl.metrics import comparison
from nsclc_mtl.metrics.blends import blends
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import comparable
from nsclc_mtl.records import TaskSpec

NULL_BOUND = 0.02
"""A modality whose loss is shown to lie below this (upper end of the interval) is equivalent to nothing."""
COALITION, SHAPLEY = "coalition", "shapley"
ENOUGH = 0.5  # share of those who have a modality; where fewer could be left without it, dropping shows no null


def together(names: Sequence[str]) -> str:
    """What a coalition of modalities is called; '' for that of none."""
    return "+".join(names)


def summarise(
    spoiled: pd.DataFrame,
    tasks: Mapping[str, TaskSpec],
    labels: Mapping[str, pd.DataFrame],
    draws: int,
    seed: int,
    most: int = 6,
) -> list[dict[str, Any]]:
    """Rows {task, modality, mode, metric, loss, lo, hi, verdict, n, of, reason}: losses with their 95 % intervals.

    `spoiled` is what `commands.outputs.spoiled` makes of each fold. Modes are those of `spoiling.MODES`, whose loss is
    the untouched metric minus the spoiled one (mean over the repeats), and `shapley`: what the modality adds to the
    metric, from that of a score that is the same for all (1/2) up to that of all modalities. n of the `of` patients
    who have the modality were touched. Metrics are taken within folds, on the same resampled patients; classes without
    an order are judged by the mean of their AUCs against the rest. `most` modalities have Shapley values.
    """
    rows: list[dict[str, Any]] = []
    for name, spec in tasks.items():
        known = labels[name].dropna()
        mine = spoiled[(spoiled["task"] == name) & spoiled["patient_id"].isin(known.index)]
        if mine.empty:  # nobody's label is known: nothing to lose
            continue
        folds = [_Scores.of(here) for _, here in mine.groupby("fold")]
        people = [fold.patients for fold in folds]
        weights = comparison.resamples_of(people, draws, np.random.Generator(np.random.PCG64([seed, 401])))
        modalities = list(dict.fromkeys(modality for f in folds for modality, mode, _ in f.at if mode in MODES))
        modes = [mode for mode in MODES if mode != "permute" or any(m == mode for f in folds for _, m, _ in f.at)]
        wanted = [(modality, mode) for mode in [*modes, *([SHAPLEY] if most else [])] for modality in modalities]
        made = [_measures(spec, known, fold, wanted) for fold in folds]
        for modality in modalities:
            for mode in dict.fromkeys(mode for _, mode in wanted):
                measures = [of[modality, mode] for of in made]
                value = comparison.bootstrap(measures, weights, comparison.repeated(people))
                at = value.interval()
                touched, having = (_touched(folds, modality, of) for of in (mode, "mean"))
                reason = at.reason if math.isfinite(at.value) else _why_not(mode, len(modalities), most) or at.reason
                rows.append(
                    {
                        "task": name,
                        "modality": modality,
                        "mode": mode,
                        "metric": {"survival": "c_index", "regression": "concordance"}.get(spec.kind, "auc"),
                        "loss": _number(at.value),
                        "lo": _number(at.lo),
                        "hi": _number(at.hi),
                        "verdict": _verdict(*at.ends, touched >= ENOUGH * having),
                        "n": touched,
                        "of": having,
                        "reason": reason,
                    }
                )
    return rows


def by_patient(spoiled: pd.DataFrame, tasks: Mapping[str, TaskSpec]) -> pd.DataFrame:
    """Shapley values of the test patients: patient_id, task, fold, output, modality, value, base, score.

    In the units of the task's score (log odds, expected class, log hazard ...; classes without an order: the
    probability of each, by `output`). A patient's values add up to score - base, where base is the training patients'
    mean score; modalities that he lacks add nothing and are not listed.
    """
    tables = []
    for (task, number), here in spoiled.groupby(["task", "fold"]):
        if task not in tasks:
            continue
        fold = _Scores.of(here)
        names, game, touched = fold.game()
        if not names:
            continue
        added = shapley.values(game)  # [modality, output, patient]
        for k, name in enumerate(names):
            having = fold.touched.get((name, "mean"), (added[k] != 0).any(axis=0)) & touched
            for o, output in enumerate(fold.outputs):
                table = {"patient_id": np.array(fold.patients, object)[having], "task": task, "fold": number}
                table |= {"output": output, "modality": name, "value": added[k, o, having]}
                table |= {"base": game[0, o, having], "score": game[-1, o, having]}
                tables.append(pd.DataFrame(table))
    columns = ["patient_id", "task", "fold", "output", "modality", "value", "base", "score"]
    if not tables:
        return pd.DataFrame(columns=columns)
    return pd.concat(tables)[columns].sort_values(["task", "fold", "patient_id", "output"], kind="stable")


@dataclass(frozen=True)
class _Scores:
    """The scores of one task in one fold."""

    patients: list[str]
    outputs: list[str]
    values: np.ndarray  # [key, output, patient]
    at: dict[tuple[str, str, int], int]  # modality, mode, repeat -> key, in the order of the rows
    touched: dict[tuple[str, str], np.ndarray]  # modality, mode -> bool [patient]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> _Scores:
        patient, patients = pd.factorize(rows["patient_id"])
        output, outputs = pd.factorize(rows["output"])
        key = rows.groupby(["modality", "mode", "repeat"], sort=False).ngroup().to_numpy()
        first = np.unique(key, return_index=True)[1]
        values = np.full((len(first), len(outputs), len(patients)), np.nan)
        values[key, output, patient] = rows["value"]
        touched = np.zeros((len(first), len(patients)), bool)
        touched[key, patient] = rows["touched"]
        keys = list(rows[["modality", "mode", "repeat"]].iloc[first].itertuples(index=False, name=None))
        each = {(modality, mode): touched[k] for k, (modality, mode, _) in enumerate(keys)}
        return cls(list(patients), list(outputs), values, {key: k for k, key in enumerate(keys)}, each)

    def game(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Modalities, the scores of every coalition of them [coalition, output, patient], and whose they are, bool
        [patient]; coalition c holds the modalities of its binary digits. Nothing where coalitions were not asked."""
        keys = [(modality, k) for (modality, mode, _), k in self.at.items() if mode == COALITION]
        if not keys:
            return [], np.zeros((0, 0, 0)), np.zeros(0, bool)
        players = len(keys).bit_length() - 1
        # they were written in the order of their numbers: a modality alone is a power of two
        names = [keys[2**i][0] for i in range(players)]
        return names, self.values[[k for _, k in keys]], self.touched[keys[0][0], COALITION]


def _measures(
    spec: TaskSpec, known: pd.DataFrame, fold: _Scores, wanted: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], comparison.Measure | Score]:
    """The loss of each (modality, mode) as a measure of the fold's patients."""
    pairs = _pairs(spec, known.loc[fold.patients])
    if isinstance(pairs, Score):
        return dict.fromkeys(wanted, pairs)
    mixes = {}
    for modality, mode in wanted:
        at = [k for (m, d, _), k in fold.at.items() if (m, d) == (modality, mode)]
        if mode != SHAPLEY and at:
            mixes[modality, mode] = np.zeros(len(fold.values))
            mixes[modality, mode][fold.at["", "", 0]] = 1
            mixes[modality, mode][at] -= 1 / len(at)
    out: dict[tuple[str, str], comparison.Measure | Score] = dict.fromkeys(wanted, Score.missing("not measured"))
    out |= _blended(fold, fold.values, mixes, pairs)
    names, game, touched = fold.game()
    if names:
        each = dict(zip(names, shapley.weights(len(names)), strict=True))
        mixes = {(m, mode): each[m] for m, mode in wanted if mode == SHAPLEY and m in each}
        shown = {output: compared & touched & touched[:, None] for output, compared in pairs.items()}
        out |= _blended(fold, game, mixes, shown)
    return out


def _blended(
    fold: _Scores, values: np.ndarray, mixes: Mapping[tuple[str, str], np.ndarray], pairs: Mapping[str, np.ndarray]
) -> dict[tuple[str, str], comparison.Measure | Score]:
    """Each mix of the concordances of `values` [key, output, patient], mean over the outputs."""
    if not mixes:
        return {}
    if not all(compared.any() for compared in pairs.values()):
        return dict.fromkeys(mixes, Score.missing("no two patients to compare"))
    mix = np.stack(list(mixes.values()))
    each = [blends(values[:, fold.outputs.index(output)], mix, compared) for output, compared in pairs.items()]
    return {key: comparison.mean_of(of) for key, of in zip(mixes, zip(*each, strict=True), strict=True)}


def _pairs(spec: TaskSpec, label: pd.DataFrame) -> dict[str, np.ndarray] | Score:
    """Output -> who must score above whom, bool [patient, patient]; or why there are no such pairs."""
    if spec.kind == "survival":
        if label["event"].sum() == 0:
            return Score.missing("no events")
        return {"": comparable(label["time_days"].to_numpy(), label["event"].to_numpy())}
    value = label["value"].to_numpy()
    if spec.kind == "multiclass":
        if not set(range(len(spec.classes))) <= set(value):
            return Score.missing("a class that nobody has")
        return {name: np.outer(value == k, value != k) for k, name in enumerate(spec.classes)}
    if len(np.unique(value)) < 2:
        return Score.missing("one value only" if spec.kind == "regression" else "one class only")
    return {"": value[:, None] > value}


def _touched(folds: Sequence[_Scores], modality: str, mode: str) -> int:
    """How many patients had the modality spoiled so; for Shapley values: how many have some."""
    found: set[str] = set()
    for fold in folds:
        if mode == SHAPLEY:
            _, _, touched = fold.game()
            touched = touched & fold.touched.get((modality, "mean"), False) if len(touched) else touched
        else:
            touched = fold.touched.get((modality, mode), np.zeros(0, bool))
        found |= {patient for patient, hit in zip(fold.patients, touched, strict=False) if hit}
    return len(found)


def _why_not(mode: str, modalities: int, most: int) -> str:
    """Why a mode could not be measured at all."""
    if mode == "drop":
        return "nobody could be left without it: training never saw what would remain"
    if mode != SHAPLEY:
        return ""
    if modalities > most:
        return f"{modalities} modalities make {2**modalities} combinations: set shapley={modalities} to have them taken"
    return "training never saw every part of what a patient has: fusion.modality_dropout above 0 shows them"


def _verdict(lo: float, hi: float, enough: bool) -> str:
    lo, hi = round(lo, 5), round(hi, 5)  # as they are written: what is 0 there says nothing
    if lo > 0:
        return "needed"
    if hi < 0:
        return "misleads"  # the task is predicted better without it
    return "equivalent to nothing" if hi < NULL_BOUND and enough else "unclear"


def _number(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return round(value, 5) + 0.0 if math.isfinite(value) else None
