"""A fitted table encoder: raw columns in, a numeric matrix out; everything fitted comes from training patients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables.read import MISSING, numeric_table


@dataclass
class TableEncoder:
    """Turns a table into [patient, column] float32: one-hot, imputed, standardised. Its state is plain JSON.

    Numeric columns are imputed with the training median, scaled to the training mean and SD and clipped at `clip` SD; a
    column that was sometimes missing in training gets an indicator. Categories are those of the training patients;
    another one at predict encodes as all zeros. Columns constant in training are dropped.
    """

    numbers: list[str] = field(default_factory=list)
    median: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    sd: list[float] = field(default_factory=list)
    indicated: list[str] = field(default_factory=list)
    categories: dict[str, list[str]] = field(default_factory=dict)
    ordered: dict[str, list[str]] = field(default_factory=dict)
    clip: float = 5.0
    loadings: list[list[float]] | None = None  # [component, column]: principal components of the scaled columns

    @classmethod
    def fit(
        cls,
        table: pd.DataFrame,
        columns: Mapping[str, Any] | None = None,
        top_variance: int | None = None,
        components: int | None = None,
        clip: float = 5.0,
    ) -> TableEncoder:
        """The encoder of these (training) patients.

        `columns` says what each column is: `numeric`, `categorical`, or the list of its values from low to high; None
        takes every column as numeric. `top_variance` keeps that many numeric columns of largest variance; `components`
        replaces them by that many principal components, which a small cohort can learn from.
        """
        made = cls(clip=clip)
        kinds: Mapping[str, Any] = columns if columns is not None else dict.fromkeys(table.columns, "numeric")
        for name, kind in kinds.items():
            if isinstance(kind, str) and kind not in ("numeric", "categorical"):
                raise UsageFault(
                    f"column '{name}' is declared as '{kind}'; "
                    "say numeric, categorical, or list its values from low to high"
                )
        _there(table, kinds)
        ordered = {name: [str(v) for v in kind] for name, kind in kinds.items() if not isinstance(kind, str)}
        made.categories = {
            name: sorted(set(table[name]) - set(MISSING)) for name, kind in kinds.items() if kind == "categorical"
        }
        made.ordered = ordered
        frame = made._numeric(table, [name for name, kind in kinds.items() if kind == "numeric" or name in ordered])
        values = frame.to_numpy()
        seen = np.isfinite(values)
        with np.errstate(all="ignore"):
            median = np.nan_to_num(np.where(seen.any(0), _nan(np.nanmedian, values, seen), 0.0))
            filled = np.where(seen, values, median)
            mean, sd = filled.mean(0), filled.std(0)
        keep = np.flatnonzero(np.isfinite(sd) & (sd > 1e-9 * np.maximum(1.0, np.abs(mean))))
        if top_variance is not None and len(keep) > top_variance:
            keep = np.sort(keep[np.argsort(-sd[keep], kind="stable")[:top_variance]])
        made.numbers = [str(frame.columns[int(i)]) for i in keep]
        made.median, made.mean, made.sd = median[keep].tolist(), mean[keep].tolist(), sd[keep].tolist()
        made.indicated = [str(frame.columns[int(i)]) for i in keep if 0 < seen[:, i].mean() < 1]
        if components is not None and len(keep) > components:
            made.loadings = made._principal(made._scaled(frame[made.numbers].to_numpy()), components)
        return made

    @staticmethod
    def _principal(scaled: np.ndarray, components: int) -> list[list[float]]:
        """Loadings [component, column] of the first components, all scaled alike so that their mean variance is 1."""
        _, spread, rows = np.linalg.svd(scaled - scaled.mean(0), full_matrices=False)
        kept, spread = rows[:components], spread[:components]
        sign = np.sign(kept[np.arange(len(kept)), np.abs(kept).argmax(1)])  # the same on every machine
        scale = np.sqrt(np.mean(spread**2) / len(scaled))
        return (kept * sign[:, None] / scale).round(7).tolist()

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        filled = np.where(np.isfinite(values), values, np.array(self.median))
        return np.clip((filled - np.array(self.mean)) / np.array(self.sd), -self.clip, self.clip)

    def _numeric(self, table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
        out = numeric_table(table[[name for name in names if name not in self.ordered]], "the table")
        for name in (name for name in names if name in self.ordered):
            rank = {value: float(i) for i, value in enumerate(self.ordered[name])}
            out[name] = table[name].map(lambda cell, rank=rank: rank.get(str(cell), np.nan)).astype(float)
        return out[list(names)]

    def transform(self, table: pd.DataFrame) -> np.ndarray:
        """Float32 [patient, dim]; never NaN. Raises DataFault where a column of the training table is absent."""
        _there(table, [*self.numbers, *self.categories])
        values = self._numeric(table, self.numbers).to_numpy(dtype=float).reshape(len(table), len(self.numbers))
        seen = np.isfinite(values)
        scaled = self._scaled(values)
        parts = [scaled if self.loadings is None else scaled @ np.array(self.loadings).T]
        if self.indicated:
            at = {name: i for i, name in enumerate(self.numbers)}
            parts.append(~seen[:, [at[name] for name in self.indicated]])
        for name, values_of in self.categories.items():
            text = table[name].astype(str).to_numpy()
            parts.append(text[:, None] == np.array(values_of, dtype=str)[None, :])
        return np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1)

    @property
    def names(self) -> list[str]:
        """Names of the columns that come out, in their order."""
        one_hot = [f"{name}={value}" for name, values in self.categories.items() for value in values]
        numbers = self.numbers if self.loadings is None else [f"component {i + 1}" for i in range(len(self.loadings))]
        return [*numbers, *(f"{name} missing" for name in self.indicated), *one_hot]

    @property
    def dim(self) -> int:
        """Number of columns that come out."""
        return len(self.names)

    def state(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> TableEncoder:
        """The encoder that `state()` came from."""
        return cls(**state)


def _there(table: pd.DataFrame, names: Iterable[str]) -> None:
    absent = [name for name in names if name not in table.columns]
    if absent:
        raise DataFault(f"the table lacks {len(absent)} column(s) that the model needs: {', '.join(absent[:5])}")


def _nan(function: Any, values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """`function` over the rows, without the warning that an all-NaN column gives."""
    out = np.zeros(values.shape[1])
    some = seen.any(0)
    out[some] = function(values[:, some], axis=0)
    return out
