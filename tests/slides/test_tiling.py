"""Tiles lie on tissue, inside the slide, in one order, with the fraction that the mask says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.records import DataFault
from nsclc_mtl.slides.tiling import grid, sample


@given(
    seed=st.integers(0, 999), tile_um=st.sampled_from([32.0, 50.0, 128.0]), overlap=st.sampled_from([0.0, 16.0]),
    mpp=st.sampled_from([0.25, 0.5, 0.7]), least=st.sampled_from([0.0, 0.3, 1.0]),
)  # fmt: skip
def test_laws_of_the_grid(seed: int, tile_um: float, overlap: float, mpp: float, least: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((4, 6)) < 0.5, np.ones((9, 8), bool)).astype(bool)
    tiles = grid(mask, "s", (960, 720), mpp, tile_um, least, overlap)
    assert tiles.size_level0 == round(tile_um / mpp)
    if not len(tiles):
        assert tiles.attrs["reason"] == "no_tissue"
        return
    assert (tiles.coords >= 0).all()
    assert (tiles.coords + tiles.size_level0 <= [960, 720]).all()
    assert (tiles.tissue >= least).all()
    assert (tiles.tissue > 0).all()
    order = np.lexsort((tiles.coords[:, 0], tiles.coords[:, 1]))
    np.testing.assert_array_equal(order, np.arange(len(tiles)))
    assert len(np.unique(tiles.coords, axis=0)) == len(tiles)
    large = np.kron(mask, np.ones((20, 20), bool))  # the mask at level 0
    for (x, y), fraction in zip(tiles.coords, tiles.tissue, strict=True):
        truth = large[y : y + tiles.size_level0, x : x + tiles.size_level0].mean()
        assert fraction == pytest.approx(truth, abs=1e-6)


def test_reasons_for_no_tiles() -> None:
    full = np.ones((10, 10), bool)
    assert grid(full, "s", (100, 100), 0.5, 128.0).attrs["reason"] == "too_small"
    assert grid(~full, "s", (1000, 1000), 0.5, 128.0, min_tissue=0.0).attrs["reason"] == "no_tissue"
    assert "reason" not in grid(full, "s", (1000, 1000), 0.5, 128.0).attrs
    with pytest.raises(DataFault, match="make no sense"):
        grid(full, "s", (1000, 1000), 0.5, 128.0, overlap_um=128.0)


def test_a_sample_is_drawn_by_seed_and_slide_alone() -> None:
    every = grid(np.ones((50, 60), bool), "s", (6000, 5000), 0.5, 64.0)
    few = sample(every, 40, seed=3)
    assert len(few) == len(few.tissue) == 40
    assert few.attrs == {"sampled_from": len(every)}
    assert {tuple(c) for c in few.coords.tolist()} <= {tuple(c) for c in every.coords.tolist()}
    np.testing.assert_array_equal(np.lexsort((few.coords[:, 0], few.coords[:, 1])), np.arange(40))
    np.testing.assert_array_equal(sample(every, 40, seed=3).coords, few.coords)
    # The draw of one seed and slide, kept: it must be the same on every machine and in every process.
    assert few.coords[:3].tolist() == [[1792, 0], [3840, 0], [512, 128]]
    assert (sample(every, 40, seed=4).coords != few.coords).any()
    other = grid(np.ones((50, 60), bool), "t", (6000, 5000), 0.5, 64.0)
    assert (sample(other, 40, seed=3).coords != few.coords).any()
    assert sample(every, None) is every
    assert sample(few, 40) is few
    with pytest.raises(DataFault, match="sample=0"):
        sample(every, 0)
