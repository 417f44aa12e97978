"""Tiles on their way into a slide encoder: scaled, dropped out and multiplied a block at a time, in either direction.

A bag's features stay in half precision as they came; only the block that is being worked on is wide, and it fits the
processor's cache. What a backward pass needs of it is made again instead of kept. Where the product is in half
precision it is kept: it is no larger than the bag, and making it again would take as long as half of the products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    kind = features.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else layer.weight.dtype
    given = _Given(scale, sides, dtype, torch.promote_types(layer.weight.dtype, torch.float32))
    out: Tensor = _FirstLayer.apply(features, layer.weight, layer.bias, given, torch.is_grad_enabled())
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


def _drawn(features: Tensor, sides: int, mask: Tensor | None) -> Iterator[Tensor]:
    """Which features stay, uint8 [tile, dim] of 0 and 1, a block at a time and in `mask`, from torch's generator."""
    shape, device = features.shape, features.device
    if _get_current_dispatch_mode_stack():  # one that ties draws to patients has to see whose each of them is
        stays = iter((torch.rand(shape, device=device) >= sides / SIDES).byte().split(BLOCK))
    elif device.type != "cpu":
        stays = iter((torch.randint(0, SIDES, shape, dtype=torch.uint8, device=device) >= sides).byte().split(BLOCK))
    else:
        # torch draws one number at a time here; NumPy's fastest generator, started by torch's, takes a third of that
        stays = _thrown(np.random.SFC64(int(torch.randint(0, 2**62, ()))), shape, sides)
    return stays if mask is None else (own.copy_(some) for own, some in zip(mask.split(BLOCK), stays, strict=True))


def _thrown(generator: np.random.SFC64, shape: Sequence[int], sides: int) -> Iterator[Tensor]:
    for rows in blocks(shape[0], BLOCK):
        many = (rows.stop - rows.start) * shape[1]
        dice = generator.random_raw(-(-many // 8)).view(np.uint8)[:many]
        yield torch.from_numpy(np.greater_equal(dice, sides).view(np.uint8)).view(-1, shape[1])


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
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, given: _Given, backward: bool
    ) -> Tensor:
        """Products [tile, hidden]; `backward` says whether there may be a pass back."""

        def whole(dtype: torch.dtype) -> Tensor:
            return torch.empty(features.shape, dtype=dtype, device=features.device)

        kept = whole(given.product) if backward and given.product.itemsize < given.wide.itemsize else None
        again = backward and (kept is None or features.requires_grad)  # features and mask are looked at on the way back
        mask = whole(torch.uint8) if again and given.sides else None
        turned = given.over_kept(weight).to(given.product).T
        out = torch.empty(len(features), len(weight), dtype=given.product, device=features.device)
        stays = _drawn(features, given.sides, mask) if given.sides else None
        for rows, seen in _seen(features, stays, given, kept):
            if kept is None:
                torch.mm(seen, turned, out=out[rows])
        if kept is not None:
            torch.mm(kept, turned, out=out)
        ctx.save_for_backward(features if again else None, weight, mask, kept)
        ctx.given, ctx.has_bias = given, bias is not None
        return out if bias is None else out.add_(bias.to(given.product))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of features (where asked for), weight and bias."""
        features, weight, mask, kept = ctx.saved_tensors
        given: _Given = ctx.given
        of_features = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_features = _of_features(features, weight, mask, given, gradient)
        if ctx.needs_input_grad[1] and kept is not None:
            of_weight = given.over_kept((gradient.to(given.product).T @ kept).to(weight.dtype))
        elif ctx.needs_input_grad[1]:
            total = torch.zeros_like(weight)
            for rows, seen in _seen(features, None if mask is None else iter(mask.split(BLOCK)), given):
                # not in place: the gradient may be several that are taken at once (vmap)
                total = total + gradient[rows].to(given.product).T @ seen
            of_weight = given.over_kept(total)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            of_bias = gradient.to(weight.dtype).sum(0)
        return of_features, of_weight, of_bias, None, None


def _seen(
    features: Tensor, stays: Iterator[Tensor] | None, given: _Given, kept: Tensor | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows with what the product sees of them, written to `kept` [tile, dim] of 16 bits; without it a block
    is gone when the next one is asked for."""
    wide = torch.empty(min(BLOCK, len(features)), features.shape[1], dtype=given.wide, device=features.device)
    mask = torch.empty_like(wide, dtype=given.wide if kept is None else torch.int16) if stays is not None else None
    for rows in blocks(len(features), BLOCK):
        seen = wide[: rows.stop - rows.start].copy_(features[rows])
        if given.scaled is not None:
            torch.addcmul(given.scaled[0], seen, given.scaled[1], out=seen).clamp_(-given.clip, given.clip)
        if kept is not None:
            seen = kept[rows].copy_(seen)
        if stays is not None and mask is not None:
            # of 16 bits the bits are multiplied: as numbers they would be made wide and narrow again
            (seen if kept is None else seen.view(torch.int16)).mul_(mask[: len(seen)].copy_(next(stays)))
        yield rows, seen.to(given.product)


def _of_features(features: Tensor, weight: Tensor, mask: Tensor | None, given: _Given, gradient: Tensor) -> Tensor:
    """Gradient of the features, [tile, dim]; 0 where they were cut off or dropped."""
    parts, weight = [], given.over_kept(weight).to(given.product)
    for rows in blocks(len(features), BLOCK):
        part = (gradient[rows].to(given.product) @ weight).to(given.wide)
        if mask is not None:
            part = part * mask[rows]
        if given.scaled is not None:
            scaled = torch.addcmul(given.scaled[0], features[rows].to(given.wide), given.scaled[1])
            part = part * given.scaled[1] * (scaled.abs() <= given.clip)
        parts.append(part.to(features.dtype))
    return torch.cat(parts) if parts else torch.zeros_like(features)
