"""What can be seen in a tile without any learned weight: colour, texture and nuclei of the stain-separated picture.

No random network: a fixed bank of Gabor filters at four scales and orientations, local binary patterns, a spectrum of
sizes, and the shape and intensity of the connected blobs of haematoxylin. All statistics ignore the tile's orientation.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from nsclc_mtl.records import UsageFault

SCALES, ANGLES = 4, 4
LEAST_PX = 7 * 2 ** (SCALES - 1)  # a filter is 7 px wide, and every scale halves the picture
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Texture(nn.Module):
    """Feature vector a tile from fixed filters. Input uint8 [tile, px, px, 3], output float32 [tile, dim].

    `haematoxylin` and `eosin` are optical densities in R, G, B (Ruifrok & Johnston 2001); `um_per_px` turns areas of
    nuclei into um2. Values are of order one: areas as logarithms, densities in 1,000 nuclei a mm2.
    """

    unmix: Tensor
    bank: Tensor

    def __init__(
        self,
        tile_px: int = 256,
        um_per_px: float = 0.5,
        haematoxylin: tuple[float, ...] = (0.650, 0.704, 0.286),
        eosin: tuple[float, ...] = (0.072, 0.990, 0.105),
        min_nucleus_um2: float = 6.0,
        nucleus_density: tuple[float, float] = (0.12, 0.60),
        name: str = "texture",
        batch: int = 16,
        device: str = "auto",  # the shapes of nuclei are measured on the CPU, whatever is there
    ) -> None:
        super().__init__()
        if tile_px < LEAST_PX:
            raise UsageFault(f"backbone.tile_px={tile_px}: the coarsest filters need {LEAST_PX} px at least")
        self.name, self.batch = name, batch
        self.tile_px, self.um_per_px, self.min_nucleus_um2 = tile_px, um_per_px, min_nucleus_um2
        self.nucleus_density = tuple(nucleus_density)
        stains = np.array([haematoxylin, eosin, np.cross(haematoxylin, eosin)], np.float64)
        stains /= np.linalg.norm(stains, axis=1, keepdims=True)
        self.register_buffer("unmix", torch.tensor(np.linalg.inv(stains).T, dtype=torch.float32))
        self.register_buffer("bank", gabor_bank())
        self.weights_hash = "none: fixed filters"

    @property
    def dim(self) -> int:
        """Length of the vector."""
        return int(self.forward(torch.zeros(1, 64, 64, 3, dtype=torch.uint8)).shape[1])

    @torch.inference_mode()
    def forward(self, tiles: Tensor) -> Tensor:
        """float32 [tile, dim] of uint8 [tile, px, px, 3]."""
        light = tiles.permute(0, 3, 1, 2).float()
        density = -torch.log10((light + 1.0) / 256.0)
        dyes = torch.einsum("dc,nchw->ndhw", self.unmix, density)
        grey = density.mean(1, keepdim=True)
        seen = torch.cat([dyes[:, :2], grey], dim=1)  # haematoxylin, eosin, luminance
        parts = [
            colour(light / 255.0, dyes),
            self._filters(seen),
            binary_patterns(seen[:, ::2]),
            sizes(seen),
            torch.stack([self._nuclei(tile) for tile in dyes[:, 0]]),
        ]
        return torch.cat(parts, dim=1)

    def _filters(self, seen: Tensor) -> Tensor:
        """Energy of the Gabor responses, [tile, channel * (4 * scales + pairs of scales)]; like first and second order
        scattering (Bruna & Mallat 2013) with orientations pooled."""
        tiles, channels = seen.shape[:2]
        out, level = [], seen.reshape(tiles * channels, 1, *seen.shape[2:])
        for scale in range(SCALES):
            # Every second place is enough: the envelope is smoother than the wave.
            answer = F.conv2d(level, self.bank, stride=2 if level.shape[2] >= 64 else 1)
            energy = torch.hypot(answer[:, :ANGLES], answer[:, ANGLES:])
            by_angle = energy.mean((2, 3))
            total = energy.mean(1, keepdim=True)
            mean = total.mean((1, 2, 3))
            spread = total.flatten(1).std(1)
            peak = torch.quantile(total.flatten(1)[:, :: max(1, total[0].numel() // 1024)], 0.95, dim=1)
            uneven = (by_angle.amax(1) - by_angle.amin(1)) / (mean + 1e-3)
            out += [torch.log(mean + 1e-3), torch.log(spread + 1e-3), torch.log(peak + 1e-3), uneven]
            second = total
            for _ in range(scale + 1, SCALES):
                second = F.avg_pool2d(second, 2)
                if min(second.shape[2:]) < 4:
                    out.append(torch.zeros_like(mean))
                    continue
                blurred = F.avg_pool2d(second, 3, stride=1, padding=1, count_include_pad=False)
                out.append(torch.log((second - blurred).abs().mean((1, 2, 3)) / (mean + 1e-3) + 1e-3))
            level = F.avg_pool2d(level, 2)
        return torch.stack(out, dim=1).reshape(tiles, -1)

    def _nuclei(self, haematoxylin: Tensor) -> Tensor:
        """Count, size, shape and stain of the connected blobs of one tile's haematoxylin, float32 [14]."""
        image = haematoxylin.numpy()
        smooth = ndimage.uniform_filter(image, 3)
        low, high = self.nucleus_density
        cut = float(np.clip(otsu(smooth), low, high))
        labels, count = ndimage.label(smooth > cut)
        flat = labels.ravel()
        area_px = np.bincount(flat, minlength=count + 1)
        um2 = self.um_per_px**2
        keep = area_px * um2 >= self.min_nucleus_um2
        keep[0] = False
        covered = float(area_px[keep].sum()) / flat.size
        outside = float(image[labels == 0].mean()) if area_px[0] else 0.0
        if not keep.any():
            return torch.tensor([0.0, covered, outside, cut] + [0.0] * 10)
        area = area_px[keep] * um2
        y, x = np.divmod(np.arange(flat.size, dtype=np.float64), image.shape[1])
        inside = flat > 0
        number, x, y, stain = flat[inside], x[inside], y[inside], image.ravel()[inside].astype(np.float64)

        def mean(values: np.ndarray) -> np.ndarray:
            return np.bincount(number, values, minlength=count + 1)[keep] / area_px[keep]

        mx, my, ms = mean(x), mean(y), mean(stain)
        xx, yy, xy = mean(x * x) - mx**2 + 1 / 12, mean(y * y) - my**2 + 1 / 12, mean(x * y) - mx * my
        within = np.sqrt(np.maximum(mean(stain * stain) - ms**2, 0))
        root = np.sqrt((xx - yy) ** 2 / 4 + xy**2)
        axes = np.sqrt(np.maximum((xx + yy) / 2 - root, 1e-6) / ((xx + yy) / 2 + root))  # minor over major axis
        # An ellipse of these moments against the real area: below one where the outline is ragged or pieces touch.
        solid = area_px[keep] / (4 * math.pi * np.sqrt(np.maximum(xx * yy - xy**2, 1e-6)))
        size = np.log(area)
        mm2 = flat.size * um2 * 1e-6
        weight = area / area.sum()
        values = [
            len(area) / mm2 / 1000.0, covered, outside, cut,
            size.mean(), size.std(), float(weight @ size), float(np.quantile(size, 0.9)),
            axes.mean(), axes.std(), solid.mean(), ms.mean(), ms.std(), within.mean(),
        ]  # fmt: skip
        return torch.tensor(values, dtype=torch.float32)


def gabor_bank(px: int = 7, wavelength_px: float = 4.0, sigma_px: float = 1.8) -> Tensor:
    """float32 [2 * angles, 1, px, px]: even filters of all orientations, then the odd ones; mean zero, unit norm."""
    r = px // 2
    y, x = torch.meshgrid(torch.arange(-r, r + 1.0), torch.arange(-r, r + 1.0), indexing="ij")
    window = torch.exp(-(x**2 + y**2) / (2 * sigma_px**2))
    even: list[Tensor] = []
    odd: list[Tensor] = []
    for k in range(ANGLES):
        angle = math.pi * k / ANGLES
        phase = 2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / wavelength_px
        for bank, wave in ((even, torch.cos(phase)), (odd, torch.sin(phase))):
            kernel = window * wave
            kernel = kernel - window * kernel.sum() / window.sum()
            bank.append(kernel / kernel.norm())
    return torch.stack(even + odd)[:, None]


def colour(rgb: Tensor, dyes: Tensor) -> Tensor:
    """Mean and spread of each colour; mean, spread, skewness and quantiles of each dye; their correlations."""
    tiles = len(rgb)
    flat, dye = rgb.flatten(2), dyes.flatten(2)
    mean, sd = dye.mean(2), dye.std(2)
    unit = (dye - mean[..., None]) / (sd[..., None] + 1e-3)
    step = max(1, dye.shape[2] // 4096)
    marks = torch.quantile(dye[:, :, ::step], torch.tensor(QUANTILES), dim=2).permute(1, 2, 0).reshape(tiles, -1)
    pairs = torch.stack([(unit[:, i] * unit[:, j]).mean(1) for i, j in ((0, 1), (0, 2), (1, 2))], dim=1)
    return torch.cat([flat.mean(2), flat.std(2), mean, sd, unit.pow(3).mean(2).clamp(-8, 8), marks, pairs], dim=1)


def binary_patterns(seen: Tensor, margin: float = 0.01) -> Tensor:
    """Histogram of rotation-invariant uniform patterns (Ojala et al. 2002) at two scales, [tile, channel * 2 * 10]."""
    out = []
    level = seen
    for _ in range(2):
        h, w = level.shape[2] - 2, level.shape[3] - 2
        centre = level[:, :, 1 : 1 + h : 2, 1 : 1 + w : 2] + margin
        around = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
        above = [level[:, :, y : y + h : 2, x : x + w : 2] > centre for y, x in around]
        changes = torch.zeros_like(centre, dtype=torch.uint8)
        total = torch.zeros_like(changes)
        for one, other in zip(above, above[-1:] + above[:-1], strict=True):
            changes += one ^ other
            total += one
        kind = torch.where(changes <= 2, total, 9).flatten(0, 1).flatten(1).long()
        offset = torch.arange(len(kind))[:, None] * 10
        counts = torch.bincount((kind + offset).flatten(), minlength=10 * len(kind))
        out.append(counts.reshape(len(seen), -1).float() / kind.shape[1])
        level = F.avg_pool2d(level, 2)
    return torch.cat(out, dim=1).sqrt()


def sizes(seen: Tensor, octaves: int = 5) -> Tensor:
    """Share of each channel that squares of 3 px take away, bright and dark apart: the pattern spectrum of openings
    (Maragos 1989) over octaves, [tile, channel * 2 * octaves]. It measures nuclei, their nests and lumina."""
    half = F.avg_pool2d(seen, 2)
    level = torch.cat([half, -half], dim=1)
    before, out = level.mean((2, 3)), []
    for octave in range(octaves):
        opened = _widest(-_widest(-level))
        out.append(before - opened.mean((2, 3)))
        if octave + 1 < octaves:
            level = F.avg_pool2d(opened, 2)
            before = level.mean((2, 3))
    return torch.log(torch.stack(out, dim=-1).clamp_min(0) + 1e-3).flatten(1)


def _widest(level: Tensor) -> Tensor:
    """Largest value in the square of 3 px around each place; shifted copies are faster here than pooling."""
    level = F.pad(level, (1, 1, 1, 1), mode="replicate")
    for axis in (2, 3):
        for _ in range(2):
            n = level.shape[axis] - 1
            level = torch.maximum(level.narrow(axis, 0, n), level.narrow(axis, 1, n))
    return level


def otsu(values: np.ndarray, bins: int = 64) -> float:
    """Threshold between two populations (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=bins)
    middle = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    moment = np.cumsum(counts * middle)
    gap = moment[:-1] / np.maximum(below, 1) - (moment[-1] - moment[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * gap**2)])
