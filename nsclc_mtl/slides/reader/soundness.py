"""What a file is before any pixel is decoded: a slide, a truncated one, a picture or nothing; and its fingerprint."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import tifffile

from nsclc_mtl.records import ItemFault, UsageFault
from nsclc_mtl.slides.reader.dicom import only_a_label, shortened

SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi", ".dcm"}
)
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})  # read only where somebody states their scale
MOST_UNREADABLE = 0.05  # largest share of stored tiles that the option may let go
# Its remarks on damaged files belong in the log of a run, where there is one, and never on the terminal.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
# What tifffile raises on files that are none, or are damaged.
NO_TIFF = (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError, TypeError, AttributeError)


def content_hash(path: Path) -> str:
    """Fingerprint of a slide's content: size and 64 blocks spread over the file, so that gigabytes cost milliseconds.

    Of formats that keep their pixels in other files as well (MIRAX, Hamamatsu, DICOM), names and sizes of those count.
    """
    path = Path(path)
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for place in np.unique(np.linspace(0, max(0, size - 65536), 64).astype(int)):
            file.seek(int(place))
            digest.update(file.read(65536))
    kind, beside = path.suffix.lower(), path.with_suffix("")
    if kind in {".mrxs", ".vms", ".vmu"} and beside.is_dir():
        digest.update(repr([(f.name, f.stat().st_size) for f in sorted(beside.iterdir())]).encode())
    elif kind == ".dcm":
        digest.update(repr([(f.name, f.stat().st_size) for f in sorted(path.parent.glob("*.dcm"))]).encode())
    return "sampled-sha256:" + digest.hexdigest()


def fault_of(path: Path) -> ItemFault:
    """Why OpenSlide does not know this file: `unsupported`, `corrupt` or `no_pyramid`."""
    if path.stat().st_size == 0:
        return ItemFault("unsupported", f"slide '{path.name}' has zero bytes; copy it again")
    try:
        with tifffile.TiffFile(path) as tiff:
            if len(tiff.pages) == 0:
                return ItemFault(
                    "corrupt", f"slide '{path.name}' has lost its directory, perhaps its end; copy it again"
                )
            only_flat = not any(page.is_tiled for page in tiff.pages)  # type: ignore[union-attr]
    except NO_TIFF:
        only_flat = False
    if only_a_label(path):
        sentence = f"slide '{path.name}' is only the label or the overview of a DICOM series; copy the other files too"
        return ItemFault("no_pyramid", sentence)
    if only_flat:
        sentence = (
            f"slide '{path.name}' holds no tiled image, only a label, a macro or a plain picture; export the slide, "
        )
        return ItemFault("no_pyramid", sentence + "or state the um/px of a plain picture in the column `mpp`")
    return ItemFault(
        "unsupported", f"slide '{path.name}' is in no format that OpenSlide reads; convert it to tiled TIFF"
    )


def beyond_the_end(path: Path, most: float = 0.0) -> float:
    """Share of stored tiles that lie beyond the file's end, of the level that lost most; 0 where that cannot be known.

    A truncated TIFF or DICOM file opens and looks fine; the places of its tiles tell, without decoding any. Raises
    ItemFault `corrupt` where more than `most` is lost, UsageFault where `most` is beyond what is sensible.
    """
    if not 0 <= most <= MOST_UNREADABLE:
        raise UsageFault(f"slides.max_unreadable={most} is outside 0-{MOST_UNREADABLE}; what lost more is no slide")
    if path.suffix.lower() == ".dcm":
        cut = shortened(path)
        for name, (gone, total) in cut.items():
            if gone > most * total:
                sentence = f"slide '{path.name}': '{name}' is truncated, {gone} of its {total} stored tiles are lost"
                raise ItemFault("corrupt", f"{sentence}; copy it again")
        return max((gone / total for gone, total in cut.values()), default=0.0)
    try:
        size = path.stat().st_size
        with tifffile.TiffFile(path) as tiff:
            lost = []
            for page in tiff.pages:
                offsets = np.asarray(page.dataoffsets, np.int64)
                ends = offsets + np.asarray(page.databytecounts, np.int64)
                lost.append((int((ends > size).sum()), len(ends)))
    except NO_TIFF:
        return 0.0  # not a TIFF, or a dialect that only OpenSlide reads: its own errors must do
    share = max((gone / total for gone, total in lost if total), default=0.0)
    if share > most:
        gone, total = (sum(numbers) for numbers in zip(*lost, strict=True))
        sentence = f"slide '{path.name}' is truncated: {gone} of {total} stored tiles lie beyond its end; copy it again"
        raise ItemFault("corrupt", sentence)
    return share
