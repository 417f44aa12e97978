"""Where pixels come from: OpenSlide, or a plain picture that somebody gave a scale. `jpeg.py` holds the fast one."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Protocol

import numpy as np
import openslide
from PIL import Image, UnidentifiedImageError

from nsclc_mtl.records import ItemFault

CACHE_BYTES = 128 << 20  # decoded tiles kept a slide: two rows of 256-px tiles over 80,000 px
WHITE = 255


class Undecodable(Exception):
    """Pixels that the file should hold and nobody can decode."""


class Source(Protocol):
    """Pixels of the levels of one slide. Any thread may ask."""

    name: str  # how they are read, for the record
    sizes: tuple[tuple[int, int], ...]  # width, height a level
    downsamples: tuple[float, ...]

    def region(self, level: int, left: int, top: int, width: int, height: int, out: np.ndarray | None) -> np.ndarray:
        """uint8 [height, width, 3] at (left, top) in pixels of the level; white outside. Raises Undecodable.

        Lies in `out` where that is given and of this shape.
        """

    def close(self) -> None:
        """Give the files back."""


class OpenSlideSource:
    """Any format that OpenSlide opens; every thread has a handle of its own, and all share one bounded cache.

    An error spoils a handle for good (good tiles and even properties raise afterwards), so it is thrown away with it.
    """

    def __init__(self, path: Path, cache_bytes: int = CACHE_BYTES) -> None:
        self.path, self.name, self.cache_bytes = path, "openslide", cache_bytes
        self._cache = openslide.OpenSlideCache(cache_bytes)
        self._own, self._lock = threading.local(), threading.Lock()
        self._handles: list[openslide.OpenSlide] = []
        first = self._handle()
        self.properties: dict[str, str] = dict(first.properties)
        self.sizes: tuple[tuple[int, int], ...] = tuple(first.level_dimensions)
        self.downsamples: tuple[float, ...] = tuple(first.level_downsamples)

    def region(
        self, level: int, left: int, top: int, width: int, height: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        """uint8 [height, width, 3] at (left, top) in pixels of the level; white outside. Raises Undecodable."""
        scale = self.downsamples[level]
        try:
            found = self._handle().read_region((round(left * scale), round(top * scale)), level, (width, height))
        except openslide.OpenSlideError as error:
            self._throw_away()
            raise Undecodable(str(error)) from error
        pixels = np.asarray(found)
        if not (pixels[..., 3] == 255).all():  # glass that was not scanned
            glass = Image.new("RGB", found.size, (WHITE, WHITE, WHITE))
            glass.paste(found, mask=found.getchannel("A"))
            pixels = np.asarray(glass)
        out = np.empty((height, width, 3), np.uint8) if out is None else out
        out[...] = pixels[..., :3]
        return out

    def close(self) -> None:
        """Close the handles of all threads."""
        with self._lock:
            for handle in self._handles:
                handle.close()
            self._handles.clear()
        self._own = threading.local()

    def _handle(self) -> openslide.OpenSlide:
        if not hasattr(self._own, "handle"):
            handle = openslide.OpenSlide(self.path)
            handle.set_cache(self._cache)
            with self._lock:
                self._handles.append(handle)
            self._own.handle = handle
        return self._own.handle

    def _throw_away(self) -> None:
        if hasattr(self._own, "handle"):
            with self._lock:
                self._handles.remove(self._own.handle)
            self._own.handle.close()
            del self._own.handle


class PictureSource:
    """A plain PNG, JPEG or flat TIFF, whole in memory: small enough by Pillow's limit against decompression bombs."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.name, self.pixels = "picture", pixels
        self.sizes: tuple[tuple[int, int], ...] = ((pixels.shape[1], pixels.shape[0]),)
        self.downsamples: tuple[float, ...] = (1.0,)

    def region(
        self, level: int, left: int, top: int, width: int, height: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        """uint8 [height, width, 3] at (left, top); white outside."""
        out = np.empty((height, width, 3), np.uint8) if out is None else out
        paste(out, (left, top), self.pixels, (0, 0))
        return out

    def close(self) -> None:
        """Let the pixels go."""
        self.pixels = np.full((1, 1, 3), WHITE, np.uint8)


def paste(out: np.ndarray, at: tuple[int, int], piece: np.ndarray, place: tuple[int, int], fill: bool = True) -> None:
    """Copy what `piece`, its corner at `place` (x, y), shows of the window `out` at `at`; `fill`: the rest white."""
    left, top = max(at[0], place[0]), max(at[1], place[1])
    right = min(at[0] + out.shape[1], place[0] + piece.shape[1])
    bottom = min(at[1] + out.shape[0], place[1] + piece.shape[0])
    if fill and ((right - left, bottom - top) != (out.shape[1], out.shape[0])):
        out[...] = WHITE
    if left < right and top < bottom:
        out[top - at[1] : bottom - at[1], left - at[0] : right - at[0]] = piece[
            top - place[1] : bottom - place[1], left - place[0] : right - place[0]
        ]


def plain_picture(path: Path) -> PictureSource | None:
    """The picture, or None where the file is none: also labels, macros and thumbnails that a scanner stored.

    Raises ItemFault `too_large` or `corrupt`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as file:
                says = str(getattr(file, "tag_v2", {}).get(270, "")).lower()
                whole = int(getattr(file, "tag_v2", {}).get(254, 0)) & 1 == 0  # the other bit: a smaller copy
                if not whole or any(word in says for word in ("aperio", "label", "macro", "thumbnail")):
                    return None
                if file.mode not in {"RGB", "RGBA", "P", "L", "CMYK", "YCbCr"}:
                    raise ItemFault("unsupported", f"picture '{path.name}' is no 8-bit colour image; export it as such")
                colour = file.convert("RGBA")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        sentence = f"picture '{path.name}' has over {Image.MAX_IMAGE_PIXELS:,} pixels; convert it to tiled TIFF"
        raise ItemFault("too_large", sentence) from None
    except UnidentifiedImageError:
        return None
    except (OSError, SyntaxError, ValueError) as error:
        raise ItemFault("corrupt", f"picture '{path.name}' cannot be decoded ({error}); copy it again") from error
    glass = Image.new("RGBA", colour.size, (WHITE, WHITE, WHITE, 255))
    return PictureSource(np.asarray(Image.alpha_composite(glass, colour).convert("RGB")))
