"""The largest slices of a lesion along the three axes of the patient, as flat pictures."""

from __future__ import annotations

import math

import numpy as np

from nsclc_mtl.records import Volume

AXES = 3  # axial, coronal, sagittal: slices across z, y and x


def largest(mask: np.ndarray, axis: int, slices: int) -> list[int]:
    """Positions of the slices across `axis` that cut most of the lesion, ascending; ties go to its middle.

    A lesion thinner than `slices` gets its neighbours too; an empty mask the slices about the middle of the crop.
    """
    area = mask.astype(bool).sum(axis=tuple(a for a in range(mask.ndim) if a != axis))
    middle = float(np.average(np.arange(len(area)), weights=area)) if area.any() else (len(area) - 1) / 2
    order = sorted(range(len(area)), key=lambda at: (-area[at], abs(at - middle), at))
    return sorted(order[: min(slices, len(area))])


def pictures(cube: Volume, slices: int, margin_mm: float | None) -> list[np.ndarray]:
    """float32 [rows, columns] in 0..1, `slices` an axis: axial, then coronal and sagittal with the head up.

    A picture shows the square around the lesion's box with `margin_mm` to spare, 0 beyond the crop; None shows the
    whole slice. All pictures of an axis have one size.
    """
    out = []
    for axis in range(AXES):
        others = tuple(a for a in range(AXES) if a != axis)
        box = _square(np.asarray(cube.mask.any(axis)), margin_mm, cube.spacing_mm[others[0]])
        for at in largest(cube.mask, axis, slices):
            plane = _cut(np.take(cube.array, at, axis), box)
            out.append(np.ascontiguousarray(plane if axis == 0 else plane[::-1], np.float32))
    return out


def _square(shadow: np.ndarray, margin_mm: float | None, spacing_mm: float) -> tuple[int, int, int]:
    """First row, first column and edge of the square around a lesion's shadow; it may begin before the crop does."""
    if margin_mm is None or not shadow.any():
        return 0, 0, max(shadow.shape)
    rows, columns = np.flatnonzero(shadow.any(1)), np.flatnonzero(shadow.any(0))
    edge = max(np.ptp(rows), np.ptp(columns)) + 1 + 2 * math.ceil(margin_mm / spacing_mm)
    return int(rows[0] + rows[-1] + 1 - edge) // 2, int(columns[0] + columns[-1] + 1 - edge) // 2, int(edge)


def _cut(plane: np.ndarray, box: tuple[int, int, int]) -> np.ndarray:
    top, left, edge = box
    padded = np.pad(plane, edge)  # by more than any square can stand out
    return padded[top + edge : top + 2 * edge, left + edge : left + 2 * edge]
