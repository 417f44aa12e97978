"""What a row of scans.csv asks to be read: its image, the file of its mask, the region in it, and what they depend on.

Columns beside image and mask, all optional: `mask_<name>` (several masks a scan, one of which `scans.roi` names), `roi`
(the region's name in this row's file), `drawn_on` (scan_id of the sequence on which the mask was drawn), `x_mm`,
`y_mm`, `z_mm` (the point of a box, RAS).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from nsclc_mtl.records import ItemFault
from nsclc_mtl.scans import files, regions, volume

ORIGIN = "roi_origin"
"""The column that says how a lesion came to be: drawn, or one of the ways of `scans.no_mask`."""


@dataclass
class Source:
    """The files of a scan and the arguments with which `volume.load` reads them."""

    image: Path
    mask: Path | None
    options: dict[str, Any] = field(default_factory=dict)
    beside: tuple[Path, ...] = ()  # further files that change what is read

    def digest(self) -> str:
        """SHA-256 that changes with the content of every file that is read; "absent" files count too."""
        given = [self.image, *([self.mask] if self.mask else []), *self.beside]
        return hashlib.sha256("".join(content(path) for path in given).encode()).hexdigest()


def skipped(row: Mapping[str, Any], cfg: Mapping[str, Any]) -> str:
    """Why a row is not for these options: `other_modality`, `no_mask`, or empty where it is."""
    if not of_modality(row, cfg):
        return "other_modality"
    if not mask_of(row, cfg)[0] and cfg.get("no_mask", "skip") == "skip":
        return "no_mask"
    return ""


def of_modality(row: Mapping[str, Any], cfg: Mapping[str, Any]) -> bool:
    """Whether the row holds the modality that is wished; a sequence (T1) takes rows of its own name and plain MR."""
    wish = str(cfg.get("modality") or "").strip().upper()
    have = str(row["modality"]).strip().upper()
    kind = volume.canonical_modality(have)
    if not wish:
        return True
    if kind != volume.canonical_modality(wish):
        return False
    general = {"CT", "MR", "MRI", "PT", "PET"}
    return wish in general or have in general or have == wish


def mask_of(row: Mapping[str, Any], cfg: Mapping[str, Any]) -> tuple[str, Any]:
    """The path in the row of the mask, and the region to take of it: a column `mask_<roi>` holds that region alone."""
    roi = text(row.get("roi")) or cfg.get("roi")
    if isinstance(roi, str) and f"mask_{roi}" in row:
        return text(row[f"mask_{roi}"]), None
    return text(row.get("mask")), roi


def linked(rows: Iterable[dict[str, Any]]) -> None:
    """Puts beside each row that names another one (`drawn_on`) that row's image, and its masks where it has none."""
    rows = list(rows)
    known = {str(row["scan_id"]): row for row in rows}
    for row in rows:
        other = known.get(text(row.get("drawn_on")))
        if other is None:
            continue
        row["drawn_on_image"] = other["image"]
        row.update({k: v for k, v in other.items() if (k == "mask" or k.startswith("mask_")) and not text(row.get(k))})


def of(row: Mapping[str, Any], root: Path, cfg: Mapping[str, Any]) -> Source:
    """What to read for a row. Raises `ItemFault`: absent, no_point."""
    if not text(row.get("image")):
        raise ItemFault("absent", "the column image is empty in scans.csv")
    image = root / text(row["image"])
    options = volume.options(cfg)
    named, options["roi"] = mask_of(row, cfg)
    if not named:
        without = dict(options["without_mask"] or {})
        beside: list[Path] = []
        if without.get("how") == "box":
            without["point_mm"] = regions.point_of(row)
        elif without.get("how") == "bundle":
            beside = [Path(str(without[name])) for name in ("weights", "bundle") if without.get(name)]
        options["without_mask"] = without
        return Source(image, None, options, tuple(beside))
    other = text(row.get("drawn_on"))
    if not other or other == text(row.get("scan_id")):
        return Source(image, root / named, options)
    if not text(row.get("drawn_on_image")):
        raise ItemFault("absent", f"drawn_on={other} is no scan_id of scans.csv; correct it")
    options["drawn_on"] = root / text(row["drawn_on_image"])
    return Source(image, root / named, options, (options["drawn_on"],))


def origin(row: Mapping[str, Any], cfg: Mapping[str, Any]) -> str:
    """How the lesion of a row comes to be: drawn, box, lung or bundle."""
    return "drawn" if mask_of(row, cfg)[0] else str(cfg.get("no_mask", "skip"))


def check(cfg: Mapping[str, Any]) -> None:
    """Stops a job before its first scan where an option has no meaning (`UsageFault`)."""
    without = volume.options(cfg)["without_mask"]
    if without:
        regions.check(without)


def content(path: Path) -> str:
    """SHA-256 of a file and of the voxels that it refers to, or of all files in a folder; "absent" where it is not."""
    if not path.exists():
        return "absent"
    if path.is_dir():
        given = sorted(p for p in path.rglob("*") if p.is_file())
    else:
        given = [path, *(p for p in files.detached(path) if p.is_file())]
    digest = hashlib.sha256()
    for file in given:
        digest.update(_sha256(file, file.stat().st_mtime_ns, file.stat().st_size))
    return digest.hexdigest()


def text(value: object) -> str:
    """What a cell says, without spaces around it; empty for None and NaN."""
    return "" if value is None or value != value else str(value).strip()


@lru_cache(maxsize=64)
def _sha256(file: Path, changed_ns: int, size: int) -> bytes:
    # weights and images that several rows share are hashed once; time and size tell whether a file is still the same
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
