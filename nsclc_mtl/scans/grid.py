"""Where voxels lie in the patient: affines, and whether two grids are one.

Grids are compared with a fixed tolerance; nothing here ever widens it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK counts towards left and back, NIfTI towards right and front


def affine_of(image: sitk.Image) -> np.ndarray:
    """Voxel (x, y, z) -> patient space in mm, RAS+ as NIfTI has it: float64 [4, 4]."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return _TO_RAS @ affine


def to_sitk(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """The image in ITK's conventions of an array [z, y, x] and the RAS+ affine of its voxels (x, y, z)."""
    lps = _TO_RAS @ affine
    return from_axes(array, lps[:3, :3], lps[:3, 3])


def from_axes(array: np.ndarray, axes: np.ndarray, origin: Sequence[float]) -> sitk.Image:
    """The image of an array [z, y, x] whose voxel steps are the columns of `axes` [3, 3], mm in ITK's space (LPS)."""
    spacing = np.linalg.norm(axes, axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((axes / spacing).ravel().tolist())
    image.SetOrigin([float(v) for v in origin])
    return image


def geometry_difference(image: sitk.Image, mask: sitk.Image) -> str:
    """How the two grids differ, in words; empty where they agree.

    Spacing may differ by a thousandth, the origin by a hundredth of a voxel, direction cosines by 1e-4: what formats
    round away.
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


def onto(image: sitk.Image, lesion: sitk.Image, how: sitk.Transform | None = None) -> tuple[sitk.Image, str]:
    """The lesion on the grid of the image (nearest neighbour), and by how much its volume changed on the way.

    `how` takes points of the image to points of the mask, where the two do not share a space.
    """
    moved = sitk.Resample(lesion, image, how or sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)

    def ml(mask: sitk.Image) -> float:
        return float(sitk.GetArrayViewFromImage(mask).sum() * np.prod(mask.GetSpacing()) / 1000)

    before, after = ml(lesion), ml(moved)
    return moved, f"volume {before:.3f} -> {after:.3f} ml ({100 * (after / before - 1):+.1f} %)"


def _mm(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"
