"""Sections of spatial transcriptomics as files of the feature store: spots in place of tiles, genes of features.

Read are the output folder of 10x Visium (`filtered_feature_bc_matrix.h5` and `spatial/tissue_positions.csv`), `.h5ad`,
and our own layout. Kept is log1p of counts per 10,000 of the spot (as in Seurat's LogNormalize and Scanpy's
normalize_total), which needs nothing but the spot itself; everything that learns from patients is fitted fold by fold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import sparse

from nsclc_mtl.features import keys, layouts, store
from nsclc_mtl.features.section_files import Section, files_of, read_section
from nsclc_mtl.records import DataFault, IntegrityFault

PER_SPOT = 10_000.0
VALUES = ("counts", "normalised")
_ROWS = 512  # spots read at a time: all genes of a whole section would fill the memory
_CODE = ("features/spots.py", "features/section_files.py")


def section_key(values: str, layer: str | None) -> str:
    """`spots-<key8>`: folder of the sections that these settings give."""
    told = {"values": values, "layer": layer, "code": keys.code_digest(*_CODE)}
    return f"spots-{keys.config_hash(told)[:8]}"


def convert(source: Path, path: Path, values: str = "counts", layer: str | None = None) -> None:
    """The section of `source` as a feature file at `path`, unless it is there and complete.

    `values` says what the source holds: `counts`, or values that are `normalised` already and are kept as they are;
    `layer` picks a layer of an `.h5ad`. Raises DataFault where it cannot be read, or holds no counts.
    """
    origin = {file.name: keys.file_hash(file) for file in files_of(source)}
    config = keys.config_hash({"values": values, "layer": layer, "origin": origin, "code": keys.code_digest(*_CODE)})
    if store.is_complete(path, config):
        return
    section = read_section(source, layer)
    _named_once(section.genes, source)
    made = normalised(section, source) if values == "counts" else np.asarray(section.matrix.toarray(), np.float32)
    with np.errstate(over="ignore"):
        half = made.astype(np.float16)
    if not np.isfinite(half).all():
        raise DataFault(
            f"section '{path.stem}': values that half precision cannot hold, or NaN; correct '{source.name}'"
        )
    attrs = {
        **section.attrs, "config_hash": config, "origin": origin, "values": values, "per_spot": PER_SPOT,
        "genes_sha256": digest(section.genes), "name": path.stem,
    }  # fmt: skip
    names = np.array([name.encode() for name in section.genes])
    data: dict[str, np.ndarray] = {"features": half, "coords": section.coords.astype(np.int64), "genes": names}
    store.publish(path, data, attrs, compression="gzip")


def normalised(section: Section, source: Path) -> np.ndarray:
    """float32 [spot, gene]: log1p of the counts per 10,000 of each spot; zeros where a spot has no count at all."""
    values = section.matrix.data
    if len(values) and (values.min() < 0 or not np.array_equal(values, np.rint(values))):
        raise DataFault(
            f"'{source.name}' holds no counts (negative or broken numbers); set `values: normalised` where they are "
            "normalised already, or name the layer of the counts"
        )
    total = np.asarray(section.matrix.sum(axis=1), float).ravel()
    scale = np.divide(PER_SPOT, total, out=np.zeros_like(total), where=total > 0)
    made = sparse.diags(scale).dot(section.matrix).tocsr()
    made.data = np.log1p(made.data)
    return np.asarray(made.toarray(), np.float32)


def digest(genes: Sequence[str]) -> str:
    """What tells one list of genes from another, whatever their order."""
    return hashlib.sha256(json.dumps(sorted(genes)).encode()).hexdigest()


def genes_of(path: Path) -> list[str]:
    """The genes of a section, in the order of its columns."""
    with layouts.opened(path) as file:
        if "genes" not in file:
            raise IntegrityFault(f"'{path.name}' names no genes; remove it, it is made again")
        return [str(name.decode()) for name in file["genes"][()]]


def spots(path: Path) -> int:
    """Number of spots of a section."""
    return layouts.hdf5_shape(path)[0]


def same_genes(paths: Mapping[str, Path]) -> None:
    """Raises IntegrityFault, naming genes, where sections (by id) do not hold the same genes."""
    first: tuple[str, str] | None = None
    for name, path in paths.items():
        with layouts.opened(path) as file:
            found = str(file.attrs.get("genes_sha256", ""))
        if first is None:
            first = name, found
        elif found != first[1]:
            ours, theirs = set(genes_of(paths[first[0]])), set(genes_of(path))
            unlike = sorted(ours ^ theirs)
            raise IntegrityFault(
                f"sections '{first[0]}' and '{name}' hold other genes ({len(ours)} and {len(theirs)}; not in both: "
                f"{', '.join(unlike[:4])}{' ...' if len(unlike) > 4 else ''}); count them against one reference"
            )


def read(path: Path, genes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """float16 [spot, gene] of these genes in their order, and coords [spot, 2], in canonical (y, x) order."""
    at = {name: i for i, name in enumerate(genes_of(path))}
    absent = [name for name in genes if name not in at]
    if absent:
        raise IntegrityFault(f"'{path.name}' lacks {len(absent)} gene(s) of the model: {', '.join(absent[:4])}")
    columns = np.array([at[name] for name in genes], int)
    with h5py.File(path, "r") as file:
        coords = file["coords"][()]
    parts = [block[:, columns] for block in blocks(path)]
    values = np.concatenate(parts) if parts else np.zeros((0, len(columns)), np.float16)
    order = np.lexsort((coords[:, 0], coords[:, 1]))
    return values[order], coords[order]


def blocks(path: Path) -> Iterator[np.ndarray]:
    """float16 [some spots, gene]: the section block by block, in the order of the file."""
    with h5py.File(path, "r") as file:
        features = file["features"]
        for begin in range(0, len(features), _ROWS):
            yield features[begin : begin + _ROWS]


def _named_once(genes: Sequence[str], source: Path) -> None:
    if len(set(genes)) < len(genes):
        seen: set[str] = set()
        twice = sorted({name for name in genes if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
        raise DataFault(
            f"'{source.name}' names {len(twice)} gene(s) more than once: {', '.join(twice[:4])}; keep one each"
        )


def about(path: Path) -> dict[str, Any]:
    """Attributes of a section: where it came from, how it was made."""
    with layouts.opened(path) as file:
        return layouts.attributes(file)
