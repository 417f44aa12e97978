"""One slide's tissue from its file: thumbnail, segmenter, focus, the rules of area, and the user's own regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from nsclc_mtl.records import ItemFault
from nsclc_mtl.slides import geojson
from nsclc_mtl.slides.reader import Slide
from nsclc_mtl.slides.roi import Regions

from .focus import blurred
from .light import glass
from .record import Segmenter, Tissue, tidy


def survey(
    slide: Slide, segmenter: Segmenter, rules: Mapping[str, Any], regions: Regions | None = None
) -> tuple[np.ndarray, Tissue]:
    """(thumbnail uint8 [h, w, 3], tissue) of an open slide.

    `rules`: `min_area_um2`, `max_hole_um2`, and `least_sharpness` (0 = focus is not looked at). Contours that the user
    corrected are the tissue, as they are; other regions restrict it; those to be left out are cut out. Raises ItemFault
    `roi_invalid` where none of them touches the slide.
    """
    thumbnail = slide.thumbnail(segmenter.um_per_px)
    um_per_px = slide.dimensions[0] * slide.mpp / thumbnail.shape[1]
    inside = np.ones(thumbnail.shape[:2], bool)
    if regions is not None and regions.inside:
        inside = _drawn(slide, regions.inside, inside.shape, regions.source)
    if regions is not None and regions.outside:
        inside = inside & ~_drawn(slide, regions.outside, inside.shape, regions.source)
    if regions is not None and regions.tissue:
        mask = _drawn(slide, regions.tissue, inside.shape, regions.source)
        return thumbnail, Tissue(mask & inside, 0.0, glass(thumbnail))
    found = segmenter(thumbnail, um_per_px)
    areas = (float(rules["min_area_um2"]), float(rules["max_hole_um2"]))
    found = tidy(found, um_per_px, *areas)  # before the restriction: a region's edge makes no debris of tissue
    found = replace(found, mask=found.mask & inside, cut={name: area & inside for name, area in found.cut.items()})
    least = float(rules.get("least_sharpness", 0.0))
    if least > 0 and found.mask.any():
        found = found.without("blur", blurred(slide, found.mask, least))
        found = tidy(found, um_per_px, *areas) if "blur" in found.cut else found
        found = replace(found, mask=found.mask & inside)
    return thumbnail, found


def _drawn(slide: Slide, polygons: tuple[list[geojson.Ring], ...], shape: tuple[int, ...], source: str) -> np.ndarray:
    mask = geojson.rasterise(polygons, slide.dimensions, (shape[0], shape[1]))
    if not mask.any():
        width, height = slide.dimensions
        raise ItemFault(
            "roi_invalid",
            f"'{source}': no region lies on '{slide.path.name}' ({width} x {height} px); regions are in level-0 pixels",
        )
    return mask
