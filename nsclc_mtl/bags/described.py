"""What the inputs of patients are like, a number a patient and feature, and how the training patients' were."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.bags.cache import BagCache, read_volume
from nsclc_mtl.bags.fitted import Fitted
from nsclc_mtl.bags.series import SeriesScale
from nsclc_mtl.bags.spots import Chosen
from nsclc_mtl.metrics.drift import LEAST, deciles, rounded
from nsclc_mtl.records import Manifest

MOST = 300  # bags and volumes that are read for the summaries of a fold


@dataclass
class Described:
    """Inputs of one modality: `values` by patient and feature, on the training scale, NaN where not measured.

    `strange`: column -> bool [patient], a category that no training patient had.
    """

    values: pd.DataFrame
    strange: dict[str, np.ndarray] = field(default_factory=dict)


def described(
    manifest: Manifest, ids: Sequence[str], fitted: Fitted, cache: BagCache, most: int | None = None
) -> dict[str, Described]:
    """The inputs of those of the patients `ids` who have each modality, as the fold's scalers make them.

    Tables: their columns after site effects were taken out, before imputation, clipping and components. Tiles and
    spots: a patient's mean of each feature. Volumes: mean and SD of the voxels. Visits: a patient's mean of each column
    and the number of visits. Of bags and volumes at most `most` patients are read, evenly spread.
    """
    out: dict[str, Described] = {}
    for name in fitted.dims():
        have = set(manifest.who(name))
        own = [p for p in ids if p in have]
        if name in fitted.tables and name in manifest.tables:
            out[name] = _table(manifest, name, own, fitted)
        elif name in fitted.series and name in manifest.series:
            out[name] = Described(_visits(manifest.series[name], own, fitted.series[name]))
        elif name in fitted.bags and name in manifest.bags:
            some = _some(own, most)
            out[name] = Described(_bags(manifest.bags[name], some, fitted.bags[name], cache))
        elif name in fitted.volumes and name in manifest.volumes:
            some = _some(own, most)
            moments = [_moments(read_volume(manifest.volumes[name][p])) for p in some]
            out[name] = Described(pd.DataFrame(moments, some, ["mean of the voxels", "SD of the voxels"], float))
    return out


def reference(manifest: Manifest, train: Sequence[str], fitted: Fitted, cache: BagCache) -> dict[str, dict[str, Any]]:
    """Plain summaries of the training patients' inputs, a modality each, to tell later ones from.

    `n` patients `of` all have the modality; of every feature in `names`: the number of measured values, mean, SD, the
    deciles and the share of the values that do not exceed them. Features measured in fewer than 20 patients are left
    out: their summaries would speak of single patients.
    """
    made = {}
    for name, seen in described(manifest, train, fitted, cache, MOST).items():
        values = seen.values.to_numpy(float)
        count = np.isfinite(values).sum(0)
        kept = np.flatnonzero(count >= LEAST)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # columns without a value are not kept
            mean, sd = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        at, below = deciles(values[:, kept])
        have = set(manifest.who(name))
        made[name] = {
            "n": sum(p in have for p in train),
            "of": len(train),
            "read": len(values),
            "names": [str(seen.values.columns[int(i)]) for i in kept],
            "measured": count[kept].tolist(),
            "mean": rounded(mean[kept]).tolist(),
            "sd": rounded(sd[kept]).tolist(),
            "deciles": at.tolist(),
            "below": rounded(below).tolist(),
        }
    return made


def _some(ids: Sequence[str], most: int | None) -> list[str]:
    if most is None or len(ids) <= most:
        return list(ids)
    return [ids[int(i)] for i in np.linspace(0, len(ids) - 1, most)]


def _table(manifest: Manifest, name: str, own: Sequence[str], fitted: Fitted) -> Described:
    rows = fitted.harmonised(manifest, name, own)
    values, strange = fitted.tables[name].before_imputation(rows)
    return Described(values, strange)


def _bags(
    paths: Mapping[str, Sequence[str]], own: Sequence[str], scale: Mapping[str, Any], cache: BagCache
) -> pd.DataFrame:
    chosen = Chosen.of(scale) if "genes" in scale else None
    names = list(scale["genes"]) if chosen else [f"feature {i}" for i in range(len(scale["mean"]))]
    means = {}
    for patient in own:
        features, _ = cache(paths[patient], chosen=chosen)
        if len(features):
            means[patient] = features.mean(axis=0, dtype=np.float64)
    raw = np.array(list(means.values())).reshape(len(means), len(names))
    scaled = (raw - np.array(scale["mean"])) / np.array(scale["sd"])
    return pd.DataFrame(scaled, index=list(means), columns=names)


def _visits(visits: pd.DataFrame, own: Sequence[str], scale: SeriesScale) -> pd.DataFrame:
    patients = visits.index.get_level_values(0)
    inside = patients.isin(list(own))
    by = visits[inside].groupby(patients[inside], sort=False)
    means = by[scale.columns].mean()
    values = pd.DataFrame((means.to_numpy() - scale.mean) / np.array(scale.sd), means.index, means.columns)
    return values.assign(**{"number of visits": by.size().astype(float)}).reindex(list(own))


def _moments(volume: np.ndarray) -> tuple[float, float]:
    return float(volume.mean(dtype=np.float64)), float(volume.std(dtype=np.float64))
