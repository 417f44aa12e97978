"""A scan and its lesion from NIfTI, NRRD or a DICOM series, or a refusal that says what is wrong with the files.

Nothing ambiguous is guessed: two labels, a mask on another grid or a header that contradicts itself stop the scan.
"""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from nsclc_mtl.records import ItemFault, UsageFault, Volume

Mismatch = Literal["refuse", "resample"]

MODALITIES = {"CT": "CT", "MR": "MR", "MRI": "MR", "T1": "MR", "T2": "MR", "PT": "PT", "PET": "PT"}
"""What a table may say, and the DICOM word for it."""

MAX_BYTES = 4 * 2**30  # decompressed; a whole-body CT of 512 x 512 x 2,000 voxels takes 2 GB as float32
MIN_VOXELS = 8  # below 2 x 2 x 2 voxels neither a surface nor a texture exists
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK counts towards left and back, NIfTI towards right and front
_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


def load(
    image: Path,
    mask: Path,
    modality: str,
    label: int | None = None,
    *,
    on_mismatch: Mismatch = "refuse",
    min_voxels: int = MIN_VOXELS,
    max_bytes: int = MAX_BYTES,
) -> Volume:
    """The scan with its lesion as one record: CT in HU, PET in SUV, MR in arbitrary units, axes z, y, x.

    `image` is a NIfTI or NRRD file or the folder of one DICOM series, `mask` a NIfTI or NRRD file. `label` picks one of
    several labels of the mask. `on_mismatch="resample"` brings a mask on another grid to the grid of the image (nearest
    neighbour) and notes the change of volume; the default refuses it. Sizes are checked before memory is taken.

    Raises `ItemFault` with the reasons absent, unsupported, corrupt, not_3d, too_large, qform_sform, sheared,
    mixed_series, missing_slices, not_hu, not_suv, wrong_modality, geometry_mismatch, not_a_mask, several_labels,
    label_absent, empty_roi, roi_too_small, outside_image.
    """
    kind = canonical_modality(modality)
    scan, history = read(Path(image), max_bytes, kind)
    array = sitk.GetArrayFromImage(scan).astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise ItemFault("corrupt", f"{_name(image)} holds NaN or infinite voxels; export it again")
    if kind == "CT" and array.min() >= 0:
        raise ItemFault(
            "not_hu",
            f"the smallest voxel of {_name(image)} is {array.min():g}, so it is not in Hounsfield units (air: -1000); "
            "apply the rescale slope and intercept before export",
        )
    drawn, _ = read(Path(mask), max_bytes)
    lesion = _one_label(drawn, label, Path(mask))
    difference = geometry_difference(scan, lesion)
    if difference and on_mismatch != "resample":
        raise ItemFault(
            "geometry_mismatch",
            f"mask {_name(mask)} does not lie on the grid of {_name(image)} ({difference}); export it on the image's "
            "grid, or set scans.on_mismatch=resample",
        )
    if difference:
        lesion, note = _on_grid_of(scan, lesion)
        history.append(f"mask resampled onto the image ({difference}): {note}")
    roi = sitk.GetArrayFromImage(lesion)
    voxels = int(roi.sum())
    if voxels == 0:
        raise ItemFault("outside_image", f"the lesion of {_name(mask)} lies outside {_name(image)}")
    if voxels < min_voxels:
        raise ItemFault("roi_too_small", f"the lesion of {_name(mask)} has {voxels} voxels, {min_voxels} are needed")
    spacing = scan.GetSpacing()
    history.insert(0, f"read {'x'.join(map(str, scan.GetSize()))} voxels of {'x'.join(f'{s:.4g}' for s in spacing)} mm")
    stored = sitk.GetArrayViewFromImage(scan).dtype.name
    return Volume(array, roi, (spacing[2], spacing[1], spacing[0]), affine_of(scan), kind, history, stored)


def canonical_modality(word: str) -> str:
    """CT, MR or PT for what a table calls the scan; `UsageFault` for anything else."""
    kind = MODALITIES.get(str(word).strip().upper())
    if kind is None:
        raise UsageFault(f"scan modality {word!r} is unknown; write one of {', '.join(MODALITIES)}")
    return kind


def read(path: Path, max_bytes: int = MAX_BYTES, modality: str | None = None) -> tuple[sitk.Image, list[str]]:
    """The three-dimensional image in a file or DICOM folder, as it is stored, and notes on how it was read."""
    if not path.exists():
        raise ItemFault("absent", f"{path} does not exist; correct the path in scans.csv")
    if path.is_dir():
        from nsclc_mtl.scans import dicom

        return dicom.read_series(path, max_bytes, modality)
    if not path.name.lower().endswith(_SUFFIXES):
        raise ItemFault("unsupported", f"{path.name} is none of {', '.join(_SUFFIXES)}; for DICOM name the folder")
    if path.stat().st_size == 0:
        raise ItemFault("corrupt", f"{path.name} has zero bytes; copy it again")
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _read_nifti(path, max_bytes), []
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


def affine_of(image: sitk.Image) -> np.ndarray:
    """Voxel (x, y, z) -> patient space in mm, RAS+ as NIfTI has it: float64 [4, 4]."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return _TO_RAS @ affine


def to_sitk(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """The image in ITK's conventions of an array [z, y, x] and the RAS+ affine of its voxels (x, y, z)."""
    lps = _TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def geometry_difference(image: sitk.Image, mask: sitk.Image) -> str:
    """How the two grids differ, in words; empty where they agree.

    Spacing and origin may differ by a hundredth of a voxel, direction cosines by 1e-4: what file formats round away.
    """
    if image.GetSize() != mask.GetSize():
        return f"size {image.GetSize()} against {mask.GetSize()}"
    spacing = np.asarray(image.GetSpacing())
    if np.any(np.abs(spacing - mask.GetSpacing()) > 1e-3 * spacing):
        return f"spacing {_mm(image.GetSpacing())} against {_mm(mask.GetSpacing())} mm"
    if not np.allclose(image.GetDirection(), mask.GetDirection(), atol=1e-4):
        return "another direction"
    if np.any(np.abs(np.asarray(image.GetOrigin()) - mask.GetOrigin()) > 1e-2 * spacing.min()):
        return f"origin {_mm(image.GetOrigin())} against {_mm(mask.GetOrigin())} mm"
    return ""


def _one_label(drawn: sitk.Image, label: int | None, path: Path) -> sitk.Image:
    """The mask of one label as 0 and 1; refuses to choose where there are several."""
    values = sitk.GetArrayViewFromImage(drawn)
    found, counts = np.unique(values, return_counts=True)
    if not np.isfinite(found).all() or (found < 0).any() or len(found) > 256:
        raise ItemFault("not_a_mask", f"{path.name} holds {len(found)} values, some not labels; save a label map")
    listed = ", ".join(f"{v:.4g} ({n} voxels)" for v, n in zip(found, counts, strict=True) if v != 0) or "none"
    positive = found[found > 0]
    if len(positive) == 0:
        raise ItemFault("empty_roi", f"mask {path.name} is empty; draw the lesion or leave the mask out of scans.csv")
    if label is None:
        if len(positive) > 1:
            raise ItemFault("several_labels", f"mask {path.name} has several labels: {listed}; set scans.label=")
        chosen = positive[0]
    else:
        match = positive[np.isclose(positive, label)]
        if len(match) == 0:
            raise ItemFault("label_absent", f"mask {path.name} has no label {label}; it has {listed}")
        chosen = match[0]
    lesion = sitk.GetImageFromArray((values == chosen).astype(np.uint8))
    lesion.CopyInformation(drawn)
    return lesion


def _on_grid_of(image: sitk.Image, lesion: sitk.Image) -> tuple[sitk.Image, str]:
    """The lesion on the grid of the image, and by how much its volume changed on the way."""
    moved = sitk.Resample(lesion, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)

    def ml(mask: sitk.Image) -> float:
        return float(sitk.GetArrayViewFromImage(mask).sum() * np.prod(mask.GetSpacing()) / 1000)

    before, after = ml(lesion), ml(moved)
    return moved, f"volume {before:.3f} -> {after:.3f} ml ({100 * (after / before - 1):+.1f} %)"


def _read_nifti(path: Path, max_bytes: int) -> sitk.Image:
    """The image by nibabel: ITK's reader turns NaN into 0 and fills a truncated file with zeros, in silence."""
    import nibabel

    try:
        file: Any = nibabel.load(path)
        _refuse_large(path, file.shape, max_bytes)
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


def _refuse_large(path: Path, shape: tuple[int, ...], max_bytes: int) -> None:
    # as float32: what the voxels take once they are ours, whatever the file compresses them to
    needed = 4 * math.prod(int(n) for n in shape)
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


def _mm(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"


def _name(path: Path) -> str:
    return Path(path).name
