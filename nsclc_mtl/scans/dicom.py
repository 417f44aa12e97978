"""One DICOM series as an image: slices in the order of their positions, refused where the stack is no regular volume.

No patient name, date or identifier leaves this module, neither in the notes nor in a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nsclc_mtl.records import ItemFault
from nsclc_mtl.scans.grid import from_axes

NOT_IMAGES = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTRECORD", "SR", "PR", "KO", "REG", "DOC", "ANN", "AU"}
"""Modalities of objects that may lie beside a series and are no part of it."""

_SUFFIXES = (".dcm", ".dicom", ".ima")
_PER_SLICE = 0.1  # of the distance between slices: table jitter; a whole one is a hole that resampling would paint over
_TILT_PIXELS = 0.5  # how far the last slice may lie beside the normal of the first; more is a sheared stack
Slice = tuple[Path, Any]


def read_series(path: Path, max_bytes: int, modality: str | None = None) -> tuple[sitk.Image, list[str]]:
    """The one series in a folder (or one multi-frame file): float32, HU, SUV or arbitrary units, and notes.

    Slices are ordered by their position along the normal, whatever the files are called; rescale slope and intercept
    are applied slice by slice; PET becomes SUV by body weight (`pet.suv_factor`).

    Raises `ItemFault`: unsupported, outside_root, mixed_series, wrong_modality, not_hu, not_suv, gantry_tilt,
    missing_slices, too_large, corrupt.
    """
    slices = _only_series(path, headers(path))
    needed = 4 * sum(int(h.Rows) * int(h.Columns) * int(h.get("NumberOfFrames", 1) or 1) for _, h in slices)
    if needed > max_bytes:
        raise ItemFault("too_large", f"{path.name} takes {needed / 2**30:.1f} GiB as float32; raise scans.max_gib")
    if len(slices) == 1 and "PerFrameFunctionalGroupsSequence" in slices[0][1]:
        from nsclc_mtl.scans import multiframe

        _check_meaning(path, slices[0][1], modality, enhanced=True)
        return multiframe.read(slices[0][0], path.name)
    _check_meaning(path, slices[0][1], modality)
    slices, step, notes = _stack(path, slices)
    image = _decode(path, [str(file) for file, _ in slices], slices[0][1], step)
    if modality == "PT":
        from nsclc_mtl.scans import pet

        factor, how = pet.suv_factor([header for _, header in slices], path.name)
        image, notes = image * factor, [*notes, how]
    return image, [f"DICOM series of {len(slices)} slices, rescale applied", *notes]


def headers(path: Path) -> list[Slice]:
    """Files and headers (without pixels) of the images in a folder, or of one file; a DICOMDIR is followed.

    Raises `ItemFault` (`outside_root`) where a DICOMDIR refers to a file outside its folder, `corrupt` where a file
    that calls itself DICOM is none.
    """
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    found: list[Slice] = []
    for file in files:
        if file.name.upper() == "DICOMDIR":
            listed = _dicomdir(file)
            known = {p.resolve() for p in files}
            files.extend(p for p in listed if p.resolve() not in known)
            continue
        header = read_header(file)
        if header is not None and "Rows" in header and str(header.get("Modality", "")) not in NOT_IMAGES:
            found.append((file, header))
    return found


def read_header(file: Path) -> Any:
    """The header of a DICOM file without its pixels; None where the file is not DICOM and does not say that it is."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        return pydicom.dcmread(file, stop_before_pixels=True)
    except InvalidDicomError:
        if file.suffix.lower() in _SUFFIXES:
            raise ItemFault("corrupt", f"{file.name} is not a DICOM file; fetch it again") from None
        return None
    except Exception as error:  # pydicom raises many kinds; all of them mean a header we cannot trust
        kind = type(error).__name__
        raise ItemFault("corrupt", f"{file.name} has an unreadable DICOM header ({kind}); fetch it again") from None


def is_dicom(path: Path) -> bool:
    """Whether a path is for this module: a folder, a suffix that says so, or the word DICM behind the preamble."""
    if path.is_dir() or path.suffix.lower() in _SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def frame_of_reference(path: Path) -> str:
    """The frame of reference of the series at a path, never to be shown; empty where it has none or is not DICOM."""
    if not is_dicom(path):
        return ""
    found = headers(path)
    return str(found[0][1].get("FrameOfReferenceUID", "") or "") if found else ""


def _dicomdir(file: Path) -> list[Path]:
    """The image files that a DICOMDIR lists, all inside its folder."""
    header = read_header(file)
    root = file.parent.resolve()
    listed = []
    for record in (header.get("DirectoryRecordSequence") or []) if header is not None else []:
        parts = record.get("ReferencedFileID")
        if not parts:
            continue
        parts = [parts] if isinstance(parts, str) else list(parts)
        target = file.parent.joinpath(*map(str, parts))
        if not target.resolve().is_relative_to(root):
            raise ItemFault("outside_root", "the DICOMDIR refers to a file outside its own folder; it is not followed")
        if not target.is_file():
            raise ItemFault("missing_slices", f"the DICOMDIR lists {parts[-1]}, which is not there; copy it too")
        listed.append(target)
    return listed


def _only_series(path: Path, found: list[Slice]) -> list[Slice]:
    if not found:
        raise ItemFault("unsupported", f"{path.name} holds no DICOM image series")
    series = {str(header.get("SeriesInstanceUID", "")) for _, header in found}
    if len(series) > 1:
        raise ItemFault("mixed_series", f"{path.name} holds {len(series)} series; give each its own folder")
    return found


def _stack(path: Path, slices: list[Slice]) -> tuple[list[Slice], float, list[str]]:
    """The slices along the normal of their plane, the distance between them in mm, and notes; refuses anything else."""
    try:
        places = np.array([[float(v) for v in header.ImagePositionPatient] for _, header in slices])
        planes = np.array([[float(v) for v in header.ImageOrientationPatient] for _, header in slices])
        grids = np.array([[float(v) for v in header.PixelSpacing] for _, header in slices])
        sizes = {(int(header.Rows), int(header.Columns)) for _, header in slices}
    except (AttributeError, TypeError, ValueError) as error:
        kind = type(error).__name__
        raise ItemFault(
            "corrupt", f"{path.name} has slices without position, orientation or pixel spacing ({kind}); export them"
        ) from None
    if len(sizes) > 1 or np.ptp(planes, axis=0).max() > 1e-3 or np.ptp(grids, axis=0).max() > 1e-3 * grids.min():
        raise ItemFault(
            "mixed_series", f"the slices of {path.name} differ in size, spacing or orientation; take out the localizers"
        )
    if len(slices) < 2:
        raise ItemFault("missing_slices", f"{path.name} holds a single slice; a volume needs its neighbours")
    normal = np.cross(planes[0, :3], planes[0, 3:])
    along = places @ normal
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order])
    usual = float(np.median(steps))
    same = int((steps < 1e-3).sum())
    if same:
        raise ItemFault(
            "mixed_series",
            f"{same} slices of {path.name} lie where another one lies: several phases, echoes or copies in one series; "
            "split them into folders",
        )
    holes = int((np.abs(steps - usual) > _PER_SLICE * usual).sum())
    if holes:
        raise ItemFault(
            "missing_slices",
            f"{path.name}: {holes} of {len(steps)} distances between slices differ from {usual:.2f} mm; "
            "fetch the missing slices",
        )
    beside = places[order] - places[order[0]]
    beside = np.linalg.norm(beside - np.outer(beside @ normal, normal), axis=1)
    if beside.max() > _TILT_PIXELS * grids.min():
        angle = np.degrees(np.arctan2(beside[-1], along[order[-1]] - along[order[0]]))
        raise ItemFault(
            "gantry_tilt",
            f"the slices of {path.name} are stacked {angle:.1f} degrees off their normal (gantry tilt), so its voxels "
            "are no boxes; export it resampled onto an upright grid",
        )
    tilt = float(slices[0][1].get("GantryDetectorTilt", 0) or 0)
    notes = [f"gantry tilt of {tilt:g} degrees in the header, none in the positions"] if abs(tilt) > 0.1 else []
    return [slices[i] for i in order], float(along[order[-1]] - along[order[0]]) / len(steps), notes


def _decode(path: Path, files: Sequence[str], first: Any, step: float) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    reader.SetOutputPixelType(sitk.sitkFloat32)  # else the first slice's slope decides how the others are rounded
    try:
        voxels = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError:
        raise ItemFault("corrupt", f"{path.name} has slices that do not decode; fetch them again") from None
    if voxels.ndim != 3:
        raise ItemFault("not_3d", f"{path.name} holds colours or several values a voxel, not one 3-D scan")
    plane = [float(v) for v in first.ImageOrientationPatient]
    across, down = np.array(plane[:3]), np.array(plane[3:])
    row_mm, column_mm = (float(v) for v in first.PixelSpacing)  # between rows, between columns
    axes = np.column_stack([across * column_mm, down * row_mm, np.cross(across, down) * step])
    return from_axes(voxels, axes, [float(v) for v in first.ImagePositionPatient])


def _check_meaning(path: Path, header: Any, modality: str | None, enhanced: bool = False) -> None:
    """Refuses values whose unit is not the one that the modality promises."""
    told = str(header.get("Modality", ""))
    if modality and told and told != modality:
        raise ItemFault("wrong_modality", f"{path.name} holds a {told} series, scans.csv says {modality}")
    if enhanced:
        if modality == "PT":
            raise ItemFault("not_suv", f"{path.name} is multi-frame PET, which is not read; give a series or SUV NIfTI")
        return
    if modality == "CT" and "RescaleIntercept" not in header:
        raise ItemFault("not_hu", f"{path.name} has no rescale intercept: its values are not in HU")
    unit = str(header.get("RescaleType", "") or "HU").upper()
    if modality == "CT" and unit not in {"HU", "US"}:  # US: unspecified, as older scanners write it
        raise ItemFault("not_hu", f"the values of {path.name} are in {unit[:16]}, not in HU; give the HU series")
