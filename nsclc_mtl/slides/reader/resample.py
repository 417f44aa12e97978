"""Pixels of a level brought to another scale without aliasing: areas for whole factors, Lanczos for all others.

Lanczos is two products with banded matrices, in blocks of a few rows: nearly twice as fast as Pillow's, and equal to
it up to one grey level (in 3 of 10,000 values of a real slide; two levels occur in noise). Weights are multiples of
2^-16 that sum to one, and grey is counted from the middle, so every product and sum is exact in float32: pixels are the
same on any machine.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

LANCZOS_REACH = 3  # pixels of the result that one pixel of it looks at, to each side
UNIT = 1 << 16  # steps of a weight; absolute weights sum to less than 2, so 16 bits and 7 of a pixel fit in a float32
MIDDLE = 128.0  # grey that counts as zero
ACROSS, DOWN = 4, 8  # pixels of the result a block: small blocks multiply few of the zeros beside the band
MOST_PRODUCTS = (
    3 << 16
)  # a matrix product: beyond 4 << 16, OpenBLAS starts threads, and the readers are threads already
Box = tuple[float, float, float, float]


def reach(shrink: float) -> int:
    """Pixels around the wanted area that a result `shrink` times coarser depends on: 0 for whole factors."""
    return 0 if float(shrink).is_integer() else int(np.ceil(LANCZOS_REACH * max(shrink, 1.0)))


def resample(pixels: np.ndarray, box: Box, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3]: the part `box` (left, top, right, bottom, in pixels) of uint8 [h, w, 3].

    A whole factor on whole pixels is the mean of each area (exactly, rounded); else Lanczos-3, widened by the factor
    when the result is coarser, so that nothing finer than its pixels folds back (Turkowski, Graphics Gems, 1990).
    """
    whole = (round(box[0]), round(box[1]), round(box[2]), round(box[3]))
    on_grid = max(abs(edge - at) for edge, at in zip(box, whole, strict=True)) < 1e-6
    across, down = whole[2] - whole[0], whole[3] - whole[1]
    if on_grid and (across, down) == (width, height):
        return pixels[whole[1] : whole[3], whole[0] : whole[2]]
    if on_grid and across % width == 0 and down % height == 0:
        return np.asarray(Image.fromarray(pixels).reduce((across // width, down // height), whole))
    return lanczos(pixels, box, width, height)


def lanczos(pixels: np.ndarray, box: Box, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, c]: Lanczos-3 of a box of uint8 [h, w, c], first across, then down, rounded after each."""
    rows, columns, channels = pixels.shape
    starts, bands = _bands(columns, box[0], box[2], width, ACROSS, channels)
    lines = np.ascontiguousarray(pixels).reshape(rows, columns * channels).astype(np.float32)
    lines -= MIDDLE
    wide = np.empty((rows, len(bands) * bands.shape[2]), np.float32)
    some = max(1, MOST_PRODUCTS // bands[0].size)
    for at in range(0, rows, some):
        for block, (start, band) in enumerate(zip(starts, bands, strict=True)):
            window = lines[at : at + some, start * channels : start * channels + len(band)]
            np.matmul(window, band, out=wide[at : at + some, block * band.shape[1] : (block + 1) * band.shape[1]])
    narrow = _grey(wide)[:, : width * channels].astype(np.float32)
    narrow -= MIDDLE
    starts, bands = _bands(rows, box[1], box[3], height, DOWN, 1)
    tall = np.empty((len(bands) * DOWN, width * channels), np.float32)
    some = max(1, MOST_PRODUCTS // bands[0].size)
    for at in range(0, width * channels, some):
        for block, (start, band) in enumerate(zip(starts, bands, strict=True)):
            window = narrow[start : start + len(band), at : at + some]
            np.matmul(band.T, window, out=tall[block * DOWN : (block + 1) * DOWN, at : at + some])
    return _grey(tall)[:height].reshape(height, width, channels)


def _grey(values: np.ndarray) -> np.ndarray:
    """The nearest uint8 of grey less the middle; changes `values`."""
    values += MIDDLE + 0.5
    np.clip(values, 0.0, 255.5, out=values)
    return values.astype(np.uint8)


@lru_cache(maxsize=64)
def _bands(size: int, first: float, last: float, count: int, block: int, channels: int) -> tuple[list[int], np.ndarray]:
    """Where each block of `count` pixels starts to look in `size` pixels, and its weights.

    Weights are float32 [block, looked at * channels, pixels of a block * channels]; channels do not mix.
    """
    scale = (last - first) / count
    wide = max(scale, 1.0)
    centre = first + (np.arange(count) + 0.5) * scale
    low = np.maximum(0, np.floor(centre - LANCZOS_REACH * wide + 0.5).astype(np.int64))
    high = np.minimum(size, np.floor(centre + LANCZOS_REACH * wide + 0.5).astype(np.int64))
    places = low[:, None] + np.arange(int((high - low).max()))
    off = (places + 0.5 - centre[:, None]) / wide
    weights = np.where(places < high[:, None], np.sinc(off) * np.sinc(off / LANCZOS_REACH), 0.0)
    steps = np.rint(weights * (UNIT / weights.sum(1, keepdims=True)))
    # What rounding leaves goes to the largest weight: a plain area stays as it is.
    steps[np.arange(count), steps.argmax(1)] += UNIT - steps.sum(1)

    blocks = -(-count // block)
    begin = low[::block]
    looked = min(size, int(max(high[i * block : (i + 1) * block].max() - begin[i] for i in range(blocks))))
    begin = np.minimum(begin, size - looked)
    out = np.arange(count)
    bands = np.zeros((blocks, looked, channels, block, channels), np.float32)
    own, pixel = np.nonzero(places < high[:, None])
    rows = places[own, pixel] - begin[out[own] // block]
    for channel in range(channels):
        bands[own // block, rows, channel, own % block, channel] = steps[own, pixel] / UNIT
    return begin.tolist(), bands.reshape(blocks, looked * channels, block * channels)
