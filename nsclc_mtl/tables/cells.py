"""Cells of an outcome's column as written, and the classes that a declaration makes of the words in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, TaskSpec, UsageFault
from nsclc_mtl.tables.read import MISSING, numeric, shown

DAYS = {"days": 1.0, "weeks": 7.0, "months": 365.25 / 12, "years": 365.25}
"""Days in a unit of time."""

Chain = Sequence[str] | None
"""The words that a rule makes of a cell, finest first ([IIIA3, IIIA, III]); [] = known to be unknown (`TX`, `GX`);
None = the rule cannot read it."""


def column(table: pd.DataFrame, name: str, file: str) -> pd.Series:
    """One column as text without spaces around it. Raises DataFault where the table does not have it."""
    if name not in table.columns:
        raise DataFault(f"'{file}' has no column '{name}'; it has {', '.join(map(repr, list(table.columns)[:8]))}")
    return table[name].astype(str).str.strip()


def times(table: pd.DataFrame, name: str, unit: str, file: str) -> pd.Series:
    """A column of times in days, NaN where missing. Raises DataFault on what is no number."""
    return numeric(column(table, name, file), f"'{file}' column '{name}'") * DAYS[unit]


def counted(cells: pd.Series) -> str:
    """The commonest values with their counts, for a sentence: `'II' (3 rows), 'X' (1 rows)`."""
    return ", ".join(f"{shown(value)!r} ({count} rows)" for value, count in cells.value_counts().head(5).items())


def rows(index: pd.Index, most: int = 5) -> str:
    """The first ids of an index, and how many there are, for a sentence: `P1, P2 (2 rows)`."""
    return f"{', '.join(map(str, index[:most]))} ({len(index)} rows)"


def all_named(cells: pd.Series, named: Mapping[str, Any], key: str, file: str, name: str) -> None:
    """Raises DataFault, with counts, where a cell that is no word for "missing" is not named in a map."""
    unnamed = cells[~cells.isin(list(named)) & ~cells.isin(MISSING)]
    if len(unnamed):
        raise DataFault(
            f"'{file}' column '{name}' holds {counted(unnamed)}, which {key} does not name; add it there "
            "(null = not known)"
        )


def classes_of(name: str, declared: Mapping[str, Any], usual: Sequence[str]) -> tuple[str, ...]:
    """The classes of a task with a rule, lowest first: those declared, or the usual ones of the rule.

    Raises UsageFault where they do not fit the kind, or where the task's map gives another one.
    """
    kind = declared.get("kind")
    classes = tuple(str(c) for c in declared.get("classes") or usual)
    if kind not in ("binary", "ordinal", "multiclass"):
        raise UsageFault(f"cohort.tasks.{name}: rule={declared.get('rule')} gives classes, kind={kind!r} does not")
    if len(classes) < 2 or len(set(classes)) < len(classes) or (kind == "binary" and len(classes) != 2):
        raise UsageFault(f"cohort.tasks.{name} ({kind}) has the classes {list(classes)}; name them, lowest first")
    for given in (declared.get("map") or {}).values():
        if given is not None and str(given) not in classes:
            raise UsageFault(
                f"cohort.tasks.{name}.map gives {str(given)!r}, which is none of the classes {', '.join(classes)}"
            )
    return classes


def reachable(spec: TaskSpec, declared: Mapping[str, Any], reading: Callable[[str], Chain]) -> None:
    """Raises UsageFault where a class is neither a word of the rule nor a value of the task's map."""
    given = {str(value) for value in (declared.get("map") or {}).values()}
    for word in spec.classes:
        if word not in given and word not in (reading(word) or [])[:1]:
            raise UsageFault(
                f"cohort.tasks.{spec.name}: no cell can have the class '{word}', which is no word of "
                f"rule={declared['rule']}; name in cohort.tasks.{spec.name}.map what belongs to it"
            )


def classified(
    spec: TaskSpec,
    declared: Mapping[str, Any],
    cells: pd.Series,
    reading: Callable[[str], Chain],
    file: str,
    name: str,
) -> pd.Series:
    """Class numbers of the cells, NaN where not known.

    What the map of the task names comes first, as written or as the rule spells it (the finest word that is named);
    then the classes themselves. Raises DataFault, with counts, on a cell that the rule cannot read or that is none of
    the classes.
    """
    named = {str(k): None if v is None else str(v) for k, v in (declared.get("map") or {}).items()}
    number = {word: float(i) for i, word in enumerate(spec.classes)}
    value, unread, outside = {}, [], []
    for cell in cells.unique():
        chain = [cell] if cell in named else [] if cell in MISSING else reading(cell)
        if chain is None:
            unread.append(cell)
            continue
        found = next((word for word in chain if word in named or word in number), None)
        if chain and found is None:
            outside.append(cell)
        meant = named.get(found, found) if found is not None else None
        value[cell] = np.nan if meant is None else number[meant]
    way = f"name them in cohort.tasks.{spec.name}.map (null = not known)"
    if unread:
        told = f"which rule={declared['rule']} does not read as written; {way}"
        raise DataFault(f"'{file}' column '{name}' holds {counted(cells[cells.isin(unread)])}, {told}")
    if outside:
        told = f"which belong to none of the classes {', '.join(spec.classes)}; {way}"
        raise DataFault(f"'{file}' column '{name}' holds {counted(cells[cells.isin(outside)])}, {told}")
    return cells.map(value).astype(float)
