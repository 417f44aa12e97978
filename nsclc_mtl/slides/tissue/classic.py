"""Tissue without a trained model: chroma in optical density, Otsu's threshold, and what is known of artefacts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from nsclc_mtl.records import DataFault

from .artefacts import folds, grey, ink, streaks
from .light import extremes, glass, optical_density
from .record import Tissue, closed, opened, touching


class Classic:
    """The signal is the chroma in optical density (largest minus smallest channel): dyes have it, glass hardly does.

    It is taken cell by cell and averaged then, since blue nuclei among brown ones are grey on average. Otsu's threshold
    (1979) is kept inside `threshold`, so that a slide that is all tissue is not split in two and the noise of an empty
    one is not taken for tissue. What absorbs evenly beside coloured tissue, and has some hue itself, belongs to it.
    """

    CELL_UM = 4.0  # sigma before chroma: grain goes, neighbouring cells stay apart
    # Pale tissue: density that glass, shadow and dust on it do not reach, and a share of the threshold of chroma.
    FAINT, HINT = 0.025, 0.35

    def __init__(
        self,
        um_per_px: float = 8.0,
        threshold: tuple[float, float] = (0.015, 0.03),
        smooth_um: float = 12.0,
        closing_um: float = 32.0,
        pen_marks: bool = True,
        grey_things: bool = True,
        cut_folds: bool = False,
    ) -> None:
        if not (um_per_px > 0 and 0 < threshold[0] <= threshold[1] and smooth_um >= 0 and closing_um >= 0):
            raise DataFault("segmenter=classic: need um_per_px > 0, 0 < threshold[0] <= threshold[1], lengths >= 0")
        self.um_per_px, self.threshold = float(um_per_px), (float(threshold[0]), float(threshold[1]))
        self.smooth_um, self.closing_um = float(smooth_um), float(closing_um)
        self.pen_marks, self.grey_things, self.cut_folds = bool(pen_marks), bool(grey_things), bool(cut_folds)

    def __call__(self, thumbnail: np.ndarray, um_per_px: float) -> Tissue:
        """The tissue of a thumbnail (uint8 [h, w, 3] at this scale), and what was taken away on the way."""
        if thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.dtype != np.uint8:
            raise DataFault(f"a thumbnail is uint8 [h, w, 3], not {thumbnail.dtype} {thumbnail.shape}")
        white = glass(thumbnail)
        sharp = optical_density(thumbnail, white)
        blur = self.smooth_um / um_per_px  # loose cells become one piece, JPEG noise goes
        density = ndimage.gaussian_filter(sharp, (blur, blur, 0), truncate=2.5)
        cells = min(blur, self.CELL_UM / um_per_px)
        most, least = extremes(ndimage.gaussian_filter(sharp, (cells, cells, 0), truncate=2.5))
        chroma = ndimage.gaussian_filter(most - least, float(np.sqrt(blur**2 - cells**2)), truncate=2.5)
        low, high = self.threshold
        flat = np.clip(chroma, 0, 0.5)
        otsu = float(threshold_otsu(flat)) if np.ptp(flat) > 1e-6 else low
        cut = float(np.clip(0.8 * otsu, low, high))  # Otsu lies midway; pale tissue lies below the middle
        sure = chroma > cut
        faint = (density @ np.full(3, 1 / 3, np.float32) > self.FAINT) & (chroma > self.HINT * cut)
        found = Tissue(touching(sure | faint, sure), cut, white)
        if self.pen_marks:
            found = found.without("pen", ink(density, um_per_px))
        if self.grey_things:
            found = found.without("grey", grey(density, um_per_px))
        radius = self.closing_um / um_per_px
        if radius >= 1:
            mask = opened(closed(found.mask, radius), max(1.0, radius / 3))
            for gone in found.cut.values():  # what was cut out must not be closed over
                mask &= ~gone
            found = replace(found, mask=mask)
        if self.grey_things:
            found = found.without("grey", streaks(found.mask, um_per_px))
        double = folds(density, found.mask, um_per_px)
        found = replace(found, folds=float(double.sum() / max(1, found.mask.sum())))
        return found.without("fold", double) if self.cut_folds else found
