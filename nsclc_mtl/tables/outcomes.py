"""Outcomes: from a column as written to class numbers, times and events. Nothing ambiguous is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, TaskSpec, UsageFault
from nsclc_mtl.tables.read import MISSING, numeric, shown

DAYS = {"days": 1.0, "weeks": 7.0, "months": 365.25 / 12, "years": 365.25}
ZERO = ("refuse", "half_day", "drop")
"""What becomes of a follow-up of zero days."""
KINDS = ("binary", "multiclass", "ordinal", "survival")


def task_spec(name: str, declared: Mapping[str, Any]) -> TaskSpec:
    """The task that a cohort declares. Raises UsageFault where kind, classes, unit or event map are wanting."""
    kind = declared.get("kind")
    if kind not in KINDS:
        raise UsageFault(f"cohort.tasks.{name}.kind={kind!r} is none of {', '.join(KINDS)}")
    if kind == "survival":
        for word in ("time", "unit", "event", "events"):
            if not declared.get(word):
                raise UsageFault(
                    f"cohort.tasks.{name} declares no `{word}`; a survival task needs time, unit, event, events"
                )
        if declared["unit"] not in DAYS:
            raise UsageFault(f"cohort.tasks.{name}.unit={declared['unit']!r} is none of {', '.join(DAYS)}")
        strange = [v for v in declared["events"].values() if v is not None and v not in (0, 1)]
        if strange:
            raise UsageFault(
                f"cohort.tasks.{name}.events gives {strange[0]!r}; each value is 1 (happened), 0 (censored) or null"
            )
        if declared.get("zero", "refuse") not in ZERO:
            raise UsageFault(f"cohort.tasks.{name}.zero={declared['zero']!r} is none of {', '.join(ZERO)}")
        columns = (declared["time"], declared["event"], *declared.get("also", ()))
        return TaskSpec(name, kind, (), columns, declared.get("endpoint") or name)
    classes = tuple(str(c) for c in declared.get("classes") or ())
    if len(classes) < 2 or (kind == "binary" and len(classes) != 2):
        raise UsageFault(f"cohort.tasks.{name} ({kind}) declares the classes {list(classes)}; name them, lowest first")
    if not declared.get("column"):
        raise UsageFault(f"cohort.tasks.{name} declares no `column`; name the one that holds its classes")
    given = [v for v in (declared.get("map") or {}).values() if v is not None and str(v) not in classes]
    if given:
        raise UsageFault(
            f"cohort.tasks.{name}.map gives {given[0]!r}, which is none of the classes {', '.join(classes)}"
        )
    return TaskSpec(name, kind, classes, (declared["column"], *declared.get("also", ())))


def labels(spec: TaskSpec, declared: Mapping[str, Any], table: pd.DataFrame, file: str) -> pd.DataFrame:
    """Labels of one task, indexed like `table`: `value`, or `event` and `time_days`; NaN where not known.

    `table` holds text. Raises DataFault (with counts, rows and the way out) on a value that the map does not name, a
    time that is no number, negative, or zero without a policy.
    """
    if spec.kind == "survival":
        return _survival(spec, declared, table, file)
    column = _column(table, declared["column"], file)
    named = {str(k): v for k, v in (declared.get("map") or {c: c for c in spec.classes}).items()}
    number = {name: float(i) for i, name in enumerate(spec.classes)}
    _all_named(column, named, f"cohort.tasks.{spec.name}.map", file, declared["column"])
    value = column.map(
        lambda cell: number.get(str(named.get(cell)), np.nan) if cell not in MISSING or cell in named else np.nan
    )
    return pd.DataFrame({"value": value.astype(float)})


def _survival(spec: TaskSpec, declared: Mapping[str, Any], table: pd.DataFrame, file: str) -> pd.DataFrame:
    events = {str(k): v for k, v in declared["events"].items()}
    status = _column(table, declared["event"], file)
    _all_named(status, events, f"cohort.tasks.{spec.name}.events", file, declared["event"])
    event = status.map(lambda cell: events.get(cell)).astype(float)
    time = (
        numeric(_column(table, declared["time"], file), f"'{file}' column '{declared['time']}'")
        * DAYS[declared["unit"]]
    )
    negative = time.index[time < 0]
    if len(negative) and declared.get("negative", "refuse") != "drop":
        raise DataFault(
            f"'{file}' column '{declared['time']}': negative for {', '.join(map(str, negative[:5]))} ({len(negative)} "
            f"rows); correct it, or set cohort.tasks.{spec.name}.negative to drop (before the index date: no label)"
        )
    time = time.mask(time < 0)
    zero = time.index[(time == 0) & event.notna()]
    policy = declared.get("zero", "refuse")
    if len(zero) and policy == "refuse":
        raise DataFault(
            f"'{file}' column '{declared['time']}': zero for {', '.join(map(str, zero[:5]))} ({len(zero)} rows); set "
            f"cohort.tasks.{spec.name}.zero to half_day or drop"
        )
    if policy == "half_day":
        time = time.mask(time == 0, 0.5)
    elif policy == "drop":
        time = time.mask(time == 0)
    known = event.notna() & time.notna()
    return pd.DataFrame({"event": event.where(known), "time_days": time.where(known)})


def _column(table: pd.DataFrame, name: str, file: str) -> pd.Series:
    if name not in table.columns:
        raise DataFault(f"'{file}' has no column '{name}'; it has {', '.join(map(repr, list(table.columns)[:8]))}")
    return table[name].astype(str).str.strip()


def _all_named(column: pd.Series, named: Mapping[str, Any], key: str, file: str, name: str) -> None:
    unnamed = column[~column.isin(list(named)) & ~column.isin(MISSING)]
    if len(unnamed):
        counts = ", ".join(
            f"{shown(value)!r} ({count} rows)" for value, count in unnamed.value_counts().head(5).items()
        )
        raise DataFault(
            f"'{file}' column '{name}' holds {counts}, which {key} does not name; add it there (null = not known)"
        )
