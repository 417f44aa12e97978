"""Plausibility: directions of events, units of times, columns that say nothing, parts that cannot be judged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.cohort.lint.counts import follow_ups
from nsclc_mtl.cohort.lint.finding import Finding, some
from nsclc_mtl.records import Manifest
from nsclc_mtl.tables.read import MISSING

FOLLOW_UP_DAYS = (90.0, 7305.0)  # a median outside three months to twenty years is more likely a wrong unit
LIFETIME_DAYS = 60 * 365.25  # nobody is followed for longer
HAPPENED = re.compile(r"\b(dead|deceased|died|death|expired|recurr\w*|relaps\w*|progress\w*|true|yes|event)\b")
NOT_HAPPENED = re.compile(r"\b(alive|living|censored|disease[ -]?free|tumou?r[ -]?free|false|no|none)\b")


def constants(manifest: Manifest) -> list[Finding]:
    """Columns that say nothing: one value, or none."""
    out = []
    for name, table in manifest.tables.items():
        text = table.astype(object).where(~table.isin(MISSING), np.nan)
        different = text.nunique()
        for word, columns in (("without any value", different == 0), ("with one value only", different == 1)):
            found = [str(c) for c in table.columns[columns.to_numpy()]]
            if found:
                told = f"{len(found)} of {table.shape[1]} columns {word}: {', '.join(found[:5])}"
                out.append(Finding("warning", "constant", name, told + (" ..." if len(found) > 5 else "")))
    return out


def follow_up(manifest: Manifest) -> list[Finding]:
    """Survival tasks whose follow-up is implausible in the declared unit, or whose event hardly varies."""
    out = []
    for name, found in follow_ups(manifest).items():
        if found.patients == 0:
            continue
        share = found.events / found.patients
        if share > 0.95 or share < 0.02:
            told = f"the event happened to {share:.0%} of {found.patients} patients; is its map the right way round?"
            out.append(Finding("warning", "events", name, told))
        days = float(found.median) if found.median.known else found.observed
        longest = float(manifest.labels[name]["time_days"].max())
        low, high = FOLLOW_UP_DAYS
        if not low <= days <= high:
            told = f"median follow-up is {days:.0f} days ({days / 365.25:.2g} years); is the unit of its time right?"
            out.append(Finding("warning", "follow_up", name, told))
        elif longest > LIFETIME_DAYS:
            told = f"the longest follow-up is {longest / 365.25:.0f} years; is the unit of its time right?"
            out.append(Finding("warning", "follow_up", name, told))
    return out


def directions(cohort: Mapping[str, Any], manifest: Manifest) -> list[Finding]:
    """Event maps that give words of death a 0 or words of life a 1, and days that are no whole numbers."""
    out = []
    for name, spec in manifest.tasks.items():
        given = (cohort.get("tasks") or {}).get(name) or {}
        if spec.kind != "survival" or not given.get("events"):
            continue
        for word, event in given["events"].items():
            said = str(word).casefold()
            lives, dies = bool(NOT_HAPPENED.search(said)), bool(HAPPENED.search(said))
            happened = event == 1 or event in spec.causes
            if lives != dies and ((happened and lives) or (event == 0 and dies)):
                told = f"the map counts '{word}' as {'an event' if happened else 'no event'}; is that meant?"
                out.append(Finding("warning", "events", name, told))
        days = manifest.labels[name]["time_days"].dropna()
        broken = ((days % 1 != 0) & (days != 0.5)).mean() if len(days) else 0.0
        if given.get("unit") == "days" and broken > 0.1:
            told = f"{broken:.0%} of the times are no whole days; is the unit of '{given.get('time')}' right?"
            out.append(Finding("warning", "follow_up", name, told))
    return out


def orders(cohort: Mapping[str, Any], manifest: Manifest) -> list[Finding]:
    """Survival tasks that last longer than the patient's overall survival, or end without the death that it counts."""
    out = []
    overall = [name for name in manifest.tasks if _is_overall(name, manifest.tasks[name].endpoint)]
    survival = [name for name, spec in manifest.tasks.items() if spec.kind == "survival"]
    for long, short in permutations(survival, 2):
        if long not in overall or short in overall:
            continue
        both = pd.DataFrame({"long": manifest.labels[long]["time_days"], "short": manifest.labels[short]["time_days"]})
        both = both.dropna()
        later = both.index[both["short"] > both["long"] + 31]  # a month: dates are rounded
        if len(both) and len(later) > max(1, 0.02 * len(both)):
            told = (
                f"lasts longer than '{long}' in {len(later)} of {len(both)} patients ({some(later, 3)}); "
                "are both counted from one day, in the units declared?"
            )
            out.append(Finding("warning", "follow_up", short, told))
    return out


def _is_overall(name: str, endpoint: str) -> bool:
    return bool(re.fullmatch(r"os|overall[ _]survival", endpoint.casefold().strip() or name.casefold()))


def unjudged(manifest: Manifest, splits: pd.DataFrame) -> list[Finding]:
    """Tasks whose test or validation part in some fold can give no number: no event, no comparable pair, one class."""
    out = []
    for name, spec in manifest.tasks.items():
        for part, harm in (("test", "has no metric there"), ("validation", "says nothing to early stopping there")):
            silent = []
            for fold, rows in splits.groupby("fold"):
                ids = rows.loc[rows["part"] == part, "patient_id"]
                if len(ids) and _silent(spec.kind, manifest.labels[name].loc[list(ids)].dropna()):
                    silent.append(str(fold))
            if silent:
                each = {"survival": "no comparable pair", "regression": "fewer than two values"}
                lacks = each.get(spec.kind, "fewer than two classes")
                folds = f"fold{'s' * (len(silent) > 1)} {', '.join(silent)}"
                told = f"the {part} part of {folds} holds {lacks}, so that the task {harm}; use fewer folds"
                out.append(Finding("warning", "split", name, told))
    return out


def _silent(kind: str, labels: pd.DataFrame) -> bool:
    if kind != "survival":
        return bool(labels["value"].nunique() < 2)
    first = labels.loc[labels["event"] == 1, "time_days"].min()
    later = (labels["time_days"] > first) | ((labels["time_days"] == first) & (labels["event"] == 0))
    return not bool(later.any())
