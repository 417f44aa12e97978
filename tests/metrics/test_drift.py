"""Drift against kept summaries: equal to what both samples say, where these are at hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nsclc_mtl.metrics import drift


def test_differences_and_distances_are_those_of_the_samples() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(400, 3)), rng.normal([0.0, 0.5, 0.0], [1.0, 1.0, 3.0], size=(300, 3))
    at, below = drift.deciles(old)
    assert at == pytest.approx(np.quantile(old, drift.LEVELS, axis=0), rel=1e-3)
    gap = drift.standardised_difference(new, old.mean(0), old.std(0))
    assert gap == pytest.approx((new.mean(0) - old.mean(0)) / old.std(0))
    found = drift.distance(new, at, below)
    for column in range(3):
        whole = stats.ks_2samp(old[:, column], new[:, column]).statistic
        assert whole - 0.06 < found[column] <= whole + 1e-9  # a lower bound, and a near one
    chance = drift.chance(gap, [300] * 3, [400] * 3)
    assert chance[1] < 1e-6
    assert chance[0] > 0.01


def test_ties_and_equal_samples_are_no_distance() -> None:
    old = np.repeat([[0.0], [1.0]], [70, 30], axis=0)
    at, below = drift.deciles(old)
    assert drift.distance(old, at, below) == pytest.approx(0)
    assert drift.distance(np.repeat([[0.0], [1.0]], [20, 80], axis=0), at, below) == pytest.approx(0.5)


def test_few_patients_say_nothing() -> None:
    few = np.arange(19.0)[:, None]
    at, _ = drift.deciles(few)
    assert np.isnan(at).all()
    assert np.isnan(drift.standardised_difference(few, np.zeros(1), np.ones(1))).all()
    many = np.arange(40.0)[:, None]
    assert np.isnan(drift.distance(few, *drift.deciles(many))).all()
    assert np.isnan(drift.standardised_difference(many, np.zeros(1), np.zeros(1))).all()  # training had no spread


def test_the_test_holds_its_level() -> None:
    rng = np.random.default_rng(1)
    old, new = rng.normal(size=(60, 4000)), rng.normal(size=(40, 4000))
    gap = drift.standardised_difference(new, old.mean(0), old.std(0))
    assert (drift.chance(gap, [40], [60]) < 0.05).mean() == pytest.approx(0.05, abs=0.015)


def test_shares() -> None:
    assert drift.chance_of_shares(0.5, 0.1, 100, 100) < 1e-6
    assert drift.chance_of_shares(0.3, 0.2, 20, 20) > 0.3
    assert drift.chance_of_shares(1.0, 1.0, 5, 5) == 1


def test_the_stability_index_is_its_sum_by_hand() -> None:
    now, then = np.array([30.0, 50.0, 20.0]), np.array([100.0, 100.0, 0.0])
    q, p = (now + 0.5) / 101.5, (then + 0.5) / 201.5
    found, usual = drift.index(now, then)
    assert found == pytest.approx(((q - p) * np.log(q / p)).sum())
    assert usual == pytest.approx(2 * (1 / 100 + 1 / 200))
    assert drift.index(then, now)[0] == pytest.approx(found)  # no side is the first
    assert drift.index(np.r_[now, 0], np.r_[then, 0])[0] == pytest.approx(found)  # an empty bin is none


def test_stability_where_nothing_moved_is_what_chance_makes_of_it() -> None:
    rng = np.random.default_rng(2)
    old, new = rng.normal(size=(200, 1500)), rng.normal(size=(150, 1500))
    at, below = drift.deciles(old)
    found, usual = drift.stability(new, at, below, [200] * 1500)
    assert found.mean() == pytest.approx(9 * (1 / 200 + 1 / 150), rel=0.08)
    assert usual == pytest.approx(9 * (1 / 200 + 1 / 150))
    moved, _ = drift.stability(new[:, :3] + 1, at[:, :3], below[:, :3], [200] * 3)
    assert moved.min() > 0.25
    same, _ = drift.stability(old[:, :3], at[:, :3], below[:, :3], [200] * 3)
    assert same == pytest.approx(0, abs=1e-12)


def test_stability_of_ties_and_of_few() -> None:
    old = np.repeat([[0.0], [1.0]], [170, 30], axis=0)
    at, below = drift.deciles(old)
    found, usual = drift.stability(np.repeat([[0.0], [1.0]], [50, 50], axis=0), at, below, [200])
    by_hand, two = drift.index(np.array([50, 50]), np.array([170, 30]))
    assert found == pytest.approx(by_hand)
    assert usual == pytest.approx(two)
    few = drift.stability(np.arange(19.0)[:, None], at, below, [200])
    assert np.isnan(few).all()
