"""A table as numbers for a linear model: everything is learnt from training patients only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from nsclc_mtl.tables.read import MISSING

_RAREST = 3  # a level that fewer training patients have is nothing to learn from
_LEVELS = 30  # most frequent levels of a text column that get a column each
_FAR = 5.0  # standardised values are held within +-5: one outlier must not be the model


@dataclass(frozen=True)
class Column:
    """What was learnt of one input column: how it is filled, and the levels of a text column."""

    name: str
    median: float
    levels: tuple[str, ...] | None  # None: numeric
    flagged: bool  # a missing cell gets an indicator


class Design:
    """Imputed (median, most frequent), one-hot, flagged where missing, standardised. fit on training patients."""

    def __init__(self, table: pd.DataFrame, training: list[str]) -> None:
        """Learn from the rows of the training patients; patients without a row count as missing everything."""
        rows = table.loc[table.index.intersection(training)]
        self.columns: list[Column] = []
        for name in rows.columns:
            known = _cells(rows[name])
            missing = known.isna()
            if missing.all():
                continue
            if pd.api.types.is_numeric_dtype(known):
                self.columns.append(Column(name, float(known.median()), None, bool(missing.any())))
            else:
                counts = known.dropna().astype(str).value_counts()
                levels = sorted(counts[counts >= _RAREST].index[:_LEVELS])
                self.columns.append(Column(name, 0.0, tuple(levels), bool(missing.any())))
        raw = self._numbers(table, training)
        self.mean, self.spread = raw.mean(axis=0), raw.std(axis=0)
        # constant columns and copies (flags of cells that are always missing together) say nothing
        _, first = np.unique(raw.round(12), axis=1, return_index=True)
        distinct = np.isin(np.arange(raw.shape[1]), first)
        self.kept = np.flatnonzero((self.spread > 1e-12) & distinct)

    def _numbers(self, table: pd.DataFrame, patients: list[str]) -> np.ndarray:
        rows = table.reindex(patients)
        absent = ~pd.Index(patients).isin(table.index)
        blocks: list[np.ndarray] = [absent.astype(float)[:, None]]
        numeric = [c for c in self.columns if c.levels is None]
        if numeric:
            cells = rows[[c.name for c in numeric]].to_numpy(dtype=float)
            holes = ~np.isfinite(cells)
            blocks.append(np.where(holes, np.array([c.median for c in numeric]), cells))
            blocks.append((holes & ~absent[:, None])[:, [c.flagged for c in numeric]].astype(float))
        for c in self.columns:
            if c.levels is not None:
                text = _cells(rows[c.name])
                said = text.where(text.isna(), text.astype(str)).to_numpy(dtype=object)
                # a missing text cell has no level of its own; its flag carries it
                blocks.append(np.stack([said == level for level in c.levels], axis=1) if c.levels else _none(rows))
                if c.flagged:
                    blocks.append((text.isna().to_numpy() & ~absent)[:, None])
        return np.concatenate([b.astype(float) for b in blocks], axis=1)

    def __call__(self, table: pd.DataFrame, patients: list[str]) -> np.ndarray:
        """Numbers for any patients. float [patient, column]."""
        raw = self._numbers(table, patients)
        scaled = (raw[:, self.kept] - self.mean[self.kept]) / self.spread[self.kept]
        return np.asarray(np.clip(scaled, -_FAR, _FAR))


def _cells(column: pd.Series) -> pd.Series:
    """The column as floats or as text; infinities and the words for nothing are missing."""
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
        cells = column.to_numpy(dtype=float, na_value=np.nan)
        return pd.Series(np.where(np.isfinite(cells), cells, np.nan), index=column.index)
    return column.mask(column.isin(MISSING))


def _none(rows: pd.DataFrame) -> np.ndarray:
    return np.zeros((len(rows), 0))
