"""Feature files of ours as their rows lie on the disk: read at their place, without HDF5 and without a second copy.

HDF5 keeps uncompressed rows as they are, in one piece or in pieces of so many whole rows; it also says where. A file is
published by renaming and never changed in place, so what was mapped stays whole while it is read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nsclc_mtl.features import layouts
from nsclc_mtl.records import DataFault, IntegrityFault

HALF = np.dtype("<f2")
CHECKED = 4096  # rows that are looked through for NaN at a time
SPARSE = 16  # where fewer than one row in so many is drawn, a disk is faster without reading ahead
SIZE, INFINITE = np.uint16(0x7FFF), 0x7C00  # bits of a half-precision number but its sign, and those of infinity


@dataclass(frozen=True)
class Lying:
    """Where the rows of a feature file lie, and their canonical (y, x) order."""

    path: Path
    dim: int
    starts: np.ndarray  # int64 [piece]: place of its first byte in the file
    piece: int  # rows a piece
    coords: np.ndarray  # int64 [tile, 2], canonical order
    order: np.ndarray | None  # int64 [tile]: row in the file of each tile; None where the file has the canonical order
    attrs: dict[str, Any]

    def __len__(self) -> int:
        return len(self.coords)

    @property
    def nbytes(self) -> int:
        """Memory that this takes, without the features."""
        return int(self.coords.nbytes + self.starts.nbytes + (0 if self.order is None else self.order.nbytes))

    def whole(self) -> np.ndarray:
        """All features, float16 [tile, dim], in canonical order. Raises DataFault where one is NaN or Inf."""
        out = np.empty((len(self), self.dim), HALF)
        place = None
        if self.order is not None:
            place = np.empty(len(self), np.int64)
            place[self.order] = np.arange(len(self))
        held = np.empty((min(self.piece, len(self)), self.dim), HALF)
        with open(self.path, "rb", buffering=0) as file:
            for start, rows in self._pieces():
                into = out[rows] if place is None else held[: rows.stop - rows.start]
                file.seek(start)
                _fill(file, into, self.path)
                check_finite(into, self.path, rows.start)
                if place is not None:
                    out[place[rows]] = into
        return out

    def drawn(self, tiles: np.ndarray) -> np.ndarray:
        """Features of these tiles (numbers in the canonical order), float16 [drawn, dim]; nothing else is read.

        Raises DataFault where one of them is NaN or Inf.
        """
        out = np.empty((len(tiles), self.dim), HALF)
        if not len(tiles):
            return out
        rows = tiles if self.order is None else self.order[tiles]
        by_place = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[by_place], np.arange(len(self.starts) + 1) * self.piece)
        with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            if hasattr(mmap, "MADV_RANDOM") and len(tiles) * SPARSE < len(self):
                mapped.madvise(mmap.MADV_RANDOM)  # no reading ahead of rows that were not drawn
            for number, (start, piece) in enumerate(self._pieces()):
                wanted = by_place[bounds[number] : bounds[number + 1]]
                if len(wanted):
                    shape = (piece.stop - piece.start, self.dim)
                    out[wanted] = np.ndarray(shape, HALF, mapped, start)[rows[wanted] - piece.start]
        check_finite(out, self.path)
        return out

    def _pieces(self) -> Iterator[tuple[int, slice]]:
        """First byte and rows of every piece."""
        for number, start in enumerate(self.starts.tolist()):
            yield start, slice(number * self.piece, min((number + 1) * self.piece, len(self)))


def lying(path: Path, view: int | None = None) -> Lying | None:
    """Where the rows of a file of ours (or of one of its views) lie; None where they can only be read through HDF5:
    another tool's file, another type, compressed rows.

    Raises DataFault where the file cannot be read and IntegrityFault where it lacks rows.
    """
    path = Path(path)
    if path.suffix.lower() not in layouts.HDF5:
        return None
    with layouts.opened(path) as file:
        name = "features" if view is None else "views"
        if layouts.plain(file.attrs.get("format", "")) != layouts.FORMAT or name not in file or "coords" not in file:
            return None
        data, attrs = file[name], layouts.attributes(file)
        found = _placed(data, view, path)
        if found is None or attrs.get("unit", "px") != "px" or file["coords"].dtype != np.int64:
            return None
        coords = layouts.whole_of(file, "coords", path)
        rows, dim = data.shape[-2:]
        if rows != file.attrs.get("rows", rows):
            raise IntegrityFault(f"'{path.name}' holds {rows} of {file.attrs['rows']} rows; run `mtl extract` again")
        if coords.shape != (rows, 2):
            return None
    order: np.ndarray | None = np.lexsort((coords[:, 0], coords[:, 1]))
    if order is not None and np.array_equal(order, np.arange(rows)):
        order = None
    attrs["coords_unit"] = "level0_px"
    return Lying(path, dim, found[0], found[1], coords if order is None else coords[order], order, attrs)


def _placed(data: h5py.Dataset, view: int | None, path: Path) -> tuple[np.ndarray, int] | None:
    """First byte of each piece of whole rows, and the rows a piece; None where they do not lie so."""
    *stacked, rows, dim = data.shape
    if data.dtype != HALF or len(stacked) != (view is not None) or data.is_virtual or data.external:
        return None
    made = data.id.get_create_plist()
    if made.get_nfilters() or data.file.userblock_size or not rows:
        return None
    if data.chunks is None:
        begin, piece = data.id.get_offset(), rows
        if begin is None:
            return None
        starts = np.array([begin + (view or 0) * rows * dim * HALF.itemsize], np.int64)
    else:
        *ones, piece, width = data.chunks
        if width != dim or any(one != 1 for one in ones):
            return None
        corner = () if view is None else (view,)
        info = [data.id.get_chunk_info_by_coord((*corner, row, 0)) for row in range(0, rows, piece)]
        if any(one.byte_offset is None or one.filter_mask for one in info):
            return None
        starts = np.array([one.byte_offset for one in info], np.int64)
    last = int(starts[-1]) + (rows - (len(starts) - 1) * piece) * dim * HALF.itemsize
    return (starts, piece) if max(last, int(starts.max())) <= path.stat().st_size else None


def check_finite(half: np.ndarray, path: Path, first: int = 0) -> None:
    """Raises DataFault where a row of float16 [tile, dim] is NaN, Inf or was beyond 65504; `first` is the number of the
    first row."""
    bad = []
    for begin in range(0, len(half), CHECKED):
        block = half[begin : begin + CHECKED]
        # by its bits: NaN and Inf alone have all bits of the exponent, and integers compare several times faster
        if block.size and int((np.ascontiguousarray(block).view(np.uint16) & SIZE).max()) >= INFINITE:
            bad.append(first + begin + np.flatnonzero(~np.isfinite(block).all(axis=1)))
    rows = np.concatenate(bad) if bad else np.zeros(0, int)
    if len(rows):
        raise DataFault(
            f"slide '{path.stem}': {len(rows)} tiles hold NaN, Inf or values over 65504, the first is tile {rows[0]}"
        )


def _fill(file: Any, into: np.ndarray, path: Path) -> None:
    """Reads as many bytes as the rows take."""
    rest = memoryview(into.reshape(-1).view(np.uint8).data)
    while len(rest):
        got = file.readinto(rest)
        if not got:
            raise DataFault(f"'{path.name}' is not a whole HDF5 file (it ends too early); remove and redo it")
        rest = rest[got:]
