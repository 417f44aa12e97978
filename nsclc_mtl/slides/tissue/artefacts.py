"""What lies on a slide and is no tissue: ink, grey and black things, coverslip edges; and tissue that lies double.

All from optical density (float32 [h, w, 3]) of a smoothed thumbnail; all lengths in micrometres.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .light import SAMPLE, extremes
from .record import ALL, grown, opened, touching, without_small

# A pixel's channels absorb so much alike that no dye does it: dust, bubbles, black ink, pencil, coverslip edges.
# Haematoxylin that looks grey lies at .18 and above, black ink and rims of bubbles below .08 (real scans).
GREY_HUE = 0.12
GREY_DENSITY = 0.15  # fainter greys are glass and shadow, and below the threshold of chroma anyway
BLACK = 0.9  # least density of the clearest channel beyond which a scanner sees no hue


def ink(density: np.ndarray, um_per_px: float, min_area_um2: float = 5_000.0, reach_um: float = 500.0) -> np.ndarray:
    """bool [h, w]: pen marks by their hue in optical density: dense strokes, and their pale rims up to `reach_um` away.

    Haematoxylin, eosin and DAB absorb green at least about as much as red. Green and blue ink absorb red most; red ink
    absorbs green and blue alike and red hardly at all. The limits were set on labelled tiles with pen marks. What red
    ink covers is found by `yellower`. Black ink has no hue: `grey` finds it.
    """
    red, green, blue = (np.ascontiguousarray(density[..., i]) for i in range(3))
    marks = np.zeros(red.shape, bool)
    over = yellower(density)
    covered = (over > 0.06) & (green > 0.1) & (red < 0.9 * green) & (blue < 1.1 * green)
    red_hue = (blue > 0.55 * green) & (blue < 1.4 * green)
    strokes = (
        (
            (red > 1.15 * green) & (blue > 1.05 * green) & (red > 0.35),
            (red > 1.1 * green) & (blue > 0.8 * green) & (red > 0.04),
        ),
        (
            (red > 1.35 * green) & (red > 1.9 * blue) & (red > 0.5),
            (red > 1.3 * green) & (red > 1.6 * blue) & (red > 0.04),
        ),
        (
            red_hue & (red < 0.15 * green) & (blue > 0.6 * green) & (green > 0.5),
            red_hue & (red < 0.3 * green) & (green > 0.04),
        ),
    )
    for dense, pale in strokes:
        seeds = without_small(dense, min_area_um2 / um_per_px**2)
        if seeds.any():
            # What is too dark to have a hue belongs to the stroke beside it.
            soaked = pale | dense | (extremes(density)[1] > 0.6)
            if dense is strokes[-1][0]:
                soaked |= covered
            steps = max(1, round(reach_um / um_per_px))
            marks |= ndimage.binary_dilation(seeds, ALL, iterations=steps, mask=soaked)
    marks |= _red_over_tissue(density, over, covered, um_per_px)
    return grown(marks, 24.0 / um_per_px)


# In the plane of red and blue over green every mixture of two dyes lies on the line between them; that of haematoxylin
# and eosin falls by .25 and cuts the axis at .64 to .72 (measured on eight real H&E tiles).
FALL, USUAL, HIGHEST = 0.25, 0.69, 0.76


def yellower(density: np.ndarray) -> np.ndarray:
    """float32 [h, w]: blue over green beyond what the slide's own dyes have at this red over green; 0 where pale.

    Red ink adds green and blue alike, so tissue under it lies .1 and more above the line; eosin lies within .03.
    """
    stained = density[..., 1] > 0.1
    red, green, blue = density[stained].T
    height = (blue + FALL * red) / green
    dyed = height[(red > 0.05 * green) & (red < green)][:: max(1, height.size // SAMPLE)]
    usual = min(float(np.median(dyed)), HIGHEST) if dyed.size >= 200 else USUAL
    over = np.zeros(stained.shape, np.float32)
    over[stained] = height - usual
    return over


def _red_over_tissue(
    density: np.ndarray, over: np.ndarray, covered: np.ndarray, um_per_px: float, wide_um: float = 80.0,
    min_area_um2: float = 20_000.0, most: float = 0.3,
) -> np.ndarray:  # fmt: skip
    """bool [h, w]: red strokes that end inside the tissue: broad areas far above the line of the slide's own dyes.

    Vessels full of blood lie there too, but are narrower than `wide_um`. Where more than `most` of what is stained lies
    there, it is the stain: red chromogens, trichrome.
    """
    red, green = density[..., 0], density[..., 1]
    # DAB and its mixtures with haematoxylin absorb red half as much as green.
    sure = (over > 0.1) & (green > 0.2) & (red < 0.42 * green)
    seeds = without_small(opened(sure, wide_um / 2 / um_per_px), min_area_um2 / um_per_px**2)
    if not seeds.any() or seeds.sum() > most * max(1, int((green > 0.1).sum())):
        return np.zeros_like(seeds)
    return touching(seeds | covered, seeds)


def grey(density: np.ndarray, um_per_px: float, min_area_um2: float = 2_000.0, rim_um: float = 20.0) -> np.ndarray:
    """bool [h, w]: things without hue, and their rims: bubbles, dust, black ink, coverslip edges, dark slide borders.

    Tissue so dark that the scanner sees no hue in it is spared where it lies in coloured tissue (folds, pigment,
    over-stained nests): grey things are darkest by themselves, tissue is darkest among its like.
    """
    most, least = extremes(density)
    hueless = (most > GREY_DENSITY) & (most - least < GREY_HUE * most)
    found = without_small(hueless, min_area_um2 / um_per_px**2)
    if not found.any():
        return found
    coloured = most - least > 2 * GREY_HUE * most
    coloured &= most > GREY_DENSITY
    labels, count = ndimage.label(found, ALL)
    owner = ndimage.maximum_filter(labels, size=2 * max(2, round(2 * rim_um / um_per_px)) + 1)
    ring = (owner > 0) & ~found
    total = np.bincount(owner[ring], minlength=count + 1)
    tinted = np.bincount(owner[ring & coloured], minlength=count + 1)
    dark = ndimage.mean(least, labels, np.arange(count + 1)) > BLACK
    spared = dark & (tinted > 0.6 * np.maximum(total, 1))
    found &= ~spared[labels]
    return grown(found, rim_um / um_per_px)


def streaks(mask: np.ndarray, um_per_px: float, width_um: float = 80.0, length_um: float = 2_000.0) -> np.ndarray:
    """bool [h, w]: pieces that are long, thin and straight as no tissue is: edges of coverslips, hairs, scratches.

    A piece counts where it is nowhere wider than `width_um`, at least `length_um` long, and bends from its own axis by
    less than a fiftieth of its length. Needle cores are 400 um wide or more.
    """
    labels, _ = ndimage.label(mask, ALL)
    found = np.zeros(mask.shape, bool)
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        extent = np.hypot(window[0].stop - window[0].start, window[1].stop - window[1].start) * um_per_px
        if extent < length_um:
            continue
        piece = labels[window] == number
        y, x = np.nonzero(piece)
        if len(y) * um_per_px > 1.5 * width_um / um_per_px * extent:  # more area than a streak has: no need to measure
            continue
        if opened(np.pad(piece, 1), width_um / 2 / um_per_px).any():
            continue
        across = float(np.sqrt(max(0.0, np.linalg.eigvalsh(np.cov(np.stack([y, x])))[0]))) * um_per_px
        if across < width_um / 4 + extent / 50:
            found[window] |= piece
    return found


def folds(density: np.ndarray, mask: np.ndarray, um_per_px: float, min_area_um2: float = 10_000.0) -> np.ndarray:
    """bool [h, w]: tissue that lies double: narrow bands at least twice as dense as the tissue around them.

    Two layers absorb twice (Beer and Lambert); around means within 600 um, and narrow at most 250 um, so that an
    over-stained slide or a dense nest of cells is no fold. The densities of both layers must reach .35.
    """
    if not mask.any():
        return mask
    total = density @ np.full(3, 1 / 3, np.float32)
    reach = max(3, round(1200.0 / um_per_px))
    weight = ndimage.uniform_filter(mask.astype(np.float32), reach)
    around = ndimage.uniform_filter(np.where(mask, total, np.float32(0)), reach) / np.maximum(weight, 1e-6)
    dense = mask & (total > 2.0 * around) & (total > 0.35)
    narrow = dense & ~opened(dense, 125.0 / um_per_px)
    return without_small(narrow, min_area_um2 / um_per_px**2)
