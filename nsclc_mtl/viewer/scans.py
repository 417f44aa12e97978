"""Scans in the browser: the volume, its lesion and the maps over it as NIfTI, whatever they were stored as."""

from __future__ import annotations

import gzip
import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import SimpleITK as sitk
from fastapi import APIRouter, Response

from nsclc_mtl.records import DataFault
from nsclc_mtl.scans import files, masks
from nsclc_mtl.scans.grid import affine_of
from nsclc_mtl.scans.picture import middle_of
from nsclc_mtl.scans.volume import canonical_modality
from nsclc_mtl.viewer.board import Board, ScanFile
from nsclc_mtl.viewer.slides import Cache

if TYPE_CHECKING:
    from nsclc_mtl.viewer.app import Limits

MOST_BYTES = 2**30  # read of one scan, counted as float32: 512 x 512 x 1,024 voxels
MOST_VOXELS = 96 * 2**20  # shown at once, 512 x 512 x 384: a browser holds four bytes of each on its graphics card
MOST_MAP = 64 * 2**20  # bytes of a map's file
SAMPLE = 200_000  # voxels that percentiles are read from
# Lower and upper grey of the windows that readers ask for, in HU (width 1500 at -600, 400 at 40, 1500 at 300, 350 at
# 40) and in SUV.
WINDOWS = {
    "CT": {"lung": (-1350, 150), "mediastinum": (-160, 240), "bone": (-450, 1050), "abdomen": (-135, 215)},
    "PT": {"SUV 0-5": (0, 5), "SUV 0-10": (0, 10)},
    "MR": {},
}
UNITS = {"CT": "HU", "PT": "SUV", "MR": ""}
HIGHEST_SUV = 100  # a PET whose 99.9th percentile is above holds counts or Bq/ml


def routes(board: Board, limits: Limits) -> APIRouter:
    """`/api/scans/{n}` and what lies below it."""
    router = APIRouter(prefix="/api/scans/{n}")
    cache, views = Cache(limits.cache_mb * 1_000_000 // 2), Views(board.scans, limits.scan_mb * 1_000_000)

    @router.get("")
    def info(n: int) -> dict[str, Any]:
        return views.info(n)

    @router.get("/image.nii.gz")
    def image(n: int) -> Response:
        return _gzipped(cache.get((n, "image"), lambda: views.packed(n)))

    @router.get("/mask.nii.gz")
    def mask(n: int) -> Response:
        return _gzipped(cache.get((n, "mask"), lambda: views.packed_lesion(n)))

    @router.get("/maps/{method}/{task}.nii.gz")
    def cam(n: int, method: str, task: str) -> Response:
        return _gzipped(cache.get((n, method, task), lambda: _file(views.file(n), (method, task))))

    @router.get("/maps/{method}/{task}.png")
    def picture(n: int, method: str, task: str) -> Response:
        return Response(_file(views.file(n), (method, task), ".png"), media_type="image/png")

    return router


@dataclass(frozen=True)
class View:
    """One scan as it is shown: its voxels, the lesion on the same grid or why there is none, and notes on both."""

    image: sitk.Image
    lesion: sitk.Image | None = None
    fault: str | None = None  # why an outline that somebody drew is not shown
    coarser: Sequence[int] = (1, 1, 1)  # voxels of the file along x, y, z that are one voxel here
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return int(self.image.GetNumberOfPixels() * (self.image.GetSizeOfPixelComponent() + (self.lesion is not None)))


class Views:
    """Scans as they are shown. One is read at a time; the last one is kept where it takes at most `most` bytes, since
    a page asks for what is known of it, its voxels and its lesion one after the other."""

    def __init__(self, scans: Sequence[ScanFile], most: int) -> None:
        self.scans, self.most = scans, most
        self._known: dict[int, dict[str, Any]] = {}
        self._last: tuple[int, View] | None = None
        self._lock = threading.Lock()

    def file(self, n: int) -> ScanFile:
        """The scan of this number. Raises DataFault where there is none."""
        if not 0 <= n < len(self.scans):
            raise DataFault(f"no scan {n} is shown here")
        return self.scans[n]

    def info(self, n: int) -> dict[str, Any]:
        """What a page needs before the voxels; read once."""
        scan = self.file(n)
        if n not in self._known:
            with self._reading(n) as view:
                self._known[n] = facts(scan, view)
        return self._known[n]

    def packed(self, n: int) -> bytes:
        """The voxels as gzipped NIfTI."""
        with self._reading(n) as view:
            return packed(*voxels(view.image))

    def packed_lesion(self, n: int) -> bytes:
        """The lesion as gzipped NIfTI on the grid of its scan. Raises DataFault where there is none."""
        with self._reading(n) as view:
            if view.lesion is None:
                raise DataFault(view.fault or "nobody outlined the lesion of this scan")
            return packed(*voxels(view.lesion))

    @contextmanager
    def _reading(self, n: int) -> Iterator[View]:
        scan = self.file(n)
        with self._lock:
            if self._last is None or self._last[0] != n:
                self._last = None  # two volumes at a time are one too many
                with without_paths(scan):
                    self._last = (n, read(scan))
            view = self._last[1]
            if view.size > self.most:
                self._last = None
            yield view


def read(scan: ScanFile) -> View:
    """The volume and its lesion, both coarser where a browser could not hold them. Raises DataFault where the volume
    cannot be read; a mask that cannot be read leaves its reason in `fault`."""
    if not scan.image.exists():
        raise DataFault("the file of this scan is not there any more; put it back or correct scans.csv")
    image, notes = files.read(scan.image, MOST_BYTES, scan.modality)
    lesion, fault = None, None
    if scan.mask is not None:
        try:
            with without_paths(scan):
                lesion, said = masks.read(scan.mask, image, scan.image, label="largest", on_mismatch="resample")
            notes = [*notes, *said]
        except DataFault as why:
            fault = str(why)
    steps = coarser(image.GetSize(), image.GetSpacing(), MOST_VOXELS)
    if max(steps) > 1:
        image = sitk.BinShrink(image, steps)
        if lesion is not None:
            lesion = sitk.Resample(lesion, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
        notes = [*notes, f"shown coarser: {' x '.join(map(str, steps))} voxels of the file are one here"]
    return View(image, lesion, fault, steps, notes)


def coarser(size: Sequence[int], spacing: Sequence[float], most: int) -> list[int]:
    """Voxels along each axis that are joined, the finest axis first, until at most `most` are left.

    >>> coarser((512, 512, 600), (0.7, 0.7, 1.0), 96 * 2**20)
    [2, 1, 1]
    """
    steps = [1, 1, 1]
    while np.prod([n // s for n, s in zip(size, steps, strict=True)]) > most:
        finest = int(
            np.argmin([mm * s if n // s > 1 else np.inf for n, mm, s in zip(size, spacing, steps, strict=True)])
        )
        steps[finest] += 1
    return steps


def facts(scan: ScanFile, view: View) -> dict[str, Any]:
    """What `/api/scans/{n}` answers."""
    kind = canonical_modality(scan.modality)
    size, spacing = view.image.GetSize(), view.image.GetSpacing()
    seen = sampled(sitk.GetArrayViewFromImage(view.image))
    low, high, highest = (float(v) for v in np.percentile(seen, [1, 99, 99.9]))
    presets, unit, notes = WINDOWS[kind], UNITS[kind], list(view.notes)
    if kind == "CT" and float(seen.min()) >= 0:
        presets, unit = {}, ""
        notes.append("no value is below zero, so these are not Hounsfield units: windows of CT would mislead")
    if kind == "PT" and highest > HIGHEST_SUV:
        presets, unit = {}, ""
        notes.append("values are too high for SUV: shown in stored units")
    high = high if high > low else low + 1.0
    start = "whole range"
    if presets:
        start = next(iter(presets)) if kind != "CT" or in_lung(view, seen) else "mediastinum"
    return {
        "id": scan.scan_id, "patient": scan.patient_id, "modality": kind, "unit": unit,
        "shape": list(size), "spacing_mm": [round(float(s), 4) for s in spacing],
        "coarser": list(view.coarser) if max(view.coarser) > 1 else None,
        "windows": [{"name": name, "low": float(a), "high": float(b)} for name, (a, b) in presets.items()]
        + [{"name": "whole range", "low": low, "high": high}],
        "window": start, "dark_on_white": kind == "PT",
        "mask": view.lesion is not None, "mask_fault": view.fault, "notes": notes, **_where(view.lesion),
        "maps": [
            {"method": method, "task": task, "picture": _beside(path, ".png").is_file()}
            for (method, task), path in scan.maps.items()
        ],
    }  # fmt: skip


def in_lung(view: View, seen: np.ndarray) -> bool:
    """Whether lung lies around the lesion of a CT, within 15 mm of its box; without a lesion, anywhere in `seen`."""
    around = seen
    if view.lesion is not None:
        mask, values = (sitk.GetArrayViewFromImage(one) for one in (view.lesion, view.image))
        where = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        wide = [int(np.ceil(15 / mm)) for mm in view.image.GetSpacing()[::-1]]
        box = tuple(slice(max(0, w[0] - m), w[-1] + m + 1) for w, m in zip(where, wide, strict=True) if w.size)
        around = values[box][mask[box] == 0]
    return around.size > 0 and float(np.mean((around > -950) & (around < -500))) > 0.15


def sampled(values: np.ndarray) -> np.ndarray:
    """About SAMPLE finite voxels at even steps through a volume; zeros where none is finite."""
    flat = values.reshape(-1)
    # an odd step that is no multiple of a row's length walks through all columns
    step = max(1, flat.size // SAMPLE) | 1
    seen = np.asarray(flat[::step], np.float64)
    seen = seen[np.isfinite(seen)]
    return seen if seen.size else np.zeros(1)


def _where(lesion: sitk.Image | None) -> dict[str, Any]:
    """A voxel near the middle of the lesion in mm (RAS+), where the viewer looks first, and its volume in ml."""
    mask = None if lesion is None else sitk.GetArrayViewFromImage(lesion)
    if lesion is None or mask is None or not mask.any():
        return {"lesion_mm": None, "lesion_ml": None}
    z, y, x = middle_of(mask)
    centre = (affine_of(lesion) @ [x, y, z, 1.0])[:3]
    ml = float(np.count_nonzero(mask) * np.prod(lesion.GetSpacing()) / 1000)
    return {"lesion_mm": [round(float(v), 2) for v in centre], "lesion_ml": round(ml, 2)}


def packed(values: np.ndarray, affine: np.ndarray) -> bytes:
    """A gzipped NIfTI of voxels [x, y, z] with nothing else of the file; packed fast, since it does not go far."""
    made = nibabel.Nifti1Image(values, affine)
    made.set_qform(affine, code=1)
    made.set_sform(affine, code=1)
    made.header.set_xyzt_units("mm")
    packet = io.BytesIO()
    with gzip.GzipFile(fileobj=packet, mode="wb", compresslevel=1, mtime=0) as stream:
        made.to_stream(stream)
    return packet.getvalue()


def voxels(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Voxels [x, y, z] in a type that browsers draw, and the affine that takes their indices to mm (RAS+)."""
    values = sitk.GetArrayViewFromImage(image).transpose(2, 1, 0)
    if values.dtype.kind in "iu" and values.dtype.itemsize > 2:
        short = values.min() >= -(2**15) and values.max() < 2**15
        values = values.astype(np.int16 if short else np.float32)
    elif values.dtype.kind == "f":
        values = values.astype(np.float32, copy=False)
    return values, affine_of(image)


@contextmanager
def without_paths(scan: ScanFile) -> Iterator[None]:
    """Faults in words that name files of the scan but never where they lie."""
    try:
        yield
    except OSError as wrong:
        raise DataFault(f"a file of this scan cannot be read ({wrong.strerror or 'it ended too early'})") from None
    except DataFault as fault:
        text = str(fault)
        for path in (scan.image, scan.mask):
            if path is not None:
                for one in (path, path.resolve()):
                    text = text.replace(str(one), path.name).replace(f"{one.parent}/", "")
        raise DataFault(text) from None


def _file(scan: ScanFile, key: tuple[str, str], suffix: str = ".nii.gz") -> bytes:
    """A map, or its picture, as `mtl predict` wrote it."""
    path = scan.maps.get(key)
    if path is None or not _beside(path, suffix).is_file():
        raise DataFault("no such map was made of this scan")
    if _beside(path, suffix).stat().st_size > MOST_MAP:
        raise DataFault("this map is too large to be shown")
    with without_paths(scan):
        return _beside(path, suffix).read_bytes()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name.removesuffix(".nii.gz") + suffix)


def _gzipped(content: bytes) -> Response:
    return Response(content, media_type="application/gzip")
