"""One DICOM series as an image, refused where slices are missing, series are mixed or the values have no unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nsclc_mtl.records import ItemFault


def read_series(folder: Path, max_bytes: int, modality: str | None = None) -> tuple[sitk.Image, list[str]]:
    """The series in `folder` (one, complete, evenly spaced) with rescale applied, and notes.

    Raises `ItemFault`: unsupported, mixed_series, wrong_modality, not_hu, not_suv, missing_slices, too_large, corrupt.
    No patient name, date or identifier leaves this function, neither in the notes nor in a sentence.
    """
    import pydicom

    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise ItemFault("unsupported", f"folder {folder.name} holds no DICOM series")
    if len(series) > 1:
        raise ItemFault("mixed_series", f"folder {folder.name} holds {len(series)} series; give each its own folder")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    try:
        headers = [pydicom.dcmread(name, stop_before_pixels=True) for name in files]
        positions = np.array([[float(v) for v in header.ImagePositionPatient] for header in headers])
        across, down = np.reshape([float(v) for v in headers[0].ImageOrientationPatient], (2, 3))
        voxels = sum(int(header.Rows) * int(header.Columns) for header in headers)
    except Exception as error:  # pydicom raises many kinds; all of them mean headers we cannot trust
        kind = type(error).__name__
        raise ItemFault("corrupt", f"folder {folder.name} has unreadable DICOM headers ({kind}); export it") from None
    if 4 * voxels > max_bytes:
        raise ItemFault("too_large", f"folder {folder.name} takes {4 * voxels / 2**30:.1f} GiB; raise scans.max_gib")
    _check_meaning(folder, headers[0], modality)
    if len(files) < 2:
        raise ItemFault("missing_slices", f"folder {folder.name} holds a single slice; a volume needs its neighbours")
    steps = np.diff(positions @ np.cross(across, down))
    usual = float(np.median(steps))
    # a tenth of a slice is table jitter; a whole one is a hole that resampling would paint over
    if abs(usual) < 1e-3 or np.abs(steps - usual).max() > 0.1 * abs(usual):
        holes = int((np.abs(steps - usual) > 0.1 * abs(usual)).sum())
        raise ItemFault(
            "missing_slices",
            f"folder {folder.name}: {holes} of {len(steps)} distances between slices differ from {usual:.2f} mm; "
            "fetch the missing slices",
        )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    try:
        image = reader.Execute()
    except RuntimeError:
        raise ItemFault("corrupt", f"folder {folder.name} has slices that do not decode; fetch them again") from None
    return image, [f"DICOM series of {len(files)} slices, rescale applied"]


def _check_meaning(folder: Path, header: object, modality: str | None) -> None:
    """Refuses values whose unit is not the one that the modality promises."""
    told = str(getattr(header, "Modality", ""))
    if modality and told and told != modality:
        raise ItemFault("wrong_modality", f"folder {folder.name} holds a {told} series, scans.csv says {modality}")
    if modality == "CT" and not hasattr(header, "RescaleIntercept"):
        raise ItemFault("not_hu", f"folder {folder.name} has no rescale intercept: its values are not in HU")
    if modality == "PT":
        raise ItemFault(
            "not_suv",
            f"folder {folder.name} is PET in {getattr(header, 'Units', 'no unit')}, not SUV; give a NIfTI in SUV",
        )
