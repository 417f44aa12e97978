"""The data of one fold for Lightning: fitted on its training patients, loaded part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from nsclc_mtl.bags import balanced
from nsclc_mtl.bags.augment import wanted
from nsclc_mtl.bags.cache import BagCache
from nsclc_mtl.bags.dataset import Patient, PatientDataset, pack
from nsclc_mtl.bags.fitted import Fitted, fit
from nsclc_mtl.records import Bag, Batch, Manifest, Series


class Shuffled(Sampler[int]):
    """Patients in an order that depends on (seed, epoch) alone; tells the dataset the epoch, for its draws of tiles.

    Each pass is the next epoch, beginning with `epoch`: a loader is made once a fit, so that nobody else could tell.
    With `groups` (a number a patient, -1 = none) patients are drawn so that every group comes alike often.
    """

    def __init__(self, data: PatientDataset, seed: int, epoch: int = 0, groups: np.ndarray | None = None) -> None:
        self.data, self.seed, self.epoch, self.groups = data, seed, epoch, groups

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[int]:
        self.data.seed, self.data.epoch = self.seed, self.epoch
        order = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        self.epoch += 1
        if self.groups is not None:
            return iter(balanced.draw(self.groups, order))
        return iter(torch.randperm(len(self.data), generator=order).tolist())


class FoldData(pl.LightningDataModule):
    """Training and validation loaders of one fold. The test part is not reachable from here: see `loader`.

    `epoch` is the one that a fit begins with: 0, or where a checkpoint was taken. `balanced_by` is the task whose
    classes (or events) an epoch shows alike often.
    """

    def __init__(
        self,
        manifest: Manifest,
        split: pd.DataFrame,
        *,
        cache: BagCache | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        batch_size: int = 32,
        max_tiles: int | None = None,
        seed: int = 0,
        balanced_by: str | None = None,
    ) -> None:
        super().__init__()
        self.manifest, self.cache = manifest, cache or BagCache()
        self.parts = {part: list(rows["patient_id"]) for part, rows in split.groupby("part") if part != "test"}
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self.groups = balanced.groups(manifest, balanced_by, self.parts["train"]) if balanced_by else None
        self.fitted = fit(manifest, self.parts["train"], self.cache, options or {})
        self.train_set = PatientDataset(
            manifest,
            self.parts["train"],
            self.fitted,
            self.cache,
            seed=seed,
            max_tiles=max_tiles,
            augment=True,
            crops={name: wanted((options or {}).get(name, {}).get("augment"), name) for name in manifest.volumes},
        )

    def train_dataloader(self) -> DataLoader[Patient]:
        """Training patients in an order that depends on (seed, epoch) alone."""
        # a last batch of one patient would make a noisy step of its own
        ragged = len(self.train_set) % self.batch_size == 1 and len(self.train_set) > 1
        return DataLoader(
            self.train_set,
            self.batch_size,
            sampler=Shuffled(self.train_set, self.seed, self.epoch, self.groups),
            drop_last=ragged,
            collate_fn=partial(pack, fitted=self.fitted),
        )

    def val_dataloader(self) -> DataLoader[Patient]:
        """Validation patients, whole bags."""
        return loader(self.manifest, self.parts.get("validation", []), self.fitted, self.cache, self.batch_size)

    def state_dict(self) -> dict[str, int]:
        """The epoch, for checkpoints."""
        return {"epoch": self.trainer.current_epoch if self.trainer else self.epoch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Begins with the epoch of a checkpoint."""
        self.epoch = state_dict["epoch"]

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch on the device, record by record."""
        return moved(batch, device)


def loader(
    manifest: Manifest, ids: Sequence[str], fitted: Fitted, cache: BagCache, batch_size: int = 32
) -> DataLoader[Patient]:
    """These patients in their order, whole bags, everything fitted elsewhere applied as it is."""
    return DataLoader(
        PatientDataset(manifest, ids, fitted, cache), batch_size, shuffle=False, collate_fn=partial(pack, fitted=fitted)
    )


def batches(data: DataLoader[Patient]) -> list[Batch]:
    """All batches of a loader."""
    return list(data)


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device, record by record."""
    if device.type == "cpu":
        return batch
    move: Callable[[Any], Any] = lambda x: x.to(device) if isinstance(x, (Tensor, Bag, Series)) else x  # noqa: E731
    targets = {
        name: type(t)(move(t.known), move(t.value), None if t.event is None else move(t.event))
        for name, t in batch.targets.items()
    }
    inputs = {name: move(x) for name, x in batch.inputs.items()}
    present = {name: move(x) for name, x in batch.present.items()}
    return Batch(batch.patients, inputs, present, targets, move(batch.site))
