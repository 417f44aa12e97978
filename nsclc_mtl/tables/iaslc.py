"""IASLC grade of resected invasive non-mucinous lung adenocarcinoma, from the percentages of its growth patterns.

Moreira et al., J Thorac Oncol 2020;15:1599-1610, taken into the WHO classification of 2021: 20 % or more of high-grade
patterns (solid, micropapillary, cribriform or other complex glands) are grade 3, whatever predominates; below that a
lepidic-predominant tumour is grade 1, an acinar- or papillary-predominant one grade 2. For any other tumour the grade
does not exist, which is not the same as missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, TaskSpec, UsageFault
from nsclc_mtl.tables import cells
from nsclc_mtl.tables.read import MISSING, numeric

PATTERNS = ("lepidic", "acinar", "papillary", "micropapillary", "solid", "complex_glandular")
HIGH_GRADE = ("micropapillary", "solid", "complex_glandular")
HIGH_PERCENT = 20.0
TIES = ("refuse", "higher", "lower", "missing")
"""What a tumour is whose lepidic share equals its acinar or papillary share, the largest: the paper does not say."""


def task_spec(name: str, declared: Mapping[str, Any]) -> TaskSpec:
    """The task of `rule: iaslc_grade`. Raises UsageFault where a part of it is wanting."""
    where = f"cohort.tasks.{name}"
    classes = cells.classes_of(name, declared, ("1", "2", "3"))
    if declared["kind"] != "ordinal" or len(classes) != 3:
        raise UsageFault(f"{where}: rule=iaslc_grade needs kind: ordinal and three classes, lowest first")
    patterns = declared.get("patterns") or {}
    absent, strange = [p for p in PATTERNS if p not in patterns], [p for p in patterns if p not in (*PATTERNS, "other")]
    if absent or strange:
        told = f"does not name {absent[0]}" if absent else f"names '{strange[0]}'"
        raise UsageFault(
            f"{where}.patterns {told}; it names the column (or columns) of {', '.join(PATTERNS)}, null where it was "
            "not reported apart, and what else may be there as `other`"
        )
    columns = [column for pattern in patterns for column in _columns(patterns[pattern])]
    for word, whom in (("histology", "invasive non-mucinous adenocarcinoma"), ("resected", "a resected tumour")):
        of = declared.get(word)
        if of == "all":
            continue
        if not isinstance(of, Mapping) or not of.get("column") or not of.get("values"):
            raise UsageFault(
                f"{where}.{word} does not say who has {whom}: give {{column: ..., values: [...]}}, or `all` where "
                "everybody has"
            )
        columns.append(of["column"])
    if declared.get("ties", "refuse") not in TIES:
        raise UsageFault(f"{where}.ties={declared['ties']!r} is none of {', '.join(TIES)}")
    return TaskSpec(name, "ordinal", classes, (*dict.fromkeys(columns), *declared.get("also", ())))


def labels(
    spec: TaskSpec, declared: Mapping[str, Any], table: pd.DataFrame, file: str, notes: list[str]
) -> pd.DataFrame:
    """Class numbers by patient, `value`, NaN where not known, and `applicable`, False where the grade does not exist.

    Raises DataFault, naming rows, where percentages are negative, do not sum to 100 within `tolerance` (percentage
    points, default 1), or tie without a declared way out.
    """
    where = f"cohort.tasks.{spec.name}"
    applies, unsure = _applies(declared, table, file)
    share = _shares(declared, table, file)
    asked = applies & ~unsure & share.notna().any(axis=1)
    share = share.where(asked, axis=0).fillna(0.0)
    _whole(share[asked], float(declared.get("tolerance", 1.0)), where, file)
    number = grade(share, str(declared.get("ties", "refuse")))
    tied = number.index[asked & (number == -1)]
    if len(tied) and declared.get("ties", "refuse") == "refuse":
        raise DataFault(
            f"'{file}': lepidic and acinar or papillary are equal and largest for {cells.rows(tied)}, of which the "
            f"grading does not speak; set {where}.ties to higher, lower or missing"
        )
    other = asked & (number == 0)
    applies &= ~other
    value = (number - 1).where(asked & (number > 0))
    if (n := int((~applies).sum())) and not applies.all():
        notes.append(f"{spec.name}: the IASLC grade does not exist for {n} of {len(applies)} patients")
    return pd.DataFrame({"value": value, "applicable": applies.astype(bool)})


def grade(share: pd.DataFrame, ties: str = "refuse") -> pd.Series:
    """Grade 1, 2 or 3 of percentages (columns as PATTERNS, and `other`); 0 where another pattern predominates; -1 for
    a tie that `ties` leaves open (NaN where it is `missing`).

    >>> row = pd.DataFrame([[70, 20, 0, 0, 10, 0], [70, 10, 0, 10, 10, 0], [20, 65, 0, 0, 15, 0]], columns=PATTERNS)
    >>> grade(row.astype(float)).tolist()
    [1.0, 3.0, 2.0]
    """
    high = share[list(HIGH_GRADE)].sum(axis=1)
    lepidic, glands = share["lepidic"], share[["acinar", "papillary"]].max(axis=1)
    other = share["other"] if "other" in share else pd.Series(0.0, share.index)
    close = (lepidic - glands).abs() < 1e-9
    open_tie = {"higher": 2.0, "lower": 1.0, "missing": np.nan}.get(ties, -1.0)
    made = np.where(lepidic > glands, 1.0, 2.0)
    made = np.where(close, open_tie, made)
    made = np.where(high >= HIGH_PERCENT - 1e-9, 3.0, made)
    made = np.where(other > share[list(PATTERNS)].max(axis=1), 0.0, made)
    return pd.Series(made, share.index)


def _columns(given: Any) -> list[str]:
    if given is None:
        return []
    return [given] if isinstance(given, str) else [str(column) for column in given]


def _applies(declared: Mapping[str, Any], table: pd.DataFrame, file: str) -> tuple[pd.Series, pd.Series]:
    """To whom the grade applies, and of whom that is not known."""
    applies, unsure = pd.Series(True, table.index), pd.Series(False, table.index)
    for word in ("histology", "resected"):
        if declared[word] == "all":
            continue
        text = cells.column(table, declared[word]["column"], file)
        values = [str(value) for value in declared[word]["values"]]
        if len(text) and not text.isin(values).any():
            raise DataFault(
                f"'{file}' column '{declared[word]['column']}' holds {cells.counted(text)}, none of "
                f"{', '.join(map(repr, values))}; correct the `values` of {word}"
            )
        blank = text.isin(MISSING) & ~text.isin(values)
        applies, unsure = applies & (text.isin(values) | blank), unsure | blank
    return applies, unsure


def _shares(declared: Mapping[str, Any], table: pd.DataFrame, file: str) -> pd.DataFrame:
    """Percent of every pattern; NaN where none of its columns is filled in."""
    made = {}
    for pattern in (*PATTERNS, "other"):
        columns = _columns(declared["patterns"].get(pattern))
        parts = [numeric(cells.column(table, c, file), f"'{file}' column '{c}'") for c in columns]
        for part, column in zip(parts, columns, strict=True):
            if (bad := part.index[part < 0]).size:
                raise DataFault(f"'{file}' column '{column}': a negative percentage for {cells.rows(bad)}; correct it")
        joined = pd.concat(parts, axis=1) if parts else pd.DataFrame(index=table.index)
        made[pattern] = joined.sum(axis=1, min_count=1).astype(float)
    return pd.DataFrame(made)


def _whole(share: pd.DataFrame, tolerance: float, where: str, file: str) -> None:
    """Raises DataFault where percentages do not sum to 100; a blank pattern is none where the others make up 100."""
    total = share.sum(axis=1)
    wrong = total[(total - 100).abs() > tolerance + 1e-9]
    if len(wrong):
        listed = ", ".join(f"{row}: {value:g}" for row, value in wrong.head(5).items())
        hint = " (percent are asked for, not fractions)" if ((wrong - 1).abs() < 0.02).all() else ""
        raise DataFault(
            f"'{file}': the growth patterns of {len(wrong)} rows do not sum to 100 within {tolerance:g} ({listed})"
            f"{hint}; correct them, or set {where}.tolerance (percentage points)"
        )
