"""Slides: a transformer over all tiles at a cost linear in their number (TransMIL)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import isqrt

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nsclc_mtl.encoders.coordinates import TileLayer
from nsclc_mtl.encoders.segments import owners, segment_sum
from nsclc_mtl.records import Bag, Embedding, UsageFault

FLOOR = 1e-4  # of the attention's feature map: never zero, so that there is always something to divide by
SMALL = 1024  # tiles of a patient who is looked at together with others; a larger one keeps the processor busy alone


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
        n, owner = len(bag.offsets) - 1, owners(bag.offsets)
        alike = Alike(bag.offsets.diff().tolist(), bag.offsets.device)
        tile, first = self.tile(bag), self.first.expand(n, -1)
        first, tile = self.look(first, tile, alike)
        if self.position is not None:
            tile = self.position(tile, alike)
        first, attention = self.decide.pool(first, tile, alike, owner)
        return Embedding(self.out(first), tokens=tile, attention=attention, offsets=bag.offsets)


class Alike:
    """Patients of about the same number of tiles side by side, so that one product serves them all.

    Those of at most `SMALL` tiles that fold into a square of the same side stand together, filled up with zeros to the
    longest of them. Everyone else stands alone, where his tiles are, without a copy.

    Args:
        sizes: tiles of each patient. device: of the tiles.
    """

    def __init__(self, sizes: Sequence[int], device: torch.device | None = None) -> None:
        members: dict[tuple[int, int], list[int]] = {}
        for i, size in enumerate(sizes):
            members.setdefault((_side(size), 0 if size <= SMALL else i), []).append(i)
        begin = [0, *accumulate(sizes)]
        self.sides = [side for side, _ in members]
        self.groups: list[_Together | slice] = []
        rows = [np.zeros(0, np.int64)]
        for group in members.values():
            rows += [np.arange(begin[i], begin[i + 1]) for i in group]
            if len(group) == 1:
                self.groups.append(slice(begin[group[0]], begin[group[0] + 1]))
            else:
                self.groups.append(_Together(rows[-len(group) :], device))
        self.counts = [len(group) for group in members.values()]
        self.patients = _moved([np.array(group) for group in members.values()], device)
        self.tiles = _moved(rows, device)

    def split(self, tile: Tensor) -> list[Tensor]:
        """Of [tile, ...], those of each group [patient, place, ...]."""
        return [tile[group][None] if isinstance(group, slice) else group.filled(tile) for group in self.groups]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """[tile, ...] again of what `split` gave; what stands at the places filled up is gone."""
        pairs = zip(self.groups, parts, strict=True)
        there = [part[0] if isinstance(group, slice) else part.flatten(0, 1)[group.places] for group, part in pairs]
        return torch.cat(there) if self.tiles is None else torch.cat(there)[self.tiles.argsort()]

    def patients_apart(self, x: Tensor) -> tuple[Tensor, ...]:
        """Of [patient, ...], those of each group."""
        return (x if self.patients is None else x[self.patients]).split(self.counts)

    def patients_together(self, parts: Sequence[Tensor]) -> Tensor:
        """[patient, ...] again of what `patients_apart` gave."""
        joined = torch.cat(list(parts))
        return joined if self.patients is None else joined[self.patients.argsort()]


class _Together:
    """Rows of the tiles of several patients, and their places when each is filled up to the longest."""

    def __init__(self, rows: Sequence[np.ndarray], device: torch.device | None) -> None:
        self.shape = len(rows), max(map(len, rows))
        places = [k * self.shape[1] + np.arange(len(own)) for k, own in enumerate(rows)]
        self.rows, self.places = (torch.from_numpy(np.concatenate(of)).to(device) for of in (rows, places))

    def filled(self, tile: Tensor) -> Tensor:
        blank = tile.new_zeros(self.shape[0] * self.shape[1], *tile.shape[1:])
        return blank.index_copy(0, self.places, tile[self.rows]).unflatten(0, self.shape)


def _moved(order: Sequence[np.ndarray], device: torch.device | None) -> Tensor | None:
    """The order as one tensor; None where nothing moves."""
    joined = np.concatenate(order)
    return None if (joined == np.arange(len(joined))).all() else torch.from_numpy(joined).to(device)


def _side(size: int) -> int:
    """Of the smallest square that holds so many tiles."""
    return isqrt(size - 1) + 1 if size else 0


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

    def forward(self, first: Tensor, tile: Tensor, alike: Alike) -> tuple[Tensor, Tensor]:
        """The class tokens [patient, width] and the tiles [tile, width], each with what it read added."""
        own, others = self.norm(first), self.norm(tile)
        state, _ = self._state(own, others, alike)
        pairs = zip(alike.split(self._kernel(self.query(others))), alike.patients_apart(state), strict=True)
        read = [torch.einsum("pthd,phde->pthe", *pair) for pair in pairs]
        return first + self._class(own, state), tile + self.out(_divided(alike.join(read)))

    def pool(self, first: Tensor, tile: Tensor, alike: Alike, owner: Tensor) -> tuple[Tensor, Tensor]:
        """The class tokens alone [patient, width], and what each tile weighs in them [tile], one within a patient."""
        own, others = self.norm(first), self.norm(tile)
        state, key = self._state(own, others, alike)
        query = self._kernel(self.query(own))
        weight = (query[owner] * key).sum(2).float()  # [tile, head]
        weight = weight / segment_sum(weight, owner, len(first))[owner]
        return first + self._class(own, state), weight.mean(1)

    def _state(self, own: Tensor, others: Tensor, alike: Alike) -> tuple[Tensor, Tensor]:
        """Keys times values of each patient with the class token's own, [patient, head, d, d + 1], and the tiles' keys
        [tile, head, d]."""
        key, value = self._kernel(self.key(others)), _with_ones(self._split(self.value(others)))
        parts = zip(alike.split(key), alike.split(value), strict=True)
        state = alike.patients_together([torch.einsum("pthd,pthe->phde", *pair) for pair in parts])
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

    def forward(self, tile: Tensor, alike: Alike) -> Tensor:
        """The tiles [tile, width] with their positions; nobody's square holds a tile of somebody else."""
        identity = torch.zeros_like(self.wide.weight)
        identity[:, :, 3, 3] = 1.0
        kernel = identity + self.wide.weight
        kernel = kernel + functional.pad(self.middle.weight, [1] * 4) + functional.pad(self.narrow.weight, [2] * 4)
        # each its own memory on the way back: gradients of a stack, or of a sum, that is expanded would share one
        biases = [own * 1.0 for own in (self.wide.bias, self.middle.bias, self.narrow.bias) if own is not None]
        bias = biases[0] + biases[1] + biases[2]
        parts = zip(alike.split(tile), alike.sides, strict=True)
        return alike.join([self._seen(own, side, kernel, bias) for own, side in parts])

    def _seen(self, tile: Tensor, side: int, kernel: Tensor, bias: Tensor) -> Tensor:
        """Of patients [patient, tile, width] whose squares have this side."""
        if not side:
            return tile
        n = tile.shape[1]
        square = functional.pad(tile, (0, 0, 0, side * side - n)).mT.unflatten(2, (side, side))
        return functional.conv2d(square, kernel, bias, padding=3, groups=len(kernel)).flatten(2).mT[:, :n]
