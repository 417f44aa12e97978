"""The region of a scan whose lesion nobody drew: a box, the lungs of a CT, or what a network of the user's finds.

None of them is a drawn lesion, and each says so in the history of the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nsclc_mtl.records import ItemFault, UsageFault

THRESHOLD_HU = -400.0  # midway between lung (-850) and soft tissue (40), where optimal thresholding ends
# (Hu, Hoffman and Reinhardt, IEEE TMI 20 (2001) 490)
CLOSING_MM = 8.0  # vessels and nodules up to twice this width between lung and lung belong to the lung
LEAST_LUNG_ML = 500.0  # less air inside the body is bowel or a trachea


def stated(scan: sitk.Image, modality: str, options: Mapping[str, Any], name: str) -> tuple[sitk.Image, list[str]]:
    """The region that stands in for a drawn lesion as 0 and 1 on the grid of the scan, and a note that says so.

    `options["how"]` is box, lung or bundle; the rest belongs to the maker: `box`, `lungs` or `network.segment`.
    """
    rest = {key: value for key, value in options.items() if key != "how"}
    if options["how"] == "box":
        return box(scan, name, **rest)
    if options["how"] == "lung":
        rest.pop("point_mm", None)
        return lungs(scan, modality, name, **rest)
    from nsclc_mtl.scans import network

    rest.pop("point_mm", None)
    return network.segment(scan, rest, name)


def box(
    scan: sitk.Image,
    name: str,
    size_mm: float | list[float] | None = None,
    point_mm: tuple[float, float, float] | None = None,
) -> tuple[sitk.Image, list[str]]:
    """A box along the patient's axes of `size_mm` (one edge, or x, y, z) around a point, or the whole scan for None.

    `point_mm` is in patient space, RAS+ as NIfTI has it. Voxels whose centre lies in the box belong to it.

    Raises `ItemFault`: no_point where the size is given and the point is not, outside_image.
    """
    size = scan.GetSize()
    if size_mm is None:
        whole = sitk.GetImageFromArray(np.ones(size[::-1], np.uint8))
        whole.CopyInformation(scan)
        return whole, ["no mask drawn: the region is the whole scan"]
    if point_mm is None:
        raise ItemFault(
            "no_point", f"{name} has neither a mask nor a point; fill mask, or x_mm, y_mm and z_mm (RAS), in scans.csv"
        )
    edges = np.broadcast_to(np.asarray(size_mm, float), 3)
    centre = np.array([-point_mm[0], -point_mm[1], point_mm[2]])  # RAS -> LPS, the space of ITK
    axes = np.reshape(scan.GetDirection(), (3, 3)) * np.asarray(scan.GetSpacing())
    x, y, z = np.meshgrid(*(np.arange(n) for n in size), indexing="ij", sparse=True)
    inside = np.ones(size, bool)
    for row in range(3):
        along = axes[row, 0] * x + axes[row, 1] * y + axes[row, 2] * z + scan.GetOrigin()[row] - centre[row]
        inside &= np.abs(along) <= edges[row] / 2
    if not inside.any():
        raise ItemFault("outside_image", f"the point of {name} lies outside the scan; is it in mm, RAS?")
    made = sitk.GetImageFromArray(inside.transpose(2, 1, 0).astype(np.uint8))
    made.CopyInformation(scan)
    return made, [f"no mask drawn: the region is a box of {'x'.join(f'{e:g}' for e in edges)} mm around a stated point"]


def lungs(
    scan: sitk.Image,
    modality: str,
    name: str,
    threshold_hu: float = THRESHOLD_HU,
    closing_mm: float = CLOSING_MM,
    least_ml: float = LEAST_LUNG_ML,
) -> tuple[sitk.Image, list[str]]:
    """The lungs of a CT: air inside the body, its largest one or two pieces, closed over vessels, without holes.

    Raises `ItemFault`: wrong_modality where the scan is no CT, no_lung where less than `least_ml` of air is found.
    """
    if modality != "CT":
        raise ItemFault("wrong_modality", f"{name} is no CT, and lungs are found by Hounsfield units; draw a mask")
    air = sitk.GetArrayViewFromImage(scan) < threshold_hu
    pieces, _ = ndimage.label(air)
    # air around the body reaches the sides of the scan; lungs may be cut off above or below, never at the sides
    upright = 2 - int(np.abs(np.reshape(scan.GetDirection(), (3, 3))[2]).argmax())
    sides = [np.unique(pieces.take(end, axis)) for axis in range(3) if axis != upright for end in (0, -1)]
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    sizes[np.concatenate(sides)] = 0
    ml = float(np.prod(scan.GetSpacing())) / 1000
    largest = np.argsort(sizes)[::-1][:2]
    kept = [int(n) for n in largest if sizes[n] * ml >= least_ml / 5]
    if sum(sizes[kept]) * ml < least_ml:
        raise ItemFault(
            "no_lung", f"{name} shows {sum(sizes[kept]) * ml:.0f} ml of air inside the body, no lung; draw a mask"
        )
    found = _closed(np.isin(pieces, kept), scan.GetSpacing()[::-1], closing_mm)
    made = sitk.GetImageFromArray(found.astype(np.uint8))
    made.CopyInformation(scan)
    return made, [f"no mask drawn: the region is the lungs, below {threshold_hu:g} HU, {found.sum() * ml:.0f} ml"]


def _closed(mask: np.ndarray, spacing: tuple[float, ...], radius_mm: float) -> np.ndarray:
    """The mask closed with a ball and without holes; distances take the same time for any radius."""
    where = ndimage.find_objects(mask.astype(np.uint8))[0]
    reach = [int(np.ceil(radius_mm / mm)) + 1 for mm in spacing]
    part = np.pad(mask[where], [(n, n) for n in reach])
    near = ndimage.distance_transform_edt(~part, spacing) <= radius_mm
    part = part | (ndimage.distance_transform_edt(near, spacing) > radius_mm)
    part = ndimage.binary_fill_holes(part)
    made = np.zeros_like(mask)
    made[where] = part[tuple(slice(n, -n) for n in reach)]
    return made


def point_of(row: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """The point that a row of scans.csv states in x_mm, y_mm, z_mm (RAS); None without one.

    Raises `ItemFault` (`no_point`) where one of the three is missing or no number.
    """
    words = [str(row.get(axis, "") if row.get(axis) is not None else "").strip() for axis in ("x_mm", "y_mm", "z_mm")]
    if all(word in {"", "nan"} for word in words):
        return None
    try:
        x, y, z = (float(word) for word in words)
    except ValueError:
        raise ItemFault("no_point", f"x_mm, y_mm, z_mm are {', '.join(map(repr, words))}; write numbers") from None
    if not np.isfinite([x, y, z]).all():
        raise ItemFault("no_point", "x_mm, y_mm and z_mm must all be filled with numbers")
    return x, y, z


def check(options: Mapping[str, Any]) -> None:
    """Stops a job before its first scan where the options of box, lung or bundle cannot work (`UsageFault`)."""
    if options["how"] == "bundle":
        from nsclc_mtl.scans import network

        network.load(options)
        return
    known = {"box": {"size_mm"}, "lung": {"threshold_hu", "closing_mm", "least_ml"}}[options["how"]]
    strange = set(options) - known - {"how"}
    if strange:
        raise UsageFault(f"scans.{options['how']} knows {', '.join(sorted(known))}, not {', '.join(sorted(strange))}")
