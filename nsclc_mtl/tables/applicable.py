"""To whom a task applies: "not applicable" is an answer of its own, and no missing label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables.read import MISSING, shown

WORD = "not_applicable"
"""Reserved among the values of a task's map: the outcome does not exist for these patients."""


def plain_map(declared: Mapping[str, Any]) -> dict[str, Any]:
    """The task's declaration with null for the reserved word in its maps: these patients have no label."""
    made = dict(declared)
    for key in ("map", "events"):
        if made.get(key):
            made[key] = {value: None if meant == WORD else meant for value, meant in made[key].items()}
    return made


def coded(declared: Mapping[str, Any], table: pd.DataFrame) -> pd.Series:
    """True where the task's own column says that it applies, which is everything but a value mapped to the word."""
    column, named = declared.get("event") or declared.get("column"), declared.get("map") or declared.get("events")
    out = [str(value) for value, meant in (named or {}).items() if meant == WORD]
    if not out or column not in table:
        return pd.Series(True, index=table.index)
    return ~table[column].astype(str).str.strip().isin(out)


def by_column(task: str, declared: Mapping[str, Any], table: pd.DataFrame, file: str) -> pd.Series:
    """True for the patients whose cell in `applies.column` is one of `applies.values`, or blank.

    A blank does not say that the task does not apply; the label itself then decides. Raises UsageFault where column or
    values are wanting and DataFault where the column is absent or holds none of the values.
    """
    told = f"cohort.tasks.{task}.applies"
    column, values = declared.get("column"), [str(value) for value in declared.get("values") or ()]
    if not column or not values:
        raise UsageFault(f"{told} needs `column` and `values`, those of the patients to whom the task applies")
    if column not in table.columns:
        raise DataFault(f"'{file}' has no column '{column}' ({told}.column)")
    text = table[column].astype(str).str.strip()
    if len(text) and not text.isin(values).any():
        held = ", ".join(repr(shown(value)) for value in text.value_counts().head(5).index)
        raise DataFault(
            f"'{file}' column '{column}' holds {held}, none of {', '.join(map(repr, values))}: the task applies to "
            f"nobody; correct {told}.values"
        )
    return text.isin(values) | text.isin(MISSING)
