"""Tiles decoded by threads while somebody else computes: batches in order, and never more than a few of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from nsclc_mtl.records import ItemFault
from nsclc_mtl.slides.reader.slide import Slide

Rows = list[tuple[int, ItemFault]]


class TileBatches:
    """Batches of tiles in the order of `coords`, the same for any number of threads.

    Iterating gives pairs: rows int64 [b] (places in `coords`) and tiles uint8 [b, tile_px, tile_px, 3]. Decoding
    releases Python's lock, so `threads` of them work while the consumer does; at most `threads + ahead` batches wait,
    whatever the size of the slide. A fault reaches the consumer where its batch would have come; leaving the loop ends
    the threads.

    Where the slide lets some tiles go (`max_unreadable`), unreadable ones are left out and listed in `unreadable`; more
    than allowed is ItemFault `corrupt`.
    """

    def __init__(
        self, slide: Slide, coords: np.ndarray, size_level0: int, tile_px: int, batch: int, threads: int = 2,
        ahead: int = 2, tolerance: float = 0.0,
    ) -> None:  # fmt: skip
        self.slide, self.coords = slide, np.asarray(coords)
        self.size_level0, self.tile_px, self.tolerance = size_level0, tile_px, tolerance
        self.batch, self.threads, self.ahead = max(1, batch), max(1, threads), max(0, ahead)
        self.unreadable: list[int] = []

    def __len__(self) -> int:
        return -(-len(self.coords) // self.batch)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.unreadable = []
        starts = iter(range(0, len(self.coords), self.batch))
        waiting: deque[Future[tuple[np.ndarray, np.ndarray, Rows]]] = deque()
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="tiles")
        try:
            while True:
                while len(waiting) < self.threads + self.ahead and (start := next(starts, None)) is not None:
                    waiting.append(pool.submit(self._read, start))
                if not waiting:
                    return
                rows, tiles, lost = waiting.popleft().result()
                self._account(lost)
                if len(rows):
                    yield rows, tiles
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, start: int) -> tuple[np.ndarray, np.ndarray, Rows]:
        rows = np.arange(start, min(start + self.batch, len(self.coords)))
        tiles = np.empty((len(rows), self.tile_px, self.tile_px, 3), np.uint8)
        lost: Rows = []
        for place, row in enumerate(rows):
            x, y = (int(v) for v in self.coords[row])
            try:
                self.slide.read(x, y, self.size_level0, self.tile_px, self.tolerance, out=tiles[place])
            except ItemFault as fault:
                if not self.slide.max_unreadable:
                    raise
                lost.append((int(row), fault))
        if lost:
            kept = ~np.isin(rows, [row for row, _ in lost])
            rows, tiles = rows[kept], tiles[kept]
        return rows, tiles, lost

    def _account(self, lost: Rows) -> None:
        self.unreadable += [row for row, _ in lost]
        most = self.slide.max_unreadable
        if len(self.unreadable) > most * len(self.coords):
            sentence = (
                f"slide '{self.slide.path.name}': {len(self.unreadable)} of {len(self.coords)} tiles are unreadable, "
                f"more than slides.max_unreadable={most:g} allows; copy it again"
            )
            raise ItemFault("corrupt", sentence) from lost[-1][1]
