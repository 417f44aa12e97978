"""Sections of spatial transcriptomics as they lie: a folder of 10x Visium, an `.h5ad`, or our own layout."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import sparse

from nsclc_mtl.features import layouts
from nsclc_mtl.records import DataFault

MATRIX = "filtered_feature_bc_matrix.h5"
POSITIONS = ("tissue_positions.csv", "tissue_positions_list.csv")  # since Space Ranger 2.0, and before (no header)
_HEADER = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")


@dataclass
class Section:
    """Values of every spot, and where it lies."""

    matrix: sparse.csr_matrix  # [spot, gene]
    coords: np.ndarray  # int64 [spot, 2]: x, y of the middle of the spot, pixels of the full-resolution picture
    genes: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)


def files_of(source: Path) -> list[Path]:
    """The files that a section is read from. Raises DataFault where one is absent."""
    if not source.is_dir():
        return [source]
    matrix, positions = _visium(source)
    scale = positions.parent / "scalefactors_json.json"
    return [matrix, positions, *([scale] if scale.is_file() else [])]


def read_section(source: Path, layer: str | None = None) -> Section:
    """The section at a Visium folder, an `.h5ad` or an HDF5 file with `features`, `coords` and `genes`.

    Raises DataFault where it cannot be read.
    """
    if source.is_dir():
        return _read_visium(source)
    with layouts.opened(source) as file:
        try:
            if source.suffix.lower() == ".h5ad":
                return _read_h5ad(file, source, layer)
            return _read_own(file, source)
        except (KeyError, OSError, ValueError, TypeError) as error:
            raise DataFault(f"'{source.name}' cannot be read as a section: {str(error).strip(chr(34))}") from error


def _visium(folder: Path) -> tuple[Path, Path]:
    for place in (folder, folder / "outs"):
        found = sorted(place.glob(f"*{MATRIX}"))
        if len(found) == 1:
            break
    else:
        raise DataFault(f"the section '{folder.name}/' holds no {MATRIX}, or several; name the output folder of Visium")
    for name in POSITIONS:
        for where in (place / "spatial", place):
            if (where / name).is_file():
                return found[0], where / name
    raise DataFault(f"the section '{folder.name}/' holds no spatial/{POSITIONS[0]}; name the output folder of Visium")


def _read_visium(folder: Path) -> Section:
    matrix_file, positions_file = _visium(folder)
    with layouts.opened(matrix_file) as file:
        try:
            of = file["matrix"]
            genes, spots = (int(n) for n in of["shape"][()])
            values = sparse.csr_matrix((of["data"][()], of["indices"][()], of["indptr"][()]), shape=(spots, genes))
            barcodes, features = _text(of["barcodes"]), of["features"]
            names, ids = _text(features["name"]), _text(features["id"])
            expressed = np.array([kind == "Gene Expression" for kind in _text(features["feature_type"])])
        except (KeyError, ValueError, OSError) as error:
            raise DataFault(f"'{matrix_file.name}' is no matrix of 10x Genomics: {error}") from error
    where = _positions(positions_file)
    absent = [barcode for barcode in barcodes if barcode not in where]
    if absent:
        raise DataFault(
            f"'{folder.name}/{positions_file.name}' lacks {len(absent)} of {len(barcodes)} spots of the matrix "
            f"({absent[0]}): the two files are of different sections"
        )
    coords = np.array([where[barcode] for barcode in barcodes], np.int64).reshape(-1, 2)
    attrs: dict[str, Any] = {"format_of_origin": "10x Visium"}
    scale = positions_file.parent / "scalefactors_json.json"
    if scale.is_file():  # the spot's diameter stands in for the edge of a tile, for maps
        attrs["patch_size_level0"] = round(float(json.loads(scale.read_text())["spot_diameter_fullres"]))
        coords = coords - attrs["patch_size_level0"] // 2  # a tile's place is its upper left corner
    kept = np.flatnonzero(expressed)  # antibodies and guides are no genes
    return Section(values[:, kept].tocsr(), coords, [_unique(names, ids)[i] for i in kept], attrs)


def _positions(path: Path) -> dict[str, tuple[int, int]]:
    """x, y by barcode."""
    import csv

    made = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row or row[0] == _HEADER[0]:
                continue
            try:
                made[row[0]] = (round(float(row[5])), round(float(row[4])))
            except (IndexError, ValueError):
                raise DataFault(
                    f"'{path.name}' row {number} is no {', '.join(_HEADER)}; take the file that Space Ranger wrote"
                ) from None
    return made


def _unique(names: list[str], ids: list[str]) -> list[str]:
    """Symbols; where two genes share one, the symbol with its id."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    return [f"{name}|{own}" if seen[name] > 1 else name for name, own in zip(names, ids, strict=True)]


def _read_h5ad(file: h5py.File, source: Path, layer: str | None) -> Section:
    place = f"layers/{layer}" if layer else "X"
    if place not in file:
        raise DataFault(f"'{source.name}' has no {place}; its layers are {', '.join(file.get('layers', {})) or 'none'}")
    if "obsm/spatial" not in file:
        raise DataFault(
            f"'{source.name}' has no obsm/spatial: its spots have no places; write it from a spatial section"
        )
    values = _matrix(file[place])
    coords = np.rint(np.asarray(file["obsm/spatial"][()], float)[:, :2]).astype(np.int64)
    var = file["var"]
    genes = _text(var[str(layouts.plain(var.attrs.get("_index", "_index")))])
    if values.shape != (len(coords), len(genes)):
        raise DataFault(f"'{source.name}': {values.shape} values for {len(coords)} spots and {len(genes)} genes")
    inside = file.get("obs/in_tissue")
    if isinstance(inside, h5py.Dataset) and inside.dtype.kind in "iufb":
        kept = np.flatnonzero(inside[()] == 1)
        values, coords = values[kept], coords[kept]
    return Section(values, coords, genes, {"format_of_origin": "h5ad", "layer": layer or "X"})


def _matrix(of: h5py.Group | h5py.Dataset) -> sparse.csr_matrix:
    if isinstance(of, h5py.Dataset):
        return sparse.csr_matrix(of[()])
    shape = tuple(int(n) for n in of.attrs["shape"])
    kind = str(layouts.plain(of.attrs.get("encoding-type", "csr_matrix")))
    made = sparse.csc_matrix if kind == "csc_matrix" else sparse.csr_matrix
    return made((of["data"][()], of["indices"][()], of["indptr"][()]), shape=shape).tocsr()


def _read_own(file: h5py.File, source: Path) -> Section:
    if "matrix" in file:
        raise DataFault(f"'{source.name}' is the matrix of a Visium folder without its places; name the folder instead")
    if "features" not in file or "coords" not in file:
        raise DataFault(f"'{source.name}' holds {sorted(file)}, but a section has `features`, `coords` and `genes`")
    values, coords = np.asarray(file["features"][()]), np.asarray(file["coords"][()])
    if "genes" in file:
        genes = _text(file["genes"])
    else:
        given = layouts.plain(file.attrs.get("genes", file["features"].attrs.get("genes", [])))
        genes = [str(name) for name in (json.loads(given) if isinstance(given, str) else given)]
    if values.ndim != 2 or coords.shape != (len(values), 2) or values.shape[1] != len(genes):
        raise DataFault(
            f"'{source.name}': {values.shape} features, {coords.shape} coordinates and {len(genes)} genes do not "
            "belong together; give `genes` as a dataset or attribute, one name a column"
        )
    size = layouts.plain(file["coords"].attrs.get("patch_size_level0", 0))
    return Section(sparse.csr_matrix(values.astype(np.float64)), np.rint(coords).astype(np.int64), genes,
                   {"format_of_origin": "features", **({"patch_size_level0": int(size)} if size else {})})  # fmt: skip


def _text(data: h5py.Dataset) -> list[str]:
    return [cell.decode() if isinstance(cell, bytes) else str(cell) for cell in data[()]]
