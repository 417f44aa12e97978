"""Slides: the strongest answer of any tile, feature by feature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nsclc_mtl.encoders.coordinates import TileLayer
from nsclc_mtl.encoders.segments import owners, segment_sum
from nsclc_mtl.records import Bag, Embedding


def segment_max(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """Largest value of each column within each of `n` patients, [patient, dim]; 0 for a patient without tiles.

    >>> segment_max(torch.tensor([[-3.0], [-1.0], [5.0]]), torch.tensor([0, 0, 2]), 3).flatten().tolist()
    [-1.0, 0.0, 5.0]
    """
    top = values.new_full((n, values.shape[1]), -torch.inf)
    top = top.scatter_reduce(0, owner[:, None].expand_as(values), values, "amax")
    return torch.where(top == -torch.inf, 0.0, top)


class MaxPool(nn.Module):
    """The element-wise maximum over tiles of a small tile layer, the embedding-level max of Ilse, Tomczak and Welling
    (ICML 2018, section 3.2).

    The attention of a tile is the share of the layer's features whose maximum it holds; tiles that are level share.

    Args:
        in_dim: features of a tile. dim: size of the embedding. hidden: width of the tile layer. dropout: of tile
            features and of the pooled vector, in training. scale, coordinates: see `TileLayer`.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        hidden: int = 64,
        dropout: float = 0.1,
        scale: dict[str, list[float]] | None = None,
        coordinates: bool | int = False,
    ) -> None:
        super().__init__()
        self.tile = TileLayer(in_dim, hidden, dropout, scale, coordinates)
        self.token_dim = hidden
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, dim))

    def forward(self, bag: Bag) -> Embedding:
        """Vector [patient, dim], attention [tile] and tokens [tile, hidden] of a packed bag.

        Patients without tiles get the bias alone.
        """
        n, owner = len(bag.offsets) - 1, owners(bag.offsets)
        tile = self.tile(bag)
        pooled = segment_max(tile, owner, n)
        with torch.no_grad():
            holds = (tile == pooled[owner]).float()
            share = (holds / segment_sum(holds, owner, n).clamp(min=1)[owner]).mean(1)
        return Embedding(self.out(pooled), tokens=tile, attention=share, offsets=bag.offsets)
