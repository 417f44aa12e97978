"""DICOM slides: a folder of files, one a level, of which OpenSlide wants any one of the series."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage (DICOM PS3.4)


def one_a_series(files: Iterable[Path]) -> list[Path]:
    """The first file of every whole-slide series; scans, reports and what is no DICOM are left out."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    first: dict[tuple[Path, str], Path] = {}
    for file in sorted(files):
        try:
            head = pydicom.dcmread(
                file, stop_before_pixels=True, specific_tags=["SOPClassUID", "SeriesInstanceUID", "ImageType"]
            )
        except (InvalidDicomError, OSError):
            continue
        volume = "VOLUME" in list(head.get("ImageType", []))
        if str(head.get("SOPClassUID", "")) == WHOLE_SLIDE and volume:  # labels and overviews have files of their own
            first.setdefault((file.parent, str(head.get("SeriesInstanceUID", ""))), file)
    return list(first.values())
