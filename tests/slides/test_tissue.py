"""Tissue is found on pale, full and empty slides; ink is not; contours come back as they went."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from nsclc_mtl.records import DataFault
from nsclc_mtl.slides import geojson, stain, tissue


def glass(h: int = 200, w: int = 240, seed: int = 0) -> np.ndarray:
    return (242 + np.random.default_rng(seed).integers(-3, 4, (h, w, 1)) + np.zeros(3, int)).astype(np.uint8)


def with_disk(colour: tuple[int, int, int], radius: int = 60) -> tuple[np.ndarray, np.ndarray]:
    image = glass()
    y, x = np.ogrid[:200, :240]
    disk = (y - 100) ** 2 + (x - 120) ** 2 < radius**2
    image[disk] = colour
    return image, disk


@pytest.mark.parametrize("colour", [(220, 150, 190), (238, 222, 234), (80, 40, 110), (150, 110, 70), (140, 140, 190)])
def test_a_disk_of_any_stain_is_found(colour: tuple[int, int, int]) -> None:
    image, disk = with_disk(colour)
    found = tissue.examine(image, 8.0).mask
    both = (found & disk).sum() / (found | disk).sum()
    assert both > 0.9


def test_a_slide_that_is_all_tissue_is_all_tissue() -> None:
    rng = np.random.default_rng(3)
    image = (
        np.array([205, 130, 175]) + 45 * ndimage.gaussian_filter(rng.normal(size=(200, 200, 1)), (3, 3, 0)) * 4
    ).clip(0, 255)
    assert tissue.examine(image.astype(np.uint8), 8.0).mask.mean() > 0.98


@pytest.mark.parametrize("seed", range(3))
def test_an_empty_slide_holds_nothing(seed: int) -> None:
    assert not tissue.examine(glass(seed=seed), 8.0).mask.any()
    yellowish = (glass(seed=seed).astype(int) - [0, 3, 10]).astype(np.uint8)
    assert not tissue.examine(yellowish, 8.0).mask.any()


@pytest.mark.parametrize("ink", [(20, 150, 120), (30, 60, 170), (215, 20, 50)])
def test_ink_is_cut_out_and_tissue_stays(ink: tuple[int, int, int]) -> None:
    image, _ = with_disk((220, 150, 190), radius=40)
    image[20:30, 10:230] = ink
    found = tissue.examine(image, 8.0)
    assert not found.mask[15:35].any()
    assert found.mask[80:120, 100:140].all()
    assert found.pen_fraction > 0.2


def test_black_lines_and_specks_are_no_tissue() -> None:
    image = glass()
    image[90:94] = 25
    image[20:23, 20:23] = (220, 150, 190)
    assert not tissue.examine(image, 8.0).mask.any()


def test_rules_are_in_square_micrometres() -> None:
    image, disk = with_disk((220, 150, 190))
    image[95:105, 115:125] = 242  # a hole of 10 x 10 px
    assert tissue.examine(image, 8.0).mask[100, 120]  # 6,400 um2: filled
    assert not tissue.examine(image, 80.0).mask[100, 120]  # 640,000 um2: kept
    assert not tissue.examine(image, 8.0, min_area_um2=2 * disk.sum() * 64).mask.any()
    with pytest.raises(DataFault, match="uint8"):
        tissue.examine(image.astype(float), 8.0)


@pytest.mark.realdata
def test_labelled_tiles(real_data: Path) -> None:
    """Tiles of known content: tissue is kept, empty glass and a green stroke are not."""
    folder = real_data / "wsi" / "histolab_tiles"

    def share(name: str) -> tuple[float, float]:
        found = tissue.examine(np.asarray(Image.open(folder / f"{name}.png").convert("RGB")), 8.0, min_area_um2=32000)
        return float(found.mask.mean()), found.pen_fraction

    for name in ("almost-white-1", "almost-white-2", "almost-white-ihc", "no-tissue", "no-tissue2", "no-tissue-line"):
        assert share(name)[0] < 0.03, name
    for name in ("high-nuclei-score-level0", "medium-nuclei-score-level0", "tissue-level2-3000-7666-7096-11763"):
        kept, ink = share(name)
        assert kept > 0.7, name
        assert ink < 0.02, name
    assert share("no-tissue-green-pen") == (0.0, 1.0)
    assert share("very-low-nuclei-score-red-pen-level1")[1] > 0.5
    assert share("medium-nuclei-score-green-pen-level1")[1] > 0.3


def test_contours_are_read_back_as_the_mask_they_came_from(tmp_path: Path) -> None:
    mask = np.zeros((60, 80), bool)
    mask[5:40, 10:50] = True
    mask[15:25, 20:30] = False
    mask[45:55, 60:79] = True
    polygons = geojson.contours(mask, (800, 600), tolerance_px=0.1)
    assert sorted(len(rings) for rings in polygons) == [1, 2]
    geojson.write(tmp_path / "t.geojson", [geojson.annotation(rings, "Tissue") for rings in polygons])
    feature = json.loads((tmp_path / "t.geojson").read_text())["features"][0]
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["geometry"]["coordinates"][0][0] == feature["geometry"]["coordinates"][0][-1]
    found = geojson.read(tmp_path / "t.geojson")
    assert {name for name, _ in found} == {"Tissue"}
    again = geojson.rasterise([rings for _, rings in found], (800, 600), mask.shape)
    assert (again != mask).mean() < 0.06  # the outline itself, at most
    (tmp_path / "no.geojson").write_text("nothing")
    with pytest.raises(DataFault, match="no GeoJSON"):
        geojson.read(tmp_path / "no.geojson")


@given(st.lists(st.floats(0.05, 1.0), min_size=2, max_size=2))
def test_stains_come_apart_as_they_were_mixed(amounts: list[float]) -> None:
    mixed = stain.combine(np.array([[[*amounts, 0.0]]], np.float64))
    np.testing.assert_allclose(stain.separate(mixed)[0, 0, :2], amounts, atol=0.06)


def test_a_slides_own_stains_are_estimated() -> None:
    rng = np.random.default_rng(0)
    true = stain.matrix((0.60, 0.75, 0.28), (0.15, 0.95, 0.25))
    amounts = np.stack([rng.gamma(1.2, 0.35, 40000), rng.gamma(1.2, 0.35, 40000), np.zeros(40000)], axis=1)
    found = stain.estimate(stain.combine(amounts.reshape(200, 200, 3), true))
    angles = np.degrees(np.arccos(np.clip((found[:2] * true[:2]).sum(1), -1, 1)))
    assert (angles < 5).all()
    with pytest.raises(DataFault, match="stained pixels"):
        stain.estimate(np.full((50, 50, 3), 240, np.uint8))
