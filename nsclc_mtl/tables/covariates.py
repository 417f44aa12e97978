"""What a covariate is: numeric with its unit and limits, ordered, or categorical, in a short form or a long one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables.read import MISSING, numeric, shown

TYPES = ("numeric", "ordered", "categorical")
_KEYS = {
    "numeric": {"unit", "min", "max"},
    "ordered": {"values"},
    "categorical": {"values"},
}
_ALWAYS = {"type", "time", "after_index"}


@dataclass(frozen=True)
class Covariate:
    """One declared input column of a table."""

    name: str
    type: str  # one of TYPES
    unit: str = ""
    least: float = -math.inf  # plausible values lie from here
    most: float = math.inf  # to here
    values: tuple[str, ...] = ()  # ordered: lowest first; categorical: all there are, or () where anything goes
    time: Any = None  # when it is known, see `nsclc_mtl.cohort.times`
    after_index: str | None = None  # what becomes of cells later than the index date; None = as its modality says

    @property
    def short(self) -> str | list[str]:
        """As an encoder takes it: `numeric`, `categorical`, or the values from low to high."""
        return list(self.values) if self.type == "ordered" else self.type


def covariate(name: str, declared: Any, where: str) -> Covariate:
    """The covariate of a declaration: `numeric`, `categorical`, a list of values, or a mapping with `type`.

    Raises UsageFault where the type is none, a word belongs to another type, or limits are no numbers.

    >>> covariate("age", {"type": "numeric", "unit": "years", "min": 0, "max": 120}, "x").most
    120.0
    """
    if isinstance(declared, Sequence) and not isinstance(declared, str):
        return Covariate(name, "ordered", values=tuple(map(str, declared)))
    words: Mapping[str, Any] = declared if isinstance(declared, Mapping) else {"type": declared}
    kind = words.get("type")
    if kind not in TYPES or (kind == "ordered" and not isinstance(declared, Mapping)):
        raise UsageFault(
            f"{where}.{name} is declared as '{kind}'; say numeric, categorical, or list its values from low to high"
        )
    strange = sorted(set(words) - _KEYS[kind] - _ALWAYS)
    if strange:
        raise UsageFault(
            f"{where}.{name}.{strange[0]} is no word of a {kind} column; it has {', '.join(sorted(_KEYS[kind]))}"
        )
    values = tuple(str(value) for value in words.get("values") or ())
    if kind == "ordered" and len(values) < 2:
        raise UsageFault(f"{where}.{name} is ordered: list its `values` from low to high")
    try:
        least, most = float(words.get("min", -math.inf)), float(words.get("max", math.inf))
    except (TypeError, ValueError):
        raise UsageFault(f"{where}.{name}: min and max are numbers, in its unit") from None
    if least > most:
        raise UsageFault(f"{where}.{name}: min {least:g} is above max {most:g}")
    unit, later = str(words.get("unit") or ""), words.get("after_index")
    return Covariate(name, kind, unit, least, most, values, words.get("time"), None if later is None else str(later))


def covariates(columns: Mapping[str, Any] | Sequence[str] | None, where: str) -> dict[str, Covariate]:
    """The covariates of a modality's `columns`, in their order; empty where none are declared. A list: all numeric."""
    if isinstance(columns, Sequence):
        columns = dict.fromkeys(columns, "numeric")
    return {str(name): covariate(str(name), declared, where) for name, declared in (columns or {}).items()}


def plausible(column: pd.Series, wanted: Covariate, where: str) -> None:
    """Raises DataFault where a number lies outside its limits or a category is none of the declared ones.

    Values outside the order of an ordered column are no fault: they count as missing, and are noted.
    """
    if wanted.type == "numeric" and (math.isfinite(wanted.least) or math.isfinite(wanted.most)):
        values = numeric(column, where)
        bad = values[(values < wanted.least) | (values > wanted.most)]
        if len(bad):
            listed = "; ".join(f"{patient}: {value:g}" for patient, value in bad.head(3).items())
            raise DataFault(
                f"{where}: {len(bad)} value(s) outside {limits(wanted)} ({listed}); correct them, leave them "
                "blank, or widen min and max"
            )
    if wanted.type == "categorical" and wanted.values:
        text = column.astype(str).str.strip()
        bad = text[~text.isin(wanted.values) & ~text.isin(MISSING)]
        if len(bad):
            counts = bad.value_counts().head(5).items()
            listed = ", ".join(f"'{shown(value)}' ({count} rows)" for value, count in counts)
            raise DataFault(f"{where} holds {listed}, none of its values; correct the cells, or add to its `values`")


def limits(wanted: Covariate) -> str:
    """The plausible values of a numeric column in words: `0 to 120 years`."""
    unit = f" {wanted.unit}" if wanted.unit else ""
    if math.isinf(wanted.most):
        return f"{wanted.least:g}{unit} and above"
    if math.isinf(wanted.least):
        return f"{wanted.most:g}{unit} and below"
    return f"{wanted.least:g} to {wanted.most:g}{unit}"
