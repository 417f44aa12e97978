"""The cache of bags: drawn tiles alone are read from disk, the same ones as from memory, within the limit in bytes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nsclc_mtl.bags.cache import BagCache
from nsclc_mtl.bags.datamodule import InRoom
from nsclc_mtl.features import store
from nsclc_mtl.features.lying import Lying
from nsclc_mtl.records import Features, IntegrityFault

SIZES = (1300, 900, 40)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    rng, made = np.random.default_rng(0), []
    for i, tiles in enumerate(SIZES):
        places = rng.permutation(tiles)
        values = rng.normal(size=(tiles, 5)).astype(np.float16)
        path = tmp_path / f"s{i}.h5"
        store.write(path, Features(values, np.stack([places % 30, places // 30], axis=1), {}, values[None] + 1))
        made.append(str(path))
    return made


def draw(tiles: int) -> np.ndarray:
    return np.sort(np.random.default_rng(1).choice(tiles, 100, replace=False))


@pytest.mark.parametrize("view", [None, 0])
def test_drawn_from_disk_equals_drawn_from_memory(
    paths: list[str], view: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm, cold = BagCache(), BagCache()
    features, coords = warm(paths, view)
    wanted = draw(len(features))
    read: list[int] = []
    monkeypatch.setattr(Lying, "whole", lambda self: pytest.fail("the whole file was read"))
    drawn = Lying.drawn
    monkeypatch.setattr(Lying, "drawn", lambda self, tiles: read.append(len(tiles)) or drawn(self, tiles))
    for cache in (warm, cold, cold):
        some = cache(paths, view, draw=draw)
        np.testing.assert_array_equal(some[0], features[wanted])
        np.testing.assert_array_equal(some[1], coords[wanted])
    assert sum(read) == 200  # of the second cache, twice
    assert not cold.kept
    assert cold.size(paths) == sum(SIZES) == len(features)


def test_the_limit_holds_for_bags_and_places(paths: list[str]) -> None:
    one = sum(part.nbytes for part in BagCache()(paths[:1]))
    for limit in (0, 10_000, one, one + 30_000, 10**9):
        cache = BagCache(limit)
        for some in (paths[:1], paths[1:2], paths[2:], paths, paths[:1]):
            assert len(cache(some)[0]) == cache.size(some)
            assert len(cache(some, draw=draw if len(some) > 1 else None)[0]) in (100, cache.size(some))
            held = sum(f.nbytes + c.nbytes for f, c in cache.kept.values())
            held += sum(place.nbytes for place in cache.places.values() if place is not None)
            assert held == cache.held <= limit
    assert len(cache.kept) == 4


def test_drawn_tiles_of_slides_that_are_not_alike_are_refused(paths: list[str], tmp_path: Path) -> None:
    store.write(tmp_path / "wide.h5", Features(np.ones((200, 6), np.float16), np.arange(400).reshape(200, 2), {}))
    with pytest.raises(IntegrityFault, match=r"features of \[5, 6\] dimensions"):
        BagCache()([*paths, str(tmp_path / "wide.h5")], draw=draw)


def test_batches_of_whole_bags_stay_within_their_bytes() -> None:
    sizes = [4, 4, 4, 50, 1, 1, 1, 1, 9]

    class Data(SimpleNamespace):
        def __len__(self) -> int:
            return len(sizes)

    data = Data(tile_bytes=lambda index: sizes[index])
    assert list(InRoom(data, 3, 10)) == [[0, 1], [2], [3], [4, 5, 6], [7, 8]]  # type: ignore[arg-type]
    assert list(InRoom(data, 3, 1e9)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]  # type: ignore[arg-type]
    assert len(InRoom(data, 3, 10)) == 5  # type: ignore[arg-type]
