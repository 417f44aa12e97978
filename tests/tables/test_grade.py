"""Grades: the words and numbers of reports, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables import outcomes

GRADE: dict[str, Any] = {"kind": "ordinal", "rule": "grade", "column": "g"}


def made(declared: dict[str, Any], words: list[str], notes: list[str] | None = None) -> list[float | None]:
    spec = outcomes.task_spec("grade", declared)
    table = pd.DataFrame({"g": words}, index=[f"P{i}" for i in range(len(words))])
    values = outcomes.labels(spec, declared, table, "p.csv", notes)["value"]
    return [None if np.isnan(v) else v for v in values]


def test_grades_as_reports_write_them() -> None:
    notes: list[str] = []
    words = ["G1", "g2", "Grade 3", "grade iv", "1", "II", "3.0", "Well differentiated", "MODERATELY-differentiated"]
    assert made(GRADE, words, notes) == [0, 1, 2, 3, 0, 1, 2, 0, 1]
    assert made(GRADE, ["poorly differentiated", "undifferentiated", "GX", "Grade X", "", "unknown"]) == [
        2, 3, None, None, None, None,
    ]  # fmt: skip
    made({**GRADE, "classes": ["G1", "G2", "G3"]}, ["G1", "G2"], notes)
    assert notes == ["grade: no patient has the class G3"]


@pytest.mark.parametrize("word", ["High Grade", "Low grade", "0", "5", "G12", "GB", "G1-G2", "grade"])
def test_two_tiers_and_codes_are_refused_until_they_are_named(word: str) -> None:
    with pytest.raises(DataFault, match=rf"'{word}' \(1 rows\), which rule=grade does not read.*map"):
        made(GRADE, [word, "G1"])
    assert made({**GRADE, "map": {word: "G3"}}, [word, "G1"]) == [2, 0]


def test_a_grade_outside_the_classes_is_refused_or_joined() -> None:
    three = {**GRADE, "classes": ["G1", "G2", "G3"]}
    with pytest.raises(DataFault, match=r"'undifferentiated' \(1 rows\), which belong to none of the classes G1, G2"):
        made(three, ["undifferentiated"])
    assert made({**three, "map": {"G4": "G3"}}, ["undifferentiated", "IV", "G3"]) == [2, 2, 2]


def test_its_declaration() -> None:
    with pytest.raises(UsageFault, match="no `column`"):
        outcomes.task_spec("grade", {**GRADE, "column": None})
    with pytest.raises(UsageFault, match="no cell can have the class 'low'"):
        outcomes.task_spec("grade", {**GRADE, "kind": "binary", "classes": ["low", "high"]})
    two = {"G1": "low", "G2": "low", "G3": "high", "High Grade": "high"}
    assert made({**GRADE, "kind": "binary", "classes": ["low", "high"], "map": two}, ["Grade 2", "High Grade"]) == [
        0,
        1,
    ]
