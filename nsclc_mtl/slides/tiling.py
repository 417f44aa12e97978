"""Square tiles in micrometres over the tissue, in level-0 pixels, always in the same order."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from nsclc_mtl.records import DataFault, Tiles


def grid(
    mask: np.ndarray,
    slide_id: str,
    dimensions: tuple[int, int],
    mpp: float,
    tile_um: float,
    min_tissue: float = 0.5,
    overlap_um: float = 0.0,
) -> Tiles:
    """Tiles of `tile_um` whose tissue fraction is at least `min_tissue`, in canonical (y, x) order.

    `mask` (bool [h, w]) covers the whole slide of `dimensions` (w, h) level-0 pixels; tiles lie wholly inside it.
    Without any, `attrs["reason"]` is `too_small` or `no_tissue`. Raises DataFault on senseless sizes.
    """
    if not (tile_um > 0 and 0 <= overlap_um < tile_um and 0 <= min_tissue <= 1):
        raise DataFault(
            f"tiles of {tile_um} um with {overlap_um} um overlap and a tissue fraction of {min_tissue} make no sense; "
            "need tile_um > overlap_um >= 0 and min_tissue in 0..1"
        )
    width, height = dimensions
    size = max(1, round(tile_um / mpp))
    step = max(1, round((tile_um - overlap_um) / mpp))
    xs, ys = np.arange(0, width - size + 1, step), np.arange(0, height - size + 1, step)
    if len(xs) == 0 or len(ys) == 0:
        none = np.zeros((0, 2), np.int64)
        return Tiles(slide_id, none, size, tile_um, mpp, np.zeros(0, np.float32), {"reason": "too_small"})
    fraction = _fraction(mask, xs, ys, size, dimensions)
    # Nothing at all is no tissue, even where the wish is "any fraction".
    row, column = np.nonzero((fraction >= min_tissue) & (fraction > 0))
    coords = np.stack([xs[column], ys[row]], axis=1).astype(np.int64)
    attrs = {} if len(coords) else {"reason": "no_tissue"}
    return Tiles(slide_id, coords, size, tile_um, mpp, fraction[row, column].astype(np.float32), attrs)


def sample(tiles: Tiles, most: int | None, seed: int = 0) -> Tiles:
    """At most `most` of the tiles, drawn without replacement by (seed, slide_id) alone, in canonical order.

    `attrs["sampled_from"]` keeps their number before. Raises DataFault where `most` is under 1.
    """
    if most is not None and most < 1:
        raise DataFault(f"slides.sample={most}: give the number of tiles a slide, or null for all of them")
    if most is None or len(tiles) <= most:
        return tiles
    # Not Python's `hash`, which differs between processes; and not the order of slides, which differs between cohorts.
    entropy = int.from_bytes(hashlib.sha256(f"{int(seed)}:{tiles.slide_id}".encode()).digest()[:8], "big")
    chosen = np.sort(np.random.default_rng(entropy).choice(len(tiles), int(most), replace=False))
    attrs = {**tiles.attrs, "sampled_from": len(tiles)}
    return replace(tiles, coords=tiles.coords[chosen], tissue=tiles.tissue[chosen], attrs=attrs)


def _fraction(mask: np.ndarray, xs: np.ndarray, ys: np.ndarray, size: int, dimensions: tuple[int, int]) -> np.ndarray:
    """float64 [len(ys), len(xs)]: exact share of each tile that the mask covers.

    The summed-area table (Crow, 1984) is linear between its nodes, so interpolating it gives fractions of mask pixels.
    """
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    table[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)
    per_x, per_y = dimensions[0] / mask.shape[1], dimensions[1] / mask.shape[0]
    edges_x = np.concatenate([xs, xs + size]) / per_x
    edges_y = np.concatenate([ys, ys + size]) / per_y
    across = _between(table.T, edges_x).T
    whole = _between(across, edges_y)
    top, bottom = whole[: len(ys)], whole[len(ys) :]
    left, right = slice(0, len(xs)), slice(len(xs), None)
    area = bottom[:, right] - bottom[:, left] - top[:, right] + top[:, left]
    return np.clip(area * per_x * per_y / size**2, 0.0, 1.0)


def _between(table: np.ndarray, places: np.ndarray) -> np.ndarray:
    low = np.clip(np.floor(places).astype(int), 0, len(table) - 2)
    weight = (places - low)[:, None]
    return table[low] * (1 - weight) + table[low + 1] * weight
