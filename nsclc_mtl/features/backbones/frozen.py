"""A frozen network as `extract` sees it: uint8 tiles in, normalised on its device, float32 vectors out.

Precision is chosen once, when the network is made: bf16 where the processor multiplies it faster, float32 elsewhere.
Batch norms are folded into their convolutions, weights lie channels last, so that nothing is left to do a tile.
"""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nsclc_mtl.records import UsageFault

# Mean and standard deviation of ImageNet in R, G, B, the normalisation of the usual checkpoints.
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PRECISIONS = {"auto": "auto", "32": "32", "bf16": "bf16", "bf16-mixed": "bf16", "bf16-true": "bf16"}
SCALE_TOLERANCE = 0.1  # of um/px: what scanners call 20x lies between 0.46 and 0.54


class Frozen(nn.Module):
    """Vectors float32 [tile, dim] of uint8 [tile, px, px, 3], from a network that nobody trains any more.

    `device` is auto, cpu or cuda; `precision` is auto, 32 or bf16; the attributes of the same names say what was taken.
    `mean` and `spread` are per channel, of pixels from 0 to 1. `expected_mpp` is the um/px that the network was trained
    at, the best first where there are several (None: any). Raises UsageFault where device or precision is not there, or
    where tiles come at another scale.
    """

    mean: Tensor
    spread: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        name: str,
        tile_px: int,
        batch: int,
        um_per_px: float,
        weights_hash: str,
        mean: Sequence[float] = MEAN,
        spread: Sequence[float] = SPREAD,
        precision: str | int = "auto",
        device: str = "auto",
        expected_mpp: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.name, self.tile_px, self.batch, self.um_per_px = name, tile_px, batch, um_per_px
        self.weights_hash = weights_hash
        at_scale(name, tile_px, um_per_px, expected_mpp)
        self.device = place(device)
        self.precision = native(precision, self.device)
        self.dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.net = folded(net.eval()).requires_grad_(False)
        self.register_buffer("mean", torch.tensor([*mean]).view(3, 1, 1) * 255.0)
        self.register_buffer("spread", torch.tensor([*spread]).view(3, 1, 1) * 255.0)
        self.net.to(self.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.to(self.device)

    @torch.inference_mode()
    def forward(self, tiles: Tensor) -> Tensor:
        """float32 [tile, dim] of uint8 [tile, px, px, 3], on the network's device."""
        light = tiles.to(self.device, non_blocking=True).permute(0, 3, 1, 2)  # a view: channels last as it comes
        return self.pooled(self.net(((light - self.mean) / self.spread).to(self.dtype)))

    def pooled(self, seen: Tensor) -> Tensor:
        """float32 [tile, dim] of what the network gives."""
        return seen.float()


def native(precision: str | int, device: torch.device) -> str:
    """`32` or `bf16`: what `precision` means on this device. Raises UsageFault for other words."""
    word = PRECISIONS.get(str(precision))
    if word is None:
        raise UsageFault(f"backbone.precision={precision!r} is none of auto, 32, bf16")
    return word if word != "auto" else "bf16" if has_bf16(device) else "32"


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 natively and faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(able.get("amx_bf16") or (able.get("avx512_bf16") and _bf16_pays()))


@functools.lru_cache(maxsize=1)
def _bf16_pays(size: int = 768, rounds: int = 5) -> bool:
    """Whether a product of matrices takes at most 4/5 of its time in bf16, in turn, the best round counting.

    The instruction alone says little: a processor with AVX-512 BF16 and without AMX was seen at 147 GFLOP/s in bf16
    against 248 in float32.
    """
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    some = torch.ones(size, size)
    for _ in range(rounds):
        for dtype in best:
            one = some.to(dtype)
            began = time.perf_counter()
            one @ one
            best[dtype] = min(best[dtype], time.perf_counter() - began)
    return best[torch.bfloat16] <= 0.8 * best[torch.float32]


def place(device: str) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means here. Raises UsageFault where it is not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageFault(f"device={device!r} is none of auto, cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageFault("device=cuda, but this machine has no usable GPU; set device=cpu or device=auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def at_scale(name: str, tile_px: int, um_per_px: float, expected: float | Sequence[float] | None) -> None:
    """Raises UsageFault where tiles come at another scale than the network learned from."""
    learned = [expected] if isinstance(expected, int | float) else list(expected or ())
    if not learned or any(abs(um_per_px / one - 1.0) <= SCALE_TOLERANCE for one in learned):
        return
    raise UsageFault(
        f"backbone={name} was trained at {' or '.join(f'{one:g}' for one in learned)} um/px, but tiles of "
        f"{um_per_px * tile_px:g} um in {tile_px} px have {um_per_px:.3g}; set slides.tile_um="
        f"{tile_px * learned[0]:.4g}, or backbone.mpp=null to go on at this scale"
    )


def folded(net: nn.Module) -> nn.Module:
    """The network with every batch norm that follows a convolution in its parent folded into it.

    A norm is taken for the convolution's own where their names belong together (`conv1` and `bn1`, or neighbours in a
    Sequential) and their channels agree; others stay as they are.
    """
    for parent in net.modules():
        children = list(parent._modules.items())
        for (name, conv), (follower, norm) in pairwise(children):
            if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
                continue
            paired = isinstance(parent, nn.Sequential) or (
                name.startswith("conv") and follower == name.replace("conv", "bn")
            )
            if paired and conv.out_channels == norm.num_features:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, follower, nn.Identity())
    return net
