"""What a segmenter says of a slide, and the rules in square micrometres that every mask obeys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from scipy import ndimage

ALL = np.ones((3, 3), bool)  # neighbours across corners count


@dataclass(frozen=True)
class Tissue:
    """The mask of a slide, and what looked like tissue at first and was taken away, by its reason."""

    mask: np.ndarray  # bool [h, w]
    threshold: float  # of the segmenter's own signal: chroma in optical density, or a probability
    white: tuple[float, float, float] = (255.0, 255.0, 255.0)  # intensity of the glass, per channel
    cut: Mapping[str, np.ndarray] = field(default_factory=dict)  # pen, grey, fold, blur -> bool [h, w]
    folds: float = 0.0  # share of the tissue that lies double, whether it was cut out or not

    @property
    def fractions(self) -> dict[str, float]:
        """`tissue`: share of the slide; `fold` and what was cut (`pen`, `blur`, ...): of what looked like it."""
        before = max(1, int(self._before().sum()))
        shares = {name: float(area.sum() / before) for name, area in self.cut.items()}
        return {"tissue": float(self.mask.mean()), "pen": 0.0, "blur": 0.0, "fold": self.folds} | shares

    @property
    def lost(self) -> float:
        """Share of what looked like tissue that was cut out."""
        before = int(self._before().sum())
        return 1.0 - float(self.mask.sum() / before) if before else 0.0

    def without(self, name: str, area: np.ndarray) -> Tissue:
        """The same with an area (bool [h, w]) taken away under a name."""
        gone = self.mask & area
        if not gone.any():
            return self
        return replace(self, mask=self.mask & ~area, cut={**self.cut, name: gone | self.cut.get(name, False)})

    def _before(self) -> np.ndarray:
        whole = self.mask.copy()
        for area in self.cut.values():
            whole |= area
        return whole


class Segmenter(Protocol):
    """Finds the tissue of a thumbnail; a class of the user's own is one file and one YAML in the group `segmenter`."""

    um_per_px: float  # scale of the thumbnail that it wants

    def __call__(self, thumbnail: np.ndarray, um_per_px: float) -> Tissue:
        """What a thumbnail (uint8 [h, w, 3] at this scale) holds; rules of area and focus are applied by others."""


def tidy(found: Tissue, um_per_px: float, min_area_um2: float, max_hole_um2: float) -> Tissue:
    """The same without pieces under `min_area_um2`, and with holes up to `max_hole_um2` filled.

    What was cut out stays out, however small. Open lumina at the border of the slide are no holes.
    """
    mask = without_small(found.mask, min_area_um2 / um_per_px**2)
    mask = ~without_small(~mask, max_hole_um2 / um_per_px**2, keep_border=True)
    for area in found.cut.values():
        mask &= ~area
    return replace(found, mask=mask)


def without_small(mask: np.ndarray, min_px: float, keep_border: bool = False) -> np.ndarray:
    """The mask without its connected pieces under `min_px` pixels; pieces at the border can be exempt."""
    labels, count = ndimage.label(mask, ALL)
    if count == 0:
        return mask
    keep = np.bincount(labels.ravel()) >= min_px
    if keep_border:
        edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        keep[np.unique(edge)] = True
    keep[0] = False
    return keep[labels]


def touching(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The connected pieces of a mask that hold a seed; seeds lie in the mask."""
    labels, count = ndimage.label(mask, ALL)
    keep = np.zeros(count + 1, bool)
    keep[labels[seeds]] = True
    return keep[labels]


def disk(radius: float) -> np.ndarray:
    """bool [2r+1, 2r+1]: a disk, at least one pixel in radius."""
    r = max(1, round(radius))
    y, x = np.ogrid[-r : r + 1, -r : r + 1]
    return x * x + y * y <= r * r


def grown(mask: np.ndarray, radius: float) -> np.ndarray:
    """bool [h, w]: what lies within `radius` pixels of the mask (a dilation by a disk)."""
    r = int(radius)
    if r < 1 or not mask.any():
        return mask
    ys, xs = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    window = np.s_[max(0, ys[0] - r) : ys[-1] + r + 1, max(0, xs[0] - r) : xs[-1] + r + 1]
    piece, wide = mask[window].view(np.uint8), np.zeros(mask.shape, bool)
    out = wide[window]
    # Row by row of the disk: a running maximum costs the same at any width, a footprint its area.
    for dy in range(r + 1):
        run = ndimage.maximum_filter1d(piece, 2 * int(np.sqrt(radius**2 - dy**2)) + 1, axis=1, mode="constant") > 0
        if dy < len(run):
            out[: len(run) - dy] |= run[dy:]
            out[dy:] |= run[: len(run) - dy]
    return wide


def closed(mask: np.ndarray, radius: float) -> np.ndarray:
    """Closing by a disk; nothing is eaten at the border, where the slide goes on beyond the picture."""
    pad = int(radius) + 1
    swollen = grown(np.pad(mask, pad, mode="edge"), radius)
    return ~grown(~swollen, radius)[pad:-pad, pad:-pad]


def opened(mask: np.ndarray, radius: float) -> np.ndarray:
    """Opening by a disk: what is narrower than 2 `radius` pixels goes."""
    pad = int(radius) + 1
    wide = np.pad(mask, pad, mode="edge")
    return grown(wide & ~grown(~wide, radius), radius)[pad:-pad, pad:-pad]
