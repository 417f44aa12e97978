"""Slides in the browser: deep-zoom tiles straight from the file, and the scores that were found on its tiles."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pandas as pd
from fastapi import APIRouter, Response

from nsclc_mtl.records import DataFault, Fault
from nsclc_mtl.slides.reader import Slide, open_slide
from nsclc_mtl.slides.reader.resample import resample
from nsclc_mtl.viewer.board import Board, SlideFile

if TYPE_CHECKING:
    from nsclc_mtl.viewer.app import Limits

TILE_PX = 256
OVERVIEW_PX = 2048  # edge of the picture, kept with an open slide, from which coarse levels are cut: at most 16 MB
THUMBNAIL_PX = 320
QUALITY = 85  # of JPEG: nuclei keep their edges, a tile takes about 15 kB
MOST_PX = 1024  # edge of a crop
CROP_SHRINK = 16  # level-0 pixels a pixel of a crop, at most: what is read is bounded
POINTS = ("attention", "influence:")  # the columns of a table of scores that are maps begin so


def routes(board: Board, limits: Limits) -> APIRouter:
    """`/api/slides/{n}` and what lies below it. Only the scanned area is read: label and macro pictures never are."""
    router = APIRouter(prefix="/api/slides/{n}")
    open_ones = OpenSlides(board.slides, limits.open_slides, limits.readers)
    tiles = Cache(limits.cache_mb * 1_000_000 // 2)

    @router.get("")
    def info(n: int) -> dict[str, Any]:
        with open_ones.reading(n) as opened:
            slide = opened.slide
            width, height = slide.dimensions
            told: dict[str, Any] = {
                "id": board.slides[n].slide_id, "patient": board.slides[n].patient_id, "width": width, "height": height,
                "mpp": slide.mpp, "mpp_source": slide.mpp_source, "magnification": slide.magnification,
                "tile": TILE_PX, "levels": levels(width, height), "maps": board.slides[n].scores is not None,
                "contour": board.slides[n].contour is not None,
            }  # fmt: skip
        open_ones.look_ahead(n)
        return told

    @router.get("/tile/{level}/{x}/{y}.jpg")
    def tile(n: int, level: int, x: int, y: int) -> Response:
        picture = tiles.get((n, level, x, y), lambda: _tile(open_ones, n, level, x, y))
        return Response(picture, media_type="image/jpeg")

    @router.get("/thumbnail.jpg")
    def thumbnail(n: int) -> Response:
        return Response(tiles.get((n, "thumbnail"), lambda: _thumbnail(open_ones, n)), media_type="image/jpeg")

    @router.get("/crop.jpg")
    def crop(n: int, x: int, y: int, size: int, px: int = 256) -> Response:
        def made() -> bytes:
            with open_ones.reading(n) as opened:
                if not (16 <= px <= MOST_PX and 1 <= size <= min(max(opened.slide.dimensions), px * CROP_SHRINK)):
                    raise DataFault(
                        f"a crop is 16 to {MOST_PX} px of a square that is at most {CROP_SHRINK} times as wide"
                    )
                return encoded(opened.slide.read(x, y, size, px))

        return Response(tiles.get((n, "crop", x, y, size, px), made), media_type="image/jpeg")

    @router.get("/scores")
    def scores(n: int) -> dict[str, Any]:
        file = open_ones.file(n).scores
        if file is None:
            raise DataFault("this slide was not explained: run mtl predict with explain.patients=all")
        return maps(pd.read_csv(file))

    @router.get("/contour")
    def contour(n: int) -> dict[str, Any]:
        return _geojson(open_ones.file(n).contour, "this slide was not tiled here")

    @router.get("/tiles.geojson")
    def for_qupath(n: int) -> dict[str, Any]:
        return _geojson(open_ones.file(n).tiles, "this slide was not explained")

    return router


def levels(width: int, height: int) -> int:
    """How many levels a deep-zoom pyramid has: the last one is the slide itself, each other half as large.

    >>> levels(1280, 1024)
    12
    """
    return int(max(width, height) - 1).bit_length() + 1


def maps(table: pd.DataFrame) -> dict[str, Any]:
    """Tiles and their scores by map: {size, x, y, maps: {name: {raw, percentile}}}, in the order of the table.

    >>> maps(pd.DataFrame({"x": [0], "y": [256], "size_level0": [256], "attention": [0.5]}))["maps"]
    {'attention': {'raw': [0.5], 'percentile': None}}
    """
    names = [c for c in table if str(c).startswith(POINTS) and not str(c).endswith("_percentile")]
    found = {}
    for name in names:
        rank = f"{name}_percentile"
        found[str(name)] = {
            "raw": _plain(table[name]),
            "percentile": _plain(table[rank]) if rank in table else None,
        }
    size = int(table["size_level0"].iloc[0]) if len(table) else 0
    return {"size": size, "x": table["x"].tolist(), "y": table["y"].tolist(), "maps": found}


def encoded(pixels: np.ndarray) -> bytes:
    """JPEG of uint8 [h, w, 3]."""
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), level=QUALITY))


class Opened:
    """An open slide, and pictures of the whole of it, made when it is first looked at from afar."""

    def __init__(self, slide: Slide) -> None:
        self.slide, self.ahead, self._lock = slide, False, threading.Lock()
        self._wholes: list[np.ndarray] = []

    def overviews(self) -> list[np.ndarray]:
        """uint8 [h, w, 3] each: the slide with no edge longer than OVERVIEW_PX, and halves of it down to a tile."""
        with self._lock:
            if not self._wholes:
                shrink = max(max(self.slide.dimensions) / OVERVIEW_PX, 1.0)
                wholes = [self.slide.thumbnail(shrink * self.slide.mpp)]
                while max(wholes[-1].shape) > TILE_PX:
                    height, width = wholes[-1].shape[:2]
                    box = (0.0, 0.0, float(width), float(height))
                    wholes.append(resample(wholes[-1], box, -(-width // 2), -(-height // 2)))
                self._wholes = wholes
            return self._wholes

    def area(self, left: int, top: int, across: int, down: int, shrink: int) -> np.ndarray:
        """uint8 [down, across, 3] at (left, top), all in pixels of the level that is `shrink` times coarser than 0."""
        wide, high = self.slide.dimensions
        if max(wide, high) / shrink <= OVERVIEW_PX:
            fine = [one for one in self.overviews() if one.shape[1] >= 0.99 * wide / shrink]
            whole = fine[-1] if fine else self.overviews()[0]
            per_x, per_y = whole.shape[1] / wide * shrink, whole.shape[0] / high * shrink
            right, bottom = min((left + across) * per_x, whole.shape[1]), min((top + down) * per_y, whole.shape[0])
            return resample(whole, (left * per_x, top * per_y, right, bottom), across, down)
        if across == down:  # pixels of a level that has this very scale are taken as they are
            return self.slide.read(left * shrink, top * shrink, across * shrink, across)
        return self.slide.read_area(left * shrink, top * shrink, across * shrink, down * shrink, across, down)


class OpenSlides:
    """Slide files, opened when they are asked for; the ones asked for longest ago are closed beyond `most`."""

    def __init__(self, files: list[SlideFile], most: int, readers: int) -> None:
        self.files, self.most = files, max(1, most)
        self._readers = threading.BoundedSemaphore(max(1, readers))
        self._open: OrderedDict[int, Opened] = OrderedDict()
        self._busy: dict[int, int] = {}
        self._lock = threading.Lock()

    def file(self, n: int) -> SlideFile:
        """The slide of this number. Raises DataFault where there is none."""
        if not 0 <= n < len(self.files):
            raise DataFault(f"no slide {n} is shown here")
        return self.files[n]

    @contextmanager
    def reading(self, n: int) -> Iterator[Opened]:
        """The open slide, not to be closed within. Raises DataFault where there is none or it cannot be read."""
        file = self.file(n)
        with self._readers:
            with self._lock:
                if n not in self._open:
                    self._open[n] = Opened(open_slide(file.path, file.mpp))
                self._open.move_to_end(n)
                self._busy[n] = self._busy.get(n, 0) + 1
            try:
                yield self._open[n]
            finally:
                with self._lock:
                    self._busy[n] -= 1
                    idle = [k for k in self._open if not self._busy.get(k)]
                    for k in idle[: max(0, len(self._open) - self.most)]:
                        self._open.pop(k).slide.close()

    def look_ahead(self, n: int) -> None:
        """Has the pictures of the whole slide made, beside what is going on, so that its first view waits for less."""

        def look() -> None:
            with suppress(Fault), self.reading(n) as opened:  # whoever asks for a tile is told what is wrong
                opened.overviews()

        with self._lock:
            opened = self._open.get(n)
            if opened is None or opened.ahead:
                return
            opened.ahead = True
        threading.Thread(target=look, name=f"overview of slide {n}", daemon=True).start()


class Cache:
    """Encoded pictures, the ones asked for longest ago forgotten beyond `most` bytes."""

    def __init__(self, most: int) -> None:
        self.most, self.size = most, 0
        self._kept: OrderedDict[Any, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Any) -> bytes:
        """What is kept under the key, else what `make` makes."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made: bytes = make()
        with self._lock:
            self.size += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self.size > self.most and self._kept:
                self.size -= len(self._kept.popitem(last=False)[1])
        return made


def _tile(open_ones: OpenSlides, n: int, level: int, x: int, y: int) -> bytes:
    with open_ones.reading(n) as opened:
        width, height = opened.slide.dimensions
        last = levels(width, height) - 1
        if not 0 <= level <= last:
            raise DataFault(f"slide {n} has no level {level}")
        shrink = 2 ** (last - level)
        wide, high = -(-width // shrink), -(-height // shrink)  # pixels of the level
        left, top = x * TILE_PX, y * TILE_PX
        if not (0 <= left < wide and 0 <= top < high):
            raise DataFault(f"level {level} of slide {n} has no tile {x}, {y}")
        return encoded(opened.area(left, top, min(TILE_PX, wide - left), min(TILE_PX, high - top), shrink))


def _thumbnail(open_ones: OpenSlides, n: int) -> bytes:
    with open_ones.reading(n) as opened:
        whole = opened.overviews()[0]
        share = min(1.0, THUMBNAIL_PX / max(whole.shape))
        across, down = (max(1, round(whole.shape[k] * share)) for k in (1, 0))
        return encoded(resample(whole, (0.0, 0.0, float(whole.shape[1]), float(whole.shape[0])), across, down))


def _geojson(path: Any, fault: str) -> dict[str, Any]:
    if path is None:
        raise DataFault(fault)
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _plain(column: pd.Series) -> list[float | None]:
    return [None if not np.isfinite(v) else float(f"{v:.6g}") for v in column.to_numpy(float)]
