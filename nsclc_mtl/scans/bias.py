"""N4 bias-field correction of MR (Tustison et al., IEEE TMI 29 (2010) 1310) inside the body, by SimpleITK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk

from nsclc_mtl.records import ItemFault

SHRINK = 4  # the field is smooth: every fourth voxel tells it, in a sixty-fourth of the time
ITERATIONS = (50, 50, 50, 50)  # at most, a level of the B-spline grid; N4's own default


def corrected(scan: sitk.Image, options: Mapping[str, Any], name: str) -> tuple[sitk.Image, str]:
    """The scan divided by its bias field (float32), and a note with what was done.

    `options` may hold `shrink` (>= 1) and `iterations` (one number a level). The field is estimated on the shrunken
    scan inside `body` and evaluated on all voxels; its mean logarithm inside the body is 0, so that the level stays.

    Raises `ItemFault` (`flat`, `bias`) where there is no body to estimate it in, or N4 gives up.
    """
    shrink = int(options.get("shrink", SHRINK))
    iterations = [int(n) for n in options.get("iterations", ITERATIONS)]
    scan = sitk.Cast(scan, sitk.sitkFloat32)
    inside = body(scan, name)
    # thin stacks keep their slices: N4 needs four voxels an axis
    factors = [max(1, min(shrink, n // 4)) for n in scan.GetSize()]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(iterations)
    n4.SetNumberOfThreads(1)  # sums in one order, so that the same scan gives the same field
    try:
        n4.Execute(sitk.Shrink(scan, factors), sitk.Shrink(inside, factors))
        field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(scan))
    except RuntimeError as error:
        told = str(error).strip().splitlines()[-1].strip()[:120]
        raise ItemFault("bias", f"N4 cannot correct {name} ({told}); set scans.n4=null or crop the scan") from None
    where = sitk.GetArrayViewFromImage(inside) > 0
    field = field - field[where].mean()
    made = sitk.GetImageFromArray((sitk.GetArrayViewFromImage(scan) / np.exp(field)).astype(np.float32))
    made.CopyInformation(scan)
    low, high = np.exp(np.percentile(field[where], [1, 99]))
    return made, (
        f"N4 bias correction inside the body ({100 * where.mean():.0f} % of the scan), shrunk by "
        f"{'x'.join(map(str, factors))}, at most {'/'.join(map(str, iterations))} iterations; "
        f"field {low:.2f} to {high:.2f}"
    )


def body(scan: sitk.Image, name: str) -> sitk.Image:
    """The head or body in an MR scan as 0 and 1: above Otsu's threshold, largest piece, holes filled slice by slice."""
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    array = sitk.GetArrayViewFromImage(scan)
    if array.max() <= array.min():
        raise ItemFault("flat", f"{name} is constant; nothing can be seen in it")
    # in logarithms, as air is far below tissue and a bright coil would else raise the threshold above muscle
    above = np.log1p(array - array.min())
    pieces, count = ndimage.label(above > threshold_otsu(above))
    if count > 1:
        pieces = pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in pieces > 0])
    made = sitk.GetImageFromArray(filled.astype(np.uint8))
    made.CopyInformation(scan)
    return made
