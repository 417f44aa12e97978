"""Where a slide holds tissue: optical density against the glass, Otsu's threshold, and rules in square micrometres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from nsclc_mtl.records import DataFault


@dataclass(frozen=True)
class Tissue:
    """The mask of a slide and what was taken away on the way to it."""

    mask: np.ndarray  # bool [h, w]
    threshold: float  # of the chroma in optical density
    pen_fraction: float  # share of the coloured area that is ink
    white: tuple[float, float, float]  # intensity of the glass, per channel


def examine(
    thumbnail: np.ndarray,
    um_per_px: float,
    min_area_um2: float = 10_000.0,
    max_hole_um2: float = 40_000.0,
    closing_um: float = 32.0,
    threshold: tuple[float, float] = (0.015, 0.03),
    pen_marks: bool = True,
) -> Tissue:
    """The tissue of a thumbnail (uint8 [h, w, 3] at `um_per_px`), with what was found on the way.

    The signal is the chroma in optical density (largest minus smallest channel): dyes have it; glass, dust, bubble
    edges and black ink hardly do. Otsu's threshold (1979) is kept inside `threshold`, so that a slide that is all
    tissue is not split in two and the noise of an empty one is not taken for tissue.
    """
    if thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.dtype != np.uint8:
        raise DataFault(f"a thumbnail is uint8 [h, w, 3], not {thumbnail.dtype} {thumbnail.shape}")
    white = glass(thumbnail)
    density = optical_density(thumbnail, white)
    blur = 12.0 / um_per_px  # loose cells become one piece, JPEG noise goes
    density = ndimage.gaussian_filter(density, (blur, blur, 0), truncate=2.5)
    chroma = density.max(axis=2) - density.min(axis=2)
    low, high = threshold
    flat = np.clip(chroma, 0, 0.5)
    otsu = float(threshold_otsu(flat)) if np.ptp(flat) > 1e-6 else low
    cut = float(np.clip(0.8 * otsu, low, high))  # Otsu lies midway; pale tissue lies below the middle
    found = chroma > cut
    inked = ink(density, um_per_px) if pen_marks else np.zeros_like(found)
    pen_fraction = float((inked & found).sum() / max(1, found.sum()))
    found &= ~inked
    radius = closing_um / um_per_px
    if radius >= 1:
        found = _closed(found, disk(radius))
        found = ndimage.binary_opening(found, disk(max(1.0, radius / 3)))
    found = _without_small(found, min_area_um2 / um_per_px**2)
    found = ~_without_small(~found, max_hole_um2 / um_per_px**2, keep_border=True)
    return Tissue(found, cut, pen_fraction, white)


def glass(thumbnail: np.ndarray) -> tuple[float, float, float]:
    """Intensity of the empty glass per channel, or 255 where no bright and nearly neutral area is to be seen."""
    pixels = thumbnail.reshape(-1, 3)
    pixels = pixels[:: max(1, len(pixels) // 200_000)].astype(np.int16)
    neutral = (pixels.min(axis=1) > 190) & (np.ptp(pixels, axis=1) < 24)
    if neutral.mean() < 0.02:
        return (255.0, 255.0, 255.0)
    bright = pixels[neutral]
    bright = bright[bright.sum(axis=1) >= np.percentile(bright.sum(axis=1), 50)]
    red, green, blue = (float(v) for v in np.median(bright, axis=0))
    return red, green, blue


def optical_density(rgb: np.ndarray, white: tuple[float, float, float] = (255.0, 255.0, 255.0)) -> np.ndarray:
    """float32 [h, w, 3]: log10 of glass over light, never below zero (Beer and Lambert)."""
    ratio = (rgb.astype(np.float32) + 1.0) / (np.asarray(white, np.float32) + 1.0)
    return np.maximum(-np.log10(ratio), 0.0)


def ink(density: np.ndarray, um_per_px: float, min_area_um2: float = 5_000.0, reach_um: float = 500.0) -> np.ndarray:
    """bool [h, w]: pen marks by their hue in optical density: dense strokes, and their pale rims up to `reach_um` away.

    Haematoxylin, eosin and DAB absorb green at least about as much as red. Green and blue ink absorb red most; red ink
    absorbs green and blue alike and red hardly at all. The limits were set on labelled tiles with pen marks; red ink
    over tissue looks like blood and may stay. Black ink has little chroma and is not tissue anyway.
    """
    red, green, blue = (density[..., i] for i in range(3))
    marks = np.zeros(red.shape, bool)
    red_hue = (blue > 0.55 * green) & (blue < 1.4 * green)
    strokes = (
        (
            (red > 1.15 * green) & (blue > 1.05 * green) & (red > 0.35),
            (red > 1.1 * green) & (blue > 0.8 * green) & (red > 0.04),
        ),
        (
            (red > 1.35 * green) & (red > 1.9 * blue) & (red > 0.5),
            (red > 1.3 * green) & (red > 1.6 * blue) & (red > 0.04),
        ),
        (
            red_hue & (red < 0.15 * green) & (blue > 0.6 * green) & (green > 0.5),
            red_hue & (red < 0.3 * green) & (green > 0.04),
        ),
    )
    for dense, pale in strokes:
        seeds = _without_small(dense, min_area_um2 / um_per_px**2)
        if seeds.any():
            # What is too dark to have a hue belongs to the stroke beside it.
            soaked = pale | dense | (density.min(axis=2) > 0.6)
            steps = max(1, round(reach_um / um_per_px))
            marks |= ndimage.binary_dilation(seeds, np.ones((3, 3), bool), iterations=steps, mask=soaked)
    return ndimage.binary_dilation(marks, disk(24.0 / um_per_px)) if marks.any() else marks


def disk(radius: float) -> np.ndarray:
    """bool [2r+1, 2r+1]: a disk, at least one pixel in radius."""
    r = max(1, round(radius))
    y, x = np.ogrid[-r : r + 1, -r : r + 1]
    return x * x + y * y <= r * r


def _closed(mask: np.ndarray, shape: np.ndarray) -> np.ndarray:
    pad = shape.shape[0]
    # Padded with its own edge: a closing must not eat tissue at the border of the slide.
    wide = np.pad(mask, pad, mode="edge")
    return ndimage.binary_closing(wide, shape)[pad:-pad, pad:-pad]


def _without_small(mask: np.ndarray, min_px: float, keep_border: bool = False) -> np.ndarray:
    """The mask without its connected pieces under `min_px` pixels; pieces at the border can be exempt (open lumina)."""
    labels, count = ndimage.label(mask, np.ones((3, 3), bool))
    if count == 0:
        return mask
    keep = np.bincount(labels.ravel()) >= min_px
    if keep_border:
        edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        keep[np.unique(edge)] = True
    keep[0] = False
    return keep[labels]
