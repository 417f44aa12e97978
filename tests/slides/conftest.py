"""Real pyramidal tiled TIFFs, small enough to be made in every test."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile

NUCLEUS = np.add.outer(np.arange(-7, 8) ** 2, np.arange(-7, 8) ** 2) < 49


@cache
def picture(height: int = 1024, width: int = 1280, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: glass with a pink disk that holds blue nuclei, centred, radius 0.35 of the height."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 242, np.int16) + rng.integers(-3, 4, (height, width, 1))
    y, x = np.ogrid[:height, :width]
    disk = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (0.35 * height) ** 2
    image[disk] = np.array([225, 160, 195]) + rng.integers(-8, 9, (int(disk.sum()), 1))
    for _ in range(300):
        top, left = int(rng.integers(0, height - 15)), int(rng.integers(0, width - 15))
        window = np.s_[top : top + 15, left : left + 15]
        image[window][NUCLEUS & disk[window]] = (90, 60, 140)
    return image.clip(0, 255).astype(np.uint8)


def save(
    path: Path, image: np.ndarray, mpp: float | tuple[float, float] | None = 0.5, levels: int = 2, tile: int = 256
) -> Path:
    """A tiled JPEG pyramid that OpenSlide opens as generic-tiff; `mpp=None` leaves the resolution out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pair = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    with tifffile.TiffWriter(path) as tiff:
        for level in range(levels):
            step = 4**level
            scale = {} if mpp is None else {
                "resolution": tuple(1e4 / (value * step) for value in pair), "resolutionunit": "CENTIMETER",
            }  # fmt: skip
            small = image[: image.shape[0] // step * step, : image.shape[1] // step * step].astype(np.uint16)
            small = (
                small.reshape(small.shape[0] // step, step, small.shape[1] // step, step, 3)
                .mean((1, 3))
                .astype(np.uint8)
            )
            tiff.write(
                small, photometric="rgb", compression="jpeg", tile=(tile, tile), subfiletype=1 if level else 0,
                metadata=None, **scale,
            )  # fmt: skip
    return path


@pytest.fixture
def toy_slide(tmp_path: Path) -> Callable[..., Path]:
    """A maker of slides in the test's folder: toy_slide(name, mpp=0.5, image=None)."""

    def make(
        name: str = "toy.tif",
        mpp: float | tuple[float, float] | None = 0.5,
        image: np.ndarray | None = None,
        levels: int = 2,
    ) -> Path:
        return save(tmp_path / name, picture() if image is None else image, mpp, levels)

    return make
