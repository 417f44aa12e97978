"""Histological grade G1 to G4 from the words and numbers that reports use (AJCC; UICC's TNM, 8th edition)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from nsclc_mtl.records import TaskSpec, UsageFault
from nsclc_mtl.tables import cells

USUAL = ("G1", "G2", "G3", "G4")
_NUMBER = re.compile(r"(?:g|grade)?\s*(?:(?P<arabic>[1-4])(?:\.0)?|(?P<roman>iv|iii|ii|i)|(?P<x>x))")
_WORDS = {
    "well differentiated": "G1",
    "moderately differentiated": "G2",
    "moderately well differentiated": "G2",
    "poorly differentiated": "G3",
    "undifferentiated": "G4",
    "anaplastic": "G4",
}
_UNKNOWN = ("unknown", "cannot be assessed", "not graded", "grade cannot be assessed")


def task_spec(name: str, declared: Mapping[str, Any]) -> TaskSpec:
    """The task of `rule: grade`. Raises UsageFault where the column is wanting or a class is no grade."""
    if not declared.get("column"):
        raise UsageFault(f"cohort.tasks.{name} declares no `column`; name the one that holds its grades")
    classes = cells.classes_of(name, declared, USUAL)
    spec = TaskSpec(name, declared["kind"], classes, (declared["column"], *declared.get("also", ())))
    cells.reachable(spec, declared, grade)
    return spec


def labels(
    spec: TaskSpec, declared: Mapping[str, Any], table: pd.DataFrame, file: str, notes: list[str]
) -> pd.DataFrame:
    """Class numbers by patient, column `value`, NaN where not known. Raises DataFault, with counts, on what is no grade
    (two-tiered words such as `High Grade` among it) until the task's map names it."""
    text = cells.column(table, declared["column"], file)
    return pd.DataFrame({"value": cells.classified(spec, declared, text, grade, file, declared["column"])})


def grade(cell: str) -> cells.Chain:
    """The grade as a list of one word; [] for GX, None where it is none. Codes that begin at 0 are none.

    >>> grade("Grade 2"), grade("III"), grade("poorly-differentiated"), grade("GX"), grade("High Grade"), grade("0")
    (['G2'], ['G3'], ['G3'], [], None, None)
    """
    word = re.sub(r"[\s\-_]+", " ", cell.casefold()).strip()
    if word in _UNKNOWN:
        return []
    if word in _WORDS:
        return [_WORDS[word]]
    found = _NUMBER.fullmatch(word)
    if not found:
        return None
    if found["x"]:
        return []
    return [f"G{found['arabic'] or len(found['roman'].replace('iv', 'iiii'))}"]
