"""The fast way into tiled TIFF and SVS with JPEG inside: stored tiles decoded straight from the file, in any thread.

OpenSlide paints every region through 32-bit premultiplied pixels, which costs several times the decoding. The same
libjpeg decodes here, told the same colour space (that of the TIFF's photometric tag; an Adobe marker is not asked, as
in OpenSlide and libtiff), so pixels are equal; `fast_source` compares some to be sure.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from nsclc_mtl.slides.reader.soundness import NO_TIFF
from nsclc_mtl.slides.reader.sources import OpenSlideSource, Undecodable, paste

VENDORS = frozenset({"aperio", "generic-tiff"})  # others overlap their tiles, leave some out, or add an offset
COLOUR = {tifffile.PHOTOMETRIC.RGB: "rgb", tifffile.PHOTOMETRIC.YCBCR: "ycbcr"}
MOST_TILE_BYTES = 64 << 20  # a "tile" beyond this is a whole picture: OpenSlide's business
_UNDECODABLE = (imagecodecs.Jpeg8Error, ValueError, OSError, RuntimeError)


class DecodedTiles:
    """The tiles decoded last, bounded in bytes; what two threads want at once is decoded once."""

    def __init__(self, room: int) -> None:
        self.room, self.held = room, 0
        self._kept: OrderedDict[Hashable, Future[np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The tile of this key, decoded by this thread where no other has. Raises what `decode` raises."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
            else:
                mine = self._kept[key] = Future()
        if kept is not None:
            return kept.result()
        try:
            tile = decode()
        except BaseException as error:
            with self._lock:
                del self._kept[key]
            mine.set_exception(error)
            raise
        mine.set_result(tile)
        with self._lock:
            self.held += tile.nbytes
            while self.held > self.room and len(self._kept) > 1:
                oldest = next(iter(self._kept))
                if not self._kept[oldest].done():
                    break
                self.held -= self._kept.pop(oldest).result().nbytes
        return tile

    def peek(self, key: Hashable) -> np.ndarray | None:
        """The tile of this key, if it is decoded already."""
        kept = self._kept.get(key)
        return kept.result() if kept is not None and kept.done() and kept.exception() is None else None


@dataclass(frozen=True)
class Level:
    """One level of a tiled TIFF: where its JPEG tiles lie, row by row, and how they are to be decoded."""

    width: int
    height: int
    tile_w: int
    tile_h: int
    across: int  # tiles in a row
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    tables: bytes | None
    colour: str


class JpegSource:
    """Stored JPEG tiles, stitched where a region straddles them; OpenSlide for levels and tiles of another kind."""

    def __init__(self, path: Path, rest: OpenSlideSource, levels: dict[int, Level]) -> None:
        self.name = "jpeg tiles"
        self.sizes, self.downsamples = rest.sizes, rest.downsamples
        self.levels, self._rest = levels, rest
        self.decoded = DecodedTiles(rest.cache_bytes)
        self._file = os.open(path, os.O_RDONLY)

    def region(
        self, level: int, left: int, top: int, width: int, height: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        """uint8 [height, width, 3] at (left, top) in pixels of the level; white outside. Raises Undecodable."""
        stored = self.levels.get(level)
        if stored is None:
            return self._rest.region(level, left, top, width, height, out)
        out = np.empty((height, width, 3), np.uint8) if out is None else out
        try:
            self._fill(level, stored, left, top, out)
        except _UNDECODABLE:  # OpenSlide has the last word on what is damage
            return self._rest.region(level, left, top, width, height, out)
        return out

    def close(self) -> None:
        """Give the file back."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
        self._rest.close()

    def _fill(self, number: int, level: Level, left: int, top: int, out: np.ndarray) -> None:
        height, width = out.shape[:2]
        right, bottom = min(left + width, level.width), min(top + height, level.height)
        if left < 0 or top < 0 or right < left + width or bottom < top + height:
            out[...] = 255
        if right <= max(left, 0) or bottom <= max(top, 0):
            return
        whole = (width, height) == (level.tile_w, level.tile_h) and out.flags.c_contiguous
        for row in range(max(top, 0) // level.tile_h, (bottom - 1) // level.tile_h + 1):
            for column in range(max(left, 0) // level.tile_w, (right - 1) // level.tile_w + 1):
                index, x, y = row * level.across + column, column * level.tile_w, row * level.tile_h
                tile = self.decoded.peek((number, index))
                if whole and tile is None and (x, y) == (left, top) == (right - width, bottom - height):
                    self._decode(level, index, out)  # exactly one tile: nobody else will want it
                    return
                if tile is None:
                    tile = self.decoded.get((number, index), lambda index=index: self._decode(level, index))  # type: ignore[misc]
                # What lies beyond the level in its last tiles is padding, not slide.
                paste(out, (left, top), tile[: level.height - y, : level.width - x], (x, y), fill=False)

    def _decode(self, level: Level, index: int, out: np.ndarray | None = None) -> np.ndarray:
        data = os.pread(self._file, level.counts[index], level.offsets[index])
        out = np.empty((level.tile_h, level.tile_w, 3), np.uint8) if out is None else out
        imagecodecs.jpeg8_decode(data, tables=level.tables, colorspace=level.colour, outcolorspace="rgb", out=out)
        return out


def fast_source(path: Path, rest: OpenSlideSource) -> JpegSource | None:
    """The fast source of a slide; None where its layout forbids it or a sample is not what OpenSlide shows."""
    if rest.properties.get("openslide.vendor") not in VENDORS or not hasattr(os, "pread"):
        return None
    try:
        with tifffile.TiffFile(path) as tiff:
            levels = {number: _level(tiff, size) for number, size in enumerate(rest.sizes)}
        source = JpegSource(path, rest, {number: level for number, level in levels.items() if level is not None})
    except NO_TIFF:
        return None
    if 0 in source.levels and _as_openslide(source, path):
        return source
    os.close(source._file)
    return None


def _level(tiff: tifffile.TiffFile, size: tuple[int, int]) -> Level | None:
    """The stored level of this size, where all of its tiles are there and are 8-bit colour JPEG."""
    pages = [page.aspage() for page in tiff.pages]
    found = [page for page in pages if page.is_tiled and (page.imagewidth, page.imagelength) == size]
    if len(found) != 1:
        return None
    page = found[0]
    plain = (
        page.compression == tifffile.COMPRESSION.JPEG and page.photometric in COLOUR and page.samplesperpixel == 3
        and page.bitspersample == 8 and page.planarconfig == tifffile.PLANARCONFIG.CONTIG and page.imagedepth == 1
    )  # fmt: skip
    across, down = -(-size[0] // page.tilewidth), -(-size[1] // page.tilelength)
    there = len(page.dataoffsets) == len(page.databytecounts) == across * down and all(page.databytecounts)
    if not (plain and there and all(page.dataoffsets) and page.tilewidth * page.tilelength * 3 <= MOST_TILE_BYTES):
        return None
    return Level(
        *size, page.tilewidth, page.tilelength, across, tuple(page.dataoffsets), tuple(page.databytecounts),
        page.jpegtables, COLOUR[tifffile.PHOTOMETRIC(page.photometric)],
    )  # fmt: skip


def _as_openslide(source: JpegSource, path: Path) -> bool:
    """True where samples of every fast level are equal to OpenSlide's, bit by bit; a few milliseconds a slide.

    The tile with most bytes holds most to get wrong; the last one is cut by the edge; a corner of four shows stitching.
    Levels whose downsample is no whole number are compared at their origin, where OpenSlide does not interpolate.
    """
    other = OpenSlideSource(path)  # of its own: an error here must not spoil the handle that is kept
    try:
        for number, level in source.levels.items():
            w, h = level.tile_w, level.tile_h
            places = [(0, 0)]
            if float(source.downsamples[number]).is_integer():
                dense, last = int(np.argmax(level.counts)), len(level.counts) - 1
                places = [(index % level.across * w, index // level.across * h) for index in (dense, last)]
                places.append((max(0, places[0][0] - w // 2), max(0, places[0][1] - h // 2)))
            for left, top in places:
                ours = source.region(number, left, top, w, h)
                if not np.array_equal(ours, other.region(number, left, top, w, h)):
                    return False
    except Undecodable:
        return False
    finally:
        other.close()
    return True
