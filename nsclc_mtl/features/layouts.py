"""Feature files as they lie, whichever tool wrote them: ours, TRIDENT, CLAM, STAMP, `.npz` and `.pt`.

Nothing is put in order or checked for NaN here; the door of the package is `store.read`.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nsclc_mtl.features.keys import file_hash
from nsclc_mtl.records import DataFault, IntegrityFault

FORMAT = "nsclc_mtl/1"
HDF5 = {".h5", ".hdf5"}
RECORD = ("format", "rows", "config_hash", "content_sha256", "complete", "json_attrs")  # what the store keeps of a file


def read(path: Path) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """Features [tile, dim], coordinates (None where the file has none) and attributes, as they lie in the file.

    TRIDENT and CLAM call the features `features`, also [1, tile, dim]; STAMP calls them `feats` and gives the unit of
    its coordinates as attribute `unit` (`unknown` where it does not). Raises DataFault where it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in HDF5:
        values, coords, attrs = _read_hdf5(path)
    elif suffix == ".npz":
        values, coords, attrs = _read_npz(path)
    elif suffix in {".pt", ".pth"}:
        values, coords, attrs = _read_torch(path)
    else:
        raise DataFault(f"'{path.name}' is no feature file: .h5, .npz and .pt are read")
    return values.reshape(_tiles_by_dim(values.shape, path)), coords, attrs


def hdf5_shape(path: Path) -> tuple[int, int]:
    """(tiles, dim) of an HDF5 file of features, without reading the data."""
    with opened(path) as file:
        return _tiles_by_dim(file[_values_name(file, path)].shape, path)


def opened(path: Path) -> h5py.File:
    """The HDF5 file, open to be read. Raises DataFault where it is absent or not whole."""
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise DataFault(f"'{path.name}' does not exist; run `mtl extract`") from None
    except OSError as error:
        raise DataFault(
            f"'{path.name}' is not a whole HDF5 file ({str(error).split('(')[0].strip()}); remove and redo it"
        ) from error


def whole_of(file: h5py.File, name: str, path: Path) -> np.ndarray:
    """All of a dataset, as it lies. Raises DataFault where it is damaged."""
    try:
        values: np.ndarray = file[name][()]
    except OSError as error:
        raise DataFault(f"'{path.name}' is damaged and cannot be read; remove and redo it") from error
    return values


def attributes(file: h5py.File) -> dict[str, Any]:
    """All attributes as plain types: those on the datasets first, then those of the file."""
    found: dict[str, Any] = {}
    for name in ("features", "feats", "coords"):
        if name in file:
            found |= {key: plain(value) for key, value in file[name].attrs.items()}
    found |= {key: plain(value) for key, value in file.attrs.items()}
    for key in json.loads(found.pop("json_attrs", "[]")):
        found[key] = json.loads(found[key])
    return {key: value for key, value in found.items() if key not in RECORD or key == "config_hash"}


def content_digest(path: Path) -> str:
    """The digest that a file of ours carries of its own content; the bytes' SHA-256 of a file of another tool."""
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") == FORMAT:
                return str(file.attrs["content_sha256"])
    except (OSError, KeyError):  # no HDF5, or not whole: its reader says so
        pass
    return file_hash(path)


def _read_hdf5(path: Path) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    with opened(path) as file:
        name = _values_name(file, path)
        values = whole_of(file, name, path)
        coords = whole_of(file, "coords", path) if "coords" in file else None
        if "rows" in file.attrs and file.attrs.get("format") == FORMAT and len(values) != file.attrs["rows"]:
            raise IntegrityFault(
                f"'{path.name}' holds {len(values)} of {file.attrs['rows']} rows; run `mtl extract` again"
            )
        attrs = attributes(file)
        if name == "feats":
            coords = _stamp_unit(coords, attrs)
    return values, coords, attrs


def _stamp_unit(coords: np.ndarray | None, attrs: dict[str, Any]) -> np.ndarray | None:
    """STAMP's coordinates in um where its file says so, in any of the ways of its versions; `unit` is set."""
    if "unit" in attrs or coords is None:
        attrs.setdefault("unit", "unknown")
    elif "tile_size_um" in attrs:
        attrs["unit"] = "um"
    elif round(float(attrs.get("tile_size", 0))) == 224:  # version 1: a unit is 1/224 of a tile of 256 um
        attrs["unit"] = "um"
        return np.asarray(coords) / 224 * 256
    else:
        attrs["unit"] = "unknown"
    return coords


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            name = next((key for key in ("features", "feats", "arr_0") if key in file), None)
            if name is None:
                raise DataFault(f"'{path.name}' holds {sorted(file)} but no array `features`")
            return file[name], file.get("coords"), {}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataFault(f"'{path.name}' is no plain .npz of arrays (pickled content is not loaded)") from error


def _read_torch(path: Path) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise DataFault(
            f"'{path.name}' is no plain tensor file (pickled objects are not loaded); save a tensor or a dict"
        ) from error
    if isinstance(content, torch.Tensor):
        return content.float().numpy(), None, {}
    values = next((content[key] for key in ("features", "feats") if isinstance(content, dict) and key in content), None)
    if not isinstance(values, torch.Tensor):
        raise DataFault(f"'{path.name}' holds neither a tensor nor a dict with `features`")
    coords = content.get("coords")
    return values.float().numpy(), None if coords is None else torch.as_tensor(coords).numpy(), {}


def _values_name(file: h5py.File, path: Path) -> str:
    for name in ("features", "feats"):
        if name in file:
            return name
    raise DataFault(f"'{path.name}' holds {sorted(file)} but neither `features` nor `feats`")


def _tiles_by_dim(shape: tuple[int, ...], path: Path) -> tuple[int, int]:
    if len(shape) == 3 and shape[0] == 1:  # some writers keep the batch axis
        shape = shape[1:]
    if len(shape) != 2:
        raise DataFault(f"'{path.name}': features of shape {shape}, expected (tiles, dim)")
    return int(shape[0]), int(shape[1])


def plain(value: Any) -> Any:
    """An attribute as Python has it: a number, text or a list."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.decode() if isinstance(value, bytes) else value
