"""Tissue is found on pale, dark, full and empty slides; ink, bubbles and edges are not."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from nsclc_mtl.records import DataFault
from nsclc_mtl.slides import stain, tissue


def examine(image: np.ndarray, um_per_px: float, min_area_um2: float = 10_000.0) -> tissue.Tissue:
    return tissue.tidy(tissue.Classic()(image, um_per_px), um_per_px, min_area_um2, 40_000.0)


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
    found = examine(image, 8.0).mask
    both = (found & disk).sum() / (found | disk).sum()
    assert both > 0.9


def test_a_slide_that_is_all_tissue_is_all_tissue() -> None:
    rng = np.random.default_rng(3)
    image = (
        np.array([205, 130, 175]) + 45 * ndimage.gaussian_filter(rng.normal(size=(200, 200, 1)), (3, 3, 0)) * 4
    ).clip(0, 255)
    assert examine(image.astype(np.uint8), 8.0).mask.mean() > 0.98


@pytest.mark.parametrize("seed", range(3))
def test_an_empty_slide_holds_nothing(seed: int) -> None:
    assert not examine(glass(seed=seed), 8.0).mask.any()
    yellowish = (glass(seed=seed).astype(int) - [0, 3, 10]).astype(np.uint8)
    assert not examine(yellowish, 8.0).mask.any()
    tinted = (glass(seed=seed).astype(int) - [10, 16, 42]).astype(np.uint8)  # yellowed mounting medium
    assert not examine(tinted, 8.0).mask.any()
    tinted[60:140, 60:160] = (205, 140, 150)
    assert examine(tinted, 8.0).mask[70:130, 70:150].all()


@pytest.mark.parametrize("ink", [(20, 150, 120), (30, 60, 170), (215, 20, 50)])
def test_ink_is_cut_out_and_tissue_stays(ink: tuple[int, int, int]) -> None:
    image, _ = with_disk((220, 150, 190), radius=40)
    image[20:30, 10:230] = ink
    found = examine(image, 8.0)
    assert not found.mask[15:35].any()
    assert found.mask[80:120, 100:140].all()
    assert found.fractions["pen"] > 0.2


def tissue_like(stain: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A round piece of H&E with nuclei at 8 um/px whose densities are multiplied by `stain`."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[:200, :240]
    piece = (y - 100) ** 2 + (x - 120) ** 2 < 65**2
    eosin, blue = np.array([0.06, 0.30, 0.14]), np.array([0.45, 0.55, 0.25])
    nuclei = ndimage.gaussian_filter(rng.random((200, 240)), 0.7) > 0.58
    density = stain * (piece[..., None] * eosin + (piece & nuclei)[..., None] * blue)
    light = 244 * 10.0**-density + rng.normal(0, 1.5, (200, 240, 1))
    return light.clip(0, 255).astype(np.uint8), piece


@pytest.mark.parametrize("stain", [0.2, 1.0, 3.0, 6.0])
def test_pale_and_over_stained_tissue_is_found_whole(stain: float) -> None:
    image, piece = tissue_like(stain)
    found = examine(image, 8.0)
    assert (found.mask & piece).sum() / (found.mask | piece).sum() > 0.9
    assert found.lost < 0.02
    assert found.fractions["fold"] < 0.1


def test_bubbles_edges_of_coverslips_and_black_ink_are_no_tissue() -> None:
    image, piece = tissue_like(1.0)
    picture = np.full((400, 500, 3), 243.0)
    picture[:200, :240] = image
    y, x = np.ogrid[:400, :500]
    for top, left, radius in ((300, 120, 60), (280, 350, 80)):  # rims are dark, and hardly coloured
        rim = np.exp(-(((np.hypot(y - top, x - left) - radius) / 2.5) ** 2))[..., None]
        picture = picture * (1 - 0.9 * rim) + np.array([38, 34, 42]) * 0.9 * rim
    picture[:, 470:473] = (190, 180, 150)  # a yellow line over the whole slide
    picture[20:32, 300:440] = (22, 20, 25)  # black ink
    found = examine(picture.astype(np.uint8), 8.0)
    outside = found.mask.copy()
    outside[:200, :240] &= ~ndimage.binary_dilation(piece, iterations=4)
    assert outside.sum() <= 0.01 * piece.sum()
    assert found.mask[:200, :240][piece].mean() > 0.95
    assert found.fractions["grey"] > 0.02


def dyed(image: np.ndarray, where: np.ndarray, dye: tuple[float, float, float]) -> np.ndarray:
    """The picture with more optical density in R, G, B at some places: what lies below shows through."""
    return (image * 10.0 ** -(where[..., None] * np.array(dye))).astype(np.uint8)


@pytest.mark.parametrize("ink", [(0.03, 0.35, 0.33), (0.02, 0.30, 0.27)])
def test_red_ink_that_ends_inside_the_tissue_is_found_and_vessels_stay(ink: tuple[float, float, float]) -> None:
    image, piece = tissue_like(1.0)
    y, x = np.ogrid[:200, :240]
    stroke = (np.abs(x - 120) < 12) & (y > 70) & (y < 130)
    vessels = (y - 100) ** 2 + (x - 80) ** 2 < 16  # 64 um wide
    found = examine(dyed(dyed(image, stroke, ink), vessels, ink), 8.0)
    assert not found.mask[75:125, 112:128].any()
    assert found.mask[97:104, 77:84].all()
    kept = piece & ~ndimage.binary_dilation(stroke, iterations=8)
    assert found.mask[kept].mean() > 0.95
    assert 0.05 < found.fractions["pen"] < 0.25


def test_a_red_stroke_on_glass_is_followed_into_the_tissue() -> None:
    image, piece = tissue_like(1.0)
    stroke = np.zeros(piece.shape, bool)
    stroke[96:104, 5:120] = True
    found = examine(dyed(image, stroke, (0.03, 0.8, 0.7)), 8.0)
    assert not found.mask[97:103, 5:110].any()
    assert found.mask[piece & ~ndimage.binary_dilation(stroke, iterations=8)].mean() > 0.95


@pytest.mark.parametrize("dye", [(0.27, 0.57, 0.78), (0.10, 0.60, 0.50)])
def test_a_brown_or_red_stain_is_no_ink(dye: tuple[float, float, float]) -> None:
    """DAB has a hue of its own; a red chromogen or trichrome is known by how much of the tissue has it."""
    image, piece = tissue_like(0.6)
    y, x = np.ogrid[:200, :240]
    stained = piece & ((x + y) % 100 < 60)
    found = examine(dyed(image, stained, tuple(0.5 * d for d in dye)), 8.0)
    assert found.fractions["pen"] == 0.0
    assert found.mask[piece].mean() > 0.95


def test_blue_and_brown_cells_side_by_side_are_tissue_though_grey_on_average() -> None:
    rng = np.random.default_rng(4)
    y, x = np.ogrid[:200, :240]
    pale = (y - 100) ** 2 + (x - 150) ** 2 < 45**2
    core = (y - 100) ** 2 + (x - 105) ** 2 < 20**2
    cells = ndimage.zoom(rng.integers(0, 3, (100, 120)), 2, order=0)
    blue, brown = np.array([0.16, 0.13, 0.05]), np.array([0.03, 0.06, 0.15])
    density = (pale * (cells == 1))[..., None] * blue + (pale * (cells == 2))[..., None] * brown
    density += core[..., None] * np.array([0.10, 0.28, 0.12])
    light = 244 * 10.0**-density + rng.normal(0, 1.5, (200, 240, 1))
    found = examine(light.clip(0, 255).astype(np.uint8), 8.0)
    assert found.mask[pale].mean() > 0.95
    assert found.mask[~ndimage.binary_dilation(pale | core, iterations=6)].mean() == 0.0


def test_tissue_that_lies_double_is_recorded_and_cut_out_when_asked() -> None:
    image, piece = tissue_like(1.0)
    band = piece & (np.abs(np.arange(240) - 120) < 10)[None]
    image[band] = (image[band].astype(float) ** 3.2 / 244**2.2).astype(np.uint8)  # the light goes through 3.2 layers
    kept, gone = (tissue.Classic(cut_folds=cut)(image, 8.0) for cut in (False, True))
    assert 0.4 * band.sum() / piece.sum() < kept.fractions["fold"] < 1.3 * band.sum() / piece.sum()
    assert kept.mask[band].mean() > 0.95
    assert gone.mask[band].mean() < 0.5
    assert gone.mask[piece & ~band].mean() > 0.95


def test_what_is_cut_out_is_counted() -> None:
    whole = tissue.Tissue(np.ones((10, 10), bool), 0.1)
    half = np.zeros((10, 10), bool)
    half[:6] = True
    found = whole.without("pen", half).without("blur", half)
    assert found.fractions == {"tissue": 0.4, "pen": 0.6, "blur": 0.0, "fold": 0.0}
    assert found.lost == pytest.approx(0.6)
    assert tissue.tidy(found, 1.0, 0, 1e6).mask.sum() == 40  # a hole that was cut stays one


def test_black_lines_and_specks_are_no_tissue() -> None:
    image = glass()
    image[90:94] = 25
    image[20:23, 20:23] = (220, 150, 190)
    assert not examine(image, 8.0).mask.any()


def test_rules_are_in_square_micrometres() -> None:
    image, disk = with_disk((220, 150, 190))
    image[95:105, 115:125] = 242  # a hole of 10 x 10 px
    assert examine(image, 8.0).mask[100, 120]  # 6,400 um2: filled
    assert not examine(image, 80.0).mask[100, 120]  # 640,000 um2: kept
    assert not examine(image, 8.0, min_area_um2=2 * disk.sum() * 64).mask.any()
    with pytest.raises(DataFault, match="uint8"):
        examine(image.astype(float), 8.0)


def shares(folder: Path, name: str) -> tuple[float, float]:
    """Tissue, and ink among what looked like it, of a tile taken for a thumbnail."""
    found = examine(np.asarray(Image.open(folder / f"{name}.png").convert("RGB")), 8.0, min_area_um2=32000)
    return float(found.mask.mean()), found.fractions["pen"]


@pytest.mark.realdata
def test_labelled_tiles(real_data: Path) -> None:
    """Tiles of known content: tissue is kept, empty glass and a green stroke are not."""
    share = partial(shares, real_data / "wsi" / "histolab_tiles")
    for name in ("almost-white-1", "almost-white-ihc", "no-tissue", "no-tissue2", "no-tissue-line"):
        assert share(name)[0] < 0.03, name
    assert 0.02 < share("almost-white-2")[0] < 0.06  # a corner of loose tissue
    for name in ("high-nuclei-score-level0", "medium-nuclei-score-level0", "tissue-level2-3000-7666-7096-11763"):
        kept, ink = share(name)
        assert kept > 0.7, name
        assert ink < 0.02, name
    assert share("no-tissue-green-pen") == (0.0, 1.0)
    assert share("very-low-nuclei-score-red-pen-level1")[1] > 0.5
    kept, ink = share("no-tissue-red-pen")
    assert kept < 0.04
    assert ink > 0.9
    assert 0.08 < share("high-nuclei-score-red-pen-level1")[1] < 0.2  # over dense tissue


@pytest.mark.realdata
@pytest.mark.slow
def test_tiles_without_pen_marks_have_none(real_data: Path) -> None:
    folder = real_data / "wsi" / "histolab_tiles"
    found = {path.stem: shares(folder, path.stem)[1] for path in sorted(folder.glob("*.png")) if "pen" not in path.stem}
    assert len(found) == 29
    assert max(found.values()) < 0.02
    sections = [name for name in found if name.startswith("tissue-level2")]
    assert len(sections) == 4
    assert not any(found[name] for name in sections)  # vessels full of blood are no ink


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
