"""Spots of spatial transcriptomics in a fold: genes chosen and scaled by the training patients' sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nsclc_mtl.features import layouts
from nsclc_mtl.features import spots as sections
from nsclc_mtl.records import DataFault, IntegrityFault


@dataclass(frozen=True)
class Chosen:
    """The genes of a fold, and the digest of all those they were chosen from."""

    genes: tuple[str, ...]
    all_genes: str

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Chosen:
        """From what `fit` gave."""
        return cls(tuple(state["genes"]), str(state["all_genes"]))

    @property
    def digest(self) -> str:
        """Tells one choice from another."""
        return f"genes:{sections.digest(self.genes)}"

    def read(self, paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """float16 [spot, gene] and coords [spot, 2] of a patient's sections, one after the other.

        Raises IntegrityFault where a section holds other genes than those of the training: its shares of the library
        would mean something else.
        """
        for path in paths:
            with layouts.opened(Path(path)) as file:
                found = str(file.attrs.get("genes_sha256", ""))
            if found != self.all_genes:
                raise IntegrityFault(
                    f"section '{Path(path).stem}' holds other genes than the sections of the training; count it "
                    "against the same reference"
                )
        read = [sections.read(Path(path), self.genes) for path in paths]
        return np.concatenate([r[0] for r in read]), np.concatenate([r[1] for r in read])


def fit(bags: Sequence[Sequence[str]], top_variance: int | None, name: str, most: int = 1000) -> dict[str, Any]:
    """{mean, sd} of the genes of largest variance over the spots of these (training) bags, their names in the order of
    the files, and `all_genes`; each bag weighs the same, at most `most` are read."""
    step = max(1, len(bags) // most)
    moments, genes, told = [], list[str](), ""
    for paths in bags[::step]:
        sections.same_genes({Path(path).stem: Path(path) for path in [*paths, *bags[0]]})
        found = [_moments(Path(path)) for path in paths]
        spots = sum(n for n, _, _ in found)
        if not spots:
            continue
        here = sections.genes_of(Path(paths[0]))
        genes, told = genes or here, told or sections.digest(here)
        first = np.sum([f for _, f, _ in found], axis=0) / spots
        second = np.sum([s for _, _, s in found], axis=0) / spots
        moments.append((first, second) if here == genes else (first[_order(here, genes)], second[_order(here, genes)]))
    if not moments:
        raise DataFault(f"'{name}': no section of the fold's training patients has a spot; leave the modality out")
    first, second = np.mean([m for m, _ in moments], axis=0), np.mean([s for _, s in moments], axis=0)
    variance = np.maximum(second - first**2, 0)
    keep = np.flatnonzero(variance > 1e-8)
    if top_variance is not None and len(keep) > top_variance:
        keep = np.sort(keep[np.argsort(-variance[keep], kind="stable")[:top_variance]])
    if not len(keep):
        raise DataFault(
            f"'{name}': no gene varies over the spots of the fold's training patients; leave the modality out"
        )
    return {
        "mean": first[keep].round(6).tolist(),
        "sd": np.sqrt(variance[keep]).round(6).tolist(),
        "genes": [genes[int(i)] for i in keep],
        "all_genes": told,
    }


def _moments(path: Path) -> tuple[int, np.ndarray, np.ndarray]:
    """Spots, and sum and sum of squares of every gene."""
    n, first, second = 0, np.zeros(layouts.hdf5_shape(path)[1]), np.zeros(layouts.hdf5_shape(path)[1])
    for block in sections.blocks(path):
        wide = block.astype(np.float64)
        n, first, second = n + len(wide), first + wide.sum(0), second + (wide**2).sum(0)
    return n, first, second


def _order(here: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    at = {name: i for i, name in enumerate(here)}
    return np.array([at[name] for name in wanted], int)
