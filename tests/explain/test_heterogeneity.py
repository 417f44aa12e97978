"""Entropy and Moran's I against spdep, and the laws that they follow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import permutations
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


def beside(slides: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours within each slide, as rows of all tiles, and the slide of each tile."""
    starts = np.cumsum([0, *map(len, slides)])
    pairs = [heterogeneity.neighbours(at) + start for at, start in zip(slides, starts, strict=False)]
    return np.concatenate(pairs), np.repeat(np.arange(len(slides)), [len(at) for at in slides])


def pooled_by_hand(scores: np.ndarray, slides: Sequence[np.ndarray], slide: np.ndarray) -> float:
    """Moran's I of tiles that touch on the same slide, each less the mean of its slide."""
    top = bottom = pairs = tiles = 0.0
    for k, at in enumerate(slides):
        x = scores[slide == k] - scores[slide == k].mean()
        touching = [(i, j) for i in range(len(x)) for j in range(len(x)) if np.abs(at[i] - at[j]).max() == 224]
        if touching:
            top += sum(x[i] * x[j] for i, j in touching)
            bottom, pairs, tiles = bottom + (x**2).sum(), pairs + len(touching), tiles + len(x)
    return float(tiles / pairs * top / bottom)


def test_moran_of_a_patient_is_pooled_within_the_slides() -> None:
    rng = np.random.default_rng(0)
    slides = [square(4), square(3), square(1)]  # the same places on each; the last has one tile
    pairs, slide = beside(slides)
    scores = rng.normal(size=26) + 5 * slide  # slides differ in level: no pattern within them
    found = heterogeneity.moran(scores, pairs, slide=slide)
    assert float(found.value) == pytest.approx(pooled_by_hand(scores, slides, slide))
    assert float(heterogeneity.moran(scores, pairs).value) > 0.5  # about one mean: that slides differ
    one = heterogeneity.moran(scores[:16], pairs[:42])
    assert one == heterogeneity.moran(scores[:16], pairs[:42], slide=slide[:16])  # of one slide: that of the slide


def test_without_a_pattern_pooled_moran_is_what_is_expected_of_it() -> None:
    line = np.array([[0, 0], [224, 0], [448, 0]])
    pairs, slide = beside([line, line[:2], line[:1]])
    every = [
        heterogeneity.moran(np.array([*a, *b, 50.0]), pairs, permutations=0, slide=slide)
        for a in permutations([1.0, 4.0, 2.0])
        for b in permutations([9.0, 3.0])
    ]
    assert np.mean([float(m.value) for m in every]) == pytest.approx(every[0].expected)
    larger, places = beside([square(4), square(3), square(1)])
    p = [
        float(heterogeneity.moran(np.random.default_rng(i).normal(size=26) + 5 * places, larger, 39, i, places).p)
        for i in range(300)
    ]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(p) == pytest.approx(0.51, abs=0.05)
    none = heterogeneity.moran(np.ones(6), pairs, slide=slide)
    assert none.value.reason == "all scores are the same"
    assert np.isnan(none.expected)
    lone = heterogeneity.moran(np.arange(2.0), np.zeros((0, 2), int), slide=np.arange(2))
    assert lone.value.reason == "no tile has a neighbour"


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
