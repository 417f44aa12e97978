"""Variances of AUCs and tests of differences: against pROC, against plain loops, and the laws that they keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsclc_mtl.metrics import delong as d
from nsclc_mtl.metrics.classification import auc, macro_auc, ordinal_auc

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "comparison.json"


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def asah(golden: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(column, float) for name, column in golden["asah"].items()}


def ids(n: int, first: int = 0) -> list[str]:
    return [f"p{i}" for i in range(first, first + n)]


def test_one_auc_is_that_of_proc(golden: dict[str, Any], asah: dict[str, np.ndarray]) -> None:
    one = d.auc_influence(asah["y"], asah["s"])
    assert one.value == pytest.approx(golden["auc_s"], abs=1e-12)
    assert (one.terms**2).sum() == pytest.approx(golden["var_s"], rel=1e-9)
    at = d.delong([one], [ids(len(asah["y"]))])
    assert [at.lo, at.hi] == pytest.approx(golden["ci_s"], abs=1e-9)


@pytest.mark.parametrize("other", ["n", "w"])
def test_the_paired_difference_is_that_of_proc(golden: dict[str, Any], asah: dict[str, np.ndarray], other: str) -> None:
    people = [ids(len(asah["y"]))]
    ours, theirs = ([d.auc_influence(asah["y"], asah[name])] for name in ("s", other))
    found, right = d.delong_test(ours, theirs, people), golden[f"s_{other}"]
    assert found.p == pytest.approx(right["p"], rel=1e-9)
    assert [found.difference.lo, found.difference.hi] == pytest.approx([right["lo"], right["hi"]], abs=1e-9)


def test_folds_are_added_and_never_pooled(golden: dict[str, Any], asah: dict[str, np.ndarray]) -> None:
    of = [asah["fold"] == k for k in range(3)]
    people = [[f"p{i}" for i in np.flatnonzero(rows)] for rows in of]
    ours, theirs = ([d.auc_influence(asah["y"][r], asah[name][r]) for r in of] for name in ("s", "w"))
    found, right = d.delong_test(ours, theirs, people), golden["folds"]
    assert found.difference.value == pytest.approx(right["gap"], abs=1e-12)
    assert (found.difference.hi - found.difference.lo) / 2 / 1.959963984540054 == pytest.approx(right["se"], rel=1e-9)
    assert found.p == pytest.approx(right["p"], rel=1e-9)
    alone = d.delong(ours, people)
    assert alone.value == pytest.approx(right["auc"], abs=1e-12)
    assert (alone.hi - alone.lo) / 2 / 1.959963984540054 == pytest.approx(right["se_one"], rel=1e-9)
    # the scores of a fold have a scale of their own
    moved = [d.auc_influence(asah["y"][r], asah["s"][r] * (k + 1) + 100 * k) for k, r in enumerate(of)]
    assert d.delong_test(moved, theirs, people) == found


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_grades_by_plain_loops(seed: int, classes: int) -> None:
    """The value is the concordance, and the terms are each patient's share of pairs less that of its grade."""
    rng = np.random.default_rng(seed)
    label = np.r_[np.repeat(np.arange(classes), 2), rng.integers(0, classes, 14)].astype(float)
    score = rng.integers(0, 5, len(label)).astype(float)  # many ties
    found = d.auc_influence(label, score)
    assert found.value == pytest.approx(ordinal_auc(label, score), abs=1e-12)
    won = np.array(
        [
            sum((score[i] > score[j]) + 0.5 * (score[i] == score[j]) for j in range(len(label)) if label[j] < label[i])
            + sum(
                (score[j] > score[i]) + 0.5 * (score[i] == score[j]) for j in range(len(label)) if label[j] > label[i]
            )
            for i in range(len(label))
        ]
    )
    share = won / sum(label[j] < label[i] for i in range(len(label)) for j in range(len(label)))
    variance = sum((label == c).sum() * share[label == c].var(ddof=1) for c in range(classes))
    assert (found.terms**2).sum() == pytest.approx(variance, abs=1e-12)


def test_the_variance_is_that_of_repeated_samples() -> None:
    """Of three grades and of three classes: what the terms say against the spread of 800 samples."""
    rng = np.random.default_rng(0)
    label = np.repeat([0.0, 1.0, 2.0], [25, 20, 15])
    centre = np.eye(3)[label.astype(int)]
    spread: dict[str, list[tuple[float, float]]] = {"grades": [], "classes": []}
    for _ in range(800):
        score, proba = label + 1.5 * rng.normal(size=60), centre + 1.2 * rng.normal(size=(60, 3))
        for name, one in (("grades", d.auc_influence(label, score)), ("classes", d.macro_influence(label, proba))):
            spread[name].append((float(one.value), float((one.terms**2).sum())))
    for name, pairs in spread.items():
        value, variance = np.array(pairs).T
        assert variance.mean() == pytest.approx(value.var(), rel=0.15), name


def test_macro_of_the_one_vs_rest() -> None:
    rng = np.random.default_rng(1)
    label, proba = rng.integers(0, 3, 40).astype(float), rng.normal(size=(40, 3))
    assert d.macro_influence(label, proba).value == pytest.approx(macro_auc(label, proba), abs=1e-12)
    assert not d.macro_influence(np.zeros(5), np.zeros((5, 3))).value.known


def test_p_is_right_where_nothing_differs() -> None:
    """Of 600 pairs of equally good scores in two folds, 5 % fall below .05."""
    below = 0
    for seed in range(600):
        rng = np.random.default_rng(seed)
        ours, theirs = [], []
        for _ in range(2):
            label = np.repeat([0.0, 1.0], [30, 20])
            shared = label + rng.normal(size=50)
            ours.append(d.auc_influence(label, shared + rng.normal(size=50)))
            theirs.append(d.auc_influence(label, shared + rng.normal(size=50)))
        below += d.delong_test(ours, theirs, [ids(50), ids(50, 50)]).p < 0.05
    assert 18 <= below <= 45  # binomial, 99 %, and a little: the normal law is an approximation at 20 against 30


def test_repeats_count_a_patient_once() -> None:
    rng = np.random.default_rng(2)
    label, a, b = np.repeat([0.0, 1.0], 20), rng.normal(size=40), rng.normal(size=40)
    ours, theirs, people = [d.auc_influence(label, a)], [d.auc_influence(label, b)], [ids(40)]
    once = d.delong_test(ours, theirs, people)
    often = d.delong_test(ours * 5, theirs * 5, people * 5)
    assert often.p == pytest.approx(once.p, rel=1e-9)
    # in other folds than ours, still paired by patient: the same model has no difference to itself
    halves = [np.arange(k, 40, 2) for k in range(2)]
    other = [d.auc_influence(label[h], a[h]) for h in halves]
    found = d.delong_test(ours, other, people, [[f"p{i}" for i in h] for h in halves])
    assert abs(found.difference.value) < 0.1
    assert found.difference.hi - found.difference.lo < (once.difference.hi - once.difference.lo) / 3


def test_what_cannot_be_had_has_a_reason() -> None:
    same = [d.auc_influence([0, 0, 1, 1], [1, 2, 3, 0.0])]
    equal = d.delong_test(same, same, [ids(4)])
    assert (equal.p, equal.difference.value) == (1, 0)
    single = d.auc_influence([0, 0, 1], [1, 2, 3])
    assert single.value == auc([0, 0, 1], [1, 2, 3])
    assert "one patient" in d.delong([single], [ids(3)]).reason
    assert "one patient" in d.delong_test([single], [single], [ids(3)]).p.reason
    assert not d.auc_influence([1, 1], [1, 2]).value.known
    assert not d.auc_influence([1, 0], [1, np.nan]).value.known
    assert not d.delong_test([], [], []).p.known
    assert np.isnan(d.delong([], []).value)
