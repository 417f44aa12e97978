"""An image as its file holds it: NIfTI, NRRD, MetaImage, or DICOM by `dicom`, never trusted before it is checked."""

from __future__ import annotations

import math
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nsclc_mtl.records import ItemFault
from nsclc_mtl.scans import dicom
from nsclc_mtl.scans.grid import to_sitk

MAX_BYTES = 4 * 2**30  # decompressed; a whole-body CT of 512 x 512 x 2,000 voxels takes 2 GB as float32
_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


def read(path: Path, max_bytes: int = MAX_BYTES, modality: str | None = None) -> tuple[sitk.Image, list[str]]:
    """The three-dimensional image in a file or DICOM folder, as it is stored, and notes on how it was read."""
    if not path.exists():
        raise ItemFault("absent", f"{path} does not exist; correct the path in scans.csv")
    if path.is_dir() or (path.stat().st_size and dicom.is_dicom(path)):
        return dicom.read_series(path, max_bytes, modality)
    if not path.name.lower().endswith(_SUFFIXES):
        raise ItemFault("unsupported", f"{path.name} is none of {', '.join(_SUFFIXES)}; for DICOM name the folder")
    if path.stat().st_size == 0:
        raise ItemFault("corrupt", f"{path.name} has zero bytes; copy it again")
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _read_nifti(path, max_bytes), []
    _refuse_far_data(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        _refuse_large(path, (*reader.GetSize(), reader.GetNumberOfComponents()), max_bytes)
        image = reader.Execute()
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1].strip()
        raise ItemFault("corrupt", f"{path.name} cannot be read ({last[:160]}); export or copy it again") from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ItemFault("not_3d", f"{path.name} is not one 3-D scan (size {image.GetSize()}); export one phase")
    return image, []


def _read_nifti(path: Path, max_bytes: int) -> sitk.Image:
    """The image by nibabel: ITK's reader turns NaN into 0 and fills a truncated file with zeros, in silence."""
    import nibabel

    try:
        file: Any = nibabel.load(path)
        # the offset is skipped by reading, so that a small packed file could be made to unpack for hours
        _refuse_large(path, file.shape, max_bytes, offset=int(file.dataobj.offset))
        _refuse_two_poses(path, file.header)
        array = np.asanyarray(file.dataobj)
    except ItemFault:
        raise
    except Exception as error:  # nibabel raises many kinds; all of them mean a file that cannot be trusted
        told = " ".join(str(error).split())[:160]
        raise ItemFault("corrupt", f"{path.name} cannot be read ({told}); export or copy it again") from None
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3 or array.dtype.kind not in "iuf":
        raise ItemFault("not_3d", f"{path.name} is not one 3-D scan (shape {file.shape}); export one phase")
    axes = file.affine[:3, :3] / np.linalg.norm(file.affine[:3, :3], axis=0)
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):
        raise ItemFault("sheared", f"the axes of {path.name} are not at right angles; resample it onto a regular grid")
    if array.dtype.kind == "f" or array.dtype.itemsize > 4:
        array = array.astype(np.float32)
    return to_sitk(array.transpose(2, 1, 0), file.affine)


def detached(path: Path) -> list[Path]:
    """The data file that an NRRD or MetaImage header names; empty where the data follow the header, as mostly."""
    if not path.name.lower().endswith((".nrrd", ".nhdr", ".mha", ".mhd")):
        return []
    with path.open("rb") as file:
        text = file.read(2**16).split(b"\n\n")[0].decode("latin-1")
    named = re.search(r"(?im)^\s*(?:data ?file\s*:|ElementDataFile\s*=)[ \t]*(.+?)[ \t]*\r?$", text)
    if named is None or named[1] == "LOCAL":
        return []
    if named[1].split()[0] == "LIST" or "%" in named[1]:
        raise ItemFault("unsupported", f"{path.name} spreads its voxels over several files; save it as one NRRD")
    return [path.parent / named[1]]


def _refuse_far_data(path: Path) -> None:
    for data in detached(path):
        if not data.resolve().is_relative_to(path.parent.resolve()):
            raise ItemFault("outside_root", f"{path.name} refers to voxels outside its own folder; it is not followed")


def _refuse_large(path: Path, shape: tuple[int, ...], max_bytes: int, offset: int = 0) -> None:
    # as float32: what the voxels take once they are ours, whatever the file compresses them to
    needed = 4 * math.prod(int(n) for n in shape) + offset
    if needed > max_bytes:
        raise ItemFault(
            "too_large",
            f"{path.name} would take {needed / 2**30:.1f} GiB in memory, the cap is {max_bytes / 2**30:.1f}; "
            "crop it or raise scans.max_gib",
        )


def _refuse_two_poses(path: Path, header: Any) -> None:
    """Readers disagree on which of two contradicting NIfTI poses counts, so neither is believed."""
    (qform, qcode), (sform, scode) = header.get_qform(coded=True), header.get_sform(coded=True)
    if not qcode or not scode:
        return
    corners = np.array([[*c, 1.0] for c in product(*((0, n - 1) for n in header.get_data_shape()[:3]))])
    moved = np.linalg.norm(corners @ (qform - sform).T, axis=1).max()
    # a quaternion in single precision places the far corner of a large scan wrong by up to 0.1 mm
    if moved > 0.25 * np.linalg.norm(sform[:3, :3], axis=0).min():
        raise ItemFault(
            "qform_sform",
            f"the two poses in the header of {path.name} (qform, sform) place voxels {moved:.2f} mm apart; "
            "export it again with one pose",
        )
