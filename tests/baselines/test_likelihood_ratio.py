"""What a score adds: against R's anova of nested models, and where nothing can be said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsclc_mtl.baselines import likelihood_ratio as lr

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "comparison.json"


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def lung(golden: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(column, float) for name, column in golden["lung"].items()}


def test_cox_with_strata(golden: dict[str, Any], lung: dict[str, np.ndarray]) -> None:
    rest = (lung["time"], lung["event"], lung["fold"])
    found = lr.survival_ratio(lung["ecog"][:, None], lung["age"][:, None], *rest)
    assert found.statistic == pytest.approx(golden["cox"]["chi"], abs=1e-6)
    assert (found.freedom, found.p) == (1, pytest.approx(golden["cox"]["p"], abs=1e-6))
    alone = lr.survival_ratio(np.zeros((len(lung["age"]), 0)), lung["age"][:, None], *rest)
    assert alone.statistic == pytest.approx(golden["cox_alone"], abs=1e-6)


def test_logistic_and_proportional_odds(golden: dict[str, Any], lung: dict[str, np.ndarray]) -> None:
    a = {name: np.asarray(column, float) for name, column in golden["asah"].items()}
    found = lr.classes_ratio(a["w"][:, None], a["s"][:, None], a["y"], a["fold"])
    assert found.statistic == pytest.approx(golden["logistic"]["chi"], abs=1e-6)
    assert found.p == pytest.approx(golden["logistic"]["p"], abs=1e-6)
    graded = lr.classes_ratio(lung["sex"][:, None], lung["age"][:, None], lung["grade"], lung["fold"])
    assert graded.statistic == pytest.approx(golden["odds"]["chi"], abs=1e-6)
    assert graded.p == pytest.approx(golden["odds"]["p"], abs=1e-6)


def test_linear(golden: dict[str, Any], lung: dict[str, np.ndarray]) -> None:
    found = lr.number_ratio(lung["sex"][:, None], lung["age"][:, None], lung["wt"], lung["fold"])
    assert found.statistic == pytest.approx(golden["linear"]["chi"], abs=1e-6)


def test_what_cannot_be_said(lung: dict[str, np.ndarray]) -> None:
    base, n = lung["sex"][:, None], len(lung["sex"])
    copy = lr.survival_ratio(base, base * 3 + 1, lung["time"], lung["event"], lung["fold"])
    assert "does not vary" in copy.p.reason
    assert lr.survival_ratio(base, lung["age"][:, None], lung["time"], np.zeros(n), lung["fold"]).p.reason == "no event"
    assert lr.classes_ratio(base, lung["age"][:, None], np.zeros(n), lung["fold"]).p.reason == "one class only"
    value = 2 * lung["age"] + lung["sex"]
    assert not lr.classes_ratio(base, np.ones((n, 1)), lung["grade"], lung["fold"]).p.known
    assert not lr.number_ratio(base, np.ones((n, 1)), value, lung["fold"]).p.known


def test_separated_classes_have_a_ratio_still(lung: dict[str, np.ndarray]) -> None:
    """A score that tells all: its coefficient has no end, the likelihood ends at 1."""
    label = np.repeat([0.0, 1.0], 15)
    rng = np.random.default_rng(0)
    found = lr.classes_ratio(rng.normal(size=(30, 1)), label[:, None] + 0.01 * rng.normal(size=(30, 1)), label,
                             np.arange(30) % 2)  # fmt: skip
    assert found.statistic == pytest.approx(60 * np.log(2), rel=0.05)
    assert found.p < 1e-8


def test_scores_are_standardised_within_their_fold() -> None:
    fold = np.repeat([0.0, 1.0, 2.0], 5)
    score = np.r_[np.arange(5.0), 100 + 7 * np.arange(5.0), np.ones(5)]
    z = lr.within(score, fold)
    np.testing.assert_allclose(z[:5], z[5:10])
    assert (z[10:] == 0).all()
