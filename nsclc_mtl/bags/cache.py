"""Feature files and crops as they come off the disk, the slides of a patient kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nsclc_mtl.bags.spots import Chosen
from nsclc_mtl.features import layouts, store
from nsclc_mtl.features.lying import Lying, lying
from nsclc_mtl.records import IntegrityFault

Draw = Callable[[int], np.ndarray | None]
"""Which of so many tiles are wanted, int64 in rising order; None: all."""


class BagCache:
    """Feature files in memory, float16, the longest unused dropped when `limit_bytes` would be passed.

    Of a bag that is not held and from which some tiles are drawn, these alone are read (where the files are ours and
    not compressed), and only where they lie is kept.
    """

    def __init__(self, limit_bytes: int = 2_000_000_000) -> None:
        self.limit, self.held = limit_bytes, 0
        self.counted: dict[tuple[str, ...], int] = {}
        self.sized: dict[tuple[str, ...], int] = {}
        self.kept: OrderedDict[tuple[str, ...], tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self.places: OrderedDict[tuple[str, ...], Lying | None] = OrderedDict()

    def views(self, paths: Sequence[str]) -> int:
        """Views that every slide of the patient has beside its plain features."""
        key = tuple(paths)
        if key not in self.counted:
            self.counted[key] = min((store.view_count(Path(path)) for path in paths), default=0)
        return self.counted[key]

    def size(self, paths: Sequence[str]) -> int:
        """Tiles of the patient's slides; of HDF5 files without reading them."""
        key = tuple(paths)
        if key not in self.sized:
            plain = all(Path(path).suffix.lower() in layouts.HDF5 for path in paths)
            self.sized[key] = sum(store.header(Path(p))[0] for p in paths) if plain else len(self(paths)[0])
        return self.sized[key]

    def __call__(
        self, paths: Sequence[str], view: int | None = None, chosen: Chosen | None = None, draw: Draw | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features [tile, dim] and coords [tile, 2] of a patient's slides, one after the other; in another stain where
        the number of a view is given; of spots the chosen genes; only the tiles that are drawn.

        Raises IntegrityFault where the slides have features of several dimensions.
        """
        key = (*paths, *([] if view is None else [str(view)]), *([] if chosen is None else [chosen.digest]))
        if key not in self.kept and draw is not None and chosen is None:
            files = [self._place(path, view) for path in paths]
            ours = [file for file in files if file is not None]
            if len(ours) == len(files) and (tiles := draw(sum(map(len, ours)))) is not None:
                return _drawn(ours, tiles)
        features, coords = self._whole(key, paths, view, chosen)
        if draw is not None and (tiles := draw(len(features))) is not None:
            return features[tiles], coords[tiles]
        return features, coords

    def _whole(
        self, key: tuple[str, ...], paths: Sequence[str], view: int | None, chosen: Chosen | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        if chosen is not None:
            bag = chosen.read(paths)
        elif view is not None:
            bag = _joined([store.read_view(Path(path), view) for path in paths]), self(paths)[1]
        else:
            slides = [store.read(Path(path)) for path in paths]
            _alike([slide.features.shape[1] for slide in slides], paths)
            bag = _joined([s.features for s in slides]), _joined([s.coords for s in slides])
        self._keep(key, bag)
        return bag

    def _place(self, path: str, view: int | None) -> Lying | None:
        """Where a file's rows lie, looked up once as long as there is room to remember it."""
        key = (path,) if view is None else (path, str(view))
        if key not in self.places:
            found = lying(Path(path), view)
            self.places[key] = found
            self.held += found.nbytes if found is not None else 0
            self._make_room()
            return found
        self.places.move_to_end(key)
        return self.places[key]

    def _keep(self, key: tuple[str, ...], bag: tuple[np.ndarray, np.ndarray]) -> None:
        self.kept[key] = bag
        self.held += bag[0].nbytes + bag[1].nbytes
        self._make_room()

    def _make_room(self) -> None:
        """Drops bags first, then the places of files, until the limit holds."""
        while self.held > self.limit and self.kept:
            _, (features, coords) = self.kept.popitem(last=False)
            self.held -= features.nbytes + coords.nbytes
        while self.held > self.limit and self.places:
            _, place = self.places.popitem(last=False)
            self.held -= place.nbytes if place is not None else 0


def _drawn(files: Sequence[Lying], tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and coords of the drawn tiles of several slides, numbered one slide after the other."""
    _alike([file.dim for file in files], [str(file.path) for file in files])
    begins = np.cumsum([0, *map(len, files)])
    bounds = np.searchsorted(tiles, begins)
    each = [(file, tiles[bounds[i] : bounds[i + 1]] - begins[i]) for i, file in enumerate(files)]
    return _joined([file.drawn(some) for file, some in each]), _joined([file.coords[some] for file, some in each])


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One after the other; a single one as it is, not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _alike(dims: Sequence[int], paths: Sequence[str]) -> None:
    if len(set(dims)) > 1:
        raise IntegrityFault(
            f"the slides {', '.join(paths)} have features of {sorted(set(dims))} dimensions; extract them alike"
        )


def read_volume(path: str) -> np.ndarray:
    """The cached crop of a scan, float32 [z, y, x]."""
    import h5py

    with h5py.File(path, "r") as file:
        return np.asarray(file["volume"], np.float32)
