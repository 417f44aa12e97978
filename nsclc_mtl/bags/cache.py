"""Feature files and crops as they come off the disk, the slides of a patient kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nsclc_mtl.bags.spots import Chosen
from nsclc_mtl.features import store
from nsclc_mtl.records import IntegrityFault


class BagCache:
    """Feature files in memory, float16, the longest unused dropped when `limit_bytes` is passed."""

    def __init__(self, limit_bytes: int = 2_000_000_000) -> None:
        self.limit, self.held = limit_bytes, 0
        self.counted: dict[tuple[str, ...], int] = {}
        self.kept: OrderedDict[tuple[str, ...], tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def views(self, paths: Sequence[str]) -> int:
        """Views that every slide of the patient has beside its plain features."""
        key = tuple(paths)
        if key not in self.counted:
            self.counted[key] = min((store.view_count(Path(path)) for path in paths), default=0)
        return self.counted[key]

    def __call__(
        self, paths: Sequence[str], view: int | None = None, chosen: Chosen | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features [tile, dim] and coords [tile, 2] of a patient's slides, one after the other; in another stain where
        the number of a view is given; of spots the chosen genes."""
        if chosen is not None:
            key = (*paths, chosen.digest)
            if key not in self.kept:
                self._keep(key, chosen.read(paths))
            self.kept.move_to_end(key)
            return self.kept[key]
        if view is not None:
            _, coords = self(paths)
            key = (*paths, str(view))
            if key not in self.kept:
                self._keep(key, (np.concatenate([store.read_view(Path(path), view) for path in paths]), coords))
            self.kept.move_to_end(key)
            return self.kept[key]
        key = tuple(paths)
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        slides = [store.read(path) for path in paths]  # type: ignore[arg-type]
        dims = {slide.features.shape[1] for slide in slides}
        if len(dims) > 1:
            raise IntegrityFault(
                f"the slides {', '.join(paths)} have features of {sorted(dims)} dimensions; extract them alike"
            )
        bag = np.concatenate([s.features for s in slides]), np.concatenate([s.coords for s in slides])
        self._keep(key, bag)
        return bag

    def _keep(self, key: tuple[str, ...], bag: tuple[np.ndarray, np.ndarray]) -> None:
        self.kept[key] = bag
        self.held += bag[0].nbytes + bag[1].nbytes
        while self.held > self.limit and len(self.kept) > 1:
            _, (features, coords) = self.kept.popitem(last=False)
            self.held -= features.nbytes + coords.nbytes


def read_volume(path: str) -> np.ndarray:
    """The cached crop of a scan, float32 [z, y, x]."""
    import h5py

    with h5py.File(path, "r") as file:
        return np.asarray(file["volume"], np.float32)
