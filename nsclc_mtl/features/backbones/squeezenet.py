"""SqueezeNet on tiles: the smallest network with real ImageNet weights, 0.7 million of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nsclc_mtl.features.backbones.frozen import MEAN as IMAGENET
from nsclc_mtl.features.backbones.frozen import SPREAD as UNIT
from nsclc_mtl.features.backbones.frozen import Frozen
from nsclc_mtl.features.backbones.weights import fill, found, state_of
from nsclc_mtl.records import DataFault

# Squeezed and expanded channels of the eight fire modules of SqueezeNet 1.1 (Iandola et al. 2016), by number.
FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}
POOLED_BEFORE = (2, 4, 6)
SEEN = (3, 5, 7, 9)  # the last fire of each stage
# Places of the fire modules in torch's own `features` list, which state dicts of the usual checkpoints follow.
PLACES = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}
MEAN = (122.679, 116.669, 104.006)  # R, G, B of the training pictures, which the published weights want subtracted


class Fire(nn.Module):
    """Few channels, then many again: 1x1 and 3x3 side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, seen: Tensor) -> Tensor:
        """[tile, 2 * expanded, y, x]."""
        seen = self.squeeze(seen).relu_()
        return torch.cat([self.expand1x1(seen), self.expand3x3(seen)], dim=1).relu_()


class Convolutions(nn.Module):
    """The convolutions of SqueezeNet 1.1; gives the pooled output of the last fire module of each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2)
        channels = 64
        for number, (squeezed, expanded) in FIRES.items():
            setattr(self, f"fire{number}", Fire(channels, squeezed, expanded))
            channels = 2 * expanded
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)

    def forward(self, light: Tensor) -> Tensor:
        """float32 [tile, 1280]: means over the tile, each stage apart."""
        seen = self.conv1(light).relu_()
        out = []
        for number in FIRES:
            if number in POOLED_BEFORE:
                seen = self.pool(seen)
            seen = getattr(self, f"fire{number}")(seen)
            if number in SEEN:
                out.append(seen.float().mean((2, 3)))
        return torch.cat(out, dim=1)


class Squeezenet(Frozen):
    """Vector of 1,280 a tile: the four stages of SqueezeNet 1.1, each averaged over the tile; uint8 [tile, px, px, 3].

    `weights` is a `.mat` of 25 layers (kernels y, x, in, out, and biases) or a state dict with torch's usual names.
    """

    dim = sum(2 * FIRES[number][1] for number in SEEN)

    def __init__(
        self,
        weights: str | None = None,
        weights_sha256: str | None = None,
        name: str = "squeezenet",
        tile_px: int = 256,
        batch: int = 32,
        um_per_px: float = 0.5,
        precision: str | int = "auto",
        device: str = "auto",
    ) -> None:
        path, digest = found("squeezenet", weights, sha256=weights_sha256)
        matlab = path.suffix.lower() == ".mat"
        net = Convolutions()
        fill(net, _from_mat(path) if matlab else _renamed(state_of(path)), "SqueezeNet 1.1", path.name)
        # The published .mat was trained on pixels of 0 to 255 less their mean, torch's checkpoints on unit spread.
        mean, spread = ([m / 255 for m in MEAN], [1 / 255] * 3) if matlab else (IMAGENET, UNIT)
        super().__init__(
            net, name=name, tile_px=tile_px, batch=batch, um_per_px=um_per_px, weights_hash=digest,
            precision=precision, device=device, mean=mean, spread=spread,
        )  # fmt: skip


def _from_mat(path: Path) -> dict[str, Tensor]:
    """State dict of a MATLAB file: a cell of kernel (y, x, in, out) and bias a layer.

    The published file comes from Caffe and takes B, G, R; its first kernel is turned here, so that R, G, B can enter.
    """
    from scipy.io import loadmat

    try:
        layers = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
        state = {}
        for name, ((kernel, bias),) in layers.items():
            own = name.replace("/", ".").replace("squeeze1x1", "squeeze")
            kernel = kernel.transpose(3, 2, 0, 1)
            kernel = np.ascontiguousarray(kernel[:, ::-1] if own == "conv1" else kernel, np.float32)
            state[f"{own}.weight"] = torch.from_numpy(kernel)
            state[f"{own}.bias"] = torch.from_numpy(np.array(bias, np.float32).ravel())
    except Exception as error:  # scipy raises many types for bytes that are no MATLAB file
        raise DataFault(
            f"weights '{path.name}' are no MATLAB file of kernels and biases ({type(error).__name__}); copy them again"
        ) from error
    return state


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torch's `features.3.squeeze.weight` as `fire2.squeeze.weight`; the classifier is left out."""
    names = {f"features.{place}.": f"fire{number}." for number, place in PLACES.items()} | {"features.0.": "conv1."}
    found = {}
    for key, value in state.items():
        old = next((old for old in names if key.startswith(old)), None)
        if not key.startswith("classifier."):
            found[names[old] + key.removeprefix(old) if old else key] = value
    return found
