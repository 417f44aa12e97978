"""Sets of genes: read from a GMT file, matched to the columns of a table, and scored patient by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables.read import plain

SCORES = ("mean_z", "singscore", "plage")
TOKENS = "tokens"  # no score: the encoder sees the genes, set by set
Sets = Mapping[str, Sequence[str]]


def read_gmt(path: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Sets of a GMT file (tab-separated: name, description, genes), and notes on what was left out of it.

    A gene that a set repeats counts once. Raises DataFault where the file is absent, not UTF-8, or no GMT, and where
    two sets of one name hold different genes.
    """
    if not path.is_file():
        raise DataFault(f"no gene sets '{path.name}' in '{path.parent.name}/'; correct pathways.file")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataFault(f"'{path.name}' is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    sets: dict[str, list[str]] = {}
    repeated = empty = twice = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) < 2 or not cells[0]:
            raise DataFault(
                f"'{path.name}' line {number} is no gene set (name, description, genes, separated by tabs); correct it"
            )
        written = [gene for gene in cells[2:] if gene]
        genes = list(dict.fromkeys(written))
        if cells[0] in sets:
            if set(sets[cells[0]]) != set(genes):
                raise DataFault(
                    f"'{path.name}' line {number}: the set '{cells[0]}' was there before with other genes; rename one"
                )
            twice += 1
            continue
        repeated, empty = repeated + len(written) - len(genes), empty + (not genes)
        if genes:
            sets[cells[0]] = genes
    if not sets:
        raise DataFault(f"'{path.name}' holds no gene set; a line is a name, a description and genes")
    counts = ((empty, "empty sets"), (twice, "sets that are there twice"), (repeated, "genes repeated within a set"))
    told = [f"{count} {what}" for count, what in counts if count]
    return sets, [f"'{path.name}': {', '.join(told)} left out"] if told else []


def match(
    sets: Sets, columns: Sequence[str], least: int, file: str, suffix: str = ""
) -> tuple[dict[str, list[str]], list[str]]:
    """Columns of each set that has at least `least` genes in the table, and notes on what has not.

    `suffix` is what the table's columns carry behind the gene's name (`_rnaseq`). Raises DataFault where none remains.
    """
    at: dict[str, list[str]] = {}
    for column in columns:
        name = plain(column)
        if name.endswith(suffix):
            at.setdefault(name[: len(name) - len(suffix)] if suffix else name, []).append(str(column))
    found = {name: [c for gene in genes for c in at.get(gene, ())] for name, genes in sets.items()}
    matched = {name: sum(gene in at for gene in genes) for name, genes in sets.items()}
    kept = {name: own for name, own in found.items() if matched[name] >= least}
    if not kept:
        one, other = next(iter(sets.values()))[0], next(iter(columns), "")
        raise DataFault(
            f"'{file}': none of {len(sets)} gene sets has {least} genes in the table (sets say '{one}', columns "
            f"'{other}'); name genes alike, or set pathways.suffix or pathways.min_genes"
        )
    wanted = {gene for genes in sets.values() for gene in genes}
    notes = [
        f"'{file}': {len(wanted & set(at))} of {len(wanted)} genes of {len(sets)} sets are in the table, "
        f"{len(wanted - set(at))} are not"
    ]
    short = [f"'{name}' ({matched[name]})" for name in sets if name not in kept]
    if short:
        listed = ", ".join(short[:5]) + (" ..." if len(short) > 5 else "")
        notes.append(f"'{file}': {len(short)} sets with fewer than {least} genes in the table left out: {listed}")
    return kept, notes


@dataclass
class Pathways:
    """Scores of gene sets, fitted on training patients: what is in them, and how a gene is filled and scaled."""

    scores: str
    genes: list[str] = field(default_factory=list)
    members: dict[str, list[int]] = field(default_factory=dict)  # set -> positions in `genes`
    median: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    sd: list[float] = field(default_factory=list)
    loadings: dict[str, list[float]] = field(default_factory=dict)  # plage: set -> weight of each member

    @classmethod
    def fit(cls, table: pd.DataFrame, sets: Sets, scores: str) -> Pathways:
        """Fitted on the (training) patients of `table`, float [patient, gene]; genes constant there take no part.

        `mean_z`: mean of the members' z-scores. `plage`: first principal component of the members' z-scores (Tomfohr,
        Lu and Kepler, BMC Bioinformatics 2005), pointing where the members go up together. `singscore`: mean rank of
        the members among all genes of a patient (Foroutan et al., BMC Bioinformatics 2018). Raises UsageFault on
        another word and DataFault where no set has a gene that varies.
        """
        if scores not in SCORES:
            raise UsageFault(f"pathways.scores={scores!r} is none of {', '.join((*SCORES, TOKENS))}")
        values = table.to_numpy(dtype=float)
        some = np.isfinite(values).any(axis=0)
        median = np.zeros(values.shape[1])
        median[some] = np.nanmedian(values[:, some], axis=0)
        filled = np.where(np.isfinite(values), values, median)
        mean, sd = filled.mean(axis=0), filled.std(axis=0)
        varies = some & (sd > 1e-9 * np.maximum(1.0, np.abs(mean)))
        used = {c for own in sets.values() for c in own}
        ranked = scores == "singscore"
        kept = np.array([ranked or str(c) in used for c in table.columns], bool) & (some if ranked else varies)
        genes = [str(c) for c in table.columns[kept]]
        at = {gene: i for i, gene in enumerate(genes)}
        moving = set(table.columns[varies])
        members = {name: [at[c] for c in own if c in at and c in moving] for name, own in sets.items()}
        members = {name: own for name, own in members.items() if own}
        if not members:
            raise DataFault("no gene set has a gene that varies among the training patients; see pathways.file")
        made = cls(scores, genes, members, median[kept].tolist(), mean[kept].tolist(), sd[kept].tolist())
        if scores == "plage":
            z = made._z(filled[:, kept])
            made.loadings = {name: _first_component(z[:, own]) for name, own in members.items()}
        return made

    def _z(self, filled: np.ndarray) -> np.ndarray:
        return (filled - np.array(self.mean)) / np.array(self.sd)

    def __call__(self, table: pd.DataFrame) -> pd.DataFrame:
        """Scores [patient, set], float64, never NaN; higher where the members are."""
        values = table[self.genes].to_numpy(dtype=float)
        filled = np.where(np.isfinite(values), values, np.array(self.median))
        if self.scores == "singscore":
            from scipy.stats import rankdata  # a second to import, which readers of a cohort do without

            ranks, n = rankdata(filled, method="min", axis=1).astype(float), len(self.genes)
            parts = []
            for own in self.members.values():
                low, high = (len(own) + 1) / 2, (2 * n - len(own) + 1) / 2  # the lowest and highest mean rank possible
                parts.append((ranks[:, own].mean(axis=1) - low) / max(high - low, 1e-9) - 0.5)
        else:
            z = self._z(filled)
            parts = [z[:, own] @ self._weights(name) for name, own in self.members.items()]
        return pd.DataFrame(np.stack(parts, axis=1), table.index, pd.Index(list(self.members)))

    def _weights(self, name: str) -> np.ndarray:
        n = len(self.members[name])
        return np.array(self.loadings[name]) if self.loadings else np.full(n, 1 / n)

    def state(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)


def _first_component(z: np.ndarray) -> list[float]:
    _, _, rows = np.linalg.svd(z, full_matrices=False)
    sign = np.sign(rows[0].sum()) or 1.0
    return (rows[0] * sign).round(7).tolist()
