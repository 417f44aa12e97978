"""Scans in the browser: the volume, its lesion and the maps over it as NIfTI, whatever they were stored as."""

from __future__ import annotations

import gzip
import threading
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import SimpleITK as sitk
from fastapi import APIRouter, Response

from nsclc_mtl.records import DataFault
from nsclc_mtl.scans import files, masks
from nsclc_mtl.scans.grid import affine_of
from nsclc_mtl.scans.volume import canonical_modality
from nsclc_mtl.viewer.board import Board, ScanFile
from nsclc_mtl.viewer.slides import Cache

if TYPE_CHECKING:
    from nsclc_mtl.viewer.app import Limits

LARGEST = 512 * 2**20  # bytes of voxels that a browser is asked to show
UNITS = {"CT": "HU", "PT": "SUV or stored units", "MR": "arbitrary units"}
# Lower and upper grey of the windows that readers ask for, in HU.
WINDOWS = {
    "CT": {"lung": (-1350, 150), "mediastinum": (-160, 240), "bone": (-450, 1050), "abdomen": (-135, 215)},
    "PT": {"SUV 0-10": (0, 10), "SUV 0-5": (0, 5)},
    "MR": {},
}


def routes(board: Board, limits: Limits) -> APIRouter:
    """`/api/scans/{n}` and what lies below it."""
    router = APIRouter(prefix="/api/scans/{n}")
    cache = Cache(limits.cache_mb * 1_000_000 // 2)
    one_at_a_time = threading.Lock()  # a volume takes memory while it is packed

    def found(n: int) -> ScanFile:
        if not 0 <= n < len(board.scans):
            raise DataFault(f"no scan {n} is shown here")
        return board.scans[n]

    def nifti(key: Any, make: Any) -> Response:
        def alone() -> bytes:
            with one_at_a_time:
                return packed(*make())

        return Response(cache.get(key, alone), media_type="application/gzip")

    @router.get("")
    def info(n: int) -> dict[str, Any]:
        scan = found(n)
        kind = canonical_modality(scan.modality)
        image = read(scan)
        size, spacing = image.GetSize(), image.GetSpacing()
        values = sitk.GetArrayViewFromImage(image)
        low, high = (float(v) for v in np.percentile(values[:: max(1, size[2] // 32)], [1, 99]))
        return {
            "id": scan.scan_id, "patient": scan.patient_id, "modality": kind, "unit": UNITS.get(kind, ""),
            "shape": list(size), "spacing_mm": [round(float(s), 4) for s in spacing],
            "windows": [{"name": name, "low": a, "high": b} for name, (a, b) in WINDOWS.get(kind, {}).items()]
            + [{"name": "whole range", "low": low, "high": high}],
            "mask": scan.mask is not None, "lesion_mm": lesion(scan, image),
            "maps": [{"method": method, "task": task} for method, task in scan.maps],
        }  # fmt: skip

    @router.get("/image.nii.gz")
    def image(n: int) -> Response:
        scan = found(n)
        return nifti((n, "image"), lambda: _voxels(read(scan)))

    @router.get("/mask.nii.gz")
    def mask(n: int) -> Response:
        scan = found(n)
        return nifti((n, "mask"), lambda: _voxels(drawn(scan, read(scan))))

    @router.get("/maps/{method}/{task}.nii.gz")
    def cam(n: int, method: str, task: str) -> Response:
        path = found(n).maps.get((method, task))
        if path is None:
            raise DataFault("no such map was made of this scan")
        return Response(cache.get((n, method, task), path.read_bytes), media_type="application/gzip")

    return router


def read(scan: ScanFile) -> sitk.Image:
    """The volume as it is stored. Raises ItemFault where it cannot be read."""
    return files.read(scan.image, LARGEST, scan.modality)[0]


def drawn(scan: ScanFile, image: sitk.Image) -> sitk.Image:
    """The lesion on the grid of its scan, the largest of several. Raises ItemFault where it does not fit."""
    if scan.mask is None:
        raise DataFault("nobody outlined the lesion of this scan")
    return masks.read(scan.mask, image, scan.image, label="largest")[0]


def lesion(scan: ScanFile, image: sitk.Image) -> list[float] | None:
    """Centre of the lesion in mm (RAS+), where the viewer looks first; None without an outline."""
    if scan.mask is None:
        return None
    inside = np.argwhere(sitk.GetArrayViewFromImage(drawn(scan, image)) > 0)
    if not len(inside):
        return None
    z, y, x = inside.mean(axis=0)
    return [round(float(v), 2) for v in (affine_of(image) @ [x, y, z, 1.0])[:3]]


def packed(voxels: np.ndarray, affine: np.ndarray) -> bytes:
    """A gzipped NIfTI of voxels [x, y, z]; packed fast, since it goes no further than this machine."""
    return gzip.compress(nibabel.Nifti1Image(voxels, affine).to_bytes(), compresslevel=1)


def _voxels(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    values = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    if values.dtype in (np.float64, np.int64, np.uint64, np.int32, np.uint32):
        values = values.astype(np.float32)
    return values, affine_of(image)
