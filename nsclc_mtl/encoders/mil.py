"""Slides: all tiles of a patient become one vector by attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nsclc_mtl.records import Bag, Embedding


def owners(offsets: Tensor) -> Tensor:
    """Patient of each tile, int64 [tile], from offsets [patient + 1]."""
    return torch.repeat_interleave(torch.arange(len(offsets) - 1, device=offsets.device), offsets.diff())


def segment_softmax(score: Tensor, owner: Tensor, n: int) -> Tensor:
    """Softmax of `score` [tile] within each of `n` patients; a patient without tiles takes no part.

    >>> segment_softmax(torch.zeros(3), torch.tensor([0, 0, 1]), 2).tolist()
    [0.5, 0.5, 1.0]
    """
    top = torch.full((n,), -torch.inf, dtype=score.dtype, device=score.device)
    top = top.scatter_reduce(0, owner, score.detach(), "amax")
    weight = (score - top[owner]).exp()
    total = torch.zeros(n, dtype=score.dtype, device=score.device).index_add(0, owner, weight)
    return weight / total[owner]


def segment_sum(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """Sum of the rows of `values` [tile, dim] that belong to each patient, [patient, dim]."""
    return values.new_zeros(n, values.shape[1]).index_add(0, owner, values)


class TileScale(nn.Module):
    """Tile features at mean 0 and SD 1 of the training patients; fixed, saved with the weights."""

    mean: Tensor
    sd: Tensor

    def __init__(self, mean: list[float], sd: list[float], clip: float = 6.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("sd", torch.tensor(sd))

    def forward(self, features: Tensor) -> Tensor:
        """Same shape as it came."""
        return ((features - self.mean) / self.sd).clamp(-self.clip, self.clip)


class ABMIL(nn.Module):
    """Gated attention pooling (Ilse, Tomczak and Welling, ICML 2018) over packed bags.

    Args:
        in_dim: features of a tile. dim: size of the embedding. hidden: width of the tile layer. gate: width of the
            attention gate.
        scale: `{mean, sd}` of the tile features on the training patients; None leaves them as they are.
        dropout: of tile features and of the pooled vector, in training.
        tokens: hand the hidden tiles [tile, hidden] to the fusion too.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        hidden: int = 64,
        gate: int = 32,
        dropout: float = 0.1,
        scale: dict[str, list[float]] | None = None,
        tokens: bool = False,
    ) -> None:
        super().__init__()
        self.token_dim = hidden if tokens else None
        self.scale = TileScale(scale["mean"], scale["sd"]) if scale else nn.Identity()
        self.tile = nn.Sequential(nn.Dropout(dropout), nn.Linear(in_dim, hidden), nn.GELU())
        self.content, self.gate = nn.Linear(hidden, gate), nn.Linear(hidden, gate)
        self.score = nn.Linear(gate, 1)
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, dim))

    def forward(self, bag: Bag) -> Embedding:
        """Vector [patient, dim] and attention [tile] of a packed bag; patients without tiles get the bias alone."""
        n, owner = len(bag.offsets) - 1, owners(bag.offsets)
        tile = self.tile(self.scale(bag.features))
        score = self.score(torch.tanh(self.content(tile)) * torch.sigmoid(self.gate(tile))).squeeze(1)
        attention = segment_softmax(score, owner, n)
        pooled = segment_sum(tile * attention[:, None], owner, n)
        said = Embedding(self.out(pooled), attention=attention)
        if self.token_dim is not None:
            said.tokens, said.offsets = tile, bag.offsets
        return said


class MeanPool(nn.Module):
    """The mean tile, as the plainest thing that a slide encoder can be."""

    def __init__(
        self, in_dim: int, dim: int, dropout: float = 0.1, scale: dict[str, list[float]] | None = None
    ) -> None:
        super().__init__()
        self.scale = TileScale(scale["mean"], scale["sd"]) if scale else nn.Identity()
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(in_dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, bag: Bag) -> Embedding:
        """Vector [patient, dim]; every tile weighs the same."""
        n, owner = len(bag.offsets) - 1, owners(bag.offsets)
        attention = segment_softmax(torch.zeros(len(owner), device=owner.device), owner, n)
        return Embedding(
            self.out(segment_sum(self.scale(bag.features) * attention[:, None], owner, n)), attention=attention
        )
