"""All tiles of a slide through a backbone: networks through Lightning's predict loop, fixed filters in a plain one.

Memory holds the batches that wait and the features, never the slide. Where a batch is too large for the memory, it is
halved, at most three times, and the size that went through stands in the attributes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from nsclc_mtl.features.backbones import Backbone
from nsclc_mtl.features.backbones.frozen import Frozen
from nsclc_mtl.records import UsageFault

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule

MOST_HALVINGS = 3
Batches = Iterable[tuple[np.ndarray, np.ndarray]]
Change = Callable[[Tensor], Tensor]  # uint8 tiles [tile, px, px, 3] in, the same out: stain


@dataclass
class Seen:
    """What a backbone saw in a slide, in the order of the batches."""

    places: np.ndarray  # int64 [tile]: rows of the slide's tiles that have features; unreadable ones have none
    features: np.ndarray  # float32 [tile, dim]
    views: np.ndarray | None  # float16 [view, tile, dim], where stain-augmented views were asked for
    attrs: dict[str, Any] = field(default_factory=dict)  # precision, device, and the batch where it had to shrink


def see(backbone: Backbone, batches: Batches, normalise: Change | None = None, views: Iterable[Change] = ()) -> Seen:
    """Features of every tile, and of each of its `views`; batches are pairs of rows [b] and uint8 [b, px, px, 3].

    Raises UsageFault where three halvings of the batch were not enough for the memory.
    """
    eye = Eye(backbone, normalise, tuple(views))
    if isinstance(backbone, Frozen):
        _through_lightning(eye, batches, backbone.device)
    else:  # Lightning takes seconds to import, as long as fixed filters take for a small slide
        for places, tiles in batches:
            eye.keep(places, eye.look(torch.from_numpy(tiles)))
    if not eye.places:
        raise ValueError("a slide without a tile has no features; tile it first")
    everything = np.concatenate(eye.rows, axis=1)
    attrs: dict[str, Any] = {
        "precision": getattr(backbone, "precision", "32"),
        "device": str(getattr(backbone, "device", "cpu")),
    }
    if eye.halvings:
        attrs |= {"batch": eye.most, "batch_halved": eye.halvings}
    more = everything[1:].astype(np.float16) if len(everything) > 1 else None
    return Seen(np.concatenate(eye.places), everything[0], more, attrs)


class Eye:
    """A backbone that makes do with the memory there is, and keeps what it saw."""

    def __init__(self, backbone: Backbone, normalise: Change | None, views: tuple[Change, ...]) -> None:
        self.backbone, self.normalise, self.views = backbone, normalise, views
        self.most, self.halvings = backbone.batch, 0
        self.places: list[np.ndarray] = []
        self.rows: list[np.ndarray] = []  # float32 [1 + view, tile, dim] a batch

    def look(self, tiles: Tensor) -> Tensor:
        """float32 [1 + view, tile, dim]: the tiles as they are (or normalised), then each view of them."""
        while True:
            try:
                return torch.cat([self._all_views(part) for part in tiles.split(self.most)], dim=1)
            except RuntimeError as error:  # torch's OutOfMemoryError is one; the CPU's allocator raises the plain one
                if not _of_memory(error):
                    raise
                if self.halvings == MOST_HALVINGS or self.most == 1:
                    raise UsageFault(
                        f"backbone={self.backbone.name}: a batch of {self.most} tiles is too large for the memory, "
                        f"after {self.halvings} halvings; set backbone.batch lower or device=cpu"
                    ) from error
            self.most, self.halvings = max(1, self.most // 2), self.halvings + 1
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _all_views(self, tiles: Tensor) -> Tensor:
        plain = self.normalise(tiles) if self.normalise else tiles
        return torch.stack([self.backbone(seen).float() for seen in (plain, *(change(plain) for change in self.views))])

    def keep(self, places: np.ndarray, seen: Tensor) -> None:
        """Rows of a batch, off the device."""
        self.places.append(np.asarray(places))
        self.rows.append(seen.cpu().numpy())


class Stream(IterableDataset[tuple[np.ndarray, Tensor]]):
    """Batches as the reading side assembled them, uint8."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        for places, tiles in self.batches:
            yield places, torch.from_numpy(tiles)


def _through_lightning(eye: Eye, batches: Batches, device: torch.device) -> None:
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import BasePredictionWriter

    class Seeing(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = eye.backbone

        def predict_step(self, batch: tuple[np.ndarray, Tensor], index: int) -> Tensor:
            return eye.look(batch[1])

    class Writer(BasePredictionWriter):
        def write_on_batch_end(
            self, trainer: pl.Trainer, module: LightningModule, prediction: Any, indices: Any, batch: Any, *rest: Any
        ) -> None:
            eye.keep(batch[0], prediction)

    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*(does not have many workers|GPU available but not used|infer the batch indices).*"
        )
        warnings.filterwarnings("ignore", message=".*(treespec).*")
        for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        trainer = pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu", devices=1, logger=False, callbacks=[Writer("batch")],
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        stream = DataLoader(Stream(batches), batch_size=None, pin_memory=device.type == "cuda")
        trainer.predict(Seeing(), stream, return_predictions=False)


def _of_memory(error: RuntimeError) -> bool:
    told = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in told or "can't allocate memory" in told
