"""Entropy and Moran's I against spdep, and the laws that they follow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.explain import heterogeneity

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "moran.json").read_text())


def square(n: int, step: int = 224) -> np.ndarray:
    y, x = np.divmod(np.arange(n * n), n)
    return np.stack([x, y], axis=1) * step


@pytest.mark.parametrize("grid", ["square", "hexagonal"])
def test_they_are_those_of_spdep(grid: str) -> None:
    told = GOLDEN[grid]
    coords, scores = np.stack([told["x"], told["y"]], axis=1), np.array(told["score"])
    pairs = heterogeneity.neighbours(coords)
    assert len(pairs) == told["pairs"]
    assert float(heterogeneity.moran(scores, pairs).value) == pytest.approx(told["moran"], rel=1e-9)
    assert float(heterogeneity.entropy(scores)) == pytest.approx(told["entropy"], rel=1e-9)
    assert float(heterogeneity.effective_tiles(scores)) == pytest.approx(told["effective"], rel=1e-9)


def test_tiles_have_eight_neighbours_also_where_they_overlap_or_lie_twice() -> None:
    coords = square(5)
    count = np.bincount(heterogeneity.neighbours(coords).ravel(), minlength=25).reshape(5, 5)
    assert (count[1:-1, 1:-1] == 8).all()
    assert (count[0, 0], count[0, 2]) == (3, 5)
    # tiles twice as large as the step, and steps that are rounded to whole pixels
    rounded = np.rint(square(5, 1) * 222.4).astype(int)
    np.testing.assert_array_equal(heterogeneity.neighbours(rounded), heterogeneity.neighbours(coords))
    twice = heterogeneity.neighbours(np.concatenate([coords, coords[:1]]))
    assert [0, 25] not in twice.tolist()
    assert len(twice) == len(heterogeneity.neighbours(coords)) + 3
    assert heterogeneity.neighbours(coords[:1]).shape == (0, 2)


@given(st.integers(0, 99), st.floats(0.1, 9), st.floats(-5, 5))
def test_moran_does_not_know_the_unit_nor_the_place(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    coords, scores = square(6)[rng.random(36) < 0.8], rng.normal(size=36)
    scores = scores[: len(coords)]
    plain = heterogeneity.moran(scores, heterogeneity.neighbours(coords), permutations=9)
    moved = heterogeneity.moran(scale * scores + shift, heterogeneity.neighbours(coords * 2 + 17), permutations=9)
    assert float(moved.value) == pytest.approx(float(plain.value), abs=1e-9)
    assert moved.p == plain.p


def test_chance_has_the_expected_value_and_its_p_values_are_even() -> None:
    pairs, rng = heterogeneity.neighbours(square(8)), np.random.default_rng(3)
    found = [heterogeneity.moran(rng.normal(size=64), pairs, permutations=39, seed=i) for i in range(300)]
    values = np.array([float(f.value) for f in found])
    assert abs(values.mean() - found[0].expected) < 3 * values.std() / np.sqrt(300)
    p = np.array([float(f.p) for f in found])
    assert abs((p <= 0.05).mean() - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 300)


def test_a_patch_is_clustered_a_chessboard_is_the_opposite() -> None:
    coords = square(8)
    pairs = heterogeneity.neighbours(coords)
    patch = ((coords[:, 0] < 4 * 224) & (coords[:, 1] < 4 * 224)).astype(float)
    assert float((found := heterogeneity.moran(patch, pairs)).value) > 0.5
    assert float(found.p) == 1 / 200
    stripes = (coords[:, 0] // 224 % 2).astype(float)
    assert float(heterogeneity.moran(stripes, pairs).p) > 0.9


def test_what_cannot_be_said_has_its_reason() -> None:
    pairs = heterogeneity.neighbours(square(3))
    assert heterogeneity.moran(np.ones(9), pairs).value.reason == "all scores are the same"
    assert heterogeneity.moran(np.arange(1.0), np.zeros((0, 2), int)).value.reason == "no tile has a neighbour"
    assert heterogeneity.entropy(np.zeros(4)).reason == "no tile has a weight"
    assert heterogeneity.entropy(np.ones(1)).reason == "one tile only"
    assert float(heterogeneity.effective_tiles(np.ones(1))) == 1


@given(st.lists(st.floats(0, 1e3), min_size=2, max_size=40).filter(lambda x: sum(x) > 1e-6))
def test_entropy_and_effective_tiles_keep_their_bounds(weights: list[float]) -> None:
    even, many = heterogeneity.entropy(np.array(weights)), heterogeneity.effective_tiles(np.array(weights))
    assert -1e-12 <= even <= 1 + 1e-12
    assert 1 - 1e-9 <= many <= len(weights) + 1e-9
