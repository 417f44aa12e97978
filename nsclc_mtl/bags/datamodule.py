"""The data of one fold for Lightning: fitted on its training patients, loaded part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from nsclc_mtl.bags.passes import Pass, Passes
from nsclc_mtl.records import Bag, Batch, Manifest, Series, UsageFault

MOST_BYTES = 1_000_000_000  # of tile features in a batch of whole bags


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


class InRoom(Sampler[list[int]]):
    """Batches of consecutive patients: at most `batch_size`, and fewer where their whole bags would take more than
    `most_bytes`; a patient with a larger one comes alone."""

    def __init__(self, data: PatientDataset, batch_size: int, most_bytes: float = MOST_BYTES) -> None:
        self.data, self.batch_size, self.most = data, batch_size, most_bytes
        self.made: list[list[int]] | None = None

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches())

    def _batches(self) -> list[list[int]]:
        if self.made is None:
            self.made, held = [], 0
            for index in range(len(self.data)):
                here = self.data.tile_bytes(index)
                if not self.made or len(self.made[-1]) == self.batch_size or held + here > self.most:
                    self.made.append([])
                    held = 0
                self.made[-1].append(index)
                held += here
        return self.made


@dataclass(frozen=True)
class Share:
    """Which share of every batch a process trains on: number `rank` of `of`; alone it trains on all."""

    rank: int = 0
    of: int = 1


class Shared(Sampler[int]):
    """A process's share of every batch of `batch_size` patients of a sampler, in its order.

    All processes draw the same order and take equal shares, so that together they see the batches of one process. Of a
    last batch whose patients cannot be dealt equally, at most `of - 1` are left out.
    """

    def __init__(self, whole: Sampler[int], batch_size: int, share: Share) -> None:
        self.whole, self.batch_size, self.share = whole, batch_size, share

    def __len__(self) -> int:
        return len(self.whole) // self.share.of  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        order = list(self.whole)
        for start in range(0, len(order), self.batch_size):
            each = len(order[start : start + self.batch_size]) // self.share.of
            first = start + each * self.share.rank
            yield from order[first : first + each]


class FoldData(pl.LightningDataModule):
    """Training and validation loaders of one fold. The test part is not reachable from here: see `loader`.

    `epoch` is the one that a fit begins with: 0, or where a checkpoint was taken. With `exact` the training loader
    gives whole passes, from each of which the gradient of all training patients is made. Of several processes each
    trains on its `share` of every batch. `balanced_by` is the task whose classes (or events) an epoch shows alike
    often. `max_tiles` is what a bag of each modality gives to a step at most. `fitted` is what was fitted elsewhere, on
    patients of several sites; None = it is fitted here. Raises UsageFault where `batch_size` cannot be dealt to the
    processes.
    """

    def __init__(
        self,
        manifest: Manifest,
        split: pd.DataFrame,
        *,
        cache: BagCache | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        batch_size: int = 32,
        max_tiles: Mapping[str, int | None] | None = None,
        seed: int = 0,
        exact: bool = False,
        share: Share | None = None,
        balanced_by: str | None = None,
        fitted: Fitted | None = None,
    ) -> None:
        super().__init__()
        self.exact, self.share = exact, share or Share()
        if batch_size % self.share.of:
            raise UsageFault(
                f"optim.batch_size={batch_size} cannot be dealt to trainer.devices={self.share.of} equally"
            )
        self.manifest, self.cache = manifest, cache or BagCache()
        self.parts = {part: list(rows["patient_id"]) for part, rows in split.groupby("part") if part != "test"}
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self.groups = balanced.groups(manifest, balanced_by, self.parts["train"]) if balanced_by else None
        self.fitted = fitted or fit(manifest, self.parts["train"], self.cache, options or {})
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

    def train_dataloader(self) -> DataLoader[Patient] | Passes:
        """Training patients in an order that depends on (seed, epoch) alone."""
        if self.exact:
            return Passes(self._train_batches, self.seed, len(self.train_set), self.epoch)
        # a last batch of one patient would make a noisy step of its own
        ragged = len(self.train_set) % self.batch_size == 1 and len(self.train_set) > 1
        return self._train_batches(self.epoch, drop_last=ragged)

    def _train_batches(self, epoch: int, drop_last: bool = False) -> DataLoader[Patient]:
        order: Sampler[int] = Shuffled(self.train_set, self.seed, epoch, self.groups)
        return DataLoader(
            self.train_set,
            self.batch_size // self.share.of,
            sampler=order if self.share.of == 1 else Shared(order, self.batch_size, self.share),
            drop_last=drop_last,
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

    def transfer_batch_to_device(self, batch: Batch | Pass, device: torch.device, dataloader_idx: int) -> Batch | Pass:
        """The batch on the device, record by record; of a pass every batch when its turn comes."""
        if isinstance(batch, Pass):
            return Pass(lambda: (moved(part, device) for part in batch), batch.seed, batch.epoch, len(batch))
        return moved(batch, device)


def loader(
    manifest: Manifest,
    ids: Sequence[str],
    fitted: Fitted,
    cache: BagCache,
    batch_size: int = 32,
    most_bytes: float = MOST_BYTES,
) -> DataLoader[Patient]:
    """These patients in their order, whole bags, everything fitted elsewhere applied as it is.

    A batch has `batch_size` patients, fewer where their bags would take more than `most_bytes`.
    """
    data = PatientDataset(manifest, ids, fitted, cache)
    return DataLoader(data, batch_sampler=InRoom(data, batch_size, most_bytes), collate_fn=partial(pack, fitted=fitted))


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
