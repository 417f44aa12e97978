"""What the group `slides` may hold beside numbers: found wrong before any slide is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

TRUE_OR_FALSE = ("mpp_from_power", "pictures")


def faults(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values of `slides`, a sentence each; none where all hold. Numbers: see `values`."""
    slides = settings.get("slides")
    return list(_faults(slides)) if isinstance(slides, Mapping) else []


def _faults(slides: Mapping[str, Any]) -> Iterator[str]:
    for name in TRUE_OR_FALSE:
        if not isinstance(slides.get(name, False), bool):
            yield f"slides.{name}: true or false is needed, not {slides[name]!r}"
    for name in ("dir", "stage", "roi"):
        if not isinstance(slides.get(name), (str, type(None))):
            yield f"slides.{name}: the name of a folder is needed, not {slides[name]!r}"
    for name, other in (("roi_classes", "all"), ("roi_exclude", "none")):
        classes = slides.get(name)
        if classes is not None and not (isinstance(classes, list) and classes):
            yield f"slides.{name}: a list such as [Tumor], or null for {other}, is needed, not {classes!r}"
    tile, overlap = slides.get("tile_um"), slides.get("overlap_um")
    if isinstance(tile, (int, float)) and isinstance(overlap, (int, float)) and tile > 0 and overlap >= tile:
        yield f"slides.overlap_um: less than slides.tile_um={tile:g} is needed, not {overlap!r}"
