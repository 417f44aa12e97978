"""Covariates that a harmonisation keeps: declared inputs such as age and sex, as columns of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.records import DataFault, Manifest, UsageFault
from nsclc_mtl.tables.read import MISSING, numeric_table

Kinds = Mapping[str, Any]  # name -> numeric, categorical, or the list of values from low to high


@dataclass
class CovariateDesign:
    """Covariates as centred columns [patient, column]: numbers, ranks, and a column a level but the first.

    What is missing, or a level that training did not have, counts as the average of the training patients (zero).
    """

    kinds: dict[str, Any] = field(default_factory=dict)
    levels: dict[str, list[str]] = field(default_factory=dict)  # categorical name -> levels that get a column
    centre: list[float] = field(default_factory=list)  # mean of each column over the training patients who have it

    @classmethod
    def fit(cls, frame: pd.DataFrame, kinds: Kinds) -> CovariateDesign:
        """The columns that these (training) patients give. Raises UsageFault on a kind that is none."""
        made = cls(dict(kinds))
        for name, kind in kinds.items():
            if isinstance(kind, str) and kind not in ("numeric", "categorical"):
                raise UsageFault(
                    f"combat.covariates: '{name}' is declared as '{kind}'; say numeric, categorical, or list its values"
                )
            if kind == "categorical":
                made.levels[name] = sorted(set(frame[name].astype(str)) - set(MISSING))[1:]
        raw = made.raw(frame)
        known = np.isfinite(raw)
        made.centre = (np.where(known, raw, 0).sum(0) / np.maximum(known.sum(0), 1)).tolist()
        return made

    def raw(self, frame: pd.DataFrame) -> np.ndarray:
        """Numbers of any patients before they are centred, float [patient, column]; NaN where not known."""
        blocks = [np.zeros((len(frame), 0))]
        for name, kind in self.kinds.items():
            if kind == "categorical":
                text = frame[name].astype(str).to_numpy()
                block = (text[:, None] == np.array(self.levels[name], dtype=str)[None, :]).astype(float)
                block[np.isin(text, MISSING)] = np.nan
            elif isinstance(kind, str):
                block = numeric_table(frame[[name]], "the covariates of combat").to_numpy(dtype=float)
            else:
                rank = {str(value): float(i) for i, value in enumerate(kind)}
                block = frame[name].map(lambda cell, rank=rank: rank.get(str(cell), np.nan)).to_numpy(float)[:, None]
            blocks.append(block)
        return np.concatenate(blocks, axis=1)

    def __call__(self, frame: pd.DataFrame) -> np.ndarray:
        """Numbers of any patients, float [patient, column]; never NaN. Raises DataFault where a column is absent."""
        absent = [name for name in self.kinds if name not in frame]
        if absent:
            raise DataFault(f"combat.covariates: the patients have no column '{absent[0]}', which was kept in training")
        raw = self.raw(frame) - np.array(self.centre)
        return np.where(np.isfinite(raw), raw, 0.0)

    def state(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)


def kept_covariates(manifest: Manifest, wanted: Iterable[str] | Kinds) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The covariates of all patients, and what each is: columns of a clinical table of the run, as that declares them.

    A mapping (name -> kind) may name columns of the patients table as well, which declares no kinds. Raises DataFault
    where a name is an outcome or a part of one (an outcome that is kept is an outcome that leaks), and UsageFault where
    it is no column.
    """
    declared = dict(wanted) if isinstance(wanted, Mapping) else dict.fromkeys(wanted)
    frame, kinds = pd.DataFrame(index=manifest.patients.index), {}
    for name, kind in declared.items():
        refuse_outcomes([name], {c for spec in manifest.tasks.values() for c in (spec.name, *spec.columns)})
        home = next((n for n, m in manifest.modalities.items() if _holds(manifest, n, m.kind, name)), None)
        if home is not None:
            frame[name] = manifest.tables[home][name].reindex(frame.index)
            columns = manifest.modalities[home].options.get("columns") or {}
            kinds[name] = kind or columns.get(name, "numeric")
        elif kind is not None and name in manifest.patients:
            frame[name], kinds[name] = manifest.patients[name], kind
        else:
            raise UsageFault(
                f"combat.covariates: no clinical table of this run has a column '{name}'; name one of its columns, or "
                "declare a column of the patients table with its kind ({age: numeric, sex: categorical})"
            )
        if kinds[name] != "numeric":
            frame[name] = frame[name].where(frame[name].notna(), "")
    return frame, kinds


def _holds(manifest: Manifest, modality: str, kind: str, column: str) -> bool:
    return kind == "clinical" and modality in manifest.tables and column in manifest.tables[modality]


def refuse_outcomes(names: Iterable[str], outcomes: Iterable[str]) -> None:
    """Raises DataFault at the first name that is an outcome or a part of one."""
    forbidden = {str(o).casefold() for o in outcomes}
    for name in names:
        if str(name).casefold() in forbidden:
            raise DataFault(
                f"combat.covariates names '{name}', which is an outcome or a part of one: what ComBat keeps it carries "
                "into the features, so that an outcome would leak; name inputs only (age, sex)"
            )
