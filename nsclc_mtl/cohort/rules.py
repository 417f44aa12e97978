"""What a column of a cohort's table must hold: rules that tell good cells from bad ones, each with a way out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nsclc_mtl.cohort import barcodes
from nsclc_mtl.records import DataFault
from nsclc_mtl.tables.covariates import Covariate, limits
from nsclc_mtl.tables.outcomes import DAYS
from nsclc_mtl.tables.read import MISSING


@dataclass(frozen=True)
class Rule:
    """A test of a column of text: `holds` gives True for every good cell, in the order of the rows."""

    word: str
    todo: str
    holds: Callable[[pd.Series], pd.Series]


def _blank(cells: pd.Series) -> pd.Series:
    return cells.str.strip().isin(MISSING)


def _numbers(cells: pd.Series) -> pd.Series:
    """Float64; NaN for what is missing or no number."""
    text = cells.str.strip()
    values = pd.to_numeric(text.where(~text.isin(MISSING), "nan"), errors="coerce").astype(float)
    return values.where(values.abs() != math.inf)


def filled(todo: str = "fill it, or drop the row") -> Rule:
    """No blank cell. In a column of ids a word such as NA is an id."""
    return Rule("blank", todo, lambda cells: cells.str.strip() != "")


def once(style: str = "text", todo: str = "keep one row a patient, or set duplicates to first") -> Rule:
    """No id twice; barcodes count by their patient."""

    def holds(cells: pd.Series) -> pd.Series:
        cut = cells
        if style == "tcga":
            read = [barcodes.parse(cell) for cell in cells]
            cut = pd.Series([b.patient if b else cell for b, cell in zip(read, cells, strict=True)], index=cells.index)
            cut = cut[barcodes.tumours(cells).to_numpy()]
        twice = cut[cut.duplicated(keep=False) & (cut.str.strip() != "")]
        return ~cells.index.to_series().isin(twice.index)

    return Rule("id twice", todo, holds)


def barcode() -> Rule:
    """Every id is a TCGA barcode."""
    return Rule(
        "no barcode",
        "correct the id, or take `ids: tcga` out of the cohort",
        lambda cells: pd.Series([barcodes.parse(cell) is not None for cell in cells], index=cells.index),
    )


def number(nothing: Sequence[str] = ()) -> Rule:
    """A number, or missing; also `nothing` are words for missing."""
    return Rule(
        "no number",
        "correct it or leave it blank; decimal commas only where `;` separates the columns",
        lambda cells: _numbers(cells).notna() | _blank(cells) | cells.str.strip().isin(list(nothing)),
    )


def of_covariate(wanted: Covariate) -> list[Rule]:
    """Numbers within their limits; categories among those that are declared. An order refuses nothing."""
    if wanted.type == "numeric":
        made = [number()]
        if math.isfinite(wanted.least) or math.isfinite(wanted.most):
            made.append(
                Rule(
                    f"outside {limits(wanted)}",
                    "correct it, leave it blank, or widen min and max",
                    lambda cells: ~((_numbers(cells) < wanted.least) | (_numbers(cells) > wanted.most)),
                )
            )
        return made
    if wanted.type == "categorical" and wanted.values:
        told = "correct it, or add it to the column's `values`"
        return [Rule("unknown value", told, lambda cells: cells.str.strip().isin(wanted.values) | _blank(cells))]
    return []


def mapped(named: Mapping[str, Any], key: str) -> Rule:
    """A value that a map names, or missing."""
    known = [str(value) for value in named]
    return Rule(
        "not in the map",
        f"add it to {key} (null = not known), or correct it",
        lambda cells: cells.str.strip().isin(known) | _blank(cells),
    )


def time_of(task: str, declared: Mapping[str, Any], known: pd.Series) -> list[Rule]:
    """A number, not negative and not zero, unless the task says what becomes of it. `known`: whose event is."""
    made = [number()]
    if declared.get("negative", "refuse") != "drop":
        told = f"correct it, or set cohort.tasks.{task}.negative to drop (before the index date: no label)"
        made.append(Rule("negative time", told, lambda cells: ~(_numbers(cells) * DAYS[declared["unit"]] < 0)))
    if declared.get("zero", "refuse") == "refuse":
        told = f"set cohort.tasks.{task}.zero to half_day or drop, or correct it"
        made.append(Rule("time zero", told, lambda cells: (_numbers(cells) != 0) | ~known.loc[cells.index]))
    return made


def dated(parse: Callable[[pd.Series], pd.Series], form: str) -> Rule:
    """A date of the declared form, or missing. `parse` raises DataFault on what is none."""

    def one(cell: str) -> bool:
        try:
            parse(pd.Series([cell]))
        except DataFault:
            return False
        return True

    def holds(cells: pd.Series) -> pd.Series:
        known = {cell: one(cell) for cell in cells.unique()}
        return cells.map(known).astype(bool)

    return Rule("no date", f"write it as {form}, or set cohort.index_date.format", holds)


def early(days: Callable[[pd.Index], pd.Series], where: str, event: str) -> list[Rule]:
    """Known by the index date. `days` gives the days from it by row, NaN where not known."""
    todo = f"correct it, or set {where}.after_index to drop (taken as missing) or declared"
    return [
        Rule(f"after {event}", todo, lambda cells: ~(days(cells.index) > 0).set_axis(cells.index)),
        Rule(f"not known to be before {event}", todo, lambda cells: days(cells.index).notna().set_axis(cells.index)),
    ]
