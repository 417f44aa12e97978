"""DICOM slides: a folder of files, one a level, of which OpenSlide wants any one of the series."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage (DICOM PS3.4)


def one_a_series(files: Iterable[Path]) -> list[Path]:
    """One file of every whole-slide series, of its pixels rather than its label; all other files are left out.

    A series that holds only a label or an overview is listed as well, so that it is refused by name.
    """
    best: dict[tuple[Path, str], tuple[bool, Path]] = {}
    for file in sorted(files):
        if kind := _flavour(file):
            series, volume = kind
            kept = best.get((file.parent, series))
            if kept is None or (volume and not kept[0]):
                best[file.parent, series] = (volume, file)
    return [file for _, file in best.values()]


def only_a_label(path: Path) -> bool:
    """True for a whole-slide file of DICOM without the slide's pixels: a label, an overview, a thumbnail."""
    kind = _flavour(path)
    return kind is not None and not kind[1]


def _flavour(path: Path) -> tuple[str, bool] | None:
    """(series, whether it holds pixels of the slide) of a whole-slide file; None for any other."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    wanted = ["SOPClassUID", "SeriesInstanceUID", "ImageType"]
    try:
        head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted)
    except (InvalidDicomError, OSError, EOFError):
        return None
    if str(head.get("SOPClassUID", "")) != WHOLE_SLIDE:
        return None
    return str(head.get("SeriesInstanceUID", "")), "VOLUME" in list(head.get("ImageType") or [])
