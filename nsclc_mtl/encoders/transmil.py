"""Slides: a transformer over all tiles at a cost linear in their number (TransMIL)."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from nsclc_mtl.encoders.coordinates import TileLayer
from nsclc_mtl.encoders.segments import owners, segment_sum
from nsclc_mtl.records import Bag, Embedding, UsageFault

FLOOR = 1e-4  # of the attention's feature map: never zero, so that there is always something to divide by


class TransMIL(nn.Module):
    """A class token and all tiles of a patient attend to each other (Shao et al., NeurIPS 2021), over packed bags.

    Tile layer, attention, pyramid position encoding, then attention again; the class token of the last layer is the
    embedding. Each layer is a residual one after layer norm, without a feed-forward part, as in the paper.

    What differs from the paper: the attention is kernel attention (Katharopoulos et al., ICML 2020, elu(x) + 1) and
    not Nystrom's approximation, whose landmarks are means of neighbours in the sequence: cost is linear in the tiles
    either way, but here the order of the tiles is nothing unless `ppeg` reads it. The convolution of the values that
    Nystrom attention adds is left out. The square of the position encoding is filled up with zeros, not with the first
    tiles again, and leaves the class token out.

    The attention of a tile is that of the class token in the last layer, mean of the heads, divided by what the class
    token does not give to itself.

    Args:
        in_dim: features of a tile. dim: size of the embedding. hidden: width of tokens. heads: of the attention.
        ppeg: whether positions are encoded from the order of the tiles, which the reader gives (y, then x); without it
            order is nothing.
        dropout: of tile features, attention's output and the class token, in training.
        scale, coordinates: see `TileLayer`.

    Raises UsageFault where the heads do not divide the width.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        hidden: int = 64,
        heads: int = 4,
        ppeg: bool = True,
        dropout: float = 0.1,
        scale: dict[str, list[float]] | None = None,
        coordinates: bool | int = False,
    ) -> None:
        super().__init__()
        if heads < 1 or hidden % heads:
            raise UsageFault(f"hidden={hidden} must be a multiple of heads={heads}")
        self.tile = TileLayer(in_dim, hidden, dropout, scale, coordinates)
        self.token_dim = hidden
        self.first = nn.Parameter(0.02 * torch.randn(hidden))  # the class token
        self.look, self.decide = (KernelAttention(hidden, heads, dropout) for _ in range(2))
        self.position = PyramidPosition(hidden) if ppeg else None
        self.out = nn.Sequential(nn.LayerNorm(hidden), nn.Dropout(dropout), nn.Linear(hidden, dim))

    def forward(self, bag: Bag) -> Embedding:
        """Vector [patient, dim], attention [tile] and tokens [tile, hidden] of a packed bag.

        Patients without tiles get what the class token says to itself, the same for all of them.
        """
        n, owner, sizes = len(bag.offsets) - 1, owners(bag.offsets), bag.offsets.diff().tolist()
        tile, first = self.tile(bag), self.first.expand(n, -1)
        first, tile = self.look(first, tile, sizes)
        if self.position is not None:
            tile = self.position(tile, sizes)
        first, attention = self.decide.pool(first, tile, sizes, owner)
        return Embedding(self.out(first), tokens=tile, attention=attention, offsets=bag.offsets)


class KernelAttention(nn.Module):
    """Multi-head attention of the tokens of each patient among themselves, phi(q) phi(k)^T v with phi = elu + 1.

    Nothing of size tile x tile is made: keys and values become one matrix a patient and head, which all queries read.
    A column of ones beside the values makes the denominators. Patients never touch each other.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))

    def forward(self, first: Tensor, tile: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The class tokens [patient, width] and the tiles [tile, width], each with what it read added."""
        own, others = self.norm(first), self.norm(tile)
        state, _ = self._state(own, others, sizes)
        query = self._kernel(self.query(others)).split(list(sizes))
        read = [torch.einsum("thd,hde->the", *pair) for pair in zip(query, state.unbind(0), strict=True)]
        return first + self._class(own, state), tile + self.out(_divided(torch.cat(read)))

    def pool(self, first: Tensor, tile: Tensor, sizes: Sequence[int], owner: Tensor) -> tuple[Tensor, Tensor]:
        """The class tokens alone [patient, width], and what each tile weighs in them [tile], one within a patient."""
        own, others = self.norm(first), self.norm(tile)
        state, key = self._state(own, others, sizes)
        query = self._kernel(self.query(own))
        weight = (query[owner] * key).sum(2).float()  # [tile, head]
        weight = weight / segment_sum(weight, owner, len(first))[owner]
        return first + self._class(own, state), weight.mean(1)

    def _state(self, own: Tensor, others: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Keys times values of each patient with the class token's own, [patient, head, d, d + 1], and the tiles' keys
        [tile, head, d]."""
        key, value = self._kernel(self.key(others)), _with_ones(self._split(self.value(others)))
        parts = zip(key.split(list(sizes)), value.split(list(sizes)), strict=True)
        state = torch.stack([torch.einsum("thd,the->hde", *pair) for pair in parts])
        mine = self._kernel(self.key(own)), _with_ones(self._split(self.value(own)))
        return state + torch.einsum("phd,phe->phde", *mine), key

    def _class(self, own: Tensor, state: Tensor) -> Tensor:
        """What the class tokens read, [patient, width]."""
        return self.out(_divided(torch.einsum("phd,phde->phe", self._kernel(self.query(own)), state)))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.heads, -1))

    def _kernel(self, x: Tensor) -> Tensor:
        return functional.elu(self._split(x)) + 1 + FLOOR


def _with_ones(value: Tensor) -> Tensor:
    return functional.pad(value, (0, 1), value=1.0)


def _divided(read: Tensor) -> Tensor:
    """Numerators over denominators, heads side by side: [row, head * d] from [row, head, d + 1]."""
    return (read[..., :-1] / read[..., -1:]).flatten(1)


class PyramidPosition(nn.Module):
    """Tiles folded into a square in their order, each with what depthwise convolutions of 7, 5 and 3 see around it
    added: the PPEG of TransMIL.

    The three kernels and the identity are added up first and convolved once, which gives the same numbers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide, self.middle, self.narrow = (nn.Conv2d(width, width, size, groups=width) for size in (7, 5, 3))

    def forward(self, tile: Tensor, sizes: Sequence[int]) -> Tensor:
        """The tiles [tile, width] with their positions; nobody's square holds a tile of somebody else."""
        identity = torch.zeros_like(self.wide.weight)
        identity[:, :, 3, 3] = 1.0
        kernel = identity + self.wide.weight
        kernel = kernel + functional.pad(self.middle.weight, [1] * 4) + functional.pad(self.narrow.weight, [2] * 4)
        bias = torch.stack([own for own in (self.wide.bias, self.middle.bias, self.narrow.bias) if own is not None])
        return torch.cat([self._seen(own, kernel, bias.sum(0)) for own in tile.split(list(sizes))])

    def _seen(self, tile: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        if not len(tile):
            return tile
        side = isqrt(len(tile) - 1) + 1
        square = functional.pad(tile, (0, 0, 0, side * side - len(tile))).T.unflatten(1, (side, side))
        seen = functional.conv2d(square[None], kernel, bias, padding=3, groups=len(kernel))
        return seen[0].flatten(1).T[: len(tile)]
