"""Batches come in order, never too many at a time, with their faults, whatever the number of threads."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nsclc_mtl.records import ItemFault
from nsclc_mtl.slides.reader import Slide, TileBatches, open_slide

Maker = Callable[..., Path]
COORDS = np.array([(x, y) for y in range(0, 600, 100) for x in range(0, 800, 100)])


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("fast", [True, False])
def test_the_same_tiles_in_the_same_order(jpeg_slide: Maker, threads: int, fast: bool) -> None:
    with open_slide(jpeg_slide(), fast=fast) as slide:
        one_by_one = np.stack([slide.read(int(x), int(y), 120, 60) for x, y in COORDS])
        batches = TileBatches(slide, COORDS, 120, 60, batch=5, threads=threads)
        assert len(batches) == 10
        for _ in range(2):  # it can be gone through again
            rows, tiles = zip(*batches, strict=True)
            assert [len(r) for r in rows] == [5] * 9 + [3]
            np.testing.assert_array_equal(np.concatenate(rows), np.arange(48))
            np.testing.assert_array_equal(np.concatenate(tiles), one_by_one)
            assert all(t.dtype == np.uint8 and t.flags.c_contiguous for t in tiles)


class Counting(Slide):
    """A slide that counts what was read, and fails where it is told to."""

    def __init__(self, bad: int | None = None, max_unreadable: float = 0.0) -> None:
        self.path, self.max_unreadable, self.bad, self.count = Path("fake.svs"), max_unreadable, bad, 0
        self._lock = threading.Lock()

    def read(
        self, x: int, y: int, size_level0: int, out_px: int, tolerance: float = 0.0, out: np.ndarray | None = None
    ) -> np.ndarray:
        with self._lock:
            self.count += 1
        if x == self.bad:
            raise ItemFault("corrupt", f"slide 'fake.svs' cannot be decoded at {x}; copy it again")
        assert out is not None
        out[...] = x % 251
        return out


def line(n: int) -> np.ndarray:
    return np.stack([np.arange(n), np.zeros(n, int)], axis=1)


@pytest.mark.parametrize(("threads", "ahead"), [(1, 0), (2, 2), (3, 5)])
def test_readers_do_not_run_away_from_the_consumer(threads: int, ahead: int) -> None:
    slide = Counting()
    taken = 0
    for rows, _ in TileBatches(slide, line(200), 8, 8, batch=4, threads=threads, ahead=ahead):
        taken += len(rows)
        assert slide.count <= taken + 4 * (threads + ahead)
    assert slide.count == taken == 200


def test_a_fault_comes_where_its_batch_would_have_come() -> None:
    before = threading.active_count()
    stream = iter(TileBatches(Counting(bad=17), line(100), 8, 8, batch=4, threads=3))
    seen = [row for _ in range(4) for row in next(stream)[0]]
    assert seen == list(range(16))
    with pytest.raises(ItemFault, match="at 17") as fault:
        next(stream)
    assert fault.value.reason == "corrupt"
    assert threading.active_count() == before


def test_leaving_early_ends_the_threads() -> None:
    before, slide = threading.active_count(), Counting()
    stream = iter(TileBatches(slide, line(1000), 8, 8, batch=4, threads=3, ahead=2))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert slide.count <= 4 * 6


@pytest.mark.parametrize("fast", [True, False])
def test_a_slide_is_not_closed_below_its_readers(jpeg_slide: Maker, fast: bool) -> None:
    """The consumer fails while threads read ahead: they end in peace, and the slide is closed for good."""
    slide = open_slide(jpeg_slide(), fast=fast)
    stream = iter(TileBatches(slide, np.tile(COORDS, (20, 1)), 300, 77, batch=4, threads=4, ahead=8))
    next(stream)
    slide.close()
    slide.close()
    with pytest.raises(ItemFault, match="was closed"):
        list(stream)
    with pytest.raises(ItemFault, match="was closed"):
        slide.read(0, 0, 64, 64)


def test_a_slide_without_tiles_gives_no_batch() -> None:
    assert list(TileBatches(Counting(), np.zeros((0, 2), int), 8, 8, batch=4)) == []


def test_unreadable_tiles_are_left_out_only_as_far_as_allowed() -> None:
    batches = TileBatches(Counting(bad=17, max_unreadable=0.05), line(40), 8, 8, batch=4)
    rows = np.concatenate([rows for rows, _ in batches])
    assert batches.unreadable == [17]
    np.testing.assert_array_equal(rows, np.delete(np.arange(40), 17))
    with pytest.raises(ItemFault, match=r"1 of 19 tiles are unreadable, more than slides.max_unreadable=0.05"):
        list(TileBatches(Counting(bad=17, max_unreadable=0.05), line(19), 8, 8, batch=4))


def test_memory_is_that_of_a_few_batches() -> None:
    def peak(tiles: int) -> int:
        coords = line(tiles)
        tracemalloc.start()
        for rows, pixels in TileBatches(Counting(), coords, 64, 64, batch=8, threads=2, ahead=2):
            assert len(rows) == len(pixels)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    batch = 8 * 64 * 64 * 3
    assert peak(100) < 8 * batch
    assert peak(1000) < 8 * batch
