"""Where a tile lies, for the tile layer of any slide encoder: sines and cosines of its place among the patient's tiles.

An encoder that takes coordinates needs two lines: `self.tile = TileLayer(in_dim, hidden, dropout, scale, coordinates)`
when it is made, and `tile = self.tile(bag)` where its tile layer stood.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from nsclc_mtl.encoders.segments import owners
from nsclc_mtl.encoders.tiles import first_layer, tile_scale
from nsclc_mtl.records import Bag, UsageFault

DIM = 16  # numbers of the code with `coordinates: true`: four octaves of two axes, down to an eighth of the extent


def places(bag: Bag) -> Tensor | None:
    """Place of each tile, float [tile, 2] in -1..1 (x, y); None where the bag has no coordinates.

    Level-0 pixels are taken from the middle of the patient's tiles, in halves of their longer extent: neither the
    origin of the slide nor its pixel size changes them, and shapes are kept. Slides of one patient share one frame.

    >>> coords = torch.tensor([[900, 50], [1100, 50], [1000, 100]])
    >>> places(Bag(torch.zeros(3, 1), torch.tensor([0, 3]), coords)).tolist()
    [[-1.0, -0.25], [1.0, -0.25], [0.0, 0.25]]
    """
    if bag.coords is None:
        return None
    n, owner = len(bag.offsets) - 1, owners(bag.offsets)
    slot, at = owner[:, None].expand(-1, 2), bag.coords
    least = at.new_zeros(n, 2).scatter_reduce(0, slot, at, "amin", include_self=False)
    most = at.new_zeros(n, 2).scatter_reduce(0, slot, at, "amax", include_self=False)
    longer = (most - least).amax(1, keepdim=True).clamp(min=1)  # one tile has no extent: it lies in the middle
    # the differences are whole numbers: nothing is lost however far from the origin a slide lies
    return (2 * at - (least + most)[owner]).float() / longer[owner]


class Coordinates(nn.Module):
    """A linear map of sines and cosines of a tile's place, float [tile, width], to be added before the activation.

    Adding it there is the same as handing the code to the layer beside the features. The code is that of transformers
    (Vaswani et al., NeurIPS 2017), on two axes and in octaves (Mildenhall et al., ECCV 2020), from half a wave over the
    extent. It adds exactly nothing where a bag has no coordinates.

    Args:
        width: of the tile layer. dim: numbers of the code, a multiple of 4 (a sine and a cosine on each axis).

    Raises UsageFault for another `dim`.
    """

    octaves: Tensor

    def __init__(self, width: int, dim: int = DIM) -> None:
        super().__init__()
        if dim < 4 or dim % 4:
            raise UsageFault(f"coordinates={dim} must be true, false or a multiple of 4: two axes, sine and cosine")
        self.dim = dim
        self.register_buffer("octaves", math.pi / 2 * 2.0 ** torch.arange(dim // 4), persistent=False)
        self.linear = nn.Linear(dim, width, bias=False)

    def forward(self, bag: Bag) -> Tensor:
        """What the place says, [tile, width]."""
        at = places(bag)
        if at is None:
            return self.linear(self.linear.weight.new_zeros(len(bag.features), self.dim))
        return self.said_of(at)

    def said_of(self, at: Tensor) -> Tensor:
        """What places [tile, 2] say, [tile, width]."""
        angle = (at[:, :, None] * self.octaves).flatten(1)
        return self.linear(torch.cat([angle.sin(), angle.cos()], dim=1))


class TileLayer(nn.Module):
    """The layer that looks at each tile alone: scaled features, dropout, a linear map and GELU.

    Args:
        in_dim: features of a tile. hidden: width of the layer. dropout: of features, in training.
        scale: `{mean, sd}` of the tile features on the training patients; None leaves them as they are.
        coordinates: whether the place of the tile is added, or the numbers of its code (see `Coordinates`).

    Raises UsageFault where the width is no whole number from 1 up.
    """

    def __init__(
        self,
        in_dim: int,
        hidden: int,
        dropout: float = 0.0,
        scale: dict[str, list[float]] | None = None,
        coordinates: bool | int = False,
    ) -> None:
        super().__init__()
        if not isinstance(hidden, int) or hidden < 1:
            raise UsageFault(
                f"hidden={hidden} must be the width of the tile layer, 1 or more (abmil alone takes a list)"
            )
        self.scale = tile_scale(scale)
        self.drop, self.linear = nn.Dropout(dropout), nn.Linear(in_dim, hidden)
        self.place = Coordinates(hidden, DIM if coordinates is True else coordinates) if coordinates else None

    def forward(self, bag: Bag) -> Tensor:
        """What each tile says, float [tile, hidden]."""
        made = first_layer(bag.features, self.scale, self.linear, self.drop.p, self.drop.training)
        return functional.gelu(made if self.place is None else made + self.place(bag))
