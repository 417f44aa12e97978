"""Concordance of every draw, in blocks and by ranks, against counting pairs one by one."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.metrics import classification, pairs, survival
from nsclc_mtl.metrics.comparison import resamples
from nsclc_mtl.metrics.concordance import antolini_c

DAYS = np.array([1.0, 3.0, 5.0])
cohorts = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 7), st.integers(0, 1), st.integers(0, 3)), min_size=2, max_size=14
)


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Risk, time and event with ties in everything."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    t, c = rng.exponential(np.exp(-x)), rng.exponential(1.5, n)
    return np.round(x + rng.normal(size=n), 1), np.ceil(12 * np.minimum(t, c)), (t <= c).astype(float)


def weights_of(n: int, draws: int = 12) -> np.ndarray:
    return resamples([n], draws, np.random.default_rng(1))[0]


def test_survivors_of_every_draw_are_those_of_the_plain_way() -> None:
    risk, time, event = drawn(90)
    g = survival.censoring_curve(time, event)
    tau = float(np.quantile(time, 0.7))
    inside = survival.uno_weights(time, event, g, tau)
    assert isinstance(inside, np.ndarray)
    weights = weights_of(90)
    people = [np.repeat(np.arange(90), w) for w in weights]
    plain = [survival.c_index(risk[i], time[i], event[i]) for i in people]
    np.testing.assert_allclose(pairs.survivors_in_order(risk, time, event)(weights), plain, atol=1e-12)
    plain = [survival.uno_c(risk[i], time[i], event[i], g, tau) for i in people]
    np.testing.assert_allclose(pairs.survivors_in_order(risk, time, event, inside)(weights), plain, atol=1e-12)
    when = float(np.quantile(time, 0.4))
    dead, alive = (time <= when) & (event == 1), time > when
    measure = pairs.two_in_order(risk, dead / np.maximum(g.before(time), 1e-9), alive.astype(float))
    plain = [survival.auc_at(risk[i], time[i], event[i], when, g) for i in people]
    np.testing.assert_allclose(measure(weights), plain, atol=1e-12)


@pytest.mark.parametrize("grades", [2, 4, 40])
def test_classes_of_every_draw_are_those_of_the_plain_way(grades: int) -> None:
    """Few grades go by ranks, many by blocks."""
    rng = np.random.default_rng(grades)
    label = rng.integers(0, grades, 120).astype(float)
    score = np.round(label / grades + rng.normal(size=120), 1)
    weights = weights_of(120)
    plain = [classification.ordinal_auc(label[i], score[i]) for i in (np.repeat(np.arange(120), w) for w in weights)]
    np.testing.assert_allclose(pairs.classes_in_order(label, score)(weights), plain, atol=1e-12)


def test_neither_the_size_of_blocks_nor_that_of_parts_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    risk, time, event = drawn(200)
    weights = weights_of(200, 30)
    whole = pairs.survivors_in_order(risk, time, event)(weights)
    monkeypatch.setattr(pairs, "_BLOCK", 1)
    monkeypatch.setattr(pairs, "_DRAWS", 1400)
    np.testing.assert_array_equal(pairs.survivors_in_order(risk, time, event)(weights), whole)
    np.testing.assert_allclose(pairs.survivors_in_order(risk, time, event)(weights / 3), whole, atol=1e-12)


@given(cohorts)
def test_antolini_counts_pairs_as_one_does_by_hand(rows: list[tuple[int, int, int, int]]) -> None:
    level, time, event, bend = (np.array(c, dtype=float) for c in zip(*rows, strict=True))
    # irrational steps: curves of different patients meet at a day or everywhere, never by chance in between
    steps = [0.9 - level / 10, 0.8 - level / 10 - bend / np.sqrt(200), 0.6 - bend / np.sqrt(75)]
    curves = np.round(np.minimum.accumulate(np.stack(steps, axis=1), axis=1), 9)
    won = able = 0.0
    for i in range(len(rows)):
        mine, *others = (np.interp(time[i], np.r_[0, DAYS], np.r_[1, c]) for c in (curves[i], *curves))
        for j, other in enumerate(others):
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                able += 1
                won += 0.5 if abs(mine - other) < 1e-12 else float(mine < other)
    c = antolini_c(curves, DAYS, time, event)
    if able:
        assert c == pytest.approx(won / able, abs=1e-9)
    else:
        assert c.reason in ("no comparable pair", f"no event among {len(rows)} patients")


def test_curves_that_never_cross_are_ordered_as_their_risks() -> None:
    risk, time, event = drawn(150)
    days = np.quantile(time, [0.2, 0.5, 0.8])
    curves = np.exp(-0.05 * np.exp(risk)[:, None] * days)
    assert antolini_c(curves, days, time, event) == pytest.approx(survival.c_index(risk, time, event), abs=1e-12)
    weights = weights_of(150)
    plain = [antolini_c(curves[i], days, time[i], event[i]) for i in (np.repeat(np.arange(150), w) for w in weights)]
    np.testing.assert_allclose(pairs.curves_in_order(curves, days, time, event)(weights), plain, atol=1e-12)


def test_antolini_of_perfect_constant_and_reversed_curves() -> None:
    time, event = np.arange(1.0, 7), np.ones(6)
    late = (time[:, None] - 3.5) / 100 + np.array([0.8, 0.5, 0.2])
    assert antolini_c(late, DAYS, time, event) == 1
    assert antolini_c(late[::-1], DAYS, time, event) == 0
    assert antolini_c(late * 0 + 0.3, DAYS, time, event) == 0.5
    assert antolini_c([[0.5]], [1], [2], [0]).reason == "no event among 1 patients"
    assert antolini_c(np.zeros((2, 0)), [], [1, 2], [1, 1]).reason == "no survival curve"
    assert "NaN" in antolini_c([[np.nan], [0.5]], [1], [1, 2], [1, 1]).reason
    assert antolini_c([[0.5], [0.4]], [1], [2, 2], [1, 1]).reason == "no comparable pair"
    with pytest.raises(ValueError, match="ascend"):
        antolini_c([[0.5, 0.4]], [2, 1], [2], [1])


def test_what_has_no_pair_or_no_score_is_nan() -> None:
    weights = np.ones((3, 2), dtype=int)
    assert np.isnan(pairs.survivors_in_order(np.array([np.nan, 1]), np.array([1.0, 2]), np.ones(2))(weights)).all()
    assert np.isnan(pairs.survivors_in_order(np.ones(2), np.ones(2), np.ones(2))(weights)).all()
    assert np.isnan(pairs.classes_in_order(np.zeros(2), np.array([np.nan, 1]))(weights)).all()
    risk, time, event = drawn(9)
    for measure in (pairs.survivors_in_order(risk, time, event), pairs.classes_in_order(event, risk)):
        assert measure(np.zeros((0, 9), dtype=int)).shape == (0,)  # no draws wanted
    assert pairs.survivors_in_order(np.zeros(0), np.zeros(0), np.zeros(0))(np.ones((3, 0))).shape == (3,)


@pytest.mark.slow
def test_ten_thousand_patients_stay_below_a_gigabyte() -> None:
    risk, time, event = drawn(10_000)
    tracemalloc.start()
    values = pairs.survivors_in_order(risk, time, event)(weights_of(10_000, 1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e9
    one = weights_of(10_000, 1000)[:1]
    i = np.repeat(np.arange(10_000), one[0])
    assert values[0] == pytest.approx(survival.c_index(risk[i], time[i], event[i]), abs=1e-12)
