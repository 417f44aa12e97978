"""P by bootstrap, over repeated splits and adjusted for many, groups that differ, against R and as laws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.metrics import comparison as c
from nsclc_mtl.metrics import multiplicity, paired
from nsclc_mtl.metrics.score import Score

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "comparison.json"


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())


def test_holm_is_that_of_r(golden: dict[str, Any]) -> None:
    given_p = [np.nan if v is None else v for v in golden["p"]]
    right = [np.nan if v is None else v for v in golden["holm"]]
    np.testing.assert_allclose(multiplicity.holm(given_p), right, rtol=1e-12)
    assert multiplicity.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_p_and_bonferroni(p: list[float]) -> None:
    adjusted = multiplicity.holm(p)
    for before, after in zip(p, adjusted, strict=True):
        assert before <= after <= min(1, before * len(p)) + 1e-12
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_corrected_resampled_t(golden: dict[str, Any]) -> None:
    given_d = golden["splits"]["differences"]
    found = paired.corrected_t(given_d, 0.25)
    assert found.p == pytest.approx(golden["splits"]["p"], rel=1e-9)
    half = (found.difference.hi - found.difference.lo) / 2
    # 97.5 % of t on 5 degrees of freedom, from a table
    assert found.difference.value / (half / 2.570581835636314) == pytest.approx(golden["splits"]["t"], rel=1e-9)
    assert paired.corrected_t([*given_d, np.nan], 0.25) == found
    assert "1 of 2 splits" in paired.corrected_t([0.1, np.nan], 0.25).p.reason
    assert paired.corrected_t([0.0, 0.0], 0.25).p == 1
    assert not paired.corrected_t([0.1, 0.1], 0.25).p.known


def test_bootstrap_p_agrees_with_its_interval() -> None:
    for seed in range(200):
        draws = np.random.default_rng(seed).normal(0.02, 0.01, 999)
        at = c.interval_of(Score(0.02), draws)
        apart = at.lo > 0 or at.hi < 0
        p = paired.bootstrap_p(draws)
        assert apart == (p < 0.05) or abs(p - 0.05) < 0.005
    assert paired.bootstrap_p(np.zeros(100)) == 1
    assert paired.bootstrap_p(np.full(999, 0.1)) == pytest.approx(2 / 1000)
    assert "0 of 50" in paired.bootstrap_p(np.full(50, np.nan)).reason


def test_the_smallest_difference_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    smallest = paired.smallest_difference(Score(0.03))
    found = np.abs(rng.normal(smallest, 0.03, 20_000)) > 1.959964 * 0.03
    assert found.mean() == pytest.approx(0.8, abs=0.01)
    missing = paired.smallest_difference(paired.standard_error(np.full(30, np.nan)))
    assert "0 of 30" in missing.reason
    assert paired.standard_error(rng.normal(0, 2, 4000)) == pytest.approx(2, rel=0.05)


def test_groups_that_differ() -> None:
    q, freedom, p = multiplicity.heterogeneity([0.7, 0.6, 0.65, np.nan], [0.03, 0.04, 0.0, 0.1])
    assert (q, freedom) == (pytest.approx(4), 1)  # ((.7 - .6) / .05)^2: what has no error is left out
    assert p == pytest.approx(0.04550026, abs=1e-7)
    assert not multiplicity.heterogeneity([0.7], [0.1])[2].known
    rng = np.random.default_rng(1)
    below = [multiplicity.heterogeneity(rng.normal(0.6, e), e)[2] < 0.05 for e in np.full((2000, 3), 0.05)]
    assert np.mean(below) == pytest.approx(0.05, abs=0.015)
