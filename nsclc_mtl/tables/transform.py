"""What values of omics tables are (counts, TPM, logs, z-scores), and how they come to a scale that a model can take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, UsageFault

VALUES = ("counts", "tpm", "log", "z", "binary", "other")
LOGS = ("auto", "none", "log1p", "log2p1")
MILLION = 1e6
COUNTS_FROM = 100.0  # copy numbers, stages and scores are whole numbers too, and smaller
LOG_AT_MOST = 64.0  # 2 to the 64th molecules are in no sample


@dataclass(frozen=True)
class Transform:
    """Counts per million and logarithm, patient by patient: nothing of it is fitted."""

    log: str = "none"  # none, log1p (natural) or log2p1
    library: tuple[str, ...] = ()  # columns whose sum is a patient's library size; empty: values as they are

    @classmethod
    def of(cls, values: str | None, log: str, columns: Sequence[str]) -> Transform:
        """What `log` means for values of that kind. `auto` takes log2(x + 1) of counts per million and of TPM.

        A logarithm of counts is always one of counts per million (library size); nothing is guessed of undeclared
        values. Raises UsageFault on an unknown word.
        """
        if values is not None and values not in VALUES:
            raise UsageFault(f"values={values!r} is none of {', '.join(VALUES)}")
        if log not in LOGS:
            raise UsageFault(f"log={log!r} is none of {', '.join(LOGS)}")
        chosen = ("log2p1" if values in ("counts", "tpm") else "none") if log == "auto" else log
        return cls(chosen, tuple(columns) if values == "counts" and chosen != "none" else ())

    def __call__(self, table: pd.DataFrame) -> pd.DataFrame:
        """The columns of `table` (float64) on their new scale. Raises DataFault where a logarithm meets negatives."""
        if self.log == "none":
            return table
        values = table.to_numpy(dtype=float)
        if (values < 0).any():
            row, column = np.argwhere(values < 0)[0]
            raise DataFault(
                f"column '{table.columns[column]}' holds {values[row, column]:g} (patient {table.index[row]}), of "
                "which there is no logarithm; set log to none, or declare the table's `values`"
            )
        if self.library:
            size = np.nansum(table[list(self.library)].to_numpy(dtype=float), axis=1, keepdims=True)
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.where(size > 0, values / size * MILLION, np.nan)  # no counts at all: not measured
        made = np.log1p(values)
        return pd.DataFrame(made if self.log == "log1p" else made / np.log(2), table.index, table.columns)


def raw_counts(values: np.ndarray) -> bool:
    """Whether values look like counts that nobody has normalised: whole, never negative, some of them large.

    >>> raw_counts(np.array([[0.0, 1520.0], [3.0, np.nan]])), raw_counts(np.array([[0.0, 2.0]]))
    (True, False)
    """
    known = values[np.isfinite(values)]
    return bool(known.size and known.min() >= 0 and known.max() >= COUNTS_FROM and (known == np.round(known)).all())


def doubts(table: pd.DataFrame, values: str | None, name: str) -> list[str]:
    """What a reader should know of the values of an omics table, one sentence each; empty where all is well.

    Raises DataFault where the values cannot be what `values` declares.
    """
    cells = table.to_numpy(dtype=float)
    known = cells[np.isfinite(cells)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if values in ("counts", "tpm") and low < 0:
        raise DataFault(f"{name}: declared as values: {values}, but holds {_first(table, cells < 0)}; correct `values`")
    strange = np.isfinite(cells) & (cells != 0) & (cells != 1)
    if values == "binary" and strange.any():
        raise DataFault(f"{name}: declared as values: binary, but holds {_first(table, strange)}; correct `values`")
    if values is None and raw_counts(cells):
        return [
            f"{name}: values look like raw counts (whole numbers from {low:g} to {high:g}), which are taken as they "
            "are; declare values: counts for the logarithm of counts per million, or values: other"
        ]
    if values is None and low >= 0 and high >= 1000:
        return [
            f"{name}: values look as if no logarithm was taken ({low:g} to {high:g}), and are taken as they are; "
            "declare values: tpm, or values: other"
        ]
    if values == "log" and high > LOG_AT_MOST:
        return [f"{name}: declared as values: log, but reaches {high:g}: is it a logarithm?"]
    if values == "z" and known.size and low >= 0:
        return [f"{name}: declared as values: z, but no value is negative: is it a z-score?"]
    return []


def _first(table: pd.DataFrame, where: np.ndarray) -> str:
    row, column = np.argwhere(where)[0]
    value = float(table.to_numpy(dtype=float)[row, column])
    return f"{value:g} (column '{table.columns[column]}', patient {table.index[row]})"
