"""Where a slide is out of focus, measured in small windows at 2 um/px, since a thumbnail is too coarse to tell."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from nsclc_mtl.slides.reader import Slide

from .light import optical_density

SCALE_UM = 2.0  # um/px of the windows
WINDOW_UM = 128.0  # edge of a window
FINE_UM, MIDDLE_UM, COARSE_UM = 1.2, 4.0, 10.0  # sigmas: edges of nuclei; nuclei themselves; their surroundings
ENOUGH = 0.4  # least share of a window that is tissue
# Optical density; what varies less holds nothing that could be sharp. Tissue blurred by 15 um still varies by .003 to
# .013, and even colloid in focus, .003 to .007, has more fine than middle detail.
FLAT = 0.0015


def sharpness(rgb: np.ndarray, um_per_px: float, inside: np.ndarray | None = None) -> float:
    """Fine over middle detail of a window (uint8 [h, w, 3]): about 1 in focus, at any contrast; NaN if flat.

    Root of the variance of the Laplacian (Pech-Pacheco et al., ICPR 2000), divided by the same of the band in which
    nuclei lie. Real slides give .8 to 1.9; blurred by a Gaussian of 2 um .31 to .65, of 4 um .11 to .21, of 8 um and
    more .06 to .17.
    """
    grey = optical_density(rgb) @ np.full(3, 1 / 3, np.float32)
    edge = FINE_UM / um_per_px
    fine = ndimage.laplace(ndimage.gaussian_filter(grey, edge)) * edge**2
    middle = ndimage.gaussian_filter(grey, MIDDLE_UM / um_per_px) - ndimage.gaussian_filter(grey, COARSE_UM / um_per_px)
    here = np.ones(grey.shape, bool) if inside is None else inside
    variation = float(middle[here].std()) if here.any() else 0.0
    return float(fine[here].std()) / variation if variation > FLAT else float("nan")


def blurred(slide: Slide, mask: np.ndarray, least: float = 0.3, cell_um: float = 256.0) -> np.ndarray:
    """bool [h, w]: the part of a mask whose sharpness is under `least`, from one window a cell of `cell_um`.

    The default is a blur of about 2.4 um, at which nuclei have no edge any more. Windows lie where a cell holds most
    tissue, and sharpness is interpolated between cells; cells that cannot be judged take their nearest neighbour's.
    """
    height, width = mask.shape
    per_x, per_y = slide.dimensions[0] / width, slide.dimensions[1] / height
    cell = max(1, round(cell_um / (per_x * slide.mpp)))
    window = max(1, round(WINDOW_UM / (per_x * slide.mpp)))
    size = round(WINDOW_UM / slide.mpp)
    filled = ndimage.uniform_filter(mask.astype(np.float32), window, mode="constant")
    rows, columns = -(-height // cell), -(-width // cell)
    off = np.abs(np.arange(cell) - (cell - 1) / 2) / cell
    aside = 0.02 * (off[:, None] + off)  # where all of a cell is tissue, its middle speaks for it
    found = np.full((rows, columns), np.nan)
    for row in range(rows):
        for column in range(columns):
            part = filled[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
            if part.max() < ENOUGH:
                continue
            y, x = np.unravel_index(int((part - aside[: part.shape[0], : part.shape[1]]).argmax()), part.shape)
            left = int((column * cell + x + 0.5) * per_x - size / 2)
            top = int((row * cell + y + 0.5) * per_y - size / 2)
            pixels = slide.read(left, top, size, round(WINDOW_UM / SCALE_UM))
            found[row, column] = sharpness(pixels, SCALE_UM)
    known = np.isfinite(found)
    if not known.any() or found[known].min() >= least:
        return np.zeros_like(mask)
    near = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    logs = np.log(np.maximum(found[tuple(near)], 1e-3))
    places = np.meshgrid((np.arange(height) + 0.5) / cell - 0.5, (np.arange(width) + 0.5) / cell - 0.5, indexing="ij")
    between = ndimage.map_coordinates(logs, places, order=1, mode="nearest")
    return mask & (between < np.log(least))
