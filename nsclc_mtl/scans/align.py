"""A mask that was drawn on one sequence, carried to another sequence of the same patient: same grid, or registered."""

from __future__ import annotations

from typing import Literal

import numpy as np
import SimpleITK as sitk

from nsclc_mtl.records import ItemFault
from nsclc_mtl.scans.grid import geometry_difference, onto

FARTHEST_MM = 15.0  # between sequences of one session; more is another position of the patient, or a failure
_BINS, _SAMPLES, _SEED = 50, 50_000, 1  # of the joint histogram; voxels a resolution, drawn with this seed


def carried(
    lesion: sitk.Image, drawn_on: sitk.Image, scan: sitk.Image, how: Literal["refuse", "rigid"], name: str
) -> tuple[sitk.Image, list[str]]:
    """The lesion on the grid of `scan`, and notes. The voxels of the scan are not touched: the mask moves.

    With `refuse` the two sequences must lie on the same grid, and the mask is taken as it is. With `rigid` they are
    registered first, always: the same grid does not tell that the patient lay still.

    Raises `ItemFault`: not_registered, register_failed, outside_image.
    """
    difference = geometry_difference(scan, drawn_on)
    if how == "refuse":
        if difference:
            raise ItemFault(
                "not_registered",
                f"the mask of {name} was drawn on a sequence with another grid ({difference}); set "
                "scans.register=rigid, or draw on this one",
            )
        return lesion, ["mask drawn on another sequence on the same grid, not registered"]
    transform, note = rigid(scan, drawn_on, lesion, name)
    moved, change = onto(scan, lesion, transform)
    if not sitk.GetArrayViewFromImage(moved).any():
        raise ItemFault("outside_image", f"the lesion lies outside {name} after registration")
    return moved, [f"mask carried over from another sequence: {note}; {change}"]


def rigid(fixed: sitk.Image, moving: sitk.Image, lesion: sitk.Image, name: str) -> tuple[sitk.Transform, str]:
    """The rigid transform from points of `fixed` to points of `moving`, and a note with metric and displacement.

    Mattes' mutual information (IEEE TMI 22 (2003) 120) over three resolutions, starting where the scanner put both.
    The displacement is the largest among the voxels of the lesion, in mm. In small fields of view, and between unlike
    modalities, the metric has other maxima than the truth, which is why a far one is not believed.

    Raises `ItemFault` (`register_failed`) where the metric became no better, or the lesion would move too far.
    """
    fixed, moving = sitk.Cast(fixed, sitk.sitkFloat32), sitk.Cast(moving, sitk.sitkFloat32)
    middle = fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()])
    start = sitk.Euler3DTransform()
    start.SetCenter(middle)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=100, relaxationFactor=0.6, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    smallest = min(*fixed.GetSize(), *moving.GetSize())
    levels = [(f, s) for f, s in ((4, 2), (2, 1), (1, 0)) if smallest // f >= 8 or f == 1]
    voxels = fixed.GetNumberOfPixels()
    method.SetShrinkFactorsPerLevel([f for f, _ in levels])
    method.SetMetricSamplingPercentagePerLevel([min(1.0, _SAMPLES * f**3 / voxels) for f, _ in levels], _SEED)
    method.SetSmoothingSigmasPerLevel([s for _, s in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(start, inPlace=False)
    method.SetNumberOfThreads(1)  # sums in one order: the same scans give the same transform
    try:
        before = method.MetricEvaluate(fixed, moving)
        found = method.Execute(fixed, moving)
        method.SetInitialTransform(found, inPlace=False)
        after = method.MetricEvaluate(fixed, moving)
    except RuntimeError as error:
        told = str(error).strip().splitlines()[-1].strip()[:120]
        raise ItemFault("register_failed", f"{name} cannot be registered ({told}); draw the mask on it") from None
    farthest = _displacement(found, lesion)
    if after > before or farthest > FARTHEST_MM:
        raise ItemFault(
            "register_failed",
            f"registering {name} moved the lesion by {farthest:.1f} mm (mutual information {-before:.3f} -> "
            f"{-after:.3f}); draw the mask on it",
        )
    return found, (
        f"rigid registration, mutual information {-before:.3f} -> {-after:.3f}, "
        f"lesion moved by at most {farthest:.2f} mm"
    )


def _displacement(transform: sitk.Transform, lesion: sitk.Image) -> float:
    where = np.argwhere(sitk.GetArrayViewFromImage(lesion))[:, ::-1].astype(float)
    some = where[:: max(1, len(where) // 2000)].tolist()  # a rigid motion is told by far fewer
    points = [lesion.TransformContinuousIndexToPhysicalPoint(voxel) for voxel in some]
    back = transform.GetInverse()
    return max(float(np.linalg.norm(np.subtract(back.TransformPoint(p), p))) for p in points)
