"""Slides: attention by likeness to the critical tile (DSMIL)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from nsclc_mtl.encoders.clam import labelled_by
from nsclc_mtl.encoders.coordinates import TileLayer
from nsclc_mtl.encoders.pooling import segment_max
from nsclc_mtl.encoders.segments import owners, segment_softmax, segment_sum
from nsclc_mtl.encoders.supervised import SupervisedEncoder
from nsclc_mtl.records import Bag, Embedding, Target


class DSMIL(SupervisedEncoder):
    """Dual-stream MIL (Li, Li and Eliceiri, CVPR 2021) over packed bags.

    The first stream scores every tile; the tile of the largest score is the critical one. The second pools all tiles
    by the likeness of their query to that of the critical tile. There is one score a class; for two classes one score
    is enough, and a run without a class task (survival alone) has one that its tasks teach.

    What differs from the paper: both streams enter one embedding, pooled vectors and largest scores side by side, so
    that tasks of every kind train both, where the paper averages two bag scores. The loss of the first stream is the
    cross-entropy of the classes (they exclude each other), and the weight is against the sum of the tasks' losses.
    Where several tiles share the largest score the first in the bag is the critical one.

    Args:
        in_dim: features of a tile. dim: size of the embedding. hidden: width of the tile layer. query: width of the
            queries.
        weight: of the first stream's loss.
        task: class task whose labels the first stream learns; None is the first one. classes: class task -> classes.
        dropout, scale, coordinates: see `TileLayer`.

    Raises UsageFault for a task without classes.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        hidden: int = 64,
        query: int = 32,
        weight: float = 0.5,
        task: str | None = None,
        classes: Mapping[str, int] | None = None,
        dropout: float = 0.1,
        scale: dict[str, list[float]] | None = None,
        coordinates: bool | int = False,
    ) -> None:
        super().__init__()
        self.weight, self.task = weight, labelled_by(task, classes or {})
        number = (classes or {})[self.task] if self.task else 1
        self.streams = number if number > 2 else 1
        self.tile = TileLayer(in_dim, hidden, dropout, scale, coordinates)
        self.token_dim = hidden
        self.instance = nn.Linear(hidden, self.streams)
        self.query = nn.Sequential(nn.Linear(hidden, query), nn.Tanh())
        self.value = nn.Linear(hidden, hidden)
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.streams * (hidden + 1), dim))

    def forward(self, bag: Bag) -> Embedding:
        """Vector [patient, dim], attention [tile] (mean of the streams) and tokens [tile, hidden] of a packed bag.

        Patients without tiles get what a zero says: the bias alone.
        """
        n, owner = len(bag.offsets) - 1, owners(bag.offsets)
        tile = self.tile(bag)
        score, query, value = self.instance(tile), self.query(tile), self.value(tile)
        top = segment_max(score, owner, n)
        critical = torch.cat([query, query.new_zeros(1, query.shape[1])])[_first_of(score, top, owner)]
        weights, pooled = [], []
        for stream in range(self.streams):
            likeness = (query * critical[owner, stream]).sum(1) / query.shape[1] ** 0.5
            weights.append(segment_softmax(likeness, owner, n))
            pooled.append(segment_sum(value * weights[-1][:, None], owner, n))
        attention = torch.stack(weights).mean(0)
        vector = self.out(torch.cat([*pooled, top], dim=1))
        return Embedding(vector, tokens=tile, attention=attention, offsets=bag.offsets)

    def supervise(
        self, inputs: Bag, said: Embedding, targets: Mapping[str, Target], present: Tensor
    ) -> dict[str, Tensor]:
        """`instance`: cross-entropy of the largest scores, mean over the patients with a known label; times the
        weight."""
        if self.task is None or said.tokens is None or said.offsets is None:
            return {}
        target, n = targets[self.task], len(present)
        known = (target.known & present & (said.offsets.diff() > 0)).float()
        top = segment_max(self.instance(said.tokens), owners(said.offsets), n).float()
        label = torch.where(target.known, target.value, 0)
        if self.streams == 1:
            loss = functional.binary_cross_entropy_with_logits(top.squeeze(1), label, reduction="none")
        else:
            loss = functional.cross_entropy(top, label.long(), reduction="none")
        return {"instance": self.weight * (loss * known).sum() / known.sum().clamp(min=1)}


def _first_of(score: Tensor, top: Tensor, owner: Tensor) -> Tensor:
    """Row of the first tile that holds its patient's largest score, int64 [patient, stream]; the number of tiles for a
    patient without any."""
    with torch.no_grad():
        row = (owner.new_ones(len(owner)).cumsum(0) - 1)[:, None].expand_as(score)
        row = torch.where(score == top[owner], row, len(owner))
        first = owner.new_full(top.shape, len(owner))
        return first.scatter_reduce(0, owner[:, None].expand_as(row), row, "amin")
