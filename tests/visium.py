"""Small sections of spatial transcriptomics in the formats that laboratories have."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse


def visium(
    folder: Path,
    counts: np.ndarray,
    places: np.ndarray,
    genes: list[str],
    *,
    ids: list[str] | None = None,
    kinds: list[str] | None = None,
    header: bool = True,
    diameter: float = 90.0,
) -> Path:
    """The output folder of Space Ranger for counts [spot, gene] at places [spot, 2] (x, y); one spot more is outside
    the tissue. Without `header` the positions are written as before Space Ranger 2.0."""
    (folder / "spatial").mkdir(parents=True)
    barcodes = [f"AAAC{i:04d}-1" for i in range(len(counts))]
    packed = sparse.csr_matrix(counts.astype(np.int32))  # = a matrix [gene, spot], column by column
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        matrix = file.create_group("matrix")
        matrix["data"], matrix["indices"] = packed.data, packed.indices.astype(np.int64)
        matrix["indptr"], matrix["shape"] = (
            packed.indptr.astype(np.int64),
            np.array([len(genes), len(counts)], np.int32),
        )
        matrix["barcodes"] = np.array(barcodes, "S")
        features = matrix.create_group("features")
        features["name"] = np.array(genes, "S")
        features["id"] = np.array(ids or [f"ENSG{i:05d}" for i in range(len(genes))], "S")
        features["feature_type"] = np.array(kinds or ["Gene Expression"] * len(genes), "S")
    rows = [f"{b},1,{i},{i},{y},{x}" for i, (b, (x, y)) in enumerate(zip(barcodes, places.tolist(), strict=True))]
    rows.append("TTTT0000-1,0,9,9,5,5")
    first = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n" if header else ""
    name = "tissue_positions.csv" if header else "tissue_positions_list.csv"
    (folder / "spatial" / name).write_text(first + "\n".join(rows[::-1]) + "\n")  # not in the order of the matrix
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps({"spot_diameter_fullres": diameter}))
    return folder


def h5ad(path: Path, counts: np.ndarray, places: np.ndarray, genes: list[str], kind: str = "csr_matrix") -> Path:
    """An `.h5ad` as AnnData lays it: X packed by rows, by columns, or dense (`array`)."""
    with h5py.File(path, "w") as file:
        if kind == "array":
            file["X"] = counts.astype(np.float32)
        else:
            packed = (sparse.csr_matrix if kind == "csr_matrix" else sparse.csc_matrix)(counts.astype(np.float32))
            of = file.create_group("X")
            of.attrs["encoding-type"], of.attrs["shape"] = kind, np.array(counts.shape)
            of["data"], of["indices"], of["indptr"] = packed.data, packed.indices, packed.indptr
        file["obsm/spatial"] = places.astype(np.float64)
        var = file.create_group("var")
        var.attrs["_index"] = "gene_symbol"
        var["gene_symbol"] = np.array(genes, dtype=h5py.string_dtype())
    return path


def features(path: Path, counts: np.ndarray, places: np.ndarray, genes: list[str]) -> Path:
    """An HDF5 file in the layout of tiles, with its genes."""
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = counts.astype(np.float32), places
        file["genes"] = np.array(genes, "S")
    return path
