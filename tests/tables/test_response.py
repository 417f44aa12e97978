"""Response: every category that is open to interpretation is declared, and assessed in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables import outcomes, response

RECIST: dict[str, Any] = {
    "kind": "binary", "rule": "recist", "column": "r", "stable_disease": "non-responder",
    "progressive_disease": "non-responder", "not_evaluable": None, "early_death": "non-responder",
}  # fmt: skip


def made(declared: dict[str, Any], notes: list[str] | None = None, **columns: list[str]) -> list[float | None]:
    spec = outcomes.task_spec("response", declared)
    table = pd.DataFrame(columns)
    table.index = pd.Index([f"P{i}" for i in range(len(table))])
    values = outcomes.labels(spec, declared, table, "p.csv", notes)["value"]
    return [None if np.isnan(v) else v for v in values]


def test_categories_short_and_long() -> None:
    words = ["CR", "pr", "SD", "PD", "NE", "", "Early death from toxicity", "Partial  Remission/Response"]
    assert made(RECIST, r=words) == [1, 1, 0, 0, None, None, 0, 1]
    clinical_benefit = {**RECIST, "stable_disease": "responder", "early_death": None}
    assert made(clinical_benefit, r=words) == [1, 1, 1, 0, None, None, None, 1]


@pytest.mark.parametrize("absent", response.ASKED)
def test_nothing_open_to_interpretation_has_a_default(absent: str) -> None:
    with pytest.raises(UsageFault, match=f"does not say what {absent} means.*null for no label") as caught:
        outcomes.task_spec("response", {k: v for k, v in RECIST.items() if k != absent})
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "word", ["Persistent Disease", "non-CR/non-PD", "iCPD", "No Measureable Tumor or Tumor Markers"]
)
def test_other_words_are_refused_until_they_are_named(word: str) -> None:
    with pytest.raises(DataFault, match=r"\(1 rows\), no response category of rule=recist.*map"):
        made(RECIST, r=[word, "CR"])
    assert made({**RECIST, "map": {word: "non-responder"}}, r=[word, "CR"]) == [0, 1]


def test_four_classes_need_all_six_declared() -> None:
    four = {**RECIST, "kind": "ordinal", "classes": ["PD", "SD", "PR", "CR"], "stable_disease": "SD",
            "progressive_disease": "PD", "early_death": None}  # fmt: skip
    with pytest.raises(UsageFault, match="complete_response, partial_response mean;"):
        outcomes.task_spec("response", four)
    whole = {**four, "complete_response": "CR", "partial_response": "PR"}
    assert made(whole, r=["CR", "PR", "SD", "PD", "NE"]) == [3, 2, 1, 0, None]


def test_the_assessment_has_its_time() -> None:
    timed = {**RECIST, "assessed": {"column": "w", "unit": "weeks", "window": [6, 12]}}
    assert outcomes.task_spec("response", timed).columns == ("r", "w")
    notes: list[str] = []
    words = ["CR", "CR", "SD", "PD", "CR", "Early death", "NE"]
    weeks = ["6", "12", "12.1", "2", "", "", "40"]
    assert made(timed, notes, r=words, w=weeks) == [1, 1, None, None, None, 0, None]
    assert notes[:2] == [
        "response: 2 responses assessed outside 6 to 12 weeks: no label",
        "response: 1 responses at an unknown time, not known to be in 6 to 12 weeks: no label",
    ]


def test_an_early_death_may_stand_in_another_column() -> None:
    died = {**RECIST, "died": {"column": "d", "unit": "days", "within": 56}}
    notes: list[str] = []
    assert made(died, notes, r=["", "NE", "CR", "", ""], d=["30", "56", "30", "57", ""]) == [0, 0, 1, None, None]
    assert notes == ["response: 2 patients without a response on record died early (within 56 days)"]
    assert outcomes.task_spec("response", died).columns == ("r", "d")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stable_disease": "maybe"}, "stable_disease='maybe' is none of non-responder, responder, or null"),
        ({"assessed": {"column": "w", "window": [6, 12]}}, "assessed declares no `unit`"),
        ({"assessed": {"column": "w", "unit": "weeks", "window": [12, 6]}}, r"window=\[12, 6\]"),
        ({"died": {"column": "w", "unit": "moons", "within": 3}}, "unit='moons'"),
        ({"column": None}, "no `column`"),
    ],
)
def test_a_wanting_declaration_is_a_usage_fault(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageFault, match=told):
        outcomes.task_spec("response", {**RECIST, **changes})
