from __future__ import annotations

import numpy as np
import pytest

from nsclc_mtl.metrics import classification, survival
from nsclc_mtl.metrics import comparison as c
from nsclc_mtl.metrics.score import Score


def cohort(n: int, seed: int, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    t, u = rng.exponential(np.exp(-x)), rng.exponential(2, n)
    risk = np.round(skill * x + rng.normal(size=n), 1)
    return risk, np.round(np.minimum(t, u), 2), (t <= u).astype(float)


def test_every_draw_is_the_metric_of_the_patients_drawn() -> None:
    risk, time, event = cohort(40, 0)
    label = (risk + np.random.default_rng(5).normal(size=40) > 0).astype(float)
    proba = np.stack([1 - 1 / (1 + np.exp(-risk)), 1 / (1 + np.exp(-risk))], axis=1)
    [weights] = c.resamples([40], 25, np.random.default_rng(1))
    by_hand = [np.repeat(np.arange(40), w) for w in weights]
    for measure, plain in (
        (c.survivors_in_order(risk, time, event), lambda i: survival.c_index(risk[i], time[i], event[i])),
        (c.classes_in_order(label, risk), lambda i: classification.auc(label[i], risk[i])),
        (c.recalls(label, proba), lambda i: classification.balanced_accuracy(label[i], proba[i])),
        (c.average(classification.brier_terms(label, proba)), lambda i: classification.brier(label[i], proba[i])),
    ):
        np.testing.assert_allclose(measure(weights), [float(plain(i)) for i in by_hand], atol=1e-12)


def test_folds_are_averaged_by_patients_and_never_compared() -> None:
    a, b = cohort(30, 1), cohort(60, 2)
    weights = c.resamples([30, 60], 50, np.random.default_rng(0))
    got = c.bootstrap([c.survivors_in_order(*a), c.survivors_in_order(*b)], weights)
    assert got.value == pytest.approx((30 * survival.c_index(*a) + 60 * survival.c_index(*b)) / 90)
    # another scale in one fold changes nothing
    shifted = c.bootstrap([c.survivors_in_order(a[0] * 7 + 1000, *a[1:]), c.survivors_in_order(*b)], weights)
    assert shifted.value == got.value
    np.testing.assert_array_equal(shifted.draws, got.draws)


def test_a_fold_without_a_value_is_left_out_and_named() -> None:
    a = cohort(30, 1)
    weights = c.resamples([30, 10], 50, np.random.default_rng(0))
    got = c.bootstrap([c.survivors_in_order(*a), Score.missing("no event among 10 patients")], weights)
    assert got.value == pytest.approx(survival.c_index(*a))
    assert got.value.reason == "1 of 2 folds left out: no event among 10 patients"
    assert got.fold_interval(1).reason == "no event among 10 patients"
    nothing = c.bootstrap([Score.missing("no event")], weights[:1]).interval()
    assert np.isnan(nothing.value)
    assert nothing.reason == "no event"


def test_draws_without_a_value_are_counted() -> None:
    label = np.r_[np.ones(1), np.zeros(7)]  # a third of the draws miss the only positive
    weights = c.resamples([8], 2000, np.random.default_rng(0))
    got = c.bootstrap([c.classes_in_order(label, np.arange(8.0))], weights).interval()
    assert got.value == 0
    assert "of 2000 resamples" in got.reason


def test_the_paired_difference_of_a_model_with_itself_is_zero() -> None:
    a = cohort(50, 3)
    weights = c.resamples([50], 200, np.random.default_rng(0))
    one = c.bootstrap([c.survivors_in_order(*a)], weights)
    gap = c.paired_difference(one, one)
    assert gap.value == 0
    assert gap.reason == "all resamples agree: no interval can be told"
    other = c.bootstrap([c.survivors_in_order(-a[0], *a[1:])], weights)
    back, forth = c.paired_difference(other, one), c.paired_difference(one, other)
    assert forth.value == pytest.approx(-back.value)
    assert forth.lo == pytest.approx(-back.hi)
    with pytest.raises(ValueError, match="same patients"):
        c.paired_difference(
            one, c.bootstrap([c.survivors_in_order(*a)], c.resamples([50], 9, np.random.default_rng(0)))
        )


def test_intervals_cover() -> None:
    """95 % intervals of an AUC of known value hold it about 95 times in 100 (two folds of 60)."""
    from math import erf

    truth = 0.5 * (1 + erf(1 / 2))  # scores N(0, 1) against N(1, 1)
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        measures = []
        for _ in range(2):
            label = rng.integers(0, 2, 60).astype(float)
            measures.append(c.classes_in_order(label, label + rng.normal(size=60)))
        at = c.bootstrap(measures, c.resamples([60, 60], 300, rng)).interval()
        inside += at.lo <= truth <= at.hi
    assert 178 <= inside <= 199


def test_the_same_seed_gives_the_same_interval() -> None:
    a = cohort(50, 3)
    once, again = (
        c.bootstrap([c.survivors_in_order(*a)], c.resamples([50], 100, np.random.default_rng(9))).interval()
        for _ in range(2)
    )
    assert once == again


def test_a_thousand_draws_of_two_thousand_patients() -> None:
    a = cohort(2000, 4)
    at = c.bootstrap([c.survivors_in_order(*a)], c.resamples([2000], 1000, np.random.default_rng(0))).interval()
    assert at.lo < at.value < at.hi


def test_a_patient_of_many_folds_is_drawn_once() -> None:
    people = [["a", "b"], ["c", "d"], ["a", "c"], ["b", "d"]]
    rng = np.random.default_rng(0)
    assert c.repeated(people)
    assert not c.repeated(people[:2])
    weights = c.resamples_of(people, 200, rng)
    np.testing.assert_array_equal(weights[0][:, 0], weights[2][:, 0])  # a
    np.testing.assert_array_equal(weights[1][:, 1], weights[3][:, 1])  # d
    assert set((weights[0] + weights[1]).sum(1)) == {4}
    plain = c.resamples_of(people[:2], 5, np.random.default_rng(1))
    np.testing.assert_array_equal(plain[0], c.resamples([2, 2], 5, np.random.default_rng(1))[0])


def test_repeats_do_not_make_an_interval_narrower() -> None:
    """Ten repeats of the same folds and scores know no more than one: the unit is the patient."""
    rng = np.random.default_rng(2)
    label, score = np.repeat([0.0, 1.0], 20), rng.normal(size=40) + np.repeat([0.0, 1.0], 20)
    folds = [np.arange(k, 40, 2) for k in range(2)]
    measures = [c.classes_in_order(label[f], score[f]) for f in folds]

    def wide(repeats: int) -> float:
        people = [[f"p{i}" for i in f] for f in folds] * repeats
        weights = c.resamples_of(people, 2000, np.random.default_rng(3))
        at = c.bootstrap(measures * repeats, weights, c.repeated(people)).interval()
        return at.hi - at.lo

    assert wide(10) == pytest.approx(wide(1), rel=0.2)


def test_a_draw_of_repeated_folds_leaves_out_those_without_a_value() -> None:
    values = [np.array([0.6, np.nan, np.nan]), np.array([0.8, 0.8, np.nan])]
    assert np.isnan(c.over_folds(values, [1, 3])[1])
    np.testing.assert_allclose(c.over_folds(values, [1, 3], repeats=True), [0.75, 0.8, np.nan])


def test_where_all_resamples_agree_there_is_no_interval() -> None:
    label = np.repeat([0.0, 1.0], 20)
    weights = c.resamples([40], 100, np.random.default_rng(0))
    perfect = c.bootstrap([c.classes_in_order(label, label)], weights).interval()
    assert perfect.value == 1
    assert np.isnan([perfect.lo, perfect.hi]).all()
    assert perfect.reason == "all resamples agree: no interval can be told"
    assert perfect.above(0.5)
    assert not perfect.below(0.5)
    near = c.bootstrap([c.classes_in_order(label, label + 0.3 * np.random.default_rng(1).normal(size=40))], weights)
    assert near.interval().lo < near.interval().hi
    assert near.interval().above(0.5)
    assert not c.Interval(0.9, float("nan"), float("nan"), "no interval").above(0.5)
