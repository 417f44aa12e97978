"""The feature store: one HDF5 file a slide, written whole or not at all, readable by the field's other tools.

Layout: `features` float16 [tile, dim] and `coords` int64 [tile, 2] (level-0 pixels, x then y) at the root, as TRIDENT
and CLAM lay theirs; the geometry (`patch_size`, `patch_size_level0`, ...) stands on `coords`, where those tools look
for it, the provenance at the root. "The file exists" never means "done": `is_complete` looks at rows and configuration.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nsclc_mtl.features import layouts
from nsclc_mtl.features.lying import check_finite, lying
from nsclc_mtl.records import DataFault, Features, IntegrityFault, Tiles, TryAgain

# What TRIDENT and CLAM keep on `coords`; other attributes are provenance and stand at the root of the file.
GEOMETRY = (
    "patch_size",
    "patch_size_level0",
    "level0_magnification",
    "target_magnification",
    "level0_width",
    "level0_height",
    "overlap",
    "patch_level",
    "downsample",
    "name",
)
PER_COLUMN = ("genes",)  # datasets with an entry a column of the features, not a row
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REMNANT = re.compile(r"(?P<item>.+)\.(h5|pt|npz|geojson|jpg|png)(\.[0-9a-f]{8})?\.tmp")


def write(path: Path, features: Features) -> None:
    """A complete feature file at `path`, or no file: written aside, verified, then renamed.

    Attributes may be text, numbers, or plain lists and mappings (kept as JSON); `config_hash` among them is what
    `is_complete` compares. Raises DataFault where a value is NaN, Inf or beyond half precision (it names slide and
    tile), and TryAgain where the disk is full.
    """
    values, coords = np.asarray(features.features), np.asarray(features.coords)
    if values.ndim != 2 or coords.shape != (len(values), 2):
        raise DataFault(f"{path.name}: {values.shape} features and {coords.shape} coordinates do not belong together")
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    bad = np.flatnonzero(~np.isfinite(half).all(axis=1))
    if len(bad):
        row = int(bad[0])
        column = int(np.flatnonzero(~np.isfinite(half[row]))[0])
        x, y = (int(v) for v in coords[row])
        raise DataFault(
            f"slide '{path.stem}', tile {row} at ({x}, {y}): feature {column} is {values[row, column]}, which half "
            f"precision cannot hold ({len(bad)} of {len(half)} tiles); check the backbone's output or its normalisation"
        )
    data: dict[str, np.ndarray] = {"features": half, "coords": coords.astype(np.int64)}
    if features.views is not None:
        if features.views.shape[1:] != values.shape or not np.isfinite(features.views.astype(np.float16)).all():
            raise DataFault(
                f"slide '{path.stem}': its views do not belong to its features, or half precision cannot hold them"
            )
        data["views"] = features.views.astype(np.float16)
    publish(path, data, features.attrs)


def read(path: Path, mpp: float | None = None) -> Features:
    """Features and coordinates of one slide in canonical (y, x) order, whichever tool wrote the file.

    Reads our files, TRIDENT and CLAM (`features`, also [1, tile, dim]), STAMP (`feats`, coordinates in um), `.npz` and
    `.pt` (weights only). `attrs["coords_unit"]` says what the coordinates are: `level0_px`, `um` (STAMP where neither
    the file nor `mpp` gives um/px), `unknown` (`feats` without a unit: good for training, not for maps), or `row` where
    the file has none (its order is kept then). Raises DataFault where it cannot be read or holds NaN or Inf.
    """
    path = Path(path)
    if (found := lying(path)) is not None:  # a file of ours: read at its place, one copy
        return Features(found.whole(), found.coords, found.attrs)
    values, coords, attrs = layouts.read(path)
    if coords is None:
        order = np.arange(len(values))
        coords = np.stack([order, np.zeros_like(order)], axis=1)
        attrs["coords_unit"] = "row"
        return Features(_half(values, path), coords.astype(np.int64), attrs)
    coords = np.asarray(coords)
    if coords.ndim == 3 and coords.shape[0] == 1:
        coords = coords[0]
    if coords.ndim != 2 or coords.shape[0] != len(values) or coords.shape[1] < 2:
        raise DataFault(
            f"'{path.name}': {len(values)} features but coordinates of shape {coords.shape}; extract it again"
        )
    coords, attrs["coords_unit"] = _in_pixels(coords[:, :2], attrs, mpp)
    order = np.lexsort((coords[:, 0], coords[:, 1]))
    return Features(_half(values, path)[order], coords[order], attrs)


def view_count(path: Path) -> int:
    """How many stain-augmented views of its tiles a feature file holds; 0 where another tool wrote it."""
    path = Path(path)
    if path.suffix.lower() not in layouts.HDF5:
        return 0
    with layouts.opened(path) as file:
        return int(file["views"].shape[0]) if "views" in file else 0


def read_view(path: Path, view: int) -> np.ndarray:
    """float16 [tile, dim]: one view of a slide's tiles, in the order of `read`."""
    if (found := lying(Path(path), view)) is not None:
        return found.whole()
    with layouts.opened(Path(path)) as file:
        coords = file["coords"][()]
        values: np.ndarray = file["views"][view]
    return _half(values, Path(path))[np.lexsort((coords[:, 0], coords[:, 1]))]


def header(path: Path) -> tuple[int, int]:
    """(tiles, dim) of a feature file; of HDF5 without reading the data."""
    path = Path(path)
    if path.suffix.lower() in layouts.HDF5:
        return layouts.hdf5_shape(path)
    found = read(path)
    return len(found), found.features.shape[1]


def is_complete(path: Path, config_hash: str, deep: bool = False) -> bool:
    """True where `path` was written to its end under this configuration; `deep` also compares the content's digest."""
    try:
        with h5py.File(path, "r") as file:
            attrs = file.attrs
            if not attrs.get("complete", 0) or attrs.get("config_hash", "") != config_hash:
                return False
            data = [name for name in file if isinstance(file[name], h5py.Dataset)]
            if not {"coords", "vector"} & set(data) or any(
                _rows(file[name]) != attrs["rows"] for name in data if name not in PER_COLUMN
            ):
                return False
            # HDF5 itself refuses a file cut short; rows that were dropped by a valid edit show in the count.
            return not deep or attrs["content_sha256"] == _digest({name: file[name][()] for name in data}, _noted(file))
    except (OSError, KeyError, RuntimeError, ValueError):
        return False


def write_tiles(path: Path, tiles: Tiles) -> None:
    """Tile coordinates of one slide as `out/tiles/*.h5`; a slide without tiles is recorded as such, with its reason.

    Raises DataFault where there are no tiles and `attrs["reason"]` does not say why.
    """
    if len(tiles) == 0 and not tiles.attrs.get("reason"):
        raise DataFault(f"slide '{tiles.slide_id}' has no tiles and no reason for it; this is a fault of the program")
    attrs = dict(tiles.attrs)
    attrs |= {"slide_id": tiles.slide_id, "tile_um": float(tiles.tile_um), "mpp": float(tiles.mpp)}
    attrs["patch_size_level0"] = int(tiles.size_level0)
    data: dict[str, np.ndarray] = {
        "coords": np.asarray(tiles.coords, np.int64),
        "tissue": np.asarray(tiles.tissue, np.float32),
    }
    publish(path, data, attrs)


def read_tiles(path: Path) -> Tiles:
    """The tiles of one slide as `write_tiles` kept them. Raises IntegrityFault where the file is not complete."""
    path = Path(path)
    with layouts.opened(path) as file:
        attrs = layouts.attributes(file)
        if not file.attrs.get("complete", 0) or any(len(file[k]) != file.attrs["rows"] for k in ("coords", "tissue")):
            raise IntegrityFault(f"'{path.name}' is not a complete tile file; remove it and run `mtl tile` again")
        coords, tissue = file["coords"][()], file["tissue"][()]
    own = {key: attrs.pop(key) for key in ("slide_id", "tile_um", "mpp", "patch_size_level0")}
    size = int(own["patch_size_level0"])
    return Tiles(str(own["slide_id"]), coords, size, float(own["tile_um"]), float(own["mpp"]), tissue, attrs)


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def publish(
    path: Path, data: Mapping[str, np.ndarray], attrs: Mapping[str, Any], compression: str | None = None
) -> None:
    """A complete HDF5 file of datasets and attributes, compressed where HDF5's word for it is given. No clock times are
    kept."""
    with published(path) as aside:
        with new_hdf5(aside) as file:
            for name, array in data.items():
                head = (1,) if name == "views" else ()  # one view is read at a time
                tail = array.shape[len(head) :]
                chunks = (*head, min(tail[0], 1024), *tail[1:]) if array.size else None
                packed = compression if chunks else None
                file.create_dataset(name, data=array, chunks=chunks, track_times=False, compression=packed)
            plain = {key: value for key, value in attrs.items() if key not in layouts.RECORD or key == "config_hash"}
            as_json = sorted(
                k
                for k, v in plain.items()
                if not isinstance(v, (str, int, float, np.generic)) or v is True or v is False
            )
            for key in sorted(plain):
                value = json.dumps(plain[key], sort_keys=True, default=str) if key in as_json else plain[key]
                (file["coords"] if key in GEOMETRY and "coords" in data else file).attrs[key] = value
            file.attrs["config_hash"] = str(attrs.get("config_hash", ""))
            file.attrs["format"] = layouts.FORMAT
            file.attrs["json_attrs"] = json.dumps(as_json)
            file.attrs["rows"] = len(data["coords"] if "coords" in data else data["vector"])
            file.attrs["content_sha256"] = _digest(data, _noted(file))
            file.attrs["complete"] = 1
        fsync(aside)
        if not is_complete(aside, str(attrs.get("config_hash", "")), deep=True):
            raise IntegrityFault(f"'{path.name}' did not read back as written; the disk may be failing")


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file, made in memory and written to `path` in one piece at its end.

    HDF5 itself goes on writing where a disk is full, and crashes the process at its exit.
    """
    held = io.BytesIO()
    with h5py.File(held, "w", track_order=False) as file:
        yield file
    path.write_bytes(held.getbuffer())


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """A file beside `path` to be written and verified; then it is renamed and the folder synced, or it is removed.

    Raises TryAgain where the disk, the quota or the limit of a file's size is reached.
    """
    path = Path(path)
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # another process may write the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        fsync(aside)
        os.replace(aside, path)
        fsync(path.parent)
    except (OSError, RuntimeError) as error:
        if _is_full(error):
            raise TryAgain(
                f"no space left while writing '{path.name}'; free some and run the same command again"
            ) from error
        raise
    finally:
        aside.unlink(missing_ok=True)


def remove_remnants(folder: Path, in_use: Callable[[str], bool]) -> int:
    """How many unfinished files below `folder` were removed; those of items that are in use are left alone."""
    removed = 0
    for path in sorted(Path(folder).rglob("*.tmp")):
        found = _REMNANT.fullmatch(path.name)
        if found and not in_use(found["item"]):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _rows(data: h5py.Dataset) -> int:
    return int(data.shape[1] if data.name == "/views" else data.shape[0])


def _is_full(error: BaseException) -> bool:
    number = getattr(error, "errno", None)
    return number in _FULL or any(f"errno = {code}" in str(error) or os.strerror(code) in str(error) for code in _FULL)


def fsync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(data: Mapping[str, np.ndarray], noted: Mapping[str, Any]) -> str:
    """Hex digest of datasets and attributes."""
    digest = hashlib.sha256(json.dumps(noted, sort_keys=True, default=str).encode())
    for name in sorted(data):
        array = np.ascontiguousarray(data[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _noted(file: h5py.File) -> dict[str, Any]:
    """The attributes of a file and of its datasets, but for those that say that it is complete."""
    places = {"": file} | {name: file[name] for name in file if isinstance(file[name], h5py.Dataset)}
    return {
        f"{name}@{key}": layouts.plain(value)
        for name, place in places.items()
        for key, value in place.attrs.items()
        if key not in ("content_sha256", "complete")
    }


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def _half(values: np.ndarray, path: Path) -> np.ndarray:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16, copy=False)
    check_finite(half, path)
    return half


def _in_pixels(coords: np.ndarray, attrs: Mapping[str, Any], mpp: float | None) -> tuple[np.ndarray, str]:
    """Coordinates in level-0 pixels where that can be known."""
    unit = str(attrs.get("unit", "px"))
    per_pixel = mpp or attrs.get("mpp")
    if unit != "um":
        return np.rint(coords).astype(np.int64), "unknown" if unit == "unknown" else "level0_px"
    if not per_pixel:
        return np.rint(coords).astype(np.int64), "um"
    return np.rint(coords / float(per_pixel)).astype(np.int64), "level0_px"
