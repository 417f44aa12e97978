"""Pixels of a level brought to another scale without aliasing: areas for whole factors, Lanczos for all others."""

from __future__ import annotations

import numpy as np
from PIL import Image

LANCZOS_REACH = 3  # pixels of the result that one pixel of it looks at, to each side
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
    picture = Image.fromarray(pixels)
    if on_grid and across % width == 0 and down % height == 0:
        return np.asarray(picture.reduce((across // width, down // height), whole))
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS, box=box))
