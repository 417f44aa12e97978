from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.metrics.calibration import assess
from nsclc_mtl.records import DataFault
from nsclc_mtl.trust import recalibration, temperature

Draw = Callable[[int, int, int], tuple[np.ndarray, np.ndarray]]


def graded(n: int, classes: int, seed: int, steep: float = 1.0, cuts: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities by cumulative logits, and classes drawn from those with the score and cuts times a factor."""
    draw = np.random.default_rng(seed)
    score, edges = draw.normal(0, 1.5, n), np.linspace(-1.5, 1.5, classes - 1)

    def of(s: np.ndarray, c: np.ndarray) -> np.ndarray:
        above = 1 / (1 + np.exp(-(s[:, None] - c)))
        whole = np.concatenate([np.ones((n, 1)), above, np.zeros((n, 1))], axis=1)
        return whole[:, :-1] - whole[:, 1:]

    true = of(steep * score, cuts * edges)
    label = (draw.random((n, 1)) > true.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return of(score, edges), label


@pytest.mark.parametrize("steep", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("ordered", [True, False])
def test_slope_and_levels_undo_what_made_the_probabilities_wrong(drawn: Draw, steep: float, ordered: bool) -> None:
    if ordered:
        said, label = graded(20_000, 4, 0, steep, cuts=1.4)
    else:
        true, label = drawn(20_000, 3, 0)
        said = true ** (1 / steep) * np.array([1.0, 2.0, 0.5])
        said /= said.sum(axis=1, keepdims=True)
    found = recalibration.slope(said, label, ordered)
    assert found == pytest.approx(steep, rel=0.06)
    told = recalibration.scaled(said, recalibration.levels(said, label, found, ordered), ordered)
    for k in range(said.shape[1] - 1):
        of = assess(label > k, told[:, k + 1 :].sum(axis=1)).values
        assert float(of["slope"]) == pytest.approx(1, abs=0.08)
        assert float(of["in_the_large"]) == pytest.approx(0, abs=0.02)


@given(st.integers(0, 1000), st.integers(2, 5), st.booleans(), st.floats(0.05, 8))
def test_probabilities_sum_to_one_and_have_the_shares_of_the_classes(
    drawn: Draw, seed: int, classes: int, ordered: bool, steep: float
) -> None:
    p, y = drawn(60, classes, seed)
    told = recalibration.scaled(p, recalibration.levels(p, y, steep, ordered), ordered)
    assert told.sum(axis=1) == pytest.approx(1)
    assert (told >= 0).all()
    shares = np.bincount(y, minlength=classes) / len(y)
    if (shares > 0).all() and classes == 2:
        assert told.mean(axis=0) == pytest.approx(shares, abs=1e-6)


@given(st.integers(0, 1000), st.floats(0.05, 8))
def test_two_classes_and_cumulative_logits_keep_the_order_of_the_patients(drawn: Draw, seed: int, steep: float) -> None:
    p, y = drawn(50, 2, seed)
    told = recalibration.scaled(p, recalibration.levels(p, y, steep))
    order = np.argsort(p[:, 1])
    assert (np.diff(told[order, 1]) >= 0).all()
    said, label = graded(50, 4, seed)
    made = recalibration.scaled(said, recalibration.levels(said, label, steep, True), True)
    order = np.argsort(said @ np.arange(4))
    assert (np.diff((made @ np.arange(4))[order]) >= -1e-12).all()


@pytest.mark.parametrize("ordered", [True, False])
def test_what_is_right_already_stays_as_it_is(ordered: bool) -> None:
    p, _ = graded(400, 3, 1)
    same = {"slope": 1.0, "centre": [0.0] * (2 if ordered else 3), "shift": [0.0] * (2 if ordered else 3)}
    assert recalibration.scaled(p, same, ordered) == pytest.approx(p, abs=1e-6)


def test_classes_that_come_as_often_as_predicted_move_no_level() -> None:
    levels = recalibration.levels(np.tile([[0.3, 0.7]], (10, 1)), [0] * 3 + [1] * 7)
    assert levels["shift"] == pytest.approx([0], abs=1e-6)


def test_a_few_patients_hardly_move_the_slope_and_many_do() -> None:
    few, some = graded(6, 2, 3, steep=0.3)
    many, all_of = graded(4000, 2, 3, steep=0.3)
    assert 0.6 < recalibration.slope(few, some) < 1.4
    assert recalibration.slope(many, all_of) == pytest.approx(0.3, abs=0.06)


def test_a_slope_below_one_is_less_of_it_for_more_patients() -> None:
    said, label = graded(4000, 2, 5, steep=0.4)
    whole = recalibration.slope(said, label)
    assert recalibration.slope(said, label, share=0.75) == pytest.approx(1 - 0.75 * (1 - whole))
    said, label = graded(4000, 2, 5, steep=1.6)
    assert recalibration.slope(said, label, share=0.75) == recalibration.slope(said, label) > 1


def test_reversed_predictions_lose_their_spread_and_keep_their_order() -> None:
    said, label = graded(500, 2, 7)
    found = recalibration.slope(said, 1 - label)
    assert 0 < found < 0.2


def test_certainty_one_class_and_nobody() -> None:
    sure = np.tile([[1.0, 0.0, 0.0]], (5, 1))
    for ordered in (True, False):
        levels = recalibration.levels(sure, [0] * 5, 0.5, ordered)
        assert np.isfinite(recalibration.scaled(sure, levels, ordered)).all()
        assert np.isfinite(recalibration.slope(sure, [2] * 5, ordered))
        with pytest.raises(DataFault, match="no patient"):
            recalibration.slope(np.zeros((0, 3)), [], ordered)
        with pytest.raises(DataFault, match="no training patient"):
            recalibration.levels(np.zeros((0, 3)), [], 1.0, ordered)


def test_of_two_classes_the_slope_is_one_over_the_temperature() -> None:
    said, label = graded(20_000, 2, 11, steep=0.6, cuts=0.6)
    assert recalibration.slope(said, label) == pytest.approx(1 / temperature.fit(said, label), rel=0.03)
