"""Slides: attention MIL that also learns from its most and least attended tiles (CLAM)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from nsclc_mtl.encoders.coordinates import TileLayer
from nsclc_mtl.encoders.segments import owners, segment_softmax, segment_sum
from nsclc_mtl.encoders.supervised import SupervisedEncoder
from nsclc_mtl.records import Bag, Embedding, Target, UsageFault


def labelled_by(task: str | None, classes: Mapping[str, int]) -> str | None:
    """The class task whose labels an encoder learns from: the one named, else the first; None where there is none.

    Raises UsageFault for a task that has no classes in this run.
    """
    if task is not None and task not in classes:
        known = ", ".join(classes) or "none"
        raise UsageFault(f"the encoder's task={task} is no class task of this run (there are: {known}); or give null")
    return task or next(iter(classes), None)


def extremes(score: Tensor, offsets: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k most and the k least attended tiles of each patient, two masks bool [tile], from scores [tile].

    Of n tiles min(k, n) stand on either side, so that of fewer than 2 k some stand on both.

    >>> top, low = extremes(torch.tensor([1.0, 3.0, 2.0, 9.0]), torch.tensor([0, 3, 4]), k=1)
    >>> top.tolist(), low.tolist()
    ([False, True, False, True], [True, False, False, True])
    """
    sizes, owner = offsets.diff(), owners(offsets)
    order = score.argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]  # patient by patient, the most attended first
    place = order.new_ones(len(order)).cumsum(0) - 1
    rank = torch.empty_like(order).scatter(0, order, place) - offsets[owner]
    count = sizes.clamp(max=k)
    return rank < count[owner], rank >= (sizes - count)[owner]


class GatedScores(nn.Module):
    """Gated attention scores before the softmax, float [tile, branch] (Ilse, Tomczak and Welling, ICML 2018, eq. 9)."""

    def __init__(self, hidden: int, gate: int, branches: int = 1) -> None:
        super().__init__()
        self.content, self.gate = nn.Linear(hidden, gate), nn.Linear(hidden, gate)
        self.score = nn.Linear(gate, branches)

    def forward(self, tile: Tensor) -> Tensor:
        """Scores of tiles [tile, hidden]."""
        return self.score(torch.tanh(self.content(tile)) * torch.sigmoid(self.gate(tile)))


class CLAM(SupervisedEncoder):
    """Clustering-constrained attention MIL (Lu et al., Nature Biomedical Engineering 2021) over packed bags.

    Gated attention pools the tiles, with one branch (CLAM-SB) or one a class (CLAM-MB). In training a classifier a
    class learns from the tiles themselves: of a patient's own class the k most attended tiles are examples for it and
    the k least attended against it; with `exclusive`, the most attended are examples against every other class.

    What differs from the paper: the loss of a tile is the logistic loss, not the smooth top-1 SVM. With n tiles k is
    min(k, n); a tile on both sides counts as an example for its class and as one against it. The vectors of the
    branches are joined and mapped to one embedding that every task reads, instead of one bag score a branch. The weight
    is against the sum of the tasks' losses. A run without a class task (survival alone) has one branch and no instance
    loss.

    Args:
        in_dim: features of a tile. dim: size of the embedding. hidden: width of the tile layer. gate: width of the
            attention gate.
        branches: `single` (SB) or `class` (MB).
        k: tiles on either side. weight: of the instance loss.
        exclusive: whether a patient's class says that the others are absent from the slide; false suits grades, where
            a slide of a high grade may hold parts of a lower one.
        task: class task whose labels the tiles learn from; None is the first one. classes: class task -> classes.
        dropout, scale, coordinates: see `TileLayer`.

    Raises UsageFault for a task without classes and for other words.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        hidden: int = 64,
        gate: int = 32,
        branches: str = "single",
        k: int = 8,
        weight: float = 0.43,
        exclusive: bool = True,
        task: str | None = None,
        classes: Mapping[str, int] | None = None,
        dropout: float = 0.1,
        scale: dict[str, list[float]] | None = None,
        coordinates: bool | int = False,
    ) -> None:
        super().__init__()
        if branches not in ("single", "class"):
            raise UsageFault(f"branches={branches} is neither single (CLAM-SB) nor class (CLAM-MB)")
        if k < 1:
            raise UsageFault(f"k={k} tiles teach nothing: give 1 or more, or weight=0")
        self.k, self.weight, self.exclusive = k, weight, exclusive
        self.task = labelled_by(task, classes or {})
        self.classes = (classes or {})[self.task] if self.task else 0
        self.branches = self.classes if branches == "class" and self.classes else 1
        self.tile = TileLayer(in_dim, hidden, dropout, scale, coordinates)
        self.token_dim = hidden
        self.attend = GatedScores(hidden, gate, self.branches)
        self.instance = nn.Linear(hidden, self.classes) if self.classes else None
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.branches * hidden, dim))

    def forward(self, bag: Bag) -> Embedding:
        """Vector [patient, dim], attention [tile] (mean of the branches) and tokens [tile, hidden] of a packed bag.

        Patients without tiles get the bias alone.
        """
        n, owner = len(bag.offsets) - 1, owners(bag.offsets)
        tile = self.tile(bag)
        weights = [segment_softmax(score, owner, n) for score in self.attend(tile).unbind(1)]
        pooled = torch.cat([segment_sum(tile * weight[:, None], owner, n) for weight in weights], dim=1)
        attention = torch.stack(weights).mean(0)
        return Embedding(self.out(pooled), tokens=tile, attention=attention, offsets=bag.offsets)

    def supervise(
        self, inputs: Bag, said: Embedding, targets: Mapping[str, Target], present: Tensor
    ) -> dict[str, Tensor]:
        """`instance`: mean over patients with a known label, over classes, over the chosen tiles; times the weight."""
        if self.task is None or self.instance is None or said.tokens is None or said.offsets is None:
            return {}
        target, owner, n = targets[self.task], owners(said.offsets), len(present)
        known = target.known & present
        with torch.no_grad():  # which tiles are chosen has no gradient
            chosen = [extremes(score, said.offsets, self.k) for score in self.attend(said.tokens).unbind(1)]
        top, low = (torch.stack(masks, dim=1) for masks in zip(*chosen, strict=True))  # [tile, branch]
        label = torch.where(known, target.value, 0).long()
        own = functional.one_hot(label, self.classes).bool()[owner]
        told = known[owner, None]
        speaks = (own & top & told).float()
        against = ((own & low | (~own & top if self.exclusive else torch.zeros_like(own))) & told).float()
        logit = self.instance(said.tokens).float()
        loss = functional.softplus(-logit) * speaks + functional.softplus(logit) * against
        many = segment_sum(speaks + against, owner, n)  # [patient, class]
        mean = segment_sum(loss, owner, n) / many.clamp(min=1)
        some = (many > 0).sum(1)
        each = mean.sum(1) / some.clamp(min=1)
        return {"instance": self.weight * each.sum() / (some > 0).sum().clamp(min=1)}
