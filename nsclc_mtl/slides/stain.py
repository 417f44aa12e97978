"""How much of each dye a pixel holds: colour deconvolution and the estimation of a slide's own stain vectors."""

from __future__ import annotations

import numpy as np

from nsclc_mtl.records import DataFault
from nsclc_mtl.slides.tissue import optical_density

# Ruifrok & Johnston, Anal Quant Cytol Histol 2001;23:291: optical density of each dye in R, G, B.
HAEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)
DAB = (0.268, 0.570, 0.776)


def matrix(first: tuple[float, ...] = HAEMATOXYLIN, second: tuple[float, ...] = EOSIN) -> np.ndarray:
    """float64 [3, 3]: unit stain vectors as rows; the third is what neither dye explains (their cross product)."""
    rows = np.array([first, second, np.cross(first, second)], np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def separate(rgb: np.ndarray, stains: np.ndarray | None = None) -> np.ndarray:
    """float32 [h, w, 3]: concentration of haematoxylin, eosin and the residue, in units of optical density."""
    stains = matrix() if stains is None else stains
    return (optical_density(rgb).reshape(-1, 3) @ np.linalg.inv(stains)).reshape(rgb.shape).astype(np.float32)


def combine(concentration: np.ndarray, stains: np.ndarray | None = None) -> np.ndarray:
    """uint8 [h, w, 3]: the picture that these concentrations make on clear glass; inverse of `separate`."""
    stains = matrix() if stains is None else stains
    light = 256.0 * 10.0 ** -(concentration.reshape(-1, 3) @ stains) - 1.0
    return np.clip(np.rint(light), 0, 255).astype(np.uint8).reshape(concentration.shape)


def estimate(rgb: np.ndarray, min_density: float = 0.15, percentile: float = 1.0) -> np.ndarray:
    """float64 [3, 3]: a slide's own stain matrix, haematoxylin first (Macenko et al., ISBI 2009).

    Raises DataFault where too few pixels are stained to tell.
    """
    density = optical_density(rgb).reshape(-1, 3).astype(np.float64)
    density = density[density.min(axis=1) > min_density / 3]
    density = density[np.linalg.norm(density, axis=1) > min_density]
    if len(density) < 100:
        raise DataFault(f"only {len(density)} stained pixels: stain vectors need at least 100; choose a stained area")
    _, vectors = np.linalg.eigh(np.cov(density.T))
    plane = vectors[:, [2, 1]]  # the two largest directions
    plane[:, 0] *= np.sign(plane[:, 0].sum())
    angle = np.arctan2(density @ plane[:, 1], density @ plane[:, 0])
    ends = [np.array([np.cos(a), np.sin(a)]) for a in np.percentile(angle, [percentile, 100 - percentile])]
    pair = [np.abs(plane @ end) for end in ends]
    pair.sort(key=lambda vector: -vector[0])  # haematoxylin absorbs red more than eosin does
    return matrix(tuple(pair[0]), tuple(pair[1]))
