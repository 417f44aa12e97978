"""What the values of the groups `slides` and `stain` may be: found wrong before any slide is opened."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from .resolved import plain

# Least and largest value; a bool says that the number is whole. `max_unreadable` as slides/reader/soundness.py has it.
_UNBOUNDED = math.inf
NUMBERS: dict[str, tuple[float, float, bool]] = {
    "mpp": (-_UNBOUNDED, _UNBOUNDED, False),  # whether it is plausible is told of each slide
    "mpp_tolerance": (0.0, 0.5, False),
    "max_unreadable": (0.0, 0.05, False),
    "tile_um": (1e-6, _UNBOUNDED, False),
    "overlap_um": (0.0, _UNBOUNDED, False),
    "min_tissue": (0.0, 1.0, False),
    "workers": (0, 1024, True),
    "readers": (0, 1024, True),
    "stage_ahead": (1, 1024, True),
    "sample": (1, _UNBOUNDED, True),
    "sample_seed": (-_UNBOUNDED, _UNBOUNDED, True),
    "tissue.min_area_um2": (0.0, _UNBOUNDED, False),
    "tissue.max_hole_um2": (0.0, _UNBOUNDED, False),
    "tissue.least_sharpness": (0.0, _UNBOUNDED, False),
}
STAIN: dict[str, tuple[float, float, bool]] = {
    "views": (0, 1024, True),
    "sample": (1, _UNBOUNDED, True),
    "spread": (0.0, 1.0, False),
    "seed": (-_UNBOUNDED, _UNBOUNDED, True),
}
OPTIONAL = ("mpp", "sample")  # null means something
TRUE_OR_FALSE = ("mpp_from_power", "pictures")


def faults(cfg: Any) -> list[str]:
    """What is wrong with the values of `slides` and `stain`, a sentence each; none where all hold."""
    groups = plain(cfg) or {}
    slides, stain = groups.get("slides"), groups.get("stain")
    found = list(_of_slides(slides)) if isinstance(slides, Mapping) else []
    if isinstance(stain, Mapping):
        found += _out_of_range(stain, STAIN, "stain")
    return found


def _of_slides(slides: Mapping[str, Any]) -> Iterator[str]:
    yield from (wrong := list(_out_of_range(slides, NUMBERS, "slides")))
    for name in TRUE_OR_FALSE:
        if not isinstance(slides.get(name, False), bool):
            yield f"slides.{name}={slides[name]}: true or false is needed"
    for name in ("dir", "stage", "roi"):
        if not isinstance(slides.get(name), (str, type(None))):
            yield f"slides.{name}={slides[name]}: the name of a folder is needed"
    for name, other in (("roi_classes", "all"), ("roi_exclude", "none")):
        classes = slides.get(name)
        if classes is not None and not (isinstance(classes, list) and classes):
            yield f"slides.{name}={classes}: a list of classes is needed, for example [Tumor], or null for {other}"
    if not wrong and slides.get("overlap_um", 0) >= slides.get("tile_um", _UNBOUNDED):
        yield f"slides.overlap_um={slides['overlap_um']}: less than slides.tile_um={slides['tile_um']} is needed"


def _out_of_range(
    group: Mapping[str, Any], ranges: Mapping[str, tuple[float, float, bool]], title: str
) -> Iterator[str]:
    for name, (low, high, whole) in ranges.items():
        value: Any = group
        for part in name.split("."):
            value = value.get(part, ...) if isinstance(value, Mapping) else ...
        if value is ... or (value is None and name in OPTIONAL and title == "slides"):
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and low <= value <= high and math.isfinite(value) and (not whole or float(value).is_integer()):
            continue
        kind = "a whole number" if whole else "a number"
        least = f" of at least {low:g}" if low > -_UNBOUNDED and high == _UNBOUNDED else ""
        least = " above 0" if low == 1e-6 else least
        between = f" in {low:g}-{high:g}" if high < _UNBOUNDED else least
        yield f"{title}.{name}={value}: {kind}{between} is needed" + (", or null" if name in OPTIONAL else "")
