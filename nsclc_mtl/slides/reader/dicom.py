"""DICOM slides: a folder of files, one a level, of which OpenSlide wants any one of the series."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage (DICOM PS3.4)


def one_a_series(files: Iterable[Path]) -> list[Path]:
    """One file of every whole-slide series, of its pixels rather than its label; scans and reports are left out.

    A series that holds only a label or an overview is listed as well, and so is a file that is no DICOM at all or ends
    within its header, so that they are refused by name.
    """
    best: dict[tuple[Path, str], tuple[bool, Path]] = {}
    for file in sorted(files):
        if kind := _flavour(file):
            series, volume = kind
            kept = best.get((file.parent, series))
            if kept is None or (volume and not kept[0]):
                best[file.parent, series] = (volume, file)
        elif not _is_dicom(file):
            best[file, ""] = (False, file)
    return [file for _, file in best.values()]


def only_a_label(path: Path) -> bool:
    """True for a whole-slide file of DICOM without the slide's pixels: a label, an overview, a thumbnail."""
    kind = _flavour(path)
    return kind is not None and not kind[1]


def shortened(path: Path) -> dict[str, tuple[int, int]]:
    """Files of a slide's series whose pixels end before they should: {name: (frames lost, frames)}.

    Levels that are not read would hide it: OpenSlide opens such a series, and stops at the first frame that is gone.
    """
    kind = _flavour(path)
    found = {}
    for file in sorted(path.parent.glob("*.dcm")) if kind else []:
        if _flavour(file) == kind:
            there, total = _frames(file)
            if there < total:
                found[file.name] = (total - there, total)
    return found


def _frames(path: Path) -> tuple[int, int]:
    """Frames that lie whole in a file, and how many it states; walks over them without reading any."""
    import pydicom

    with path.open("rb") as file:
        head: Any = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["NumberOfFrames"])
        total, size = int(head.get("NumberOfFrames", 1) or 1), path.stat().st_size
        # PS3.5, 7.1.2 and A.4: tag, kind, two bytes, length; unknown where the frames are items, after one of offsets.
        element = file.read(12)
        if len(element) < 12 or not element.startswith(b"\xe0\x7f\x10\x00"):
            return 0, total
        length = struct.unpack("<I", element[8:])[0]
        if length != 0xFFFFFFFF:
            return int(total * min(1.0, (size - file.tell()) / max(1, length))), total
        return min(total, _items(file, size) - 1), total


def _items(file: BinaryIO, size: int) -> int:
    """Items that lie whole in the rest of a file; many more than can be where their end is marked."""
    count = 0
    while len(item := file.read(8)) == 8:
        tag, length = struct.unpack("<II", item)
        if tag == 0xE0DDFFFE:
            return 1 << 40  # all of them: a frame may have several items, or none of its own
        if tag != 0xE000FFFE or file.seek(length, 1) > size:
            break
        count += 1
    return count


def _is_dicom(path: Path) -> bool:
    """True where the header says what the file is."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        return "SOPClassUID" in pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"])
    except (InvalidDicomError, OSError, EOFError):
        return False


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
