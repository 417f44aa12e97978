"""Real pyramidal tiled TIFFs, small enough to be made in every test."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"  # and one byte: 0 = RGB, 1 = YCbCr
SUBSAMPLING = {"444": (1, 1), "422": (2, 1), "420": (2, 2)}
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


def split(data: bytes) -> tuple[bytes, bytes]:
    """A JPEG's tables (DQT, DHT) as a stream of their own, and the stream without them."""
    tables, rest, at = b"", data[:2], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
        if data[at + 1] in (0xDB, 0xC4):
            tables += data[at:end]
        else:
            rest += data[at:end]
        at = end
    return b"\xff\xd8" + tables + b"\xff\xd9", rest + data[at:]


def slide_of_tiles(
    path: Path, photometric: str = "ycbcr", subsampling: str = "420", tables: bool = False, adobe: int | None = None,
    tile: int = 128, size: tuple[int, int] = (700, 901), step: int = 4,
) -> Path:  # fmt: skip
    """Two levels of JPEG tiles written byte by byte, with edge tiles; colour is stored as `photometric` says."""
    image = picture(*size)
    with tifffile.TiffWriter(path) as tiff:
        for level in range(2):
            image = image[::step, ::step] if level else image
            height, width = image.shape[:2]
            down, across = -(-height // tile), -(-width // tile)
            padded = np.pad(image, ((0, down * tile - height), (0, across * tile - width), (0, 0)), mode="edge")
            blocks = padded.reshape(down, tile, across, tile, 3).transpose(0, 2, 1, 3, 4).reshape(-1, tile, tile, 3)
            encoded = [
                imagecodecs.jpeg8_encode(
                    np.ascontiguousarray(block), level=85, colorspace="rgb", outcolorspace=photometric,
                    subsampling=subsampling,
                )
                for block in blocks
            ]  # fmt: skip
            if adobe is not None:
                encoded = [data[:2] + ADOBE + bytes([adobe]) + data[2:] for data in encoded]
            shared = split(encoded[0])[0] if tables else None
            tiff.write(
                iter([split(data)[1] for data in encoded] if tables else encoded), shape=image.shape, dtype=np.uint8,
                photometric=photometric, compression="jpeg", compressionargs={"outcolorspace": photometric},
                tile=(tile, tile), jpegtables=shared, metadata=None,
                subsampling=SUBSAMPLING[subsampling], subfiletype=1 if level else 0,
                resolution=(2e4 / step**level,) * 2, resolutionunit="CENTIMETER",
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


@pytest.fixture
def jpeg_slide(tmp_path: Path) -> Callable[..., Path]:
    """A maker of slides whose JPEG tiles are written byte by byte: jpeg_slide(name, photometric="ycbcr", ...)."""
    return lambda name="jpeg.tif", *layout, **options: slide_of_tiles(tmp_path / name, *layout, **options)


@pytest.fixture
def drawn() -> np.ndarray:
    """What `jpeg_slide` shows before compression: uint8 [700, 901, 3]."""
    return picture(700, 901)
