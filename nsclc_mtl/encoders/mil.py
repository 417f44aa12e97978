"""Slides: all tiles of a patient become one vector by attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from nsclc_mtl.encoders.coordinates import DIM, Coordinates, places
from nsclc_mtl.encoders.segments import owners, segment_softmax, weighted_sum, wide
from nsclc_mtl.encoders.tiles import blocks, first_layer, tile_scale, wide_blocks
from nsclc_mtl.records import Bag, Embedding, UsageFault

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}
LOOK = 8192  # tiles whose hidden features are held at once where no gradient is asked for


class ABMIL(nn.Module):
    """Gated attention pooling (Ilse, Tomczak and Welling, ICML 2018) over packed bags.

    Features may come in half precision. Where no gradient is asked for, a bag is looked at in pieces, with a softmax
    that is corrected as it goes (Milakov and Gimelshein, 2018), so that a slide of any size needs little beside itself.

    The network that the paper's appendix gives for the classic bags (MUSK1 to ELEPHANT) is `hidden=[256, 128, 64]`,
    `gate=64`, `activation="relu"`, `dropout=0`, `tile_dropout=0.5`.

    Args:
        in_dim: features of a tile. dim: size of the embedding. hidden: width of the tile layer, or the widths of
            several one after the other. gate: width of the attention gate.
        scale: `{mean, sd}` of the tile features on the training patients; None leaves them as they are.
        dropout: of tile features (see `tiles.first_layer`) and of the pooled vector, in training.
        tokens: hand the hidden tiles [tile, hidden] to the fusion too; None is no.
        coordinates: whether the place of a tile is added in its first layer, or the numbers of its code (see
            `Coordinates`).
        activation: of the tile layers, `gelu` or `relu`. tile_dropout: of what each tile layer says, in training.

    Raises UsageFault for another activation, and for no width or one below 1.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        hidden: int | Sequence[int] = 64,
        gate: int = 32,
        dropout: float = 0.1,
        scale: dict[str, list[float]] | None = None,
        tokens: bool | None = None,
        coordinates: bool | int = False,
        activation: str = "gelu",
        tile_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [hidden] if isinstance(hidden, int) else list(hidden)
        if not widths or min(widths) < 1:
            raise UsageFault(f"hidden={hidden} must be the width of a tile layer, or a list of widths: 1 or more")
        if activation not in ACTIVATIONS:
            raise UsageFault(f"activation={activation} is none of {', '.join(ACTIVATIONS)}")
        self.place = Coordinates(widths[0], DIM if coordinates is True else coordinates) if coordinates else None
        self.hidden, self.token_dim = widths[-1], widths[-1] if tokens else None
        self.scale = tile_scale(scale)
        self.tile = nn.Sequential(nn.Dropout(dropout))
        for before, width in zip([in_dim, *widths], widths, strict=False):
            self.tile.extend([nn.Linear(before, width), ACTIVATIONS[activation](), nn.Dropout(tile_dropout)])
        self.content, self.gate = nn.Linear(self.hidden, gate), nn.Linear(self.hidden, gate)
        self.score = nn.Linear(gate, 1)
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.hidden, dim))

    def forward(self, bag: Bag) -> Embedding:
        """Vector [patient, dim] and attention [tile] of a packed bag; patients without tiles get the bias alone."""
        n, owner = len(bag.offsets) - 1, owners(bag.offsets)
        if not (torch.is_grad_enabled() or self.training or self.token_dim is not None):
            pooled, attention = self._in_pieces(bag, owner, n)
            return Embedding(self.out(pooled), attention=attention)
        tile = self._hidden(bag.features, self._places(bag))
        attention = segment_softmax(self._score(tile), owner, n)
        said = Embedding(self.out(weighted_sum(attention, tile, bag.offsets)), attention=attention)
        if self.token_dim is not None:
            said.tokens, said.offsets = tile, bag.offsets
        return said

    def _places(self, bag: Bag) -> Tensor | None:
        return None if self.place is None else places(bag)

    def _hidden(self, features: Tensor, at: Tensor | None) -> Tensor:
        """Hidden features [tile, hidden] of tiles at places [tile, 2]."""
        drop, layer = cast(nn.Dropout, self.tile[0]), cast(nn.Linear, self.tile[1])
        made = first_layer(features, self.scale, layer, drop.p, drop.training)
        made = made if self.place is None or at is None else made + self.place.said_of(at)
        for follows in list(self.tile)[2:]:
            made = follows(made)
        return made

    def _score(self, tile: Tensor) -> Tensor:
        """Gated score [tile] of hidden features, in single precision: sums over thousands of tiles follow."""
        score: Tensor = self.score(torch.tanh(self.content(tile)) * torch.sigmoid(self.gate(tile)))
        return wide(score.squeeze(1))

    def _in_pieces(self, bag: Bag, owner: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Pooled hidden features [patient, hidden] and attention [tile], a piece of the bags at a time."""
        features, at = bag.features, self._places(bag)
        dtype = torch.promote_types(self.score.weight.dtype, torch.float32)
        score = features.new_empty(len(features), dtype=dtype)
        top, total = score.new_full((n,), -torch.inf), score.new_zeros(n)
        pooled = score.new_zeros(n, self.hidden)
        for rows in blocks(len(features), LOOK):
            tile, here = self._hidden(features[rows], None if at is None else at[rows]), owner[rows]
            score[rows] = self._score(tile)
            higher = top.scatter_reduce(0, here, score[rows], "amax")
            # what was summed up so far was relative to the largest score of before
            shrunk = torch.where(total > 0, (top - higher).exp(), 0.0)
            weight = (score[rows] - higher[here]).exp()
            total = (total * shrunk).index_add(0, here, weight)
            pooled = (pooled * shrunk[:, None]).index_add(0, here, weight[:, None] * tile.to(dtype))
            top = higher
        return pooled / total.clamp(min=1e-30)[:, None], (score - top[owner]).exp() / total[owner]


class MeanPool(nn.Module):
    """The mean tile, as the plainest thing that a slide encoder can be."""

    def __init__(
        self, in_dim: int, dim: int, dropout: float = 0.1, scale: dict[str, list[float]] | None = None
    ) -> None:
        super().__init__()
        self.scale = tile_scale(scale)
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(in_dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, bag: Bag) -> Embedding:
        """Vector [patient, dim]; every tile weighs the same."""
        sizes, owner = bag.offsets.diff(), owners(bag.offsets)
        attention = 1.0 / sizes.to(torch.float32)[owner]
        if bag.features.requires_grad:
            return Embedding(
                self.out(weighted_sum(attention, self.scale(bag.features), bag.offsets)), attention=attention
            )
        first = next(self.out.parameters())
        width = torch.promote_types(first.dtype, torch.float32)
        pooled = torch.zeros(len(sizes), bag.features.shape[1], device=owner.device, dtype=width)
        for rows, block in wide_blocks(bag.features, self.scale):
            pooled.index_add_(0, owner[rows], block.to(width))
        mean = (pooled / sizes.clamp(min=1)[:, None]).to(first.dtype)
        return Embedding(self.out(mean), attention=attention)
