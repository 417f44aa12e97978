"""Patients as the network takes them: a dataset of patients and the batch that packs several of them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from nsclc_mtl.bags import series
from nsclc_mtl.bags.augment import changed
from nsclc_mtl.bags.cache import BagCache, Draw, read_volume
from nsclc_mtl.bags.fitted import Fitted
from nsclc_mtl.bags.spots import Chosen
from nsclc_mtl.records import Bag, Batch, IntegrityFault, Manifest, Target, event_column
from nsclc_mtl.tables.harmonize import named_sites

HALF_BYTES = 2  # of a feature: bags stay in half precision until an encoder looks at them


@dataclass
class Patient:
    """One patient: arrays of the modalities that are there, and the labels that are known."""

    patient_id: str
    inputs: dict[
        str, Any
    ]  # modality -> array; bags: (features [tile, dim], coords [tile, 2]); series: see `series.Visits`
    targets: dict[str, tuple[float, float, bool]]  # task -> value, event, known
    site: int = -1  # number of the site among those of the training; -1 = none of them


class PatientDataset(Dataset[Patient]):
    """Patients of one part of a fold. In training a bag gives at most as many tiles as `max_tiles` says of its modality
    (None, or no word of it: all), drawn anew each epoch, and with `augment` one of the views that its slides have; a
    crop is then changed as `crops` says of its modality.

    The draw depends on (seed, epoch, patient) alone, so that neither the other patients nor the number of workers
    change anything.
    """

    def __init__(
        self,
        manifest: Manifest,
        ids: Sequence[str],
        fitted: Fitted,
        cache: BagCache,
        *,
        seed: int = 0,
        max_tiles: Mapping[str, int | None] | None = None,
        augment: bool = False,
        crops: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        self.augment, self.crops = augment, dict(crops or {})
        self.manifest, self.ids, self.fitted, self.cache = manifest, list(ids), fitted, cache
        self.seed, self.epoch, self.max_tiles = seed, 0, dict(max_tiles or {})
        self.rows: dict[str, dict[str, Any]] = {}
        for name, table in manifest.tables.items():
            here = [p for p in self.ids if p in table.index]
            self.rows[name] = dict(zip(here, fitted.rows(manifest, name, here), strict=True))
        for name, visits in manifest.series.items():
            wanted, scale = visits[visits.index.get_level_values(0).isin(self.ids)], fitted.series[name]
            self.rows[name] = {str(p): scale(rows.droplevel(0)) for p, rows in wanted.groupby(level=0)}
        self.chosen = {name: Chosen.of(state) for name, state in fitted.bags.items() if "genes" in state}
        self.volumes: dict[str, np.ndarray] = {}
        self.targets = {task: _targets(labels.loc[self.ids]) for task, labels in manifest.labels.items()}
        numbers = {site: number for number, site in enumerate(fitted.sites)}
        self.sites = [numbers.get(site, -1) for site in named_sites(manifest.patients["site"]).loc[self.ids]]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Patient:
        patient = self.ids[index]
        inputs: dict[str, Any] = {name: rows[patient] for name, rows in self.rows.items() if patient in rows}
        for name, bags in self.manifest.bags.items():
            if patient in bags:
                view, chosen = self._view(bags[patient], patient), self.chosen.get(name)
                features, coords = self.cache(bags[patient], view, chosen, self._draw(name, patient))
                if len(features):  # a bag of no tile is a missing modality
                    inputs[name] = features, coords
        for name, volumes in self.manifest.volumes.items():
            if patient in volumes:
                if volumes[patient] not in self.volumes:
                    self.volumes[volumes[patient]] = read_volume(volumes[patient])
                inputs[name] = self.volumes[volumes[patient]]
                if self.augment and (how := self.crops.get(name)):
                    inputs[name] = changed(inputs[name], how, self.seed, self.epoch, patient)
        return Patient(patient, inputs, {task: rows[index] for task, rows in self.targets.items()}, self.sites[index])

    def _view(self, paths: Sequence[str], patient: str) -> int | None:
        """In training one of the plain features (None) and the views, drawn anew each epoch; else the plain ones."""
        if not self.augment or not (count := self.cache.views(paths)):
            return None
        drawn = int(self._rng(patient, 1).integers(count + 1))
        return drawn - 1 if drawn else None

    def _draw(self, name: str, patient: str) -> Draw | None:
        """What draws the tiles of a patient's bag of this modality in this epoch; None: all are taken."""
        if not (most := self.max_tiles.get(name)):
            return None

        def draw(tiles: int) -> np.ndarray | None:
            if tiles <= most:
                return None
            return np.sort(self._rng(patient).choice(tiles, most, replace=False))

        return draw

    def _rng(self, patient: str, *use: int) -> np.random.Generator:
        """What draws for a patient in this epoch; another `use`, another draw."""
        return np.random.Generator(np.random.PCG64([self.seed, self.epoch, zlib.crc32(patient.encode()), *use]))

    def tile_bytes(self, index: int) -> int:
        """What the tiles of a patient take in a batch, all of them."""
        patient, total = self.ids[index], 0
        for name, bags in self.manifest.bags.items():
            if patient in bags:
                total += self.cache.size(bags[patient]) * len(self.fitted.bags[name]["mean"]) * HALF_BYTES
        return total


def _targets(labels: pd.DataFrame) -> list[tuple[float, float, bool]]:
    """(value, event, known) of each row; the value is the class number, or the time in days, the event its cause."""
    known = labels.notna().all(axis=1)
    value = labels["time_days" if "event" in labels else "value"].where(known, 0.0)
    event = labels[happened].where(known, 0.0) if (happened := event_column(labels)) else value * 0
    return list(zip(value.tolist(), event.tolist(), known.tolist(), strict=True))


def pack(patients: Sequence[Patient], fitted: Fitted) -> Batch:
    """The batch of these patients: tiles packed in one tensor, absent modalities as zeros with `present` False."""
    n = len(patients)
    present: dict[str, torch.Tensor] = {}
    inputs: dict[str, Any] = {}
    dims = fitted.dims()
    for name, dim in dims.items():
        have = [name in p.inputs for p in patients]
        present[name] = torch.tensor(have)
        if name in fitted.bags:
            inputs[name] = _pack_bag([p.inputs.get(name) for p in patients], dim)
            continue
        if name in fitted.series:
            inputs[name] = series.pack([p.inputs.get(name) for p in patients], dim)
            continue
        shape = (1, *dim) if name in fitted.volumes else (dim,)
        block = np.zeros((n, *shape), np.float32)
        for i, patient in enumerate(patients):
            if have[i]:
                found = np.shape(patient.inputs[name])
                if found not in (shape, tuple(dim) if name in fitted.volumes else shape):
                    raise IntegrityFault(
                        f"'{name}' of patient {patient.patient_id} has the shape {list(found)}, the model "
                        f"was trained on {list(shape)}; extract it with the settings of the training"
                    )
                block[i] = patient.inputs[name]
        inputs[name] = torch.from_numpy(block)
    targets = {}
    for task in patients[0].targets:
        value, event, known = zip(*(p.targets[task] for p in patients), strict=True)
        targets[task] = Target(torch.tensor(known), torch.tensor(value, dtype=torch.float32), torch.tensor(event))
    sites = torch.tensor([p.site for p in patients])
    return Batch([p.patient_id for p in patients], inputs, present, targets, sites)


def _pack_bag(bags: Sequence[tuple[np.ndarray, np.ndarray] | None], dim: int) -> Bag:
    sizes = [0 if bag is None else len(bag[0]) for bag in bags]
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    some = [bag for bag in bags if bag is not None]
    if not some:
        return Bag(torch.zeros(0, dim, dtype=torch.float16), offsets, torch.zeros(0, 2, dtype=torch.int64))
    wrong = {bag[0].shape[1] for bag in some} - {dim}
    if wrong:
        raise IntegrityFault(
            f"tile features of {sorted(wrong)} dimensions, the model was trained on {dim}; use its backbone"
        )
    features, coords = (torch.from_numpy(_joined([bag[i] for bag in some])) for i in range(2))
    return Bag(features, offsets, coords)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One after the other; a single one is not copied, so that nobody may write to it."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
