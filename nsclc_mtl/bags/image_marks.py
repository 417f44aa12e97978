"""Marks of slides and scans, by which a patient is known again, and the digests that all marks are."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nsclc_mtl.bags.cache import BagCache, read_volume
from nsclc_mtl.features import layouts
from nsclc_mtl.records import Manifest

TILES = 8  # of a slide that are looked at, the first in canonical order
DISTINCT = 16  # different numbers that tiles must show, and hundredfold a volume's voxels


def images(manifest: Manifest, ids: Sequence[str]) -> dict[str, list[str]]:
    """Patient -> marks of his slides, sections and crops of scans."""
    out: dict[str, list[str]] = {}
    wanted = set(ids)
    for bags in manifest.bags.values():
        for patient, paths in bags.items():
            if patient in wanted:
                out.setdefault(patient, []).extend(mark for path in paths for mark in _slide(Path(path)))
    for volumes in manifest.volumes.values():
        for patient, path in volumes.items():
            voxels = read_volume(path) if patient in wanted else np.zeros(0)
            if len(np.unique(voxels)) >= 100 * DISTINCT:
                out.setdefault(patient, []).append(digest("volume", str(voxels.shape), voxels))
    return out


def _slide(path: Path) -> list[str]:
    """Marks of a slide: what its features were made of, where the file says it, and its first tiles."""
    marks = []
    if path.suffix.lower() in layouts.HDF5:
        with layouts.opened(path) as file:
            origin = layouts.attributes(file).get("slide_hash")
        marks += [digest("slide", str(origin))] if origin else []
    tiles, _ = BagCache(0)([str(path)], draw=lambda n: np.arange(min(n, TILES)))
    if len(np.unique(tiles)) >= DISTINCT:
        marks.append(digest("tiles", str(tiles.shape), tiles))
    return marks


def digest(*parts: str | np.ndarray) -> str:
    """80 bits, hexadecimal: two that are equal by chance are not to be expected."""
    made = hashlib.sha256()
    for part in parts:
        made.update(
            b"\x1d" + (composed(part).encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
        )
    return made.hexdigest()[:20]


def composed(text: str) -> str:
    """Letters with their accents as one sign, however the file was written."""
    return unicodedata.normalize("NFC", text)
