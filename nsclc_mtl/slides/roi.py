"""Regions that the user drew: corrected tissue contours, or parts of a slide that the tiling is restricted to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nsclc_mtl.records import DataFault, ItemFault, ItemSkip
from nsclc_mtl.slides import geojson

TISSUE = "Tissue"  # class of the contours that `mtl tile` writes
IGNORED = "*"  # QuPath's mark at the end of a class that does not count, as in `Ignore*`
SUFFIXES = (".geojson", ".json")

Polygon = list[geojson.Ring]


@dataclass(frozen=True)
class Regions:
    """What a file of regions says of one slide, in level-0 pixels."""

    tissue: tuple[Polygon, ...]  # class `Tissue`: taken instead of the segmenter's mask, where there are any
    inside: tuple[Polygon, ...]  # any other class: tiles lie in there, on tissue
    source: str  # name of the file
    outside: tuple[Polygon, ...] = ()  # classes that QuPath ignores (`Ignore*`), or that the user excludes: no tissue


def find(folder: Path, slide_id: str) -> Path:
    """The file of regions of a slide in a folder: `<slide_id>.geojson` or `.json`.

    Raises ItemSkip `no_roi` where it has none (tiling the whole slide would be a guess), DataFault where there is no
    such folder.
    """
    if not folder.is_dir():
        raise DataFault(f"no folder '{folder}'; slides.roi names the folder with a GeoJSON file a slide")
    for suffix in SUFFIXES:
        if (path := folder / f"{slide_id}{suffix}").is_file():
            return path
    raise ItemSkip("no_roi", f"slide '{slide_id}' has no '{slide_id}.geojson' in slides.roi; draw its regions there")


def load(
    path: Path, slide_id: str, classes: Sequence[str] | None = None, exclude: Sequence[str] | None = None
) -> Regions:
    """The regions of a file whose class is among `classes` (none given: all), and those to be left out.

    Left out are classes among `exclude` and those whose name ends with `*`, which QuPath ignores. Raises ItemFault
    `roi_absent` or `roi_invalid`.
    """
    if not path.is_file():
        raise ItemFault("roi_absent", f"slide '{slide_id}': no file '{path.name}'; mend its column `roi`")
    try:
        found = geojson.read(path)
    except DataFault as fault:
        raise ItemFault("roi_invalid", f"slide '{slide_id}': {fault}") from fault
    left_out = {name for name, _ in found if name.endswith(IGNORED) or name in (exclude or ())}
    outside = tuple(rings for name, rings in found if name in left_out)
    kept = [(name, rings) for name, rings in found if name not in left_out and (not classes or name in classes)]
    if not kept and (classes or not outside):
        there = ", ".join(sorted({name or "(no class)" for name, _ in found})) or "no polygon at all"
        wish = f"of class {', '.join(classes)}" if classes else "that is a polygon"
        raise ItemFault("roi_invalid", f"slide '{slide_id}': '{path.name}' holds no region {wish}, but {there}")
    tissue = tuple(rings for name, rings in kept if name == TISSUE)
    return Regions(tissue, tuple(rings for name, rings in kept if name != TISSUE), path.name, outside)


def digest(path: Path) -> str:
    """SHA-256 of a file of regions; empty where it does not exist (`load` says so)."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
