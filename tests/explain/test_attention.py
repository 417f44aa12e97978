"""Maps put colours where the tiles are, and their numbers come back from the files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nsclc_mtl.explain import attention, region, tile_scores
from nsclc_mtl.phantom.slides import write_pyramid
from nsclc_mtl.records import DataFault
from nsclc_mtl.slides.reader import open_slide

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
    rank = tile_scores.percentiles(values)
    assert ((rank >= 0) & (rank <= 100)).all()
    assert rank.mean() == pytest.approx(50)
    order = np.argsort(values, kind="stable")
    assert (np.diff(rank[order]) >= 0).all()
    assert (np.diff(rank[order])[np.diff(values[order]) == 0] == 0).all()
    np.testing.assert_array_equal(tile_scores.percentiles(values * 2), rank)  # halving would merge subnormal numbers


def colours_of(path: Path, what: float) -> int:
    """Pixels of the map with the colour of a value from 0 to 1, over the glass of 240."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    colour = np.array(attention.colormaps[tile_scores.MAP](what)[:3]) * 255 * region.OPACITY
    return int((np.abs(picture - colour - 240 * (1 - region.OPACITY)).max(axis=2) < 4).sum())


@pytest.mark.parametrize("legend", ["percentile", "raw"])
def test_the_map_is_a_picture_with_the_colours_of_its_scale(tmp_path: Path, legend: str) -> None:
    thumbnail = np.full((80, 80, 3), 240, np.uint8)
    path = tmp_path / "maps" / "s.png"
    attention.heatmap(thumbnail, COORDS, SCORES, 256, 8.0, path, title="s", legend=legend, um_per_px=4.0)  # type: ignore[arg-type]
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert min(picture.shape[:2]) > 300
    # The layer lies over the glass with its own opacity: the least and the highest score are in the picture.
    for value in (0.0 if legend == "percentile" else 0.25, 1.0):
        assert colours_of(path, value) > 500
    assert [p.name for p in path.parent.iterdir()] == ["s.png"]


def test_raw_scores_of_several_slides_share_their_colours_and_begin_at_zero(tmp_path: Path) -> None:
    thumbnail = np.full((80, 80, 3), 240, np.uint8)
    attention.heatmap(thumbnail, COORDS, SCORES / 2, 256, 8.0, tmp_path / "a.png", legend="raw", highest=0.4)
    assert colours_of(tmp_path / "a.png", 0.5) > 500
    assert colours_of(tmp_path / "a.png", 1.0) == 0
    alike = 0.03 + SCORES * 1e-9  # noise: no tile stands out
    attention.heatmap(thumbnail, COORDS, alike, 256, 8.0, tmp_path / "b.png", legend="raw")
    assert colours_of(tmp_path / "b.png", 1.0) > 4 * 500
    attention.heatmap(thumbnail, COORDS, SCORES * 0, 256, 8.0, tmp_path / "c.png", legend="raw")
    assert colours_of(tmp_path / "c.png", 0.0) > 4 * 500


def test_the_colour_bar_is_as_opaque_as_the_map(tmp_path: Path) -> None:
    path = tmp_path / "s.png"
    attention.heatmap(np.full((80, 80, 3), 240, np.uint8), COORDS, SCORES, 256, 8.0, path)
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    for value in (0.0, 1.0):
        own = np.array(attention.colormaps[tile_scores.MAP](value)[:3]) * 255
        laid = own * region.OPACITY + 127.5 * (1 - region.OPACITY)
        assert (np.abs(picture - laid).max(axis=2) < 3).sum() > 20
        assert (np.abs(picture - own).max(axis=2) < 3).sum() == 0


def test_the_picture_says_where_the_map_begins(tmp_path: Path) -> None:
    path = tmp_path / "s.png"
    attention.heatmap(np.full((80, 80, 3), 240, np.uint8), COORDS, SCORES, 256, 8.0, path, title="s " * 80)
    with Image.open(path) as image:
        at = float(image.info[attention.SPLIT]) * image.width
        column = np.asarray(image.convert("L"))[:, round(at)]
    assert 0.4 * image.width < at < 0.6 * image.width
    assert (column == 255).all()  # nothing is cut, however long the title


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
    painted = region.paint((4, 6), np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([1.0, 3.0]), 4.0)
    np.testing.assert_allclose(painted[0], [1, 1, 2, 2, 3, 3])


@given(st.integers(0, 999), st.floats(0.3, 5.0))
def test_painting_by_corners_is_painting_tile_by_tile(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    corners, values = rng.uniform(-6, 14, (12, 2)), rng.normal(size=12)
    total, count = np.zeros((9, 11)), np.zeros((9, 11))
    for (x, y), value in zip(corners, values, strict=True):
        x0, y0 = round(x), round(y)
        x1, y1 = max(x0 + 1, round(x + size)), max(y0 + 1, round(y + size))
        place = np.s_[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
        total[place] += value
        count[place] += 1
    plain = np.divide(total, count, out=np.full((9, 11), np.nan), where=count > 0)
    np.testing.assert_allclose(region.paint((9, 11), corners, values, size), plain, atol=1e-9)


def test_a_pyramid_has_the_wanted_scale_the_place_and_the_colours(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "s.tiff", np.full((2048, 2048, 3), (230, 150, 200), np.uint8), mpp=0.25)
    grey = region.grey(np.array([[230, 150, 200]], np.uint8))[0, 0]
    coords = np.array([[512, 256], [1024, 256], [512, 768]], np.int64)
    with open_slide(tmp_path / "s.tiff") as slide:
        at = region.pyramid(slide, coords, np.array([1.0, 2, 3]), 512, 0.5, tmp_path / "m.tiff", "attention")
        raw = region.pyramid(
            slide, coords, np.array([1.0, 2, 3]), 512, 0.01, tmp_path / "raw.tiff", "attention", legend="raw", highest=4
        )
    assert at == raw == (512, 256)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.tiff", "raw.tiff", "s.tiff"]
    with open_slide(tmp_path / "m.tiff") as map_:
        assert map_.dimensions == (512, 512)
        assert map_.mpp == pytest.approx(0.5, rel=1e-3)
        picture = map_.read(0, 0, 512, 512).astype(float)
    below = grey * (1 - region.OPACITY)
    for corner, value in (((50, 50), 0.0), ((50, 300), 0.5), ((300, 50), 1.0)):
        wanted = np.array(attention.colormaps[tile_scores.MAP](value)[:3]) * 255 * region.OPACITY + below
        np.testing.assert_allclose(picture[corner], wanted, atol=6)  # JPEG
    np.testing.assert_allclose(picture[400, 400], grey, atol=6)  # no tile: the slide in grey, as elsewhere
    with open_slide(tmp_path / "raw.tiff") as map_:
        assert map_.mpp == pytest.approx(0.25, rel=1e-3)  # nothing finer than the slide
    with tifffile.TiffFile(tmp_path / "raw.tiff") as file:
        told = file.pages[0].description  # type: ignore[union-attr]
    assert "raw 0 to 4" in told
    assert "(512, 256)" in told


def test_files_for_qupath_and_for_tables_hold_all_maps(tmp_path: Path) -> None:
    maps = {"attention": SCORES, "influence:grade": SCORES[::-1]}
    tile_scores.qupath(tmp_path / "s.geojson", COORDS, 256, maps)
    collection = json.loads((tmp_path / "s.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    features = collection["features"]
    assert len(features) == 4
    assert features[3]["properties"]["objectType"] == "tile"  # createTileObject of QuPath's GeoJSON reader
    assert features[3]["properties"]["measurements"] == {
        "attention": 0.4, "attention percentile": 100.0,
        "influence on grade": 0.1, "influence on grade percentile": 0.0,
    }  # fmt: skip
    assert all(isinstance(part, int) and 0 <= part <= 255 for part in features[0]["properties"]["color"])
    ring = features[1]["geometry"]["coordinates"][0]
    assert ring[2] == [512, 256]
    assert ring[0] == ring[-1]
    tile_scores.table(tmp_path / "s.csv", COORDS, 256, maps)
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [[int(r["x"]), int(r["y"])] for r in rows] == COORDS.tolist()
    assert [float(r["attention"]) for r in rows] == SCORES.tolist()
    assert [float(r["influence:grade_percentile"]) for r in rows] == [100, 66.67, 33.33, 0]


def test_no_map_without_tiles_or_with_nan(tmp_path: Path) -> None:
    thumbnail = np.full((80, 80, 3), 240, np.uint8)
    with pytest.raises(DataFault, match="one score a tile"):
        attention.heatmap(thumbnail, COORDS[:0], SCORES[:0], 256, 8.0, tmp_path / "s.png")
    with pytest.raises(DataFault, match="1 of 4 tile scores are NaN"):
        tile_scores.table(tmp_path / "s.csv", COORDS, 256, {"attention": np.array([0.1, np.nan, 1, 1])})
    assert not list(tmp_path.iterdir())
