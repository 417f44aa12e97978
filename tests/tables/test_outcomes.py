"""Outcomes: what the map names is taken at its word, everything else is refused with counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables import outcomes

SURVIVAL = {
    "kind": "survival", "time": "t", "unit": "months", "event": "e", "events": {"dead": 1, "alive": 0, "lost": None},
}  # fmt: skip
GRADE = {"kind": "ordinal", "column": "g", "classes": ["G1", "G2", "G3"]}


def made(declared: dict[str, Any], **columns: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(columns)
    table.index = pd.Index([f"P{i}" for i in range(len(table))])
    return outcomes.labels(outcomes.task_spec("task", declared), declared, table, "p.csv")


def test_times_have_units_and_events_a_map() -> None:
    told = made(SURVIVAL, t=["12", "6.5", "", "3"], e=["dead", " alive ", "dead", "lost"])
    assert told["event"].tolist()[:2] == [1, 0]
    assert told["time_days"].tolist()[:2] == pytest.approx([365.25, 6.5 * 365.25 / 12])
    assert told.iloc[2:].isna().all(axis=None)


@pytest.mark.parametrize(
    ("times", "events", "told"),
    [
        (["1", "2"], ["dead", "Dead"], r"'Dead' \(1 rows\).*events.*null"),
        (["1", "2", "3"], ["2", "2", "1"], r"'2' \(2 rows\), '1' \(1 rows\)"),
        (["1", "-3"], ["dead", "alive"], "negative for P1"),
        (["1", "0"], ["dead", "alive"], "zero for P1.*half_day or drop"),
        (["1", "soon"], ["dead", "alive"], "P1: 'soon'"),
    ],
)
def test_nothing_ambiguous_is_guessed(times: list[str], events: list[str], told: str) -> None:
    with pytest.raises(DataFault, match=told):
        made(SURVIVAL, t=times, e=events)


def test_zero_needs_a_policy() -> None:
    half = made({**SURVIVAL, "zero": "half_day"}, t=["0", "1"], e=["dead", "alive"])
    assert half["time_days"].tolist()[0] == 0.5
    drop = made({**SURVIVAL, "zero": "drop"}, t=["0", "1"], e=["dead", "alive"])
    assert drop["event"].isna().tolist() == [True, False]
    with pytest.raises(UsageFault, match=r"zero='halfday' is none of refuse, half_day, drop"):
        made({**SURVIVAL, "zero": "halfday"}, t=["1"], e=["dead"])


def test_classes_are_numbered_from_the_lowest() -> None:
    told = made(GRADE, g=["G2", "", "G3", " G1", "NA"])["value"].to_numpy()
    np.testing.assert_array_equal(told, [1, np.nan, 2, 0, np.nan])
    with pytest.raises(DataFault, match=r"'g2' \(1 rows\), which cohort.tasks.task.map does not name"):
        made(GRADE, g=["G1", "g2"])


def test_a_map_joins_words_to_classes() -> None:
    mapped = {**GRADE, "map": {"well": "G1", "moderate": "G2", "poor": "G3", "GX": None, "NA": "G1"}}
    told = made(mapped, g=["poor", "GX", "well", "NA", ""])["value"].to_numpy()
    np.testing.assert_array_equal(told, [2, np.nan, 0, 0, np.nan])  # a word that the map names is no missing value
    numbers = made({"kind": "binary", "column": "g", "classes": [0, 1]}, g=["1", "0"])
    assert numbers["value"].tolist() == [1, 0]
    with pytest.raises(UsageFault, match=r"map gives 'G4', which is none of the classes G1, G2, G3"):
        made({**mapped, "map": {"poor": "G4"}}, g=["poor"])


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"kind": "ranking"}, "none of binary"),
        ({"kind": "binary", "column": "g", "classes": ["a", "b", "c"]}, "name them"),
        ({"kind": "ordinal", "column": "g"}, "name them"),
        ({"kind": "ordinal", "classes": ["a", "b"]}, "no `column`"),
        ({**SURVIVAL, "unit": "moons"}, "none of days"),
        ({k: v for k, v in SURVIVAL.items() if k != "unit"}, "no `unit`"),
        ({**SURVIVAL, "events": {"dead": 2, "alive": 1}}, r"events gives 2.*1 \(happened\), 0 \(censored\) or null"),
    ],
)
def test_a_wanting_declaration_is_a_usage_fault(declared: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageFault, match=told):
        outcomes.task_spec("task", declared)


def test_every_column_of_an_outcome_is_named() -> None:
    spec = outcomes.task_spec("os", {**SURVIVAL, "also": ["cause"]})
    assert spec.columns == ("t", "e", "cause")
    with pytest.raises(DataFault, match=r"'p.csv' has no column 'g'; it has 'h'"):
        made(GRADE, h=["G1"])
