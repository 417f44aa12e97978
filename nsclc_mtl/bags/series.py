"""Series of visits as the network takes them: scaled by the training patients, packed without padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from nsclc_mtl.records import DataFault, IntegrityFault, Series

Visits = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Values [visit, column] scaled, measured [visit, column] 0 or 1, time [visit] scaled."""


@dataclass
class SeriesScale:
    """Columns at mean 0 and SD 1 of the training patients, each patient weighing the same; time likewise.

    Columns without a value, or with one value only, among the training visits are dropped.
    """

    columns: list[str]
    mean: list[float]
    sd: list[float]
    within: list[float]  # SD within a patient, in units of `sd`
    day_mean: float
    day_sd: float
    clip: float = 5.0  # standard deviations

    @classmethod
    def fit(cls, visits: pd.DataFrame, name: str, clip: float = 5.0) -> SeriesScale:
        """The scale of these (training) visits, indexed by (patient_id, days)."""
        patients = visits.index.get_level_values(0)
        first, second = visits.groupby(patients, sort=False).mean().mean(), (visits**2).groupby(patients).mean().mean()
        sd = np.sqrt(np.maximum(second - first**2, 0.0))
        kept = [str(c) for c in visits.columns if np.isfinite(sd[c]) and sd[c] > 1e-9 * max(1.0, abs(first[c]))]
        if not kept:
            raise DataFault(
                f"'{name}': no column varies among the visits of the fold's training patients; leave it out"
            )
        apart = visits[kept] - visits[kept].groupby(patients).transform("mean")
        within = np.sqrt((apart**2).groupby(patients).mean().mean()) / sd[kept]
        days = visits.index.get_level_values(1).to_numpy(float)
        return cls(
            kept, first[kept].round(9).tolist(), sd[kept].round(9).tolist(),
            within.where(within > 0.01, 1.0).round(9).tolist(),
            round(float(days.mean()), 6), round(float(days.std()), 6) or 1.0, float(clip),
        )  # fmt: skip

    def __call__(self, rows: pd.DataFrame) -> Visits:
        """One patient's visits, indexed by days. Raises DataFault where a column of the training is absent."""
        absent = [name for name in self.columns if name not in rows.columns]
        if absent:
            raise DataFault(f"the visits lack {len(absent)} column(s) that the model needs: {', '.join(absent[:5])}")
        rows = rows.sort_index()
        values = rows[self.columns].to_numpy(float)
        measured = np.isfinite(values)
        scaled = np.clip((values - np.array(self.mean)) / np.array(self.sd), -self.clip, self.clip)
        time = (rows.index.to_numpy(float) - self.day_mean) / self.day_sd
        return (
            np.where(measured, scaled, 0.0).astype(np.float32),
            measured.astype(np.float32),
            np.clip(time, -self.clip, self.clip).astype(np.float32),
        )

    def state(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> SeriesScale:
        """The scale that `state()` came from."""
        return cls(**state)


def pack(visits: Sequence[Visits | None], dim: int) -> Series:
    """The visits of several patients in one record; a patient without any has no rows."""
    there = [v for v in visits if v is not None]
    wrong = {v[0].shape[1] for v in there} - {dim}
    if wrong:
        raise IntegrityFault(f"visits of {sorted(wrong)} columns, the model was trained on {dim}")
    sizes = [0 if v is None else len(v[0]) for v in visits]
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    if not there:
        return Series(torch.zeros(0, dim), torch.zeros(0, dim), torch.zeros(0), offsets)
    values, measured, time = (torch.from_numpy(np.concatenate(part)) for part in zip(*there, strict=True))
    return Series(values, measured, time, offsets)
