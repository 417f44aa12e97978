"""Life tables say of follow-up what Kaplan-Meier needs, and nothing is lost between folds."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.metrics.life_table import LifeTable
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import Curve, censoring_curve, graf_weights, kaplan_meier

patients = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 1)), min_size=1, max_size=30)


def columns(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    time, event = np.array(rows, dtype=float).reshape(-1, 2).T
    return time, event


def same(one: Curve, other: Curve) -> None:
    assert one.time.tolist() == other.time.tolist()
    np.testing.assert_allclose(one.value, other.value, atol=1e-12)


@given(patients)
def test_curves_of_the_table_are_those_of_the_patients(rows: list[tuple[int, int]]) -> None:
    made = LifeTable.load(json.loads(json.dumps(LifeTable.of(*columns(rows)).state())))
    same(censoring_curve(*made.outcomes()), censoring_curve(*columns(rows)))
    same(kaplan_meier(*made.outcomes()), kaplan_meier(*columns(rows)))


@given(patients, st.integers(2, 5))
def test_folds_that_leave_everybody_out_once_pool_to_everybody(rows: list[tuple[int, int]], k: int) -> None:
    time, event = columns(rows)
    fold = np.arange(len(rows)) % k
    pooled = LifeTable.pooled([LifeTable.of(time[fold != i], event[fold != i]) for i in range(k)])
    same(censoring_curve(*pooled.outcomes()), censoring_curve(time, event))
    same(kaplan_meier(*pooled.outcomes()), kaplan_meier(time, event))


@given(patients, st.integers(1, 11))
def test_weights_by_own_censoring_add_up_to_the_patients(rows: list[tuple[int, int]], when: int) -> None:
    time, event = columns(rows)
    g = censoring_curve(time, event)
    weight = graf_weights(time, event, when, g)
    if isinstance(weight, Score):
        assert when >= time.max()
    else:
        assert weight.sum() == pytest.approx(len(rows))


def test_whole_days_are_kept_and_unknown_outcomes_are_not() -> None:
    made = LifeTable.of([364.6, 365.4, np.nan, 20, 7], [1, 0, 1, np.nan, 0])
    assert made.state() == {"days": [7, 365], "events": [0, 1], "censored": [1, 1]}
    assert LifeTable.of([], []).state() == {"days": [], "events": [], "censored": []}
    assert len(censoring_curve(*LifeTable.pooled([]).outcomes()).time) == 0


@pytest.mark.parametrize(
    "state",
    [
        {"days": [1, 2], "events": [1], "censored": [0, 0]},
        {"days": [2, 1], "events": [1, 0], "censored": [0, 1]},
        {"days": [1], "events": [-1], "censored": [1]},
        {"days": [1.5], "events": [1], "censored": [0]},
        {"days": ["1"], "events": [1], "censored": [0]},
        {"days": [1, 2], "events": [10**18, 1], "censored": [0, 0]},
        {"days": [1], "events": [[1]], "censored": [0]},
    ],
)
def test_what_is_no_life_table_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="life table"):
        LifeTable.load(state)
