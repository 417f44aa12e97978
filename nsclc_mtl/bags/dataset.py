"""Patients as the network takes them: a dataset of patients and the batch that packs several of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from nsclc_mtl.bags.augment import changed
from nsclc_mtl.features import store
from nsclc_mtl.records import Bag, Batch, DataFault, IntegrityFault, Manifest, Target
from nsclc_mtl.tables.encode import TableEncoder
from nsclc_mtl.tables.robust import robust_features


@dataclass
class Patient:
    """One patient: arrays of the modalities that are there, and the labels that are known."""

    patient_id: str
    inputs: dict[str, Any]  # modality -> array; bags: (features [tile, dim], coords [tile, 2])
    targets: dict[str, tuple[float, float, bool]]  # task -> value, event, known


class BagCache:
    """Feature files in memory, float16, the longest unused dropped when `limit_bytes` is passed."""

    def __init__(self, limit_bytes: int = 2_000_000_000) -> None:
        self.limit, self.held = limit_bytes, 0
        self.counted: dict[tuple[str, ...], int] = {}
        self.kept: OrderedDict[tuple[str, ...], tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def views(self, paths: Sequence[str]) -> int:
        """Views that every slide of the patient has beside its plain features."""
        key = tuple(paths)
        if key not in self.counted:
            self.counted[key] = min((store.view_count(Path(path)) for path in paths), default=0)
        return self.counted[key]

    def __call__(self, paths: Sequence[str], view: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Features [tile, dim] and coords [tile, 2] of a patient's slides, one after the other; in another stain where
        the number of a view is given."""
        if view is not None:
            _, coords = self(paths)
            key = (*paths, str(view))
            if key not in self.kept:
                self._keep(key, (np.concatenate([store.read_view(Path(path), view) for path in paths]), coords))
            self.kept.move_to_end(key)
            return self.kept[key]
        key = tuple(paths)
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        slides = [store.read(path) for path in paths]  # type: ignore[arg-type]
        dims = {slide.features.shape[1] for slide in slides}
        if len(dims) > 1:
            raise IntegrityFault(
                f"the slides {', '.join(paths)} have features of {sorted(dims)} dimensions; extract them alike"
            )
        bag = np.concatenate([s.features for s in slides]), np.concatenate([s.coords for s in slides])
        self._keep(key, bag)
        return bag

    def _keep(self, key: tuple[str, ...], bag: tuple[np.ndarray, np.ndarray]) -> None:
        self.kept[key] = bag
        self.held += bag[0].nbytes + bag[1].nbytes
        while self.held > self.limit and len(self.kept) > 1:
            _, (features, coords) = self.kept.popitem(last=False)
            self.held -= features.nbytes + coords.nbytes


@dataclass
class Fitted:
    """Everything that was fitted on the training patients of a fold, as plain JSON types can hold it."""

    tables: dict[str, TableEncoder] = field(default_factory=dict)
    robust: dict[str, dict[str, Any]] = field(default_factory=dict)  # modality -> ICC of its features, and those kept
    bags: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # modality -> {mean, sd} per feature
    volumes: dict[str, list[int]] = field(default_factory=dict)  # modality -> shape [z, y, x]
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)  # filled by the tasks: bins, cut-offs
    patterns: list[list[str]] = field(default_factory=list)  # combinations of modalities that were trained
    trust: dict[str, dict[str, float]] = field(default_factory=dict)  # task -> temperature and sets, from calibration

    def state(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        tables = {name: encoder.state() for name, encoder in self.tables.items()}
        plain = {name: getattr(self, name) for name in ("bags", "volumes", "tasks", "patterns", "trust", "robust")}
        return {"tables": tables, **plain}

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Fitted:
        """What `state()` came from; folds of before may lack `trust` and `robust`."""
        tables = {name: TableEncoder.load(s) for name, s in state["tables"].items()}
        kinds = {"bags": dict, "volumes": dict, "tasks": dict, "patterns": list}
        later: dict[str, Any] = {name: dict(state.get(name) or {}) for name in ("trust", "robust")}
        return cls(tables, **{name: kind(state[name]) for name, kind in kinds.items()}, **later)

    def dims(self) -> dict[str, Any]:
        """Input size of each modality: columns of a table, features of a tile, shape of a volume."""
        return {
            **{name: encoder.dim for name, encoder in self.tables.items()},
            **{name: len(scale["mean"]) for name, scale in self.bags.items()},
            **{name: tuple(shape) for name, shape in self.volumes.items()},
        }


def fit(manifest: Manifest, train: Sequence[str], cache: BagCache, options: Mapping[str, Mapping[str, Any]]) -> Fitted:
    """Scalers, imputers and selections of every modality, from the training patients `train` alone.

    Raises DataFault where none of them has a modality.
    """
    made = Fitted()
    sources: dict[str, Any] = {**{n: t.index for n, t in manifest.tables.items()}, **manifest.bags, **manifest.volumes}
    sources = {name: set(source) for name, source in sources.items()}
    for name, have in sources.items():
        if have.isdisjoint(train):
            raise DataFault(
                f"no training patient of the fold has the modality '{name}'; use fewer folds (folds.n), "
                "or leave it out (modalities=[...])"
            )
    for name, table in manifest.tables.items():
        rows = table.loc[[p for p in train if p in table.index]]
        spec, chosen = manifest.modalities[name], options.get(name, {})
        columns = spec.options.get("columns")
        if name in manifest.repeated:
            judged = robust_features(rows, manifest.repeated[name], train, name)
            made.robust[name], rows = judged.state(), rows[judged.kept]
            columns = columns and {c: kind for c, kind in columns.items() if c in judged.kept}
        made.tables[name] = TableEncoder.fit(
            rows,
            columns,
            top_variance=chosen.get("top_variance"),
            components=chosen.get("components"),
            clip=chosen.get("clip", 5.0),
        )
    for name, paths in manifest.bags.items():
        made.bags[name] = _tile_scale([paths[p] for p in train if p in paths], cache)
    for name, volumes in manifest.volumes.items():
        made.volumes[name] = list(_volume(next(iter(volumes.values()))).shape)
    seen = {tuple(n for n in sources if p in sources[n]) for p in train}
    made.patterns = [list(pattern) for pattern in sorted(seen, key=lambda s: (-len(s), s))]
    return made


def _tile_scale(bags: Sequence[Sequence[str]], cache: BagCache, most: int = 1000) -> dict[str, list[float]]:
    """Mean and SD of every tile feature, each bag weighing the same; at most `most` bags are read."""
    step = max(1, len(bags) // most)
    moments = []
    for paths in bags[::step]:
        features, _ = cache(paths)
        if len(features):
            wide = features.astype(np.float64)
            moments.append((wide.mean(0), (wide**2).mean(0)))
    if not moments:
        raise DataFault("no slide of the fold's training patients has a tile; run `mtl tile` and `mtl extract` again")
    first, second = np.mean([m for m, _ in moments], axis=0), np.mean([s for _, s in moments], axis=0)
    sd = np.sqrt(np.maximum(second - first**2, 0))
    return {"mean": first.round(6).tolist(), "sd": np.where(sd > 1e-6, sd, 1.0).round(6).tolist()}


def _volume(path: str) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        return np.asarray(file["volume"], np.float32)


class PatientDataset(Dataset[Patient]):
    """Patients of one part of a fold. In training a bag gives at most `max_tiles` tiles, drawn anew each epoch, and
    with `augment` one of the views that its slides have; a crop is then changed as `crops` says of its modality.

    The draw depends on (seed, epoch, patient) alone, so that the number of workers changes nothing.
    """

    def __init__(
        self,
        manifest: Manifest,
        ids: Sequence[str],
        fitted: Fitted,
        cache: BagCache,
        *,
        seed: int = 0,
        max_tiles: int | None = None,
        augment: bool = False,
        crops: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        self.augment, self.crops = augment, dict(crops or {})
        self.manifest, self.ids, self.fitted, self.cache = manifest, list(ids), fitted, cache
        self.seed, self.epoch, self.max_tiles = seed, 0, max_tiles
        self.rows: dict[str, dict[str, np.ndarray]] = {}
        for name, table in manifest.tables.items():
            here = [p for p in self.ids if p in table.index]
            values = fitted.tables[name].transform(table.loc[here])
            self.rows[name] = dict(zip(here, values, strict=True))
        self.volumes: dict[str, np.ndarray] = {}
        self.targets = {task: _targets(labels.loc[self.ids]) for task, labels in manifest.labels.items()}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Patient:
        patient = self.ids[index]
        inputs: dict[str, Any] = {name: rows[patient] for name, rows in self.rows.items() if patient in rows}
        for name, bags in self.manifest.bags.items():
            if patient in bags:
                features, coords = self.cache(bags[patient], self._view(bags[patient], index))
                if len(features):  # a bag of no tile is a missing modality
                    inputs[name] = self._sample(features, coords, index)
        for name, volumes in self.manifest.volumes.items():
            if patient in volumes:
                if volumes[patient] not in self.volumes:
                    self.volumes[volumes[patient]] = _volume(volumes[patient])
                inputs[name] = self.volumes[volumes[patient]]
                if self.augment and (how := self.crops.get(name)):
                    inputs[name] = changed(inputs[name], how, self.seed, self.epoch, patient)
        return Patient(patient, inputs, {task: rows[index] for task, rows in self.targets.items()})

    def _view(self, paths: Sequence[str], index: int) -> int | None:
        """In training one of the plain features (None) and the views, drawn anew each epoch; else the plain ones."""
        if not self.augment or not (count := self.cache.views(paths)):
            return None
        drawn = int(np.random.Generator(np.random.PCG64([self.seed, self.epoch, index, 1])).integers(count + 1))
        return drawn - 1 if drawn else None

    def _sample(self, features: np.ndarray, coords: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self.max_tiles is None or len(features) <= self.max_tiles:
            return features, coords
        rng = np.random.Generator(np.random.PCG64([self.seed, self.epoch, index]))
        keep = np.sort(rng.choice(len(features), self.max_tiles, replace=False))
        return features[keep], coords[keep]


def _targets(labels: pd.DataFrame) -> list[tuple[float, float, bool]]:
    """(value, event, known) of each row; the value is the class number, or the time in days."""
    known = labels.notna().all(axis=1)
    value = labels["time_days" if "event" in labels else "value"].where(known, 0.0)
    event = labels["event"].where(known, 0.0) if "event" in labels else value * 0
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
    return Batch([p.patient_id for p in patients], inputs, present, targets)


def _pack_bag(bags: Sequence[tuple[np.ndarray, np.ndarray] | None], dim: int) -> Bag:
    sizes = [0 if bag is None else len(bag[0]) for bag in bags]
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    some = [bag for bag in bags if bag is not None]
    if not some:
        return Bag(torch.zeros(0, dim), offsets, torch.zeros(0, 2, dtype=torch.int64))
    wrong = {bag[0].shape[1] for bag in some} - {dim}
    if wrong:
        raise IntegrityFault(
            f"tile features of {sorted(wrong)} dimensions, the model was trained on {dim}; use its backbone"
        )
    features = torch.from_numpy(np.concatenate([bag[0] for bag in some])).float()
    return Bag(features, offsets, torch.from_numpy(np.concatenate([bag[1] for bag in some])))
