"""Frozen networks that make one vector of a lesion: flat ones on its largest slices (2.5-D), or one in 3-D.

Without weights they are refused: what random weights see is no finding. `random=true` asks for them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.networks.nets import resnet as monai_resnet
from torch import Tensor, nn
from torch.nn import functional

from nsclc_mtl.features.backbones.frozen import Frozen, place
from nsclc_mtl.features.backbones.resnet import Resnet50, resnet50_of_tiles
from nsclc_mtl.features.backbones.squeezenet import Convolutions, Squeezenet
from nsclc_mtl.features.backbones.weights import fill, found, state_of
from nsclc_mtl.features.deep.slices import AXES, pictures
from nsclc_mtl.records import UsageFault, Volume

POOLS = ("mean", "max", "concat")
DEPTHS = {10: ("B", False), 18: ("A", True), 34: ("A", True), 50: ("B", False)}
"""Shortcut and bias of the 3-D ResNets for which MedicalNet's weights were published, by depth (as MONAI has them)."""


class Planes:
    """float32 [dim] of a crop: what a frozen network of flat pictures sees in the lesion's largest slices, pooled.

    `slices` an axis, those that cut most of the lesion, `margin_mm` around it (None: the whole slice), resampled to the
    network's pixels, grey in all three channels. `pool` is mean or max over all slices, or concat: the means along the
    three axes side by side.
    """

    def __init__(self, network: Frozen, slices: int, margin_mm: float | None, pool: str) -> None:
        if pool not in POOLS:
            raise UsageFault(f"deep.pool={pool!r} is none of {', '.join(POOLS)}")
        if slices < 1:
            raise UsageFault(f"deep.slices={slices} must be 1 or more")
        self.network, self.slices, self.margin_mm, self.pool = network, slices, margin_mm, pool
        self.weights_hash = network.weights_hash

    def __call__(self, cube: Volume) -> np.ndarray:
        """float32 [dim] of a crop whose values run from 0 to 1."""
        px = self.network.tile_px
        seen = torch.cat([_resized(picture, px) for picture in pictures(cube, self.slices, self.margin_mm)])
        told = [self.network(part) for part in (seen * 255.0).split(self.network.batch)]  # it expects pixels to 255
        vectors = torch.cat(told).cpu().unflatten(0, (AXES, -1))  # [axis, slice, dim]
        if self.pool == "concat":
            return np.asarray(vectors.mean(1).flatten().numpy(), np.float32)
        flat = vectors.flatten(0, 1)
        return np.asarray((flat.amax(0) if self.pool == "max" else flat.mean(0)).numpy(), np.float32)


class Solid:
    """float32 [dim] of a crop: the pooled last stage of a frozen 3-D network, which sees it with mean 0 and SD 1."""

    def __init__(self, net: nn.Module, weights_hash: str, device: str) -> None:
        self.device, self.weights_hash = place(device), weights_hash
        self.net = net.eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def __call__(self, cube: Volume) -> np.ndarray:
        """float32 [dim] of a crop whose values run from 0 to 1."""
        array = (cube.array - cube.array.mean()) / max(float(cube.array.std()), 1e-6)
        told = self.net(torch.from_numpy(np.ascontiguousarray(array, np.float32))[None, None].to(self.device))
        return np.asarray(told[0].float().cpu().numpy(), np.float32)


def resnet50_25d(
    weights: str | None = None, hub: str | None = None, weights_sha256: str | None = None, random: bool = False,
    name: str = "resnet50_25d", slices: int = 3, margin_mm: float | None = 10.0, pool: str = "mean", px: int = 224,
    batch: int = 32, precision: str | int = "32", seed: int = 0, device: str = "auto",
) -> Planes:  # fmt: skip
    """Vector of 2,048 a lesion by ResNet-50 (He et al. 2016) on its largest slices, as MoEMIL's abstract has it.

    Weights as those of `backbone=resnet50`. Raises UsageFault where there are none and `random` does not ask for that,
    IntegrityFault where the digest is another, DataFault where they do not fit.
    """
    told: dict[str, Any] = {"name": name, "tile_px": px, "batch": batch, "precision": precision, "device": device}
    if _random(name, weights, hub, random):
        net, digest = _drawn(resnet50_of_tiles, seed)
        frozen = Frozen(net, weights_hash=digest, um_per_px=0.5, **told)
    else:
        with _our_words():
            frozen = Resnet50(weights=weights, hub=hub, weights_sha256=weights_sha256, **told)
    return Planes(frozen, slices, margin_mm, pool)


def squeezenet_25d(
    weights: str | None = None, weights_sha256: str | None = None, random: bool = False,
    name: str = "squeezenet_25d", slices: int = 3, margin_mm: float | None = 10.0, pool: str = "mean", px: int = 224,
    batch: int = 32, precision: str | int = "32", seed: int = 0, device: str = "auto",
) -> Planes:  # fmt: skip
    """Vector of 1,280 a lesion by the four stages of SqueezeNet 1.1 on its largest slices. Weights and faults: see
    `resnet50_25d` and `backbone=squeezenet`."""
    told: dict[str, Any] = {"name": name, "tile_px": px, "batch": batch, "precision": precision, "device": device}
    if _random(name, weights, None, random):
        net, digest = _drawn(Convolutions, seed)
        frozen = Frozen(net, weights_hash=digest, um_per_px=0.5, **told)
    else:
        with _our_words():
            frozen = Squeezenet(weights=weights, weights_sha256=weights_sha256, **told)
    return Planes(frozen, slices, margin_mm, pool)


def resnet_3d(
    weights: str | None = None, hub: str | None = None, hub_file: str | None = None, weights_sha256: str | None = None,
    random: bool = False, name: str = "resnet_3d", depth: int = 10, stem_stride: int = 2, seed: int = 0,
    device: str = "auto",
) -> Solid:  # fmt: skip
    """Vector of 512 (depth 50: 2,048) a lesion by MONAI's 3-D ResNet on the whole crop. Faults: see `resnet50_25d`.

    `weights` is a state dict with MONAI's names of this depth; those of MedicalNet (Chen et al., arXiv 1904.00625) are
    of that form. `stem_stride` is the stride of the first layer.
    """
    if depth not in DEPTHS:
        raise UsageFault(f"deep.depth={depth} is none of {', '.join(map(str, DEPTHS))}")
    shortcut, bias = DEPTHS[depth]

    def make() -> nn.Module:
        maker: Callable[..., nn.Module] = getattr(monai_resnet, f"resnet{depth}")
        return maker(
            spatial_dims=3, n_input_channels=1, feed_forward=False, shortcut_type=shortcut, bias_downsample=bias,
            conv1_t_stride=stem_stride,
        )  # fmt: skip

    if _random(name, weights, hub, random):
        return Solid(*_drawn(make, seed), device)
    with _our_words():
        path, digest = found(name, weights, hub, hub_file, sha256=weights_sha256)
    net = make()
    fill(net, state_of(path), f"the 3-D ResNet-{depth}", path.name, unused=("fc.", "conv_seg."))
    return Solid(net, digest, device)


def _random(name: str, weights: str | None, hub: str | None, random: bool) -> bool:
    """Whether weights are drawn. Raises UsageFault where there are none without that word, or both."""
    if random and (weights or hub):
        raise UsageFault("deep.random=true and weights exclude each other: leave one of them out")
    if not (random or weights or hub):
        raise UsageFault(
            f"deep={name} needs weights: set deep.weights=PATH (or scans.weights=PATH) to a local file; "
            "deep.random=true takes random ones, whose features are a baseline and no finding"
        )
    return random


@contextmanager
def _our_words() -> Iterator[None]:
    """Faults of the backbones' weights, in the words of the group that was used here."""
    try:
        yield
    except UsageFault as fault:
        raise UsageFault(str(fault).replace("backbone.", "deep.").replace("backbone=", "deep=")) from fault


def _drawn(make: Callable[[], nn.Module], seed: int) -> tuple[nn.Module, str]:
    """A network with random weights, the same for the same seed, and what stands for their digest."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(), f"random:{seed}"


def _resized(picture: np.ndarray, px: int) -> Tensor:
    """float32 [1, px, px, 3] of a grey picture, smoothed where it shrinks."""
    grey = torch.from_numpy(picture)[None, None]
    fine = functional.interpolate(grey, size=(px, px), mode="bilinear", align_corners=False, antialias=True)
    return fine[:, 0, :, :, None].expand(-1, -1, -1, 3)
