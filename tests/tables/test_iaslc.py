"""IASLC grade: worked examples of Moreira et al. 2020's rule, and the laws that it obeys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables import iaslc, outcomes

SHORT = ("lep", "aci", "pap", "mip", "sol", "cri", "mucinous")
TASK: dict[str, Any] = {
    "kind": "ordinal", "rule": "iaslc_grade",
    "patterns": {**dict(zip(iaslc.PATTERNS, SHORT, strict=False)), "other": ["mucinous"]},
    "histology": {"column": "type", "values": ["adenocarcinoma"]},
    "resected": {"column": "surgery", "values": ["lobectomy", "wedge"]},
}  # fmt: skip

# lepidic, acinar, papillary, micropapillary, solid, cribriform, other -> grade (None: does not exist)
EXAMPLES = [
    ((100, 0, 0, 0, 0, 0, 0), 1),
    ((60, 40, 0, 0, 0, 0, 0), 1),  # lepidic-predominant, no high-grade pattern
    ((60, 21, 0, 19, 0, 0, 0), 1),  # below 20 % high grade
    ((60, 20, 0, 20, 0, 0, 0), 3),  # exactly 20 % is grade 3 although lepidic predominates
    ((0, 100, 0, 0, 0, 0, 0), 2),
    ((10, 30, 60, 0, 0, 0, 0), 2),
    ((30, 55, 0, 5, 5, 5, 0), 2),  # 15 % of three high-grade patterns together
    ((30, 50, 0, 5, 10, 5, 0), 3),  # 20 % of three high-grade patterns together
    ((45, 30, 25, 0, 0, 0, 0), 1),  # predominant is the largest single pattern, not acinar and papillary together
    ((0, 10, 0, 0, 90, 0, 0), 3),
    ((0, 80, 0, 0, 0, 20, 0), 3),  # cribriform
    ((5, 15, 0, 0, 0, 0, 80), None),  # another pattern predominates
    ((0, 10, 0, 0, 30, 0, 60), None),
]


def table(*shares: tuple[float, ...], **more: list[str]) -> pd.DataFrame:
    made = pd.DataFrame([[f"{v:g}" for v in row] for row in shares], columns=list(SHORT))
    made["type"], made["surgery"] = "adenocarcinoma", "lobectomy"
    for name, values in more.items():
        made[name] = values
    made.index = pd.Index([f"P{i}" for i in range(len(made))])
    return made


def labels(frame: pd.DataFrame, notes: list[str] | None = None, **changes: Any) -> pd.DataFrame:
    declared = {**TASK, **changes}
    return outcomes.labels(outcomes.task_spec("iaslc", declared), declared, frame, "p.csv", notes)


def test_worked_examples() -> None:
    notes: list[str] = []
    made = labels(table(*(share for share, _ in EXAMPLES)), notes)
    expected = [np.nan if grade is None else grade - 1 for _, grade in EXAMPLES]
    np.testing.assert_array_equal(made["value"], expected)
    np.testing.assert_array_equal(made["applicable"], [grade is not None for _, grade in EXAMPLES])
    assert notes == ["iaslc: the IASLC grade does not exist for 2 of 13 patients"]


def test_not_applicable_is_not_missing() -> None:
    one = (60, 40, 0, 0, 0, 0, 0)
    frame = table(*[one] * 6, type=["adenocarcinoma", "squamous", "", "adenocarcinoma", "adenocarcinoma", "squamous"],
                  surgery=["wedge", "wedge", "wedge", "biopsy", "", ""])  # fmt: skip
    made = labels(frame)
    assert made["applicable"].tolist() == [True, False, True, False, True, False]
    assert made["value"].notna().tolist() == [True, False, False, False, False, False]
    blank = table(one)
    blank[list(SHORT)] = ""
    made = labels(pd.concat([table(one).rename({"P0": "Q"}), blank]))
    assert made["value"].isna().tolist() == [False, True]  # not reported: missing, although the grade exists
    assert made["applicable"].all()


def test_percentages_sum_to_100() -> None:
    with pytest.raises(DataFault, match=r"of 2 rows do not sum to 100 within 1 \(P1: 90, P2: 102\); correct them"):
        labels(table((60, 40, 0, 0, 0, 0, 0), (50, 40, 0, 0, 0, 0, 0), (62, 40, 0, 0, 0, 0, 0)))
    assert labels(table((60, 39, 0, 0, 0, 0, 0)))["value"].tolist() == [0]
    assert labels(table((50, 45, 0, 0, 0, 0, 0)), tolerance=5)["value"].tolist() == [0]
    with pytest.raises(DataFault, match="not fractions"):
        labels(table((0.6, 0.4, 0, 0, 0, 0, 0)))
    with pytest.raises(DataFault, match="'lep': a negative percentage for P0"):
        labels(table((-10, 110, 0, 0, 0, 0, 0)))
    partly = table((60, 40, 0, 0, 0, 0, 0)).assign(sol="", cri="")
    assert labels(partly)["value"].tolist() == [0]  # blanks are none where the others make up 100
    elsewhere = table((0, 0, 0, 0, 0, 0, 0), type=["squamous"])
    elsewhere = pd.concat([elsewhere, table((60, 40, 0, 0, 0, 0, 0)).rename({"P0": "Q"})])
    assert labels(elsewhere)["applicable"].tolist() == [False, True]  # nobody fills these in for another histology


def test_ties_are_declared() -> None:
    tie = table((50, 50, 0, 0, 0, 0, 0), (40, 20, 40, 0, 0, 0, 0), (0, 50, 50, 0, 0, 0, 0), (40, 40, 0, 0, 20, 0, 0))
    with pytest.raises(DataFault, match=r"equal and largest for P0, P1 \(2 rows\).*ties to higher, lower or missing"):
        labels(tie)
    for ties, first in (("higher", 1.0), ("lower", 0.0), ("missing", np.nan)):
        np.testing.assert_array_equal(labels(tie, ties=ties)["value"], [first, first, 1, 2])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"patterns": {"lepidic": "lep"}}, "patterns does not name acinar"),
        ({"patterns": {**TASK["patterns"], "enteric": "x"}}, "names 'enteric'"),
        ({"histology": None}, "histology does not say who has invasive non-mucinous adenocarcinoma"),
        ({"resected": {"column": "surgery"}}, "resected does not say"),
        ({"ties": "up"}, "ties='up' is none of"),
        ({"classes": ["low", "high"]}, "three classes"),
        ({"kind": "multiclass"}, "kind: ordinal"),
    ],
)
def test_a_wanting_declaration_is_a_usage_fault(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageFault, match=told):
        outcomes.task_spec("iaslc", {**TASK, **changes})


def test_every_column_it_reads_is_an_outcome_column() -> None:
    assert set(outcomes.task_spec("iaslc", TASK).columns) == {*SHORT, "type", "surgery"}
    joined = {**TASK["patterns"], "complex_glandular": None, "solid": ["sol", "cri"]}
    spec = outcomes.task_spec("iaslc", {**TASK, "patterns": joined, "histology": "all", "resected": "all"})
    assert set(spec.columns) == set(SHORT)
    made = labels(table((60, 20, 0, 0, 10, 10, 0)), patterns=joined, histology="all", resected="all")
    assert made["value"].tolist() == [2]


@st.composite
def tumours(draw: Any) -> list[int]:
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=5, max_size=5)))
    return [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]


@given(tumours())
def test_the_laws_of_the_grade(share: list[int]) -> None:
    lepidic, acinar, papillary, *high = share
    assume(lepidic != max(acinar, papillary) or sum(high) >= 20)
    made = iaslc.grade(pd.DataFrame([share], columns=list(iaslc.PATTERNS), dtype=float)).iloc[0]
    assert (made == 3) == (sum(high) >= 20)
    if made < 3:
        assert (made == 1) == (lepidic > max(acinar, papillary))
    swapped = [lepidic, papillary, acinar, *high[::-1]]
    assert iaslc.grade(pd.DataFrame([swapped], columns=list(iaslc.PATTERNS), dtype=float)).iloc[0] == made
