"""Response to treatment from response categories; what stable disease, progression, not evaluable and early death mean
is declared, never assumed.

RECIST 1.1 (Eisenhauer et al., Eur J Cancer 2009): complete and partial response together are the objective response.
The words of TCGA's first course of treatment are read too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, TaskSpec, UsageFault
from nsclc_mtl.tables import cells
from nsclc_mtl.tables.read import MISSING

CATEGORIES = {
    "complete_response": ("cr", "complete response", "complete remission", "complete remission/response"),
    "partial_response": ("pr", "partial response", "partial remission", "partial remission/response"),
    "stable_disease": ("sd", "stable disease"),
    "progressive_disease": ("pd", "progressive disease"),
    "not_evaluable": ("ne", "not evaluable", "inevaluable", "not assessable", "unable to evaluate"),
    "early_death": (
        "early death", "early death from malignant disease", "early death from toxicity",
        "early death because of other cause",
    ),
}  # fmt: skip
ASKED = ("stable_disease", "progressive_disease", "not_evaluable", "early_death")
"""Categories without a default: the user says which class each of them is, or null for no label."""
_OF = {word: category for category, words in CATEGORIES.items() for word in words}


def task_spec(name: str, declared: Mapping[str, Any]) -> TaskSpec:
    """The task of `rule: recist`. Raises UsageFault where a category is not declared or a time lacks unit or window."""
    where = f"cohort.tasks.{name}"
    if not declared.get("column"):
        raise UsageFault(f"{where} declares no `column`; name the one that holds the response categories")
    classes = cells.classes_of(name, declared, ("non-responder", "responder"))
    asked = ASKED if declared["kind"] == "binary" else tuple(CATEGORIES)
    wanting = [category for category in asked if category not in declared]
    if wanting:
        raise UsageFault(
            f"{where} does not say what {', '.join(wanting)} mean{'s' * (len(wanting) == 1)}; set each to one of "
            f"{', '.join(classes)}, or to null for no label"
        )
    for category in CATEGORIES:
        meant = declared.get(category)
        if meant is not None and str(meant) not in classes:
            raise UsageFault(f"{where}.{category}={str(meant)!r} is none of {', '.join(classes)}, or null")
    timed = []
    for word, needs in (("assessed", ("column", "unit", "window")), ("died", ("column", "unit", "within"))):
        if (of := declared.get(word)) is None:
            continue
        absent = [key for key in needs if of.get(key) is None]
        if absent:
            raise UsageFault(f"{where}.{word} declares no `{absent[0]}`; it needs {', '.join(needs)}")
        if of["unit"] not in cells.DAYS:
            raise UsageFault(f"{where}.{word}.unit={of['unit']!r} is none of {', '.join(cells.DAYS)}")
        timed.append(of["column"])
    window = (declared.get("assessed") or {}).get("window")
    if window is not None and (len(window) != 2 or not window[0] <= window[1]):
        raise UsageFault(f"{where}.assessed.window={list(window)} is no [from, to]")
    return TaskSpec(name, declared["kind"], classes, (declared["column"], *timed, *declared.get("also", ())))


def labels(
    spec: TaskSpec, declared: Mapping[str, Any], table: pd.DataFrame, file: str, notes: list[str]
) -> pd.DataFrame:
    """Class numbers by patient, column `value`, NaN where not known.

    With `assessed`, an assessment outside its window, or at an unknown time, gives no label; with `died`, who died
    within that time without a response on record is an early death, which has no assessment. Both are noted with
    counts. Raises DataFault, with counts, on a word that is no category until the task's map names it.
    """
    text = cells.column(table, declared["column"], file)
    kinds = _categories(spec, declared, text, file)
    early = kinds == "early_death"
    if died := declared.get("died"):
        when = cells.times(table, died["column"], died["unit"], file)
        soon = (when <= float(died["within"]) * cells.DAYS[died["unit"]]) & kinds.isin(["", "not_evaluable"])
        if soon.any():
            notes.append(f"{spec.name}: {int(soon.sum())} patients without a response on record died early (within "
                         f"{died['within']} {died['unit']})")  # fmt: skip
        kinds, early = kinds.mask(soon, "early_death"), early | soon
    number = {word: float(i) for i, word in enumerate(spec.classes)}
    value = kinds.map(lambda kind: _number(kind, declared, number)).astype(float)
    named = {str(k): v for k, v in (declared.get("map") or {}).items()}
    value = value.mask(text.isin(list(named)), text.map(lambda cell: number.get(str(named.get(cell)), np.nan)))
    return pd.DataFrame({"value": _in_time(spec, declared, table, value, early, file, notes)})


def category(cell: str) -> str | None:
    """The category of a cell, None where it is none.

    >>> category("PR"), category("Complete Remission/Response"), category("Persistent Disease")
    ('partial_response', 'complete_response', None)
    """
    return _OF.get(re.sub(r"\s+", " ", cell.casefold()).strip())


def _categories(spec: TaskSpec, declared: Mapping[str, Any], text: pd.Series, file: str) -> pd.Series:
    """The category of every cell; '' where it is missing or where the map says what it means."""
    named = {str(k) for k in declared.get("map") or {}}
    found = {cell: "" if cell in named or cell in MISSING else category(cell) for cell in text.unique()}
    strange = text[text.isin([cell for cell, kind in found.items() if kind is None])]
    if len(strange):
        raise DataFault(
            f"'{file}' column '{declared['column']}' holds {cells.counted(strange)}, no response category of "
            f"rule=recist; name them in cohort.tasks.{spec.name}.map (null = not known)"
        )
    return text.map(found)


def _number(kind: str, declared: Mapping[str, Any], number: Mapping[str, float]) -> float:
    if not kind:
        return np.nan
    objective = kind in ("complete_response", "partial_response") and kind not in declared
    meant = list(number)[-1] if objective else declared.get(kind)
    return np.nan if meant is None else number[str(meant)]


def _in_time(
    spec: TaskSpec,
    declared: Mapping[str, Any],
    table: pd.DataFrame,
    value: pd.Series,
    early: pd.Series,
    file: str,
    notes: list[str],
) -> pd.Series:
    """The labels whose assessment lies in the window; an early death needs none."""
    if not (of := declared.get("assessed")):
        return value
    low, high = (float(edge) * cells.DAYS[of["unit"]] for edge in of["window"])
    when = cells.times(table, of["column"], of["unit"], file)
    asked = value.notna() & ~early
    undated, outside = asked & when.isna(), asked & when.notna() & ~when.between(low, high)
    for found, told in ((outside, "assessed outside"), (undated, "at an unknown time, not known to be in")):
        if found.any():
            notes.append(f"{spec.name}: {int(found.sum())} responses {told} {of['window'][0]:g} to "
                         f"{of['window'][1]:g} {of['unit']}: no label")  # fmt: skip
    return value.mask(undated | outside)
