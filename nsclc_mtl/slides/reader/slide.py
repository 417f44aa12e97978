"""A whole-slide image that knows its scale, and says in one sentence why another one cannot be used.

The um/px of a slide is never guessed: the value of `slides.csv` (or the override) comes first, then the scanner's own
metadata, then the resolution of the TIFF; where it came from is kept. Handles must be opened in the process that reads.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import openslide
import tifffile
from PIL import Image

from nsclc_mtl.records import ItemFault

SUFFIXES = frozenset(
    {
        ".svs",
        ".tif",
        ".tiff",
        ".ndpi",
        ".mrxs",
        ".scn",
        ".bif",
        ".vms",
        ".vmu",
        ".svslide",
    }
)
PLAUSIBLE_MPP = (0.05, 4.0)  # um/px; a 72-dpi TIFF reads as 352.8
ANISOTROPY = 0.02  # largest relative difference of the two directions
BLOCK_PX = 1024  # edge of the pieces in which a large area is read, so that memory does not grow with the slide


class Slide:
    """An open slide: where it lies, its scale, and pixels at any size. Use as a context manager."""

    def __init__(self, path: Path, handle: openslide.OpenSlide, mpp: float, mpp_source: str) -> None:
        self.path, self._handle = path, handle
        self.mpp, self.mpp_source = mpp, mpp_source
        self.dimensions: tuple[int, int] = handle.dimensions
        self.vendor = str(handle.properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"))
        self._downsamples = handle.level_downsamples
        power = handle.properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)
        self.magnification = float(power) if power else round(10.0 / mpp, 1)  # 10x is 1 um/px by the usual reckoning

    def read(self, x: int, y: int, size_level0: int, out_px: int) -> np.ndarray:
        """uint8 [out_px, out_px, 3]: the square at (x, y), area-resampled from the nearest level.

        What lies outside the scanned area is white. Raises ItemFault `corrupt` where the file cannot be decoded.
        """
        return self._area(float(x), float(y), float(size_level0), float(size_level0), out_px, out_px)

    def thumbnail(self, um_per_px: float) -> np.ndarray:
        """uint8 [h, w, 3]: the whole slide at about this scale (exactly: dimensions / shape)."""
        width, height = self.dimensions
        shrink = um_per_px / self.mpp
        out_w, out_h = max(1, round(width / shrink)), max(1, round(height / shrink))
        per_x, per_y = width / out_w, height / out_h
        # A block of the result never asks for more than BLOCK_PX pixels of the level that it is made from.
        step = max(16, int(BLOCK_PX * self._downsamples[self._level(per_x)] / max(per_x, per_y)))
        picture = np.empty((out_h, out_w, 3), np.uint8)
        for top in range(0, out_h, step):
            for left in range(0, out_w, step):
                h, w = min(step, out_h - top), min(step, out_w - left)
                area = self._area(left * per_x, top * per_y, w * per_x, h * per_y, w, h)
                picture[top : top + h, left : left + w] = area
        return picture

    def close(self) -> None:
        """Give the file back."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _level(self, shrink: float) -> int:
        """The coarsest level that is still at least as fine as wanted (a hair of tolerance for rounded sizes)."""
        fine = [i for i, d in enumerate(self._downsamples) if d <= shrink * 1.01]
        return fine[-1] if fine else 0

    def _area(self, x: float, y: float, width: float, height: float, out_w: int, out_h: int) -> np.ndarray:
        level = self._level(min(width / out_w, height / out_h))
        scale = self._downsamples[level]
        # Whole pixels of the level that cover the area; the resampling box keeps the fraction.
        left, top = int(np.floor(x / scale + 1e-6)), int(np.floor(y / scale + 1e-6))
        right, bottom = int(np.ceil((x + width) / scale - 1e-6)), int(np.ceil((y + height) / scale - 1e-6))
        try:
            at = (round(left * scale), round(top * scale))
            found = self._handle.read_region(at, level, (right - left, bottom - top))
        except openslide.OpenSlideError as error:
            raise ItemFault(
                "corrupt", f"slide '{self.path.name}' cannot be decoded at ({int(x)}, {int(y)}): {error}; copy it again"
            ) from error
        white = Image.new("RGB", found.size, (255, 255, 255))
        white.paste(found, mask=found.getchannel("A"))
        box = (x / scale - left, y / scale - top, (x + width) / scale - left, (y + height) / scale - top)
        box = (max(0.0, box[0]), max(0.0, box[1]), min(found.width, box[2]), min(found.height, box[3]))
        if (out_w, out_h) != white.size or box != (0, 0, *white.size):
            smaller = out_w <= width / scale
            kind = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
            white = white.resize((out_w, out_h), kind, box=box)
        return np.asarray(white)


def content_hash(path: Path) -> str:
    """Fingerprint of a slide's content: size and 64 blocks spread over the file, so that gigabytes cost milliseconds.

    Of formats that keep their pixels in a folder beside the file (MIRAX), names and sizes in it count as well.
    """
    path = Path(path)
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for place in np.unique(np.linspace(0, max(0, size - 65536), 64).astype(int)):
            file.seek(int(place))
            digest.update(file.read(65536))
    beside = path.with_suffix("")
    if path.suffix.lower() in {".mrxs", ".vms", ".vmu"} and beside.is_dir():
        digest.update(repr([(f.name, f.stat().st_size) for f in sorted(beside.iterdir())]).encode())
    return "sampled-sha256:" + digest.hexdigest()


def open_slide(path: Path, mpp: float | None = None, mpp_source: str = "given") -> Slide:
    """An open slide. Raises ItemFault with the public reason where it cannot be used.

    Reasons: `absent unsupported corrupt no_pyramid mpp_missing mpp_implausible mpp_anisotropic`.
    """
    path = Path(path)
    if not path.is_file():
        raise ItemFault("absent", f"slide '{path.name}' does not exist; mend its `path` in slides.csv or copy the file")
    try:
        handle = openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise _not_a_slide(path) from error
    except openslide.OpenSlideError as error:
        raise ItemFault("corrupt", f"slide '{path.name}' is damaged ({error}); copy it again") from error
    try:
        _refuse_truncated(path)
        value, source = _scale(path, handle, mpp, mpp_source)
    except ItemFault:
        handle.close()
        raise
    return Slide(path, handle, value, source)


def _not_a_slide(path: Path) -> ItemFault:
    if path.stat().st_size == 0:
        return ItemFault("unsupported", f"slide '{path.name}' has zero bytes; copy it again")
    try:
        with tifffile.TiffFile(path) as tiff:
            if len(tiff.pages) == 0:
                return ItemFault(
                    "corrupt", f"slide '{path.name}' has lost its directory, perhaps its end; copy it again"
                )
            only_flat = not any(page.is_tiled for page in tiff.pages)  # type: ignore[union-attr]
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError, TypeError):
        only_flat = False
    if only_flat:
        sentence = (
            f"slide '{path.name}' holds no tiled image, only a label, a macro or a plain picture; export the slide"
        )
        return ItemFault("no_pyramid", sentence)
    return ItemFault(
        "unsupported", f"slide '{path.name}' is in no format that OpenSlide reads; convert it to tiled TIFF"
    )


def _refuse_truncated(path: Path) -> None:
    """A truncated TIFF opens and looks fine; the places of its tiles tell, without decoding any."""
    try:
        size = path.stat().st_size
        with tifffile.TiffFile(path) as tiff:
            beyond = total = 0
            for page in tiff.pages:
                offsets = np.asarray(page.dataoffsets, np.int64)
                ends = offsets + np.asarray(page.databytecounts, np.int64)
                total += len(ends)
                beyond += int((ends > size).sum())
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError, TypeError, AttributeError):
        return  # not a TIFF, or a dialect that only OpenSlide reads: its own errors must do
    if beyond:
        sentence = (
            f"slide '{path.name}' is truncated: {beyond} of {total} stored tiles lie beyond its end; copy it again"
        )
        raise ItemFault("corrupt", sentence)


def _scale(path: Path, handle: openslide.OpenSlide, given: float | None, given_source: str) -> tuple[float, str]:
    """(um/px, where it came from) by the ladder: given, scanner metadata, TIFF resolution."""
    found = handle.properties
    vendor = found.get(openslide.PROPERTY_NAME_VENDOR)
    if given is not None and np.isfinite(given):
        pair, source = (float(given), float(given)), given_source
    elif openslide.PROPERTY_NAME_MPP_X in found and openslide.PROPERTY_NAME_MPP_Y in found:
        pair = (float(found[openslide.PROPERTY_NAME_MPP_X]), float(found[openslide.PROPERTY_NAME_MPP_Y]))
        source = "tiff_resolution" if vendor == "generic-tiff" else "metadata"
    else:
        per_unit = {"centimeter": 1e4, "inch": 25400.0}.get(str(found.get("tiff.ResolutionUnit")))
        x, y = (float(found.get(f"tiff.{axis}Resolution", 0)) for axis in "XY")
        if per_unit is None or x <= 0 or y <= 0:
            sentence = f"slide '{path.name}' has no mpp; set slides.mpp=0.25 or fill the column `mpp` of slides.csv"
            raise ItemFault("mpp_missing", sentence)
        pair, source = (per_unit / x, per_unit / y), "tiff_resolution"
    low, high = PLAUSIBLE_MPP
    if not all(low <= value <= high for value in pair):
        sentence = f"slide '{path.name}' says {pair[0]:.4g} um/px ({source}), outside {low}-{high}; "
        raise ItemFault("mpp_implausible", sentence + "set slides.mpp=0.25 or fill the column `mpp` of slides.csv")
    mean = (pair[0] + pair[1]) / 2
    if abs(pair[0] - pair[1]) > ANISOTROPY * mean:
        sentence = (
            f"slide '{path.name}' has pixels of {pair[0]:.4g} x {pair[1]:.4g} um, which differ by more than 2 %; "
        )
        raise ItemFault("mpp_anisotropic", sentence + "resample it, or state one value in the column `mpp`")
    return mean, source
