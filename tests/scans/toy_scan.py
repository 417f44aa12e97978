"""A toy chest: a ball of tumour in lung."""

from __future__ import annotations

import numpy as np

SHAPE = (20, 24, 28)  # z, y, x
SPACING = (2.0, 1.0, 1.0)


def ball(radius_mm: float = 6.0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """uint8 [z, y, x] with a ball in the middle."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, SPACING, strict=True)]
    distance = np.sqrt(sum(np.square(a) for a in np.meshgrid(*axes, indexing="ij")))
    return (distance <= radius_mm).astype(np.uint8)


def chest(mask: np.ndarray, seed: int = 0) -> np.ndarray:
    """int16 [z, y, x] in HU: lung with a textured tumour."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return np.where(mask > 0, 40 + rng.normal(0, 30, mask.shape), -800 + rng.normal(0, 15, mask.shape)).astype(np.int16)
