from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.trust import outside


@pytest.mark.parametrize(("n", "dim"), [(60, 8), (25, 30), (200, 3)])
def test_the_distance_is_scikit_learns_where_nothing_is_left_out(n: int, dim: int) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim))
    theirs = covariance.LedoitWolf().fit(x)
    new = rng.normal(size=(9, dim)) * 3
    assert outside.shrinkage(x - x.mean(0)) == pytest.approx(theirs.shrinkage_)
    np.testing.assert_allclose(outside.Cloud.fit(x).distance(new), theirs.mahalanobis(new) / dim, rtol=1e-8)


@given(st.integers(0, 500), st.integers(9, 40), st.integers(1, 50))
def test_distances_are_finite_and_survive_their_file(seed: int, n: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim)) * (rng.random(dim) > 0.3)  # some columns are constant
    scale = outside.Scale.fit(x)
    again = outside.Scale.load(json.loads(json.dumps(scale.state(), allow_nan=False)))
    new = rng.normal(size=(5, dim))
    assert np.isfinite(scale.score(new)).all()
    assert (scale.cloud.distance(new) >= 0).all()
    np.testing.assert_allclose(again.score(x), scale.score(x), rtol=1e-3, atol=0.02)
    assert ((scale.percentile(new) >= 0) & (scale.percentile(new) <= 1)).all()


def test_the_flag_fires_at_its_rate_for_patients_like_the_known_and_always_for_a_shift() -> None:
    fired, shifted = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        mix = rng.normal(size=(40, 40)) / 6
        x = rng.normal(size=(260, 40)) @ mix + rng.normal(size=(260, 40))
        scale = outside.Scale.fit(x[:100])
        known = scale.score(x[100:160])
        fired.append((outside.rarity(scale.score(x[160:]), known) <= 0.05).mean())
        shifted.append((outside.rarity(scale.score(x[160:] + 2.5), known) <= 0.05).mean())
    assert np.mean(fired) == pytest.approx(3 / 61, abs=0.012)  # floor(61 x .05) = 3
    assert np.mean(shifted) > 0.95


def test_training_patients_scored_by_the_others_are_like_new_ones() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1200, 60)) @ rng.normal(size=(60, 60))
    crossed, new = outside.crossed(x[:200]), outside.Cloud.fit(x[:200]).distance(x[200:])
    assert np.mean(crossed) == pytest.approx(np.mean(new), rel=0.03)
    assert np.mean(outside.Cloud.fit(x[:200]).distance(x[:200])) < 0.95 * np.mean(new)  # as they would not be else


def test_a_flag_needs_enough_known_patients() -> None:
    assert outside.enough(0.05) == 19
    assert outside.rarity([99.0], np.arange(19))[0] == pytest.approx(0.05)
    assert outside.rarity([99.0], np.arange(18))[0] > 0.05
