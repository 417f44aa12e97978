"""Outcomes: from a column as written to class numbers, times and events. Nothing ambiguous is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, TaskSpec, UsageFault
from nsclc_mtl.tables import cells, endpoints, grade, iaslc, response, stage
from nsclc_mtl.tables.read import MISSING, numeric

DAYS = cells.DAYS
ZERO = ("refuse", "half_day", "drop")
"""What becomes of a follow-up of zero days."""
KINDS = ("binary", "multiclass", "ordinal", "survival", "regression")
RULES: dict[str, Any] = {**dict.fromkeys(stage.USUAL, stage), "grade": grade, "recist": response, "iaslc_grade": iaslc}
"""Rules that a task may name instead of a map of all its values: each knows its own words."""


def task_spec(name: str, declared: Mapping[str, Any]) -> TaskSpec:
    """The task that a cohort declares. Raises UsageFault where kind, classes, unit or event map are wanting."""
    kind, rule = declared.get("kind"), declared.get("rule")
    if kind not in KINDS:
        raise UsageFault(f"cohort.tasks.{name}.kind={kind!r} is none of {', '.join(KINDS)}")
    if rule is not None:
        if rule not in RULES:
            raise UsageFault(f"cohort.tasks.{name}.rule={rule!r} is none of {', '.join(RULES)}")
        made: TaskSpec = RULES[rule].task_spec(name, declared)
        return made
    if kind == "survival":
        return _survival_spec(name, declared)
    if kind == "regression":
        return _regression_spec(name, declared)
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


def _regression_spec(name: str, declared: Mapping[str, Any]) -> TaskSpec:
    where = f"cohort.tasks.{name}"
    if not declared.get("column"):
        raise UsageFault(f"{where} declares no `column`; name the one that holds its numbers")
    if declared.get("classes"):
        raise UsageFault(f"{where} (regression) declares classes; take them out, or say kind: ordinal")
    named = declared.get("map") or {}
    if strange := [word for word, meant in named.items() if meant is not None]:
        raise UsageFault(f"{where}.map gives '{strange[0]}' a meaning; in a regression a map only names words for null")
    columns = (declared["column"], *declared.get("also", ()))
    return TaskSpec(name, "regression", (), columns, unit=str(declared.get("unit") or ""))


def _survival_spec(name: str, declared: Mapping[str, Any]) -> TaskSpec:
    where, called = f"cohort.tasks.{name}", endpoints.endpoint(name, declared)
    causes = endpoints.declared_causes(where, declared)
    if declared.get("zero", "refuse") not in ZERO:
        raise UsageFault(f"{where}.zero={declared['zero']!r} is none of {', '.join(ZERO)}")
    landmark = declared.get("landmark_days") or 0
    if isinstance(landmark, (str, bool)) or landmark < 0:
        raise UsageFault(f"{where}.landmark_days={landmark!r} is no number of days after the index date")
    if declared.get("events_any") is not None:
        columns = endpoints.declared_columns(name, declared)
        return TaskSpec(name, "survival", (), (*columns, *declared.get("also", ())), called, float(landmark))
    for word in ("time", "unit", "event", "events"):
        if not declared.get(word):
            raise UsageFault(f"{where} declares no `{word}`; a survival task needs time, unit, event, events")
    endpoints.check_unit(where, declared["unit"])
    endpoints.check_events(where, declared["events"], causes)
    columns = (declared["time"], declared["event"])
    return TaskSpec(name, "survival", (), (*columns, *declared.get("also", ())), called, float(landmark), causes)


def labels(
    spec: TaskSpec, declared: Mapping[str, Any], table: pd.DataFrame, file: str, notes: list[str] | None = None
) -> pd.DataFrame:
    """Labels of one task, indexed like `table`: `value`, or `event` and `time_days`; NaN where not known.

    With competing causes `event` is of the first one, and `cause` is the number of each (0 = censored).

    A rule that knows to whom its outcome applies adds the column `applicable` (bool). `table` holds text; `notes` gets
    a sentence on every label that a rule takes away. Raises DataFault (with counts, rows and the way out) on a value
    that the map does not name, a time that is no number, negative, or zero without a policy.
    """
    notes = [] if notes is None else notes
    if declared.get("rule"):
        made: pd.DataFrame = RULES[declared["rule"]].labels(spec, declared, table, file, notes)
        empty = [word for i, word in enumerate(spec.classes) if not (made["value"] == i).any()]
        if empty and made["value"].notna().any():
            notes.append(f"{spec.name}: no patient has the class {', '.join(empty)}")
        return made
    if spec.kind == "survival":
        return _survival(spec, declared, table, file, notes)
    column = cells.column(table, declared["column"], file)
    if spec.kind == "regression":
        nothing = [str(word) for word in declared.get("map") or {}]
        return pd.DataFrame({"value": numeric(column, f"'{file}' column '{declared['column']}'", (*MISSING, *nothing))})
    named = {str(k): v for k, v in (declared.get("map") or {c: c for c in spec.classes}).items()}
    number = {name: float(i) for i, name in enumerate(spec.classes)}
    cells.all_named(column, named, f"cohort.tasks.{spec.name}.map", file, declared["column"])
    value = column.map(
        lambda cell: number.get(str(named.get(cell)), np.nan) if cell not in MISSING or cell in named else np.nan
    )
    return pd.DataFrame({"value": value.astype(float)})


def _survival(
    spec: TaskSpec, declared: Mapping[str, Any], table: pd.DataFrame, file: str, notes: list[str]
) -> pd.DataFrame:
    if declared.get("events_any") is not None:
        event, time = endpoints.composite(spec.name, declared, table, file, notes)
        return _at_risk(spec, declared, event, time, f"'{file}' (the first of its events)", notes)
    events = {str(k): v for k, v in declared["events"].items()}
    status = cells.column(table, declared["event"], file)
    cells.all_named(status, events, f"cohort.tasks.{spec.name}.events", file, declared["event"])
    number = {cause: i for i, cause in enumerate(spec.causes, 1)}
    coded = {cell: number.get(meant, meant) for cell, meant in events.items()}
    event = status.map(coded.get).astype(float)
    time = cells.times(table, declared["time"], declared["unit"], file)
    made = _at_risk(spec, declared, event, time, f"'{file}' column '{declared['time']}'", notes)
    if spec.causes:
        counts = ", ".join(f"{cause} {int((made['event'] == i).sum())}" for cause, i in number.items())
        notes.append(
            f"{spec.name}: competing causes ({counts} patients); metrics, floors and curves of the cohort are of "
            f"{spec.causes[0]}, the others counted as censored"
        )
        made["cause"] = made["event"]
        made["event"] = made["event"].where(made["event"].isna(), (made["event"] == 1) * 1.0)
    return made


def _at_risk(
    spec: TaskSpec, declared: Mapping[str, Any], event: pd.Series, time: pd.Series, where: str, notes: list[str]
) -> pd.DataFrame:
    """Events and times of those whose time is positive; what becomes of the others is declared.

    Behind a landmark only those count who were still at risk, from that day on (Anderson et al., J Clin Oncol 1983).
    """
    negative = time.index[time < 0]
    if len(negative) and declared.get("negative", "refuse") != "drop":
        raise DataFault(
            f"{where}: negative for {cells.rows(negative)}; correct it, or set cohort.tasks.{spec.name}.negative to "
            "drop (before the index date: no label)"
        )
    time = time.mask(time < 0)
    if spec.landmark_days:
        gone = event.notna() & (time <= spec.landmark_days)
        if gone.any():
            notes.append(
                f"{spec.name}: {int(gone.sum())} patients had the event or left by day {spec.landmark_days:g}, the "
                "landmark: no label"
            )
        time = (time - spec.landmark_days).mask(gone)
    zero = time.index[(time == 0) & event.notna()]
    policy = declared.get("zero", "refuse")
    if len(zero) and policy == "refuse":
        raise DataFault(f"{where}: zero for {cells.rows(zero)}; set cohort.tasks.{spec.name}.zero to half_day or drop")
    if policy == "half_day":
        time = time.mask(time == 0, 0.5)
    elif policy == "drop":
        time = time.mask(time == 0)
    known = event.notna() & time.notna()
    return pd.DataFrame({"event": event.where(known), "time_days": time.where(known)})
