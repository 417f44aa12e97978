"""Open slide files in bounded number and memory, read in a few threads, and the pictures that were made of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from nsclc_mtl.records import DataFault
from nsclc_mtl.slides.reader import Slide, open_slide
from nsclc_mtl.slides.reader.resample import resample
from nsclc_mtl.viewer.board import SlideFile

OVERVIEW_LEVEL = 11  # of deep zoom: no edge is longer than 2^11 pixels
OVERVIEW_PX = 2**OVERVIEW_LEVEL  # edge of the picture from which coarse levels are cut: at most 17 MB a slide
SAME_SCALE = 0.002  # a stored level that is off by so little is shown as it is: half a pixel at most within a tile
BLOCK_PX = 512  # edge of the pieces in which it is made

Seen = TypeVar("Seen")


class Opened:
    """A slide that opens when it is first read, and pictures of the whole of it."""

    def __init__(self, file: SlideFile, cache_bytes: int) -> None:
        self.file, self.cache_bytes = file, cache_bytes
        self.ahead: Future[None] | None = None  # when the pictures of the whole are there
        self._slide: Slide | None = None
        self._opening, self._making = threading.Lock(), threading.Lock()
        self._wholes: list[np.ndarray] = []
        self.shrink = 1  # level-0 pixels a pixel of the first of the wholes

    @property
    def slide(self) -> Slide:
        """The open slide. Raises ItemFault where it cannot be used."""
        with self._opening:
            if self._slide is None:
                self._slide = open_slide(self.file.path, self.file.mpp, cache_bytes=self.cache_bytes)
            return self._slide

    def close(self) -> None:
        """Gives the file back."""
        with self._opening:
            if self._slide is not None:
                self._slide.close()

    def overviews(self) -> list[np.ndarray]:
        """uint8 [h, w, 3] each: the slide at the finest level with no edge longer than OVERVIEW_PX, then every coarser
        level, down to one pixel."""
        with self._making:
            if not self._wholes:
                width, height = self.slide.dimensions
                while max(width, height) > OVERVIEW_PX * self.shrink:
                    self.shrink *= 2
                wholes = [np.empty((-(-height // self.shrink), -(-width // self.shrink), 3), np.uint8)]
                for top in range(0, wholes[0].shape[0], BLOCK_PX):
                    for left in range(0, wholes[0].shape[1], BLOCK_PX):
                        block = wholes[0][top : top + BLOCK_PX, left : left + BLOCK_PX]
                        block[...] = self._read(left, top, block.shape[1], block.shape[0], self.shrink)
                while max(wholes[-1].shape[:2]) > 1:
                    wholes.append(_halved(wholes[-1]))
                self._wholes = wholes
            return self._wholes

    def look(self) -> None:
        """Makes the pictures of the whole."""
        self.overviews()

    def area(self, left: int, top: int, across: int, down: int, shrink: int) -> np.ndarray:
        """uint8 [down, across, 3] at (left, top), all in pixels of the level that is `shrink` times coarser than 0."""
        if max(self.slide.dimensions) > OVERVIEW_PX * shrink:
            return self._read(left, top, across, down, shrink)
        wholes = self.overviews()
        if shrink < self.shrink:
            raise DataFault("the levels of a slide halve from one to the next")
        return wholes[(shrink // self.shrink).bit_length() - 1][top : top + down, left : left + across]

    def _read(self, left: int, top: int, across: int, down: int, shrink: int) -> np.ndarray:
        if across == down:  # pixels of a level that has this very scale are taken as they are
            return self.slide.read(left * shrink, top * shrink, across * shrink, across, SAME_SCALE)
        return self.slide.read_area(left * shrink, top * shrink, across * shrink, down * shrink, across, down)


class OpenSlides:
    """Slide files, opened when they are asked for; the ones asked for longest ago are closed beyond `most`.

    They are read in `readers` threads of their own: OpenSlide keeps a handle a thread. `decoded` bytes of tiles are
    kept by all open slides together.
    """

    def __init__(self, files: list[SlideFile], most: int, readers: int, decoded: int = 512_000_000) -> None:
        self.files, self.most = files, max(1, most)
        self.cache_bytes = decoded // self.most
        self.pool = ThreadPoolExecutor(max(1, readers), thread_name_prefix="slides")
        self._open: OrderedDict[int, Opened] = OrderedDict()
        self._busy: dict[int, int] = {}
        self._lock = threading.Lock()

    def file(self, n: int) -> SlideFile:
        """The slide of this number. Raises DataFault where there is none."""
        if not 0 <= n < len(self.files):
            raise DataFault(f"no slide {n} is shown here")
        return self.files[n]

    def see(self, n: int, what: Callable[[Opened], Seen]) -> Future[Seen]:
        """What becomes of the open slide in the next free thread of the readers; faults as in `reading`."""
        self.file(n)

        def seen() -> Seen:
            with self.reading(n) as opened:
                return what(opened)

        return self.pool.submit(seen)

    def look_ahead(self, n: int) -> Future[None]:
        """Has the pictures of the whole slide made, once while it is open."""
        file = self.file(n)
        with self._lock:
            opened = self._open.setdefault(n, Opened(file, self.cache_bytes))
            if opened.ahead is None or (opened.ahead.done() and opened.ahead.exception()):
                opened.ahead = self.see(n, Opened.look)
            return opened.ahead

    @contextmanager
    def reading(self, n: int) -> Iterator[Opened]:
        """The open slide, not to be closed within. Raises DataFault where there is none or it cannot be read."""
        file = self.file(n)
        with self._lock:
            opened = self._open.setdefault(n, Opened(file, self.cache_bytes))
            self._open.move_to_end(n)
            self._busy[n] = self._busy.get(n, 0) + 1
        try:
            yield opened
        finally:
            with self._lock:
                self._busy[n] -= 1
                idle = [k for k in self._open if not self._busy.get(k)]
                for k in idle[: max(0, len(self._open) - self.most)]:
                    self._open.pop(k).close()


class Cache:
    """Encoded pictures, the ones asked for longest ago forgotten beyond `most` bytes."""

    def __init__(self, most: int) -> None:
        self.most, self.size = most, 0
        self._kept: OrderedDict[Any, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def kept(self, key: Any) -> bytes | None:
        """What is kept under the key."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]

    def keep(self, key: Any, made: bytes) -> None:
        """Keeps it, and forgets what was asked for longest ago where it is too much."""
        with self._lock:
            self.size += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self.size > self.most and self._kept:
                self.size -= len(self._kept.popitem(last=False)[1])

    def get(self, key: Any, make: Callable[[], bytes]) -> bytes:
        """What is kept under the key, else what `make` makes."""
        found = self.kept(key)
        if found is None:
            found = make()
            self.keep(key, found)
        return found


def _halved(picture: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3], half as large: means of two by two; an odd edge stands for itself."""
    even = np.pad(picture, [(0, n % 2) for n in picture.shape[:2]] + [(0, 0)], mode="edge")
    height, width = even.shape[:2]
    return resample(even, (0.0, 0.0, float(width), float(height)), width // 2, height // 2)
