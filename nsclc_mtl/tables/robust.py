"""Which features stay the same when the lesion is outlined a little differently, judged on training patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.metrics.agreement import icc_consistency
from nsclc_mtl.records import DataFault, Repeated


@dataclass
class Robust:
    """The features that were kept, and every feature's ICC(3,1) with the lower bound of its 95 % interval."""

    kept: list[str] = field(default_factory=list)
    icc: dict[str, list[float | None]] = field(default_factory=dict)  # name -> [icc, lower bound]; None: not computable
    lower: float = 0.75
    patients: int = 0
    perturbations: list[str] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)


def robust_features(table: pd.DataFrame, repeated: Repeated, training: Sequence[str], name: str) -> Robust:
    """The columns of `table` whose ICC(3,1) over the masks has a lower 95 % bound of at least `repeated.lower`.

    Raters are the mask as drawn (`table`) and its perturbations; subjects are the `training` patients, and no other row
    is looked at. A patient counts for a feature where every mask gave a value. What cannot be judged is not kept.

    Raises `DataFault` where fewer than three training patients were measured again, or nothing is robust.
    """
    masks = list(dict.fromkeys(repeated.table.index.get_level_values("perturbation")))
    measured = set(repeated.table.index.get_level_values("patient_id"))
    patients = [p for p in training if p in table.index and p in measured]
    if len(patients) < 3:
        raise DataFault(
            f"'{name}': {len(patients)} training patients of the fold were measured under perturbed masks, 3 are "
            "needed; run `mtl extract` with scans.robustness.perturb=true, or train with perturb=false"
        )
    columns = [str(c) for c in table.columns]
    drawn = table.loc[patients].to_numpy(dtype=float)
    again = repeated.table.reindex(columns=table.columns)
    others = [again.xs(mask, level="perturbation").reindex(patients).to_numpy(dtype=float) for mask in masks]
    values = np.stack([drawn, *others], axis=-1).transpose(1, 0, 2)  # [feature, patient, mask]
    whole = np.isfinite(values).all(axis=2)
    icc, bound = np.full(len(columns), np.nan), np.full(len(columns), np.nan)
    patterns, which = np.unique(whole, axis=0, return_inverse=True)
    for i, pattern in enumerate(patterns):
        alike = np.flatnonzero(np.ravel(which) == i)
        icc[alike], bound[alike], _ = icc_consistency(values[alike][:, pattern])
    kept = [column for column, low in zip(columns, bound, strict=True) if low >= repeated.lower]
    if not kept:
        raise DataFault(
            f"'{name}': none of {len(columns)} features is robust on {len(patients)} training patients (lower bound of "
            f"the ICC at least {repeated.lower:g}); lower scans.robustness.lower, or train with perturb=false"
        )
    told = {c: [_plain(a), _plain(b)] for c, a, b in zip(columns, icc, bound, strict=True)}
    return Robust(kept, told, repeated.lower, len(patients), masks)


def _plain(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
