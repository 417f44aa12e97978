from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.records import UsageFault
from nsclc_mtl.trust import conformal

Draw = Callable[[int, int, int], tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize("miss", [0.1, 0.25])
def test_coverage_lies_within_its_band_whatever_the_model(drawn: Draw, miss: float) -> None:
    inside, covered = 0, []
    for seed in range(200):
        p, y = drawn(260, 3, seed)
        p = p[:, [1, 0, 2]] if seed % 2 else p  # a model that is wrong is covered as well
        at = conformal.threshold(p[:60], y[:60], miss)
        hit = conformal.sets(p[60:], at)[np.arange(200), y[60:]].mean()
        low, high = conformal.coverage_band(60, 200, miss)
        inside += low <= hit <= high
        covered.append(hit)
    assert np.mean(covered) == pytest.approx(1 - miss, abs=0.02)
    assert inside >= 180  # of 200 at a level of .95: fewer than 180 has P < .001


def test_too_few_patients_give_every_class(drawn: Draw) -> None:
    p, y = drawn(8, 3, 0)
    assert conformal.threshold(p, y, miss=0.1) == 1.0
    assert conformal.sets(p, 1.0).all()
    assert conformal.coverage_band(8, 20, 0.1) == (1.0, 1.0)


@given(st.integers(0, 1000), st.floats(0.02, 0.9))
def test_a_set_is_never_empty_and_grows_with_what_is_promised(drawn: Draw, seed: int, miss: float) -> None:
    p, y = drawn(50, 4, seed)
    strict = conformal.sets(p, conformal.threshold(p, y, miss))
    loose = conformal.sets(p, conformal.threshold(p, y, min(miss * 1.1, 0.95)))
    assert strict.any(1).all()
    assert (strict >= loose).all()


@pytest.mark.parametrize("miss", [0.0, 1.0, -1.0])
def test_a_share_that_is_none_is_refused(miss: float) -> None:
    with pytest.raises(UsageFault, match=r"trust\.miss"):
        conformal.threshold([[0.5, 0.5]], [0], miss)


@pytest.mark.parametrize("miss", [0.1, 0.3])
def test_intervals_cover_what_they_promise(miss: float) -> None:
    """Over many draws, whatever the model: here one that is off by three."""
    covered = []
    for seed in range(400):
        draw = np.random.default_rng(seed)
        value = draw.exponential(5, 80)
        half = conformal.half_width(value[:40], np.full(40, 3.0), miss)
        covered.append((np.abs(value[40:] - 3.0) <= half).mean())
    assert 1 - miss - 0.01 <= np.mean(covered) <= 1 - miss + 1 / 41 + 0.01


def test_too_few_patients_give_every_number() -> None:
    assert conformal.half_width([1.0] * 8, [0.0] * 8, 0.1) == np.inf
    with pytest.raises(UsageFault, match=r"trust\.miss"):
        conformal.half_width([1.0], [0.0], 0.0)


@given(st.integers(1, 6), st.integers(0, 999))
def test_joined_intervals_hold_what_half_of_them_hold(count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    low = draw.normal(0, 3, (count, 4))
    high = low + draw.exponential(4, (count, 4))
    a, b = conformal.joined(low, high)
    for x in np.linspace(-9, 15, 60):
        held = ((low <= x) & (x <= high)).mean(axis=0) >= 0.5
        assert ((a <= x) & (x <= b) | ~held).all()


def test_each_class_is_covered_by_a_threshold_of_its_own(drawn: Draw) -> None:
    """Where one class is hard: a threshold for all serves it worse than the others."""
    own, whole = [], []
    for seed in range(150):
        p, y = drawn(400, 3, seed)
        p = p * [1.0, 1.0, 0.4]  # the model neglects the third class
        p = p / p.sum(1, keepdims=True)
        each, count = conformal.thresholds_by_class(p[:150], y[:150], 0.1)
        assert count.sum() == 150
        third = y[150:] == 2
        own.append(conformal.sets(p[150:], each)[third, 2].mean())
        whole.append(conformal.sets(p[150:], conformal.threshold(p[:150], y[:150], 0.1))[third, 2].mean())
    assert 0.9 <= np.mean(own) <= 0.9 + 1 / 40 + 0.01
    assert np.mean(whole) < 0.88


def test_a_class_with_too_few_patients_is_served_as_all_are() -> None:
    p = np.tile([0.8, 0.15, 0.05], (40, 1))
    y = np.array([0] * 32 + [1] * 8)
    each, count = conformal.thresholds_by_class(p, y, 0.1)
    assert count.tolist() == [32, 8, 0]
    assert conformal.fewest(0.1) == 9
    assert each[1] == each[2] == conformal.threshold(p, y, 0.1)
