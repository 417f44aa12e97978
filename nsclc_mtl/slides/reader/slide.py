"""A whole-slide image that knows its scale, and says in one sentence why another one cannot be used.

Handles must be opened in the process that reads; threads may share a slide. Tiles of any wanted um/px are made from the
nearest level that is at least as fine.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import openslide

from nsclc_mtl.records import ItemFault
from nsclc_mtl.slides.reader import soundness
from nsclc_mtl.slides.reader.jpeg import fast_source
from nsclc_mtl.slides.reader.resample import reach, resample
from nsclc_mtl.slides.reader.scale import UM_AT_1X, number, scale_of
from nsclc_mtl.slides.reader.sources import CACHE_BYTES, WHITE, OpenSlideSource, Source, Undecodable, plain_picture

BLOCK_PX = 1024  # edge of the pieces in which a large area is read, so that memory does not grow with the slide
HOLE_PX = 256  # a block that cannot be decoded is taken apart down to this edge, so that its good tiles stay
LEVEL_TOLERANCE = 0.01  # sizes of levels are rounded, so a level may be this much coarser than wanted


class Slide:
    """An open slide: where it lies, its scale, and pixels at any size. Use as a context manager."""

    def __init__(self, path: Path, source: Source, mpp: float, mpp_source: str, properties: dict[str, str]) -> None:
        self.path, self._source = path, source
        self._reading, self._closed, self._idle = 0, False, threading.Condition()
        self.mpp, self.mpp_source = mpp, mpp_source
        self.dimensions: tuple[int, int] = source.sizes[0]
        self.vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
        self.read_by = source.name  # `jpeg tiles`, `openslide` or `picture`
        self.unreadable = 0.0  # share of stored tiles that the file has lost
        self.max_unreadable = 0.0  # share that the user lets go
        self.magnification = number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)) or round(UM_AT_1X / mpp, 1)

    def read(
        self, x: int, y: int, size_level0: int, out_px: int, tolerance: float = 0.0, out: np.ndarray | None = None
    ) -> np.ndarray:
        """uint8 [out_px, out_px, 3]: the square at (x, y), resampled from the nearest level; in `out` where given.

        Where a level has the wanted scale up to `tolerance` (.01 is 1 %), its own pixels are taken from the middle of
        the square, and nothing is interpolated. What lies outside the scanned area is white. Raises ItemFault `corrupt`
        where the file cannot be decoded.
        """
        shrink = size_level0 / out_px
        level = self._level(shrink, tolerance)
        scale = self._source.downsamples[level]
        if abs(shrink / scale - 1.0) <= max(tolerance, 1e-9):
            slack = (size_level0 / scale - out_px) / 2
            # Half a pixel too many goes to the right, so that what is on the grid stays there.
            left, top = (int(np.ceil(at / scale + slack - 0.5 - 1e-6)) for at in (x, y))
            return self._decoded(level, left, top, out_px, out_px, out)
        found = self._area(level, float(x), float(y), float(size_level0), float(size_level0), out_px, out_px)
        if out is None:
            return found
        out[...] = found
        return out

    def read_area(self, x: int, y: int, width: int, height: int, out_width: int, out_height: int) -> np.ndarray:
        """uint8 [out_height, out_width, 3]: a rectangle in level-0 pixels, resampled from the nearest level.

        White and faults as in `read`.
        """
        level = self._level(min(width / out_width, height / out_height))
        return self._area(level, float(x), float(y), float(width), float(height), out_width, out_height)

    def read_um(self, x: int, y: int, size_um: float, mpp: float, tolerance: float = 0.01) -> np.ndarray:
        """uint8 [px, px, 3]: the square of `size_um` at level-0 pixel (x, y), at `mpp` um/px (px = size_um / mpp)."""
        return self.read(x, y, max(1, round(size_um / self.mpp)), max(1, round(size_um / mpp)), tolerance)

    def thumbnail(self, um_per_px: float) -> np.ndarray:
        """uint8 [h, w, 3]: the whole slide at about this scale (exactly: dimensions / shape).

        Where the user lets unreadable tiles go, they are white here: no tissue is found in them.
        """
        width, height = self.dimensions
        shrink = um_per_px / self.mpp
        out_w, out_h = max(1, round(width / shrink)), max(1, round(height / shrink))
        per_x, per_y = width / out_w, height / out_h
        level = self._level(min(per_x, per_y))
        # A block of the result never asks for more than BLOCK_PX pixels of the level that it is made from.
        step = max(16, int(BLOCK_PX * self._source.downsamples[level] / max(per_x, per_y)))
        picture = np.empty((out_h, out_w, 3), np.uint8)
        for top in range(0, out_h, step):
            for left in range(0, out_w, step):
                h, w = min(step, out_h - top), min(step, out_w - left)
                area = self._area(level, left * per_x, top * per_y, w * per_x, h * per_y, w, h, holes=True)
                picture[top : top + h, left : left + w] = area
        return picture

    def close(self) -> None:
        """Give the file back once the threads that are reading have read; later ones get a fault."""
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: self._reading == 0)
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _level(self, shrink: float, tolerance: float = 0.0) -> int:
        """The coarsest level that is still at least as fine as wanted."""
        most = shrink * (1 + max(tolerance, LEVEL_TOLERANCE))
        fine = [i for i, d in enumerate(self._source.downsamples) if d <= most]
        return fine[-1] if fine else 0

    def _area(
        self, level: int, x: float, y: float, width: float, height: float, out_w: int, out_h: int, holes: bool = False
    ) -> np.ndarray:
        """uint8 [out_h, out_w, 3]: an area given in level-0 pixels, from this level."""
        scale = self._source.downsamples[level]
        box = (x / scale, y / scale, (x + width) / scale, (y + height) / scale)
        # Whole pixels of the level that cover the area and what its edge depends on; the box keeps the fraction.
        more_x, more_y = reach(width / scale / out_w), reach(height / scale / out_h)
        wide, high = self._source.sizes[level]
        left, right = _covering(box[0], box[2], more_x, wide)
        top, bottom = _covering(box[1], box[3], more_y, high)
        read = self._with_holes if holes and self.max_unreadable else self._decoded
        pixels = read(level, left, top, right - left, bottom - top)
        inside = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
        inside = (max(0.0, inside[0]), max(0.0, inside[1]), min(right - left, inside[2]), min(bottom - top, inside[3]))
        return resample(pixels, inside, out_w, out_h)

    def _decoded(
        self, level: int, left: int, top: int, width: int, height: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        try:
            return self._region(level, left, top, width, height, out)
        except Undecodable as error:
            at = tuple(round(edge * self._source.downsamples[level]) for edge in (left, top))
            sentence = f"slide '{self.path.name}' cannot be decoded at {at}: {error}; copy it again"
            raise ItemFault("corrupt", sentence) from error

    def _region(
        self, level: int, left: int, top: int, width: int, height: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        with self._idle:
            if self._closed:
                raise Undecodable("the slide was closed")
            self._reading += 1
        try:
            return self._source.region(level, left, top, width, height, out)
        finally:
            with self._idle:
                self._reading -= 1
                self._idle.notify_all()

    def _with_holes(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        """The same with white where nothing can be decoded, taken apart so that what is good stays."""
        try:
            return self._region(level, left, top, width, height)
        except Undecodable:
            if max(width, height) <= HOLE_PX:
                return np.full((height, width, 3), WHITE, np.uint8)
        if width >= height:
            half = width // 2
            parts = [self._with_holes(level, left, top, half, height)]
            return np.hstack([*parts, self._with_holes(level, left + half, top, width - half, height)])
        half = height // 2
        parts = [self._with_holes(level, left, top, width, half)]
        return np.vstack([*parts, self._with_holes(level, left, top + half, width, height - half)])


def _covering(first: float, last: float, more: int, size: int) -> tuple[int, int]:
    """Whole pixels from `first` to `last` and `more` around; the surplus ends with the level, the wish does not."""
    low, high = int(np.floor(first + 1e-6)), int(np.ceil(last - 1e-6))
    return min(low, max(0, low - more)), max(high, min(size, high + more))


def open_slide(
    path: Path, mpp: float | None = None, mpp_source: str = "given", *, mpp_from_power: bool = False,
    max_unreadable: float = 0.0, fast: bool = True, cache_bytes: int = CACHE_BYTES,
) -> Slide:  # fmt: skip
    """An open slide. Raises ItemFault with the public reason where it cannot be used.

    `mpp_from_power` allows the power of the objective as the last source of um/px; `max_unreadable` (at most .05) is
    the share of stored tiles that may be lost; `fast=False` reads with OpenSlide even where the file's JPEG tiles could
    be decoded directly (the pixels are the same); `cache_bytes` bounds the decoded tiles that are kept.
    Reasons: `absent unsupported corrupt no_pyramid too_large mpp_missing mpp_implausible mpp_anisotropic`.
    """
    path = Path(path)
    if not path.is_file():
        raise ItemFault("absent", f"slide '{path.name}' does not exist; mend its `path` in slides.csv or copy the file")
    try:
        source = OpenSlideSource(path, cache_bytes)
    except openslide.OpenSlideUnsupportedFormatError as error:
        if mpp is not None and (picture := plain_picture(path)):
            value, told = scale_of(path.name, {}, mpp, mpp_source)
            return Slide(path, picture, value, told, {openslide.PROPERTY_NAME_VENDOR: "picture"})
        raise soundness.fault_of(path) from error
    except openslide.OpenSlideError as error:
        told_by_content = soundness.fault_of(path)
        if told_by_content.reason == "no_pyramid":  # OpenSlide knows the format, and misses the slide in it
            raise told_by_content from error
        if "unsupported" in str(error).lower():  # whole, but packed in a way that OpenSlide does not unpack
            sentence = f"slide '{path.name}' cannot be read by OpenSlide ({error}); convert it to tiled TIFF with JPEG"
            raise ItemFault("unsupported", sentence) from error
        raise ItemFault("corrupt", f"slide '{path.name}' is damaged ({error}); copy it again") from error
    with ExitStack() as refused:  # a slide that is refused here is closed; an opened one closes its source itself
        refused.callback(source.close)
        lost = soundness.beyond_the_end(path, max_unreadable)
        value, told = scale_of(path.name, source.properties, mpp, mpp_source, mpp_from_power)
        chosen = (fast_source(path, source) if fast else None) or source
        refused.pop_all()
    slide = Slide(path, chosen, value, told, source.properties)
    slide.unreadable, slide.max_unreadable = lost, max_unreadable
    return slide
