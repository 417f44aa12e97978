"""Stage strings: read as AJCC writes them, folded to the classes asked for, never across editions in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables import outcomes, stage

GROUP: dict[str, Any] = {"kind": "ordinal", "rule": "ajcc_group", "column": "s", "edition": 8}
SUBSTAGES = ["IA", "IB", "IIA", "IIB", "IIIA", "IIIB", "IIIC", "IVA", "IVB"]


def made(declared: dict[str, Any], **columns: list[str]) -> tuple[list[float], list[str]]:
    table, notes = pd.DataFrame(columns), list[str]()
    table.index = pd.Index([f"P{i}" for i in range(len(table))])
    spec = outcomes.task_spec("stage", declared)
    return outcomes.labels(spec, declared, table, "p.csv", notes)["value"].tolist(), notes


def told(values: list[float]) -> list[float | None]:
    return [None if np.isnan(v) else v for v in values]


def test_groups_are_folded_to_the_classes() -> None:
    words = ["Stage IA", "IA3", "iib", "STAGE IIIC", "stage iva", "IV", " Stage X ", "unknown", "", "NA"]
    assert told(made(GROUP, s=words)[0]) == [0, 0, 1, 2, 3, 3, None, None, None, None]
    fine = {**GROUP, "classes": SUBSTAGES}
    assert told(made(fine, s=["IA1", "IA3", "Stage IB", "IIIB", "IVB", "X"])[0]) == [0, 0, 1, 5, 8, None]
    zero = {**GROUP, "classes": ["0", "I", "II", "III", "IV"]}
    assert told(made(zero, s=["0", "Stage 0", "0is", "IA"])[0]) == [0, 0, 0, 1]
    early = {"I": "early", "II": "early", "III": "late", "IV": "late", "IIIA": "early"}
    two = {**GROUP, "kind": "binary", "classes": ["early", "late"], "map": early}
    assert told(made(two, s=["IB", "Stage IIIA1", "IIIB", "IVB"])[0]) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("declared", "word", "sentence"),
    [
        (GROUP, "3A", "'3A' .1 rows.*does not read as written.*map"),
        (GROUP, "2", "does not read"),
        (GROUP, "Stage IS", "does not read"),  # of the testis, or in situ
        (GROUP, "I/II NOS", "does not read"),
        (GROUP, "[Discrepancy]", "does not read"),
        (GROUP, "Stage 0", "'Stage 0' .*none of the classes I, II, III, IV"),
        ({**GROUP, "classes": SUBSTAGES}, "Stage I", "none of the classes IA"),
    ],
)
def test_what_cannot_be_told_is_refused_until_it_is_named(declared: dict[str, Any], word: str, sentence: str) -> None:
    with pytest.raises(DataFault, match=sentence):
        made(declared, s=[word, "IA"])
    assert told(made({**declared, "map": {word: None}}, s=[word, "IIA"])[0])[0] is None


NUMERALS = st.sampled_from(["I", "II", "III", "IV"])


@given(NUMERALS, st.sampled_from(["", "A", "B", "C"]), st.sampled_from(["", "1", "2", "3"]), st.data())
def test_case_spaces_and_prefixes_change_nothing(number: str, letter: str, digit: str, data: Any) -> None:
    word = number + letter + (digit if letter else "")
    before = data.draw(st.sampled_from(["", "Stage ", "stage", "p", "yp", "cStage "]))
    spelled = data.draw(st.sampled_from([word, word.lower(), f" {word} ", word.replace("A", "a")]))
    chain = stage.group(before + spelled)
    assert chain is not None
    assert (chain[0], chain[-1]) == (word, number)


@given(st.text(max_size=12))
def test_no_text_breaks_the_reading(text: str) -> None:
    for rule in ("ajcc_t", "ajcc_n", "ajcc_m"):
        chain = stage.category(rule, text)
        assert chain is None or all(word[0] == rule[-1].upper() for word in chain)
    stage.group(text)


@pytest.mark.parametrize(
    ("rule", "word", "chain"),
    [
        ("ajcc_t", "pT2a", ["T2a", "T2"]),
        ("ajcc_t", "ypT1", ["T1"]),
        ("ajcc_t", "cT4", ["T4"]),
        ("ajcc_t", "T1a1", ["T1a1", "T1a", "T1"]),
        ("ajcc_t", "T1mi", ["T1mi", "T1"]),
        ("ajcc_t", "pTis(DCIS)", ["Tis"]),
        ("ajcc_t", "Ta", ["Ta"]),
        ("ajcc_t", "pT2(m)", ["T2"]),
        ("ajcc_t", "TX", []),
        ("ajcc_t", "T5", None),
        ("ajcc_t", "N1", None),
        ("ajcc_n", "N1mi", ["N1mi", "N1"]),
        ("ajcc_n", "N0 (i-)", ["N0(i-)", "N0"]),
        ("ajcc_n", "pN1bIII", ["N1biii", "N1b", "N1"]),
        ("ajcc_n", "pN0(sn)", ["N0"]),
        ("ajcc_n", "NX", []),
        ("ajcc_n", "N4", None),
        ("ajcc_m", "M1c2", ["M1c2", "M1c", "M1"]),
        ("ajcc_m", "cM0 (i+)", ["M0(i+)", "M0"]),
        ("ajcc_m", "MX", []),
        ("ajcc_m", "M2", None),
    ],
)
def test_categories(rule: str, word: str, chain: list[str] | None) -> None:
    assert stage.category(rule, word) == chain


def test_t_n_and_m_are_tasks_of_their_own() -> None:
    t = {"kind": "ordinal", "rule": "ajcc_t", "column": "s", "edition": 7}
    assert told(made(t, s=["pT2a", "pT4", "pTX", ""])[0]) == [1, 3, None, None]
    fine = {**t, "classes": ["T1a", "T1b", "T1c", "T2"]}
    assert told(made(fine, s=["T1c", "T2b"])[0]) == [2, 3]
    m = {"kind": "binary", "rule": "ajcc_m", "column": "s", "edition": 7}
    assert told(made(m, s=["M0", "M1b", "MX"])[0]) == [0, 1, None]
    assert outcomes.task_spec("m", {**m, "also": ["sites"]}).columns == ("s", "sites")


def test_editions_are_never_mixed_in_silence() -> None:
    by = {k: v for k, v in GROUP.items() if k != "edition"} | {"edition_column": "e"}
    cells = {"s": ["IA", "IB", "II", ""], "e": ["7th", "AJCC 8th Edition", "8", "6"]}
    with pytest.raises(DataFault, match=r"several AJCC editions: '8' \(2 rows\), '7' \(1 rows\).*mixed_declared") as it:
        made(by, **cells)
    assert it.value.exit_code == 3
    assert told(made(by, s=["IA", "II"], e=["8", "8th"])[0]) == [0, 1]
    values, notes = made({**by, "editions": [8]}, **cells)
    assert told(values) == [None, 0, 1, None]
    assert any("no label by another AJCC edition than 8: '7' (1 rows)" in note for note in notes)
    values, notes = made({**by, "edition": "mixed_declared"}, **cells)
    assert told(values) == [0, 0, 1, None]
    assert any("mixed, as declared" in note for note in notes)
    with pytest.raises(DataFault, match=r"'7' \(1 rows\) beside cohort.tasks.stage.edition=8"):
        made({**by, "edition": 8}, **cells)
    with pytest.raises(DataFault, match=r"'not stated' \(1 rows\)"):
        made(by, s=["IA", "II"], e=["8", ""])
    with pytest.raises(DataFault, match=r"'FIGO 2009' \(1 rows\), no AJCC edition"):
        made(by, s=["IA", "II"], e=["8", "FIGO 2009"])


def test_prefixes_are_never_mixed_in_silence() -> None:
    t = {"kind": "ordinal", "rule": "ajcc_t", "column": "s", "edition": 8}
    with pytest.raises(DataFault, match=r"mixes prefixes.*'p' \(2 rows\), 'yp' \(1 rows\).*prefixes"):
        made(t, s=["pT1", "pT2", "ypT1"])
    values, notes = made({**t, "prefixes": ["p"]}, s=["pT1", "pT2", "ypT1"])
    assert told(values) == [0, 1, None]
    assert any("another prefix than p: 'yp' (1 rows)" in note for note in notes)
    assert told(made({**t, "prefixes": ["p", "none"]}, s=["pT1", "T2"])[0]) == [0, 1]
    assert any("have the prefix 'yp'" in note for note in made(t, s=["ypT1", "ypT2"])[1])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"edition": None}, "declares no AJCC edition"),
        ({"edition": 5}, "edition=5 is none of 6, 7, 8, 9, mixed_declared"),
        ({"editions": [8]}, "needs an edition_column"),
        ({"column": None}, "declares no `column`"),
        ({"kind": "survival"}, "gives classes"),
        ({"classes": ["1", "2"]}, "no cell can have the class '1'"),
        ({"classes": ["I"]}, "name them, lowest first"),
        ({"map": {"x": "V"}}, "map gives 'V'"),
        ({"rule": "ajcc_g"}, "rule='ajcc_g' is none of ajcc_group"),
    ],
)
def test_a_wanting_declaration_is_a_usage_fault(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageFault, match=sentence):
        outcomes.task_spec("stage", {**GROUP, **changes})
