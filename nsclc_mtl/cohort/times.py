"""When an input was known: by the index date, or later. What is later is refused unless it is declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables.read import MISSING, numeric, shown

POLICIES = ("refuse", "declared", "drop")
"""What becomes of inputs later than the index date: exit 3, inputs all the same, or missing."""
WORDS = ("before", "after")
ISO = "%Y-%m-%d"


class Later(DataFault):
    """A modality that is known only after the index date: left out where nobody asked for it by name."""


@dataclass(frozen=True)
class IndexDate:
    """The day at which a prediction is made; times of inputs and outcomes count from it."""

    event: str = ""  # what happens on it: surgery, diagnosis, ...
    dates: pd.Series = field(default_factory=lambda: pd.Series(dtype="datetime64[ns]"))  # by patient; empty: days only
    format: str = ISO  # of all dates of the cohort, in the signs of strftime

    def __str__(self) -> str:
        return f"the index date ({self.event})" if self.event else "the index date"

    def days(self, time: Mapping[str, Any], table: pd.DataFrame, patients: Sequence[str], where: str) -> pd.Series:
        """Days from the index date to each row, NaN where not known. `time` is {days: column} or {date: column}.

        Raises UsageFault where the cohort declares no column of index dates, DataFault on what is no number or date.
        """
        (unit, column), *more = time.items()
        if more or unit not in ("days", "date"):
            raise UsageFault(f"{where}.time={dict(time)} is none of before, after, {{days: column}}, {{date: column}}")
        if column not in table.columns:
            raise DataFault(f"{where}.time names the column '{column}', which its table does not have")
        if unit == "days":
            return numeric(table[column], f"{where}.time, column '{column}'")
        if self.dates.empty:
            raise UsageFault(f"{where}.time counts from dates, and cohort.index_date.column names none")
        then = dates(table[column], self.format, f"{where}.time, column '{column}'")
        start = self.dates.reindex(list(patients)).to_numpy()
        return pd.Series((then.to_numpy() - start) / np.timedelta64(1, "D"), index=table.index)


def dates(column: pd.Series, form: str, where: str) -> pd.Series:
    """The column as days of the calendar, NaT where missing. Raises DataFault naming rows (and only the form of what
    they hold)."""
    text = column.astype(str).str.strip()
    blank = text.isin(MISSING) | column.isna()
    bare = text.str.replace(r"[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?$", "", regex=True) if form == ISO else text
    made = pd.to_datetime(bare.where(~blank), format=form, errors="coerce")
    bad = text[~blank & made.isna()]
    if len(bad):
        listed = "; ".join(f"{row}: {shown(value)!r}" for row, value in bad.head(3).items())
        raise DataFault(
            f"{where}: {len(bad)} value(s) are no dates of the form {form} ({listed}); write {form}, or set "
            "cohort.index_date.format"
        )
    return made


def index_date(cohort: Mapping[str, Any], table: pd.DataFrame) -> IndexDate:
    """The declared index date of a cohort; `table` holds its column, by patient. Raises DataFault on a wrong one."""
    declared = cohort.get("index_date") or {}
    strange = sorted(set(declared) - {"column", "event", "format", "file", "id"})
    if strange:
        raise UsageFault(f"cohort.index_date.{strange[0]} is none of column, event, format, file, id")
    event, form = str(declared.get("event") or ""), str(declared.get("format") or ISO)
    column = declared.get("column")
    if not column:
        return IndexDate(event, format=form)
    if column not in table.columns:
        raise DataFault(f"the table of cohort.index_date has no column '{column}'")
    return IndexDate(event, dates(table[column], form, f"cohort.index_date, column '{column}'"), form)


def columns(time: Any) -> set[str]:
    """The columns that a declared `time` reads: they say when, and are no inputs."""
    return {str(column) for column in time.values()} if isinstance(time, Mapping) else set()


def policy(value: Any, where: str) -> str:
    """The declared policy for later inputs. Raises UsageFault on another word."""
    word = str(value or "refuse")
    if word not in POLICIES:
        raise UsageFault(f"{where}.after_index={word!r} is none of {', '.join(POLICIES)}")
    return word


def whole(index: IndexDate, time: Any, after: str, where: str, what: str) -> str | None:
    """A note where the word `after` declares all of an input to be later; None where it is not. Raises `Later` where
    that is refused and UsageFault on another word."""
    if time in (None, "before"):
        return None
    if time != "after":
        raise UsageFault(f"{where}.time={time!r} is none of before, after, {{days: column}}, {{date: column}}")
    if after == "drop":
        raise UsageFault(f"{where}: nothing of what is known after {index} is left by after_index=drop; take it out")
    if after == "refuse":
        raise Later(
            f"{what} is known only after {index} ({where}.time: after), so that no prediction made then can use it; "
            f"take it out, or set {where}.after_index=declared"
        )
    return f"{what} is known only after {index} and an input all the same (after_index: declared)"


def late(days: pd.Series, index: IndexDate, after: str, where: str, what: str) -> tuple[pd.Series, str | None]:
    """Which rows are taken as missing (bool), and a note of it or of what is used all the same.

    A row without a time may be later, and is treated so. Raises DataFault where later rows are refused.
    """
    later, unknown = days > 0, days.isna()
    bad = later | unknown
    if not bad.any():
        return bad, None
    told = []
    if later.any():
        told.append(f"{later.sum()} of {len(days)} rows lie {_span(days[later])} after {index} ({_some(days[later])})")
    if unknown.any():
        told.append(f"{unknown.sum()} rows have no time ({_some(days[unknown])})")
    if after == "refuse":
        raise DataFault(
            f"{what}: {' and '.join(told)}; correct them, or set {where}.after_index to drop (taken as missing) or "
            "declared"
        )
    if after == "drop":
        return bad, f"{what}: {' and '.join(told)}: taken as missing (after_index: drop)"
    return bad & False, f"{what}: {' and '.join(told)}: inputs all the same (after_index: declared)"


def counted(
    declared: Mapping[str, Any], table: pd.DataFrame, index: IndexDate, where: str
) -> tuple[dict[str, Any], pd.DataFrame]:
    """A survival task and its table with the time in days from the index date, where that is {date: column}."""
    time = declared.get("time")
    if not isinstance(time, Mapping):
        return dict(declared), table
    days = index.days(time, table, list(map(str, table.index)), where)
    (column,) = time.values()
    made = table.assign(**{str(column): days.map(lambda value: "" if np.isnan(value) else f"{value:g}")})
    return plain(declared), made


def plain(declared: Mapping[str, Any]) -> dict[str, Any]:
    """A task with the column of its time where that is declared as {date: column}; it then counts in days."""
    time = declared.get("time")
    if isinstance(time, Mapping) and time:
        return {**declared, "time": next(iter(time.values())), "unit": "days"}
    return dict(declared)


def undated(cohort: Mapping[str, Any], modalities: Sequence[str]) -> list[str]:
    """Modalities of a cohort with an index date that do not say when they are known."""
    if not cohort.get("index_date"):
        return []
    return [name for name in modalities if cohort["modalities"][name].get("time") is None]


def _span(days: pd.Series) -> str:
    least, most = days.min(), days.max()
    return f"{least:g} day{'' if least == 1 else 's'}" if least == most else f"{least:g} to {most:g} days"


def _some(rows: pd.Series, most: int = 5) -> str:
    listed = ", ".join(map(str, rows.index[:most]))
    return f"{listed} and {len(rows) - most} more" if len(rows) > most else listed
