"""Digests that tell derived files apart: a change of settings, weights or code never meets old files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from nsclc_mtl.records import UsageFault

# Options of the `slides` group that do not change a tile.
NO_GEOMETRY = ("dir", "workers", "readers", "pictures", "stage", "stage_ahead")


def config_hash(config: Mapping[str, Any]) -> str:
    """Hex digest of a plain mapping: the same for the same values in any order.

    >>> config_hash({"a": 1, "b": [2]}) == config_hash({"b": [2], "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


def code_digest(*places: str) -> str:
    """Hex digest of the source files below these places of the package: other code, other features.

    Places are relative to the package (`slides`, `slides/tissue.py`); text is compared with line ends made equal.
    """
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for place in places:
        found = root / place
        for file in sorted(found.rglob("*.py")) if found.is_dir() else [found]:
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


# What decides where tiles lie; stain and pictures do not.
TILING_CODE = ("slides/reader", "slides/tissue", "slides/tiling.py", "slides/geojson.py", "slides/roi.py")


def tiling_key(slides_cfg: Mapping[str, Any]) -> str:
    """`<tile_um>um-<key8>`: folder of the tiles that the `slides` group gives; where slides lie does not count."""
    code = code_digest(*TILING_CODE)
    return f"{slides_cfg['tile_um']:g}um-{config_hash({'tiling': geometry(slides_cfg), 'code': code})[:8]}"


def geometry(slides_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the `slides` group that decide where tiles lie; of the segmenter's weights their content.

    Raises UsageFault where the weights do not exist.
    """
    settings = {key: value for key, value in slides_cfg.items() if key not in NO_GEOMETRY}
    if weights := (settings.get("segmenter") or {}).get("weights"):
        settings["segmenter"] = {**settings["segmenter"], "weights": _weights_hash(Path(weights))}
    return settings


def _weights_hash(path: Path) -> str:
    try:
        return "sha256:" + file_hash(path)
    except OSError as error:
        raise UsageFault(f"no segmenter weights at '{path}': set segmenter.weights to a local file") from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file that exists, read once a process."""
    path = Path(path).resolve()
    found = path.stat()
    return _file_hash(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=32)
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
