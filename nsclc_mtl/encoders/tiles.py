"""Tiles on their way into a slide encoder: scaled, dropped out and multiplied a block at a time, in either direction.

A bag's features stay in half precision as they came; only the block that is being worked on is wide, and it fits the
processor's cache. What a backward pass needs of it is made again instead of kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

BLOCK = 512  # tiles that are worked on at once
SIDES = 256  # a random byte decides whether a feature is dropped, so that the share is a multiple of 1 / 256


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
        """Same shape as it came, in the precision of the scale (single)."""
        return ((features.to(self.mean.dtype) - self.mean) / self.sd).clamp(-self.clip, self.clip)

    def folded(self) -> tuple[Tensor, Tensor]:
        """What is added to the features and what they are multiplied with first, each [dim]."""
        inverse = 1 / self.sd
        return -self.mean * inverse, inverse


class AsTheyAre(nn.Module):
    """Tile features that nobody scales."""

    def forward(self, features: Tensor) -> Tensor:
        """Same shape as it came, in single precision or what is beyond it."""
        return features.to(torch.promote_types(features.dtype, torch.float32))


def tile_scale(scale: dict[str, list[float]] | None) -> TileScale | AsTheyAre:
    """The scale of `{mean, sd}`, or the features as they are."""
    return TileScale(scale["mean"], scale["sd"]) if scale else AsTheyAre()


def first_layer(
    features: Tensor, scale: TileScale | AsTheyAre, layer: nn.Linear, dropout: float = 0.0, training: bool = False
) -> Tensor:
    """`layer(dropout(scale(features)))`, [tile, hidden], of features [tile, dim] in any precision.

    Neither the wide features nor what is scaled or dropped out of them is ever whole in memory. Features are dropped
    one by one and independently, as `torch.nn.Dropout` does it, with a probability that is rounded to 1 / 256 (.1
    becomes 26 / 256). Under autocast the product is in its precision, the scale in single precision. Derivatives of
    second order are refused by torch.
    """
    sides = min(round(dropout * SIDES), SIDES - 1) if training else 0
    dice = _dice(features, sides) if sides else None
    kind = features.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else layer.weight.dtype
    given = _Given(scale, sides, dtype, torch.promote_types(layer.weight.dtype, torch.float32))
    out: Tensor = _FirstLayer.apply(features, layer.weight, layer.bias, dice, given)
    return out


def blocks(tiles: int, size: int) -> Iterator[slice]:
    """Consecutive rows, `size` at a time."""
    for begin in range(0, tiles, size):
        yield slice(begin, min(begin + size, tiles))


def wide_blocks(features: Tensor, scale: TileScale | AsTheyAre) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows with their scaled features in single precision; a block is gone when the next one is asked for.

    Without gradients.
    """
    with torch.no_grad():
        yield from _seen(features, None, _Given(scale, 0, torch.float32, torch.float32))


def _dice(features: Tensor, sides: int) -> Tensor:
    """A random byte for every feature, uint8 [tile, dim], from torch's generator."""
    if _get_current_dispatch_mode_stack():  # one that ties draws to patients has to see whose each of them is
        return (torch.rand(features.shape, device=features.device) * SIDES).to(torch.uint8)
    if features.device.type != "cpu":
        return torch.randint(0, SIDES, features.shape, dtype=torch.uint8, device=features.device)
    # torch draws one number at a time here; NumPy's fastest generator, started by torch's, takes a third of the time
    start = int(torch.randint(0, 2**62, ()))
    words = np.random.SFC64(start).random_raw(-(-features.numel() // 8))
    return torch.from_numpy(words.view(np.uint8)[: features.numel()]).view(features.shape)


class _Given:
    """What does not change from block to block: the scale, how many of 256 features are dropped, the precisions of the
    product and of what is scaled."""

    def __init__(self, scale: TileScale | AsTheyAre, sides: int, product: torch.dtype, wide: torch.dtype) -> None:
        self.scaled = scale.folded() if isinstance(scale, TileScale) else None
        self.clip = scale.clip if isinstance(scale, TileScale) else 0.0
        self.sides, self.product, self.wide = sides, product, wide

    def over_kept(self, weight: Tensor) -> Tensor:
        """The weights over the share of features that are kept, so that the mean of a product stays what it was."""
        return weight * (SIDES / (SIDES - self.sides)) if self.sides else weight


class _FirstLayer(torch.autograd.Function):
    """The product of scaled and dropped out features with a layer's weights, block by block, both ways."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, dice: Tensor | None, given: _Given
    ) -> Tensor:
        """Products [tile, hidden]."""
        ctx.save_for_backward(features, weight, dice)
        ctx.given, ctx.has_bias = given, bias is not None
        turned = given.over_kept(weight).to(given.product).T
        out = torch.empty(len(features), len(weight), dtype=given.product, device=features.device)
        for rows, seen in _seen(features, dice, given):
            torch.mm(seen, turned, out=out[rows])
        return out if bias is None else out.add_(bias.to(given.product))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of features (where asked for), weight and bias."""
        features, weight, dice = ctx.saved_tensors
        given: _Given = ctx.given
        of_features = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_features = _of_features(features, weight, dice, given, gradient)
        if ctx.needs_input_grad[1]:
            total = torch.zeros_like(weight)
            for rows, seen in _seen(features, dice, given):
                # not in place: the gradient may be several that are taken at once (vmap)
                total = total + gradient[rows].to(given.product).T @ seen
            of_weight = given.over_kept(total)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            of_bias = gradient.to(weight.dtype).sum(0)
        return of_features, of_weight, of_bias, None, None


def _seen(features: Tensor, dice: Tensor | None, given: _Given) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows with what the product sees of them; a block is gone when the next one is asked for."""
    wide = torch.empty(min(BLOCK, len(features)), features.shape[1], dtype=given.wide, device=features.device)
    kept = torch.empty_like(wide) if dice is not None else None
    for rows in blocks(len(features), BLOCK):
        seen = wide[: rows.stop - rows.start].copy_(features[rows])
        if given.scaled is not None:
            torch.addcmul(given.scaled[0], seen, given.scaled[1], out=seen).clamp_(-given.clip, given.clip)
        if dice is not None and kept is not None:
            seen.mul_(kept[: len(seen)].copy_(dice[rows]).ge_(given.sides))
        yield rows, seen.to(given.product)


def _of_features(features: Tensor, weight: Tensor, dice: Tensor | None, given: _Given, gradient: Tensor) -> Tensor:
    """Gradient of the features, [tile, dim]; 0 where they were cut off or dropped."""
    parts, weight = [], given.over_kept(weight).to(given.product)
    for rows in blocks(len(features), BLOCK):
        part = (gradient[rows].to(given.product) @ weight).to(given.wide)
        if dice is not None:
            part = part * (dice[rows] >= given.sides)
        if given.scaled is not None:
            scaled = torch.addcmul(given.scaled[0], features[rows].to(given.wide), given.scaled[1])
            part = part * given.scaled[1] * (scaled.abs() <= given.clip)
        parts.append(part.to(features.dtype))
    return torch.cat(parts) if parts else torch.zeros_like(features)
