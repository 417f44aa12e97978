"""Copies: outcomes among the inputs, by name, by value, in another unit, coarser, or as the pattern of the blanks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.cohort.lint.finding import FEW, Finding
from nsclc_mtl.records import Manifest, TaskSpec
from nsclc_mtl.tables.read import MISSING

CHANCE = 1e-6  # a column that agrees with an outcome less likely by chance than this is a copy of it
LEVELS = 8  # of a coarser copy of a time: fewer, and a binned covariate could be one


def outcome_parts(manifest: Manifest) -> dict[str, pd.Series]:
    """What must not be among the inputs: classes, events, times and declared components of every task, by patient.

    Values are numbers, NaN where unknown; names end in `(time)` or `(number)` where the order counts.
    """
    out = {}
    for name, spec in manifest.tasks.items():
        frame = manifest.labels[name]
        if spec.kind == "survival":
            out[f"the task '{name}' (time)"] = frame["time_days"]
            out[f"the task '{name}' (event)"] = frame["event"]
            if "cause" in frame:
                out[f"the task '{name}', any cause (event)"] = (frame["cause"] > 0).where(frame["cause"].notna()) * 1.0
        elif spec.kind == "regression":  # in another unit, or transformed, it keeps its order
            out[f"the task '{name}' (number)"] = frame["value"]
        else:
            out[f"the task '{name}'"] = frame["value"]
        for column in spec.columns:
            if column in manifest.patients and not _said(manifest.patients[column], frame):
                text = manifest.patients[column].astype(str)
                codes = pd.factorize(text.mask(text.isin(MISSING)), sort=True)[0]
                series = pd.Series(codes, index=text.index, dtype=float).mask(codes < 0)
                out[f"the component '{column}' of the task '{name}'"] = series
    return out


def _said(column: pd.Series, labels: pd.DataFrame) -> bool:
    """Whether a raw column tells no more than the labels made of it (then they stand for it)."""
    for made in labels:
        both = pd.DataFrame({"raw": column.astype(str), "made": labels[made]})
        both = both[~both["raw"].isin(MISSING)]
        if len(both) and both["made"].notna().all() and both.groupby("made")["raw"].nunique().max() == 1:
            return True
    return False


def declared(cohort: Mapping[str, Any], specs: Mapping[str, TaskSpec]) -> list[Finding]:
    """Columns that a modality asks for by name although they are an outcome or a part of one; all of them, unread."""
    named = {column: task for task, spec in specs.items() for column in spec.columns}
    kept_out = set(cohort.get("never_inputs") or ())
    out = []
    for modality, options in cohort["modalities"].items():
        for column in options.get("columns") or ():
            if column in named:
                told = f"column '{column}' is asked for as an input, and is a part of the task '{named[column]}'"
            elif column in kept_out:
                told = f"column '{column}' is asked for as an input, and stands in cohort.never_inputs"
            else:
                continue
            out.append(Finding("error", "declared", modality, told, str(column)))
    return out


def without(cohort: Mapping[str, Any], findings: list[Finding]) -> dict[str, Any]:
    """The declaration without the columns that `declared` found, so that the rest can be looked at."""
    modalities = {}
    for name, options in cohort["modalities"].items():
        bad = {f.column for f in findings if f.where == name}
        left = {c: kind for c, kind in (options.get("columns") or {}).items() if c not in bad}
        if not bad:
            modalities[name] = options
        elif left:
            modalities[name] = {**options, "columns": left}
    return {**cohort, "modalities": modalities}


def copies(manifest: Manifest, outcomes: Mapping[str, pd.Series]) -> list[Finding]:
    """Input columns that hold an outcome: the same name, the same values, or the same order of times.

    `outcomes` as `outcome_parts` gives them. Values agree when one is a one-to-one function of the other among the
    patients who have both; for times, when one is a monotone function of the other, also a coarser one (months,
    years); and an event also when the column is blank exactly where it did, or did not, happen. That is a copy where
    chance would bring it about less often than `CHANCE` over all columns compared.
    """
    out = []
    named = {c.casefold().strip(): n for n, spec in manifest.tasks.items() for c in spec.columns}
    columns = sum(table.shape[1] for table in manifest.tables.values())
    limit = math.log(1 / CHANCE) + math.log(max(columns, 1) * max(len(outcomes), 1))
    for modality, table in manifest.tables.items():
        for column in table.columns:
            if str(column).casefold().strip() in named:
                task = named[str(column).casefold().strip()]
                told = f"column '{column}' has the name of a part of the task '{task}'"
                out.append(Finding("error", "copy", modality, told, str(column)))
        seen = set()
        codes = {column: _codes(table[column]) for column in table.columns}
        for part, wanted in outcomes.items():
            values = wanted.reindex(table.index).to_numpy(float)
            known = ~np.isnan(values)
            if known.sum() < 2 * FEW:
                continue
            for column in table.columns:
                own = codes[column][known]
                match = _agrees(own, values[known], ordered=part.endswith(("(time)", "(number)")), limit=limit)
                if not match and part.endswith("(event)"):
                    match = _blank(own, values[known], limit)
                if match and column not in seen:
                    seen.add(column)
                    told = f"column '{column}' is a copy of {part}: {match}"
                    out.append(Finding("error", "copy", modality, told, str(column)))
    return out


def _codes(column: pd.Series) -> np.ndarray:
    """Values as ranks, -1 where there is none."""
    known = column if column.dtype.kind in "fiub" else column.mask(column.isin(MISSING))
    return np.asarray(pd.factorize(known, sort=True)[0])


def _agrees(own: np.ndarray, values: np.ndarray, *, ordered: bool, limit: float) -> str:
    """How a column (as `_codes`) repeats the values, or '' where it does not. `limit`: natural log of the arrangements
    needed."""
    seen = own >= 0
    own, values = own[seen], values[seen]
    if len(own) < 2 * FEW:
        return ""
    if _differ(own[: 8 * FEW], values[: 8 * FEW], ordered):  # most columns are done with here
        return ""
    own, levels = np.unique(own, return_inverse=True)[1], np.unique(values, return_inverse=True)[1]
    if ordered:
        return _monotone(own, levels, limit)
    first = np.full(own.max() + 1, -1)
    first[own] = levels
    if (first[own] != levels).any() or own.max() != levels.max():
        return ""  # not one-to-one
    if _arrangements(np.bincount(levels), named=False) < limit:
        return ""
    return f"the same values in all {len(levels)} patients who have both"


def _differ(own: np.ndarray, values: np.ndarray, ordered: bool) -> bool:
    """Whether a few patients already show that neither is a function of the other (ordered: a monotone one)."""
    if not ordered:
        pairs = len(set(zip(own.tolist(), values.tolist(), strict=True)))
        return pairs != len(set(own.tolist())) or pairs != len(set(values.tolist()))
    order = np.argsort(values, kind="stable")
    step = np.diff(own[order])[np.diff(values[order]) > 0]
    return bool((step > 0).any() and (step < 0).any())


def _monotone(own: np.ndarray, levels: np.ndarray, limit: float) -> str:
    """The column is the time, or a coarser scale of it: no pair of patients stands the other way round."""
    if own.max() + 1 < LEVELS or _arrangements(np.bincount(own), named=True) < limit:
        return ""
    for direction in (own, own.max() - own):
        order = np.lexsort((direction, levels))  # where times are equal the column may differ
        if (np.diff(direction[order]) >= 0).all():
            fine = own.max() == levels.max()
            return f"the same order{'' if fine else ', coarser,'} in all {len(levels)} patients who have both"
    return ""


def _blank(own: np.ndarray, values: np.ndarray, limit: float) -> str:
    """The column is filled in exactly where the event happened, or exactly where it did not."""
    filled = own >= 0
    if not FEW <= filled.sum() <= len(filled) - FEW:
        return ""
    if _arrangements(np.bincount(filled.astype(int)), named=False) < limit:
        return ""
    for happened, word in ((1, "happened"), (0, "did not happen")):
        if (filled == (values == happened)).all():
            return f"it is filled in exactly where the event {word} ({len(values)} patients)"
    return ""


def _arrangements(counts: np.ndarray, *, named: bool) -> float:
    """Natural log of the ways to deal patients to levels of these sizes; not `named`: where any naming would do."""
    ways = math.lgamma(counts.sum() + 1) - sum(math.lgamma(c + 1) for c in counts)
    return ways if named else ways - math.lgamma(len(counts) + 1)
