"""Maps put colours where the tiles are, and their numbers come back from the files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nsclc_mtl.explain import attention
from nsclc_mtl.records import DataFault

COORDS = np.array([[0, 0], [256, 0], [0, 256], [256, 256]], np.int64)
SCORES = np.array([0.1, 0.2, 0.3, 0.4])


class Glass:
    """A slide whose tiles have the colour of their place."""

    mpp = 0.5

    def read(self, x: int, y: int, size_level0: int, out_px: int) -> np.ndarray:
        return np.full((out_px, out_px, 3), (x % 256, y // 4 % 256, 128), np.uint8)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_percentiles_keep_the_order_and_span_the_slide(scores: list[float]) -> None:
    values = np.array(scores)
    rank = attention.percentiles(values)
    assert ((rank >= 0) & (rank <= 100)).all()
    assert rank.mean() == pytest.approx(50)
    order = np.argsort(values, kind="stable")
    assert (np.diff(rank[order]) >= 0).all()
    assert (np.diff(rank[order])[np.diff(values[order]) == 0] == 0).all()
    np.testing.assert_array_equal(attention.percentiles(values * 2), rank)  # halving would merge subnormal numbers


@pytest.mark.parametrize("legend", ["percentile", "raw"])
def test_the_map_is_a_picture_with_the_colours_of_its_scale(tmp_path: Path, legend: str) -> None:
    thumbnail = np.full((80, 80, 3), 240, np.uint8)
    path = tmp_path / "maps" / "s.png"
    attention.heatmap(thumbnail, COORDS, SCORES, 256, 8.0, path, title="s", legend=legend, um_per_px=4.0)  # type: ignore[arg-type]
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert min(picture.shape[:2]) > 300
    # The layer lies over the glass with its own opacity: both ends of the map are in the picture.
    for value in (0.0, 1.0):
        colour = np.array(attention.colormaps[attention.MAP](value)[:3]) * 255 * 0.55 + 240 * 0.45
        assert (np.abs(picture - colour).max(axis=2) < 4).sum() > 500
    assert [p.name for p in path.parent.iterdir()] == ["s.png"]


def test_the_same_scores_give_the_same_bytes(tmp_path: Path) -> None:
    thumbnail = np.full((80, 80, 3), 240, np.uint8)
    for name in "ab":
        attention.heatmap(thumbnail, COORDS, SCORES, 256, 8.0, tmp_path / f"{name}.png", um_per_px=4.0)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_the_strip_of_tiles_holds_any_number(tmp_path: Path, count: int) -> None:
    coords = np.stack([np.arange(count) * 256, np.zeros(count, int)], axis=1)
    path = tmp_path / "top.png"
    attention.top_tiles(Glass(), coords, np.linspace(0, 1, count), 256, path)  # type: ignore[arg-type]
    assert Image.open(path).size[0] > 100


def test_overlapping_tiles_share_their_mean() -> None:
    painted = attention._paint((4, 6), np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([1.0, 3.0]), 4.0)
    np.testing.assert_array_equal(painted[0], [1, 1, 2, 2, 3, 3])


def test_files_for_qupath_and_for_tables_hold_the_numbers(tmp_path: Path) -> None:
    attention.qupath(tmp_path / "s.geojson", COORDS, SCORES, 256, what="influence")
    features = json.loads((tmp_path / "s.geojson").read_text())["features"]
    assert len(features) == 4
    assert features[3]["properties"]["objectType"] == "tile"
    assert features[3]["properties"]["measurements"] == {"influence": 0.4, "influence percentile": 100.0}
    assert features[1]["geometry"]["coordinates"][0][2] == [512, 256]
    attention.table(tmp_path / "s.csv", COORDS, SCORES, 256)
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [[int(r["x"]), int(r["y"])] for r in rows] == COORDS.tolist()
    assert [float(r["attention"]) for r in rows] == SCORES.tolist()


def test_no_map_without_tiles_or_with_nan(tmp_path: Path) -> None:
    thumbnail = np.full((80, 80, 3), 240, np.uint8)
    with pytest.raises(DataFault, match="one score a tile"):
        attention.heatmap(thumbnail, COORDS[:0], SCORES[:0], 256, 8.0, tmp_path / "s.png")
    with pytest.raises(DataFault, match="1 of 4 tile scores are NaN"):
        attention.table(tmp_path / "s.csv", COORDS, np.array([0.1, np.nan, 1, 1]), 256)
    assert not list(tmp_path.iterdir())
