"""Follow-up by reverse Kaplan-Meier: by hand, and against scikit-survival."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.metrics.follow_up import follow_up


def test_by_hand() -> None:
    """Censored at 2, 4, 6; events at 1, 3, 5, 7: the curve falls to 5/6, then x 3/4, then x 1/2 = .31 at 6."""
    found = follow_up([1, 2, 3, 4, 5, 6, 7], [1, 0, 1, 0, 1, 0, 1])
    assert (found.median, found.patients, found.events, found.observed) == (6, 7, 4, 4)


def test_without_censoring_there_is_no_median_and_a_reason() -> None:
    found = follow_up([1, 2, 3], [1, 1, 1])
    assert math.isnan(found.median)
    assert found.median.reason == "fewer than half were censored by the last time"
    assert found.observed == 2
    assert follow_up([np.nan], [1]).median.reason == "no patient with a known time"


@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_survival(seed: int) -> None:
    """The reverse curve is the Kaplan-Meier curve of the censorings; its log-log band gives the interval."""
    estimate = pytest.importorskip("sksurv.nonparametric").kaplan_meier_estimator
    rng = np.random.default_rng(seed)
    time = np.ceil(rng.exponential(600, 150))
    event = (rng.random(150) < 0.4) * 1.0
    x, y, (lo, hi) = estimate(event == 0, time, conf_type="log-log")
    found = follow_up(time, event)
    assert found.median == x[np.flatnonzero(y <= 0.5)[0]]
    assert found.lo == x[np.flatnonzero(lo <= 0.5)[0]]
    assert found.hi == x[np.flatnonzero(hi <= 0.5)[0]]
    assert found.lo <= found.median <= found.hi


@given(
    pairs=st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=30),
    factor=st.sampled_from([0.5, 4.0]),
)
def test_the_unit_is_nothing(pairs: list[tuple[int, bool]], factor: float) -> None:
    time, event = np.array(pairs, float).T
    one, other = follow_up(time, event), follow_up(time * factor, event)
    for here, there in ((one.median, other.median), (one.lo, other.lo), (one.hi, other.hi)):
        assert here * factor == there or (math.isnan(here) and math.isnan(there))
