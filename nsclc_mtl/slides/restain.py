"""Tiles in another stain: a slide brought to a reference (Macenko, Reinhard), or moved away from it at random (HED).

Everything works on uint8 tiles [tile, px, px, 3] on whatever device they lie; one change holds for a whole slide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nsclc_mtl.records import ItemFault, UsageFault
from nsclc_mtl.slides.stain import estimate, matrix
from nsclc_mtl.slides.tissue import optical_density

Change = Callable[[Tensor], Tensor]
METHODS = ("none", "macenko", "reinhard")
STAINED = 0.15  # optical density (length over R, G, B) from which a pixel counts as tissue

# RGB to the cone responses LMS, and their logarithms to l, alpha, beta (Reinhard et al., IEEE CG&A 2001;21(5):34).
LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
LAB = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])


def normaliser(options: Mapping[str, Any], sample: np.ndarray) -> tuple[Change | None, dict[str, Any]]:
    """The change that brings a slide to the reference in `options`, and what was measured on `sample`, some of its
    tiles uint8 [tile, px, px, 3].

    Raises UsageFault for an unknown method and ItemFault where too little of the sample is stained.
    """
    method = options.get("method", "none")
    if method not in METHODS:
        raise UsageFault(f"stain.method={method!r} is none of {', '.join(METHODS)}")
    if method == "none":
        return None, {}
    pixels = sample.reshape(-1, 3)
    density = optical_density(pixels)
    stained = np.linalg.norm(density, axis=1) > STAINED
    if stained.sum() < 100:
        raise ItemFault("no_stain", f"only {int(stained.sum())} stained pixels in the sample; set stain=none for it")
    if method == "macenko":
        own = estimate(pixels)
        strength = np.percentile((density[stained] @ np.linalg.inv(own))[:, :2], 99, axis=0)
        wanted = matrix(tuple(options["haematoxylin"]), tuple(options["eosin"]))
        ratio = np.append(np.asarray(options["strength"]) / np.maximum(strength, 1e-3), 1.0)
        found = {"stain_vectors": own[:2].round(4).tolist(), "stain_strength": strength.round(4).tolist()}
        return recombined(own, wanted, ratio, np.zeros(3)), found
    lab = np.log10((pixels[stained] + 1.0) / 256.0 @ LMS.T) @ LAB.T
    mean, sd = lab.mean(0), np.maximum(lab.std(0), 1e-4)
    return _matched(mean, sd, options["mean"], options["sd"]), {
        "stain_mean": mean.round(4).tolist(), "stain_sd": sd.round(4).tolist(),
    }  # fmt: skip


def views(options: Mapping[str, Any], slide_id: str) -> list[Change]:
    """`views` random changes of haematoxylin, eosin and residue, each c * (1 + a) + b with a and b uniform within
    `spread` (Tellez et al., Med Image Anal 2019); they depend on (seed, slide, view) alone."""
    spread, seed = float(options.get("spread", 0.05)), int(options.get("seed", 0))
    made = []
    for view in range(int(options.get("views", 0))):
        digest = hashlib.sha256(f"{seed}|{slide_id}|{view}".encode()).digest()
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8])))
        ratio, shift = 1.0 + rng.uniform(-spread, spread, 3), rng.uniform(-spread, spread, 3)
        made.append(recombined(matrix(), matrix(), ratio, shift))
    return made


def recombined(own: np.ndarray, wanted: np.ndarray, ratio: np.ndarray, shift: np.ndarray) -> Change:
    """The change that takes pixels apart by the stains `own`, scales and shifts each, and joins them by `wanted`.

    Glass stays glass: the shift grows with the density of a pixel.
    """
    across = torch.tensor(np.linalg.inv(own) @ np.diag(ratio) @ wanted, dtype=torch.float32)
    added = torch.tensor(shift @ wanted, dtype=torch.float32)

    def change(tiles: Tensor) -> Tensor:
        density = -torch.log10((tiles.float() + 1.0) / 256.0)
        there = (density.norm(dim=-1, keepdim=True) / STAINED).clamp(max=1.0)
        light = 256.0 * torch.pow(10.0, -(density @ across.to(tiles.device) + there * added.to(tiles.device))) - 1.0
        return light.round().clamp(0, 255).to(torch.uint8)

    return change


def _matched(mean: np.ndarray, sd: np.ndarray, wanted_mean: Sequence[float], wanted_sd: Sequence[float]) -> Change:
    ahead = torch.tensor(LMS, dtype=torch.float32)
    # In l, alpha, beta: (x - mean) * ratio + wanted; as one affine map of the logarithms of LMS.
    ratio = np.asarray(wanted_sd) / sd
    inner = torch.tensor(LAB.T @ np.diag(ratio) @ np.linalg.inv(LAB).T, dtype=torch.float32)
    added = torch.tensor((np.asarray(wanted_mean) - mean * ratio) @ np.linalg.inv(LAB).T, dtype=torch.float32)
    back = torch.tensor(np.linalg.inv(LMS), dtype=torch.float32)

    def change(tiles: Tensor) -> Tensor:
        device = tiles.device
        light = (tiles.float() + 1.0) / 256.0
        cones = torch.log10(light @ ahead.T.to(device)) @ inner.to(device) + added.to(device)
        there = (-torch.log10(light)).norm(dim=-1, keepdim=True).div(STAINED).clamp(max=1.0)  # glass stays glass
        seen = torch.pow(10.0, cones) @ back.T.to(device)
        mixed = there * seen + (1.0 - there) * light
        return (256.0 * mixed - 1.0).round().clamp(0, 255).to(torch.uint8)

    return change
