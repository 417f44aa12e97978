"""A map over the slide as fine as wanted: a pyramid that any slide viewer opens, written a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from matplotlib import colormaps

from nsclc_mtl.explain.tile_scores import MAP, Scale, checked, percentiles, span
from nsclc_mtl.slides.reader import Slide

TILE_PX = 512
DOWNSAMPLE = 2
OPACITY = 0.5  # of the colours: nuclei must be seen below them
_MOST_LEVEL0 = 4096  # edge of what is read at once, level-0 pixels
_QUALITY = 85


def pyramid(
    slide: Slide,
    coords: np.ndarray,
    scores: np.ndarray,
    size_level0: int,
    um_per_px: float,
    path: Path,
    what: str,
    legend: Scale = "percentile",
    highest: float | None = None,
) -> tuple[int, int]:
    """Writes a tiled, pyramidal TIFF: the part of the slide that has tiles at `um_per_px`, grey, under their scores.

    Its (x, y) in the slide is the result, level-0 pixels. Raw scores have the colours from 0 to `highest`, as of
    `attention.heatmap`. Where tiles overlap their mean is shown. What it shows, its
    scale and its place stand in the image description. Nothing larger than a piece of 512 px is held.
    """
    coords, raw = checked(coords, scores)
    shown = percentiles(raw) if legend == "percentile" else raw
    low, high = span(raw, legend, highest)
    fine = max(um_per_px, slide.mpp)  # there is nothing finer than what was scanned
    x0, y0 = (int(v) for v in np.maximum(coords.min(axis=0), 0))
    x1, y1 = (int(v) for v in np.minimum(coords.max(axis=0) + size_level0, slide.dimensions))
    width, height = (max(1, round((b - a) * slide.mpp / fine)) for a, b in ((x0, x1), (y0, y1)))
    told = f"{what}, {legend}{' within the slide' if legend == 'percentile' else ''} {low:.4g} to {high:.4g}, {MAP}; "
    told += f"slide {slide.path.stem}, upper left corner at level-0 pixel ({x0}, {y0}); research use only"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    try:
        with tifffile.TiffWriter(aside, bigtiff=width * height > 10**9) as tiff:
            for level in range(_levels(width, height)):
                shrink = DOWNSAMPLE**level
                shape = (-(-height // shrink), -(-width // shrink), 3)
                pieces = _pieces(slide, coords, (shown - low) / (high - low), size_level0, (x0, y0), shape,
                                 fine * shrink / slide.mpp)  # fmt: skip
                per_cm = 1e4 / (fine * shrink)
                tiff.write(
                    pieces, shape=shape, dtype=np.uint8, photometric="rgb", tile=(TILE_PX, TILE_PX),
                    compression="jpeg", compressionargs={"level": _QUALITY}, subfiletype=int(level > 0),
                    resolution=(per_cm, per_cm), resolutionunit="CENTIMETER", metadata=None, software="mtl",
                    description=None if level else told,
                )  # fmt: skip
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return x0, y0


def _levels(width: int, height: int) -> int:
    """Down to one piece."""
    return 1 + max(0, int(np.ceil(np.log2(max(width, height) / TILE_PX))))


def _pieces(
    slide: Slide, coords: np.ndarray, values: np.ndarray, size: int, origin: tuple[int, int],
    shape: tuple[int, ...], level0_per_px: float,
) -> Iterator[np.ndarray]:  # fmt: skip
    """uint8 [piece, piece, 3], row by row."""
    edge = TILE_PX * level0_per_px
    colours = colormaps[MAP]
    for top in range(0, shape[0], TILE_PX):
        y = origin[1] + top * level0_per_px
        in_row = np.flatnonzero((coords[:, 1] < y + edge) & (coords[:, 1] + size > y))
        for left in range(0, shape[1], TILE_PX):
            x = origin[0] + left * level0_per_px
            pixels = grey(_read(slide, x, y, level0_per_px))
            here = in_row[(coords[in_row, 0] < x + edge) & (coords[in_row, 0] + size > x)]
            at = (coords[here] - (x, y)) / level0_per_px
            mean = paint((TILE_PX, TILE_PX), at, values[here], size / level0_per_px)
            covered = ~np.isnan(mean)
            layer = colours(mean[covered])[:, :3] * 255
            pixels[covered] = np.rint((1 - OPACITY) * pixels[covered] + OPACITY * layer).astype(np.uint8)
            yield pixels


def _read(slide: Slide, x: float, y: float, level0_per_px: float) -> np.ndarray:
    """uint8 [piece, piece, 3] of the slide, in parts where a slide without coarse levels would be read as a whole."""
    parts = 1
    while TILE_PX * level0_per_px / parts > _MOST_LEVEL0 and parts < TILE_PX:
        parts *= 2
    px = TILE_PX // parts
    edge = px * level0_per_px
    pixels = np.empty((TILE_PX, TILE_PX, 3), np.uint8)
    for row in range(parts):
        for column in range(parts):
            part = slide.read(round(x + column * edge), round(y + row * edge), max(1, round(edge)), px)
            pixels[row * px : (row + 1) * px, column * px : (column + 1) * px] = part
    return pixels


def grey(pixels: np.ndarray) -> np.ndarray:
    """The same pixels, uint8 [..., 3], without their colours: pink under a colour would be another colour."""
    luma = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    return np.repeat(luma.astype(np.uint8)[..., None], 3, axis=-1)


def paint(shape: tuple[int, int], corners: np.ndarray, values: np.ndarray, size: float) -> np.ndarray:
    """float64 [h, w]: mean of the tiles (corner x, y and edge in pixels) that cover each pixel, NaN where none does.

    A tile of less than a pixel covers one. Sums over the corners of all tiles' squares, then twice along the axes: the
    cost does not grow with what a tile covers.
    """
    h, w = shape
    x0, y0 = (np.rint(corners[:, i]).astype(np.int64) for i in (0, 1))
    x1, y1 = (np.maximum(np.rint(corners[:, i] + size).astype(np.int64), low + 1) for i, low in ((0, x0), (1, y0)))
    inside = (x1 > 0) & (y1 > 0) & (x0 < w) & (y0 < h)
    x0, x1 = (np.clip(v[inside], 0, w) for v in (x0, x1))
    y0, y1 = (np.clip(v[inside], 0, h) for v in (y0, y1))
    total, count = np.zeros((h + 1, w + 1)), np.zeros((h + 1, w + 1))
    for xs, ys, sign in ((x0, y0, 1.0), (x1, y0, -1.0), (x0, y1, -1.0), (x1, y1, 1.0)):
        np.add.at(total, (ys, xs), sign * values[inside])
        np.add.at(count, (ys, xs), sign)
    total, count = (v.cumsum(0).cumsum(1)[:h, :w] for v in (total, count))
    return np.divide(total, count, out=np.full(shape, np.nan), where=count > 0.5)
