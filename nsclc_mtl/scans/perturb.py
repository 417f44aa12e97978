"""The lesion as another observer might have drawn it: eroded, dilated or shifted by millimetres."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import ndimage

from nsclc_mtl.records import Volume

_SMOOTH = 0.7  # voxels; takes the stairs of the voxels off the distance, so that half a millimetre is half a millimetre


def perturbations(volume: Volume, scan_id: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Volume]]:
    """Name and record of every perturbed lesion: the same scan with a mask that may have come out empty.

    `options` holds the lists `erode_mm`, `dilate_mm` and `shift_mm` (one shift each, in a direction that `seed` and
    `scan_id` decide, so that it is the same on every machine and in every order). The idea of perturbing the mask
    instead of scanning twice: Zwanenburg et al., Sci Rep 9 (2019) 614.
    """
    distance = signed_distance(volume.mask > 0, volume.spacing_mm)
    for mm in options.get("erode_mm") or ():
        yield f"erode {mm:g} mm", _with(volume, distance < -float(mm))
    for mm in options.get("dilate_mm") or ():
        yield f"dilate {mm:g} mm", _with(volume, distance < float(mm))
    rng = np.random.Generator(np.random.PCG64([int(options.get("seed", 0)), zlib.crc32(scan_id.encode())]))
    for i, mm in enumerate(options.get("shift_mm") or (), 1):
        direction = rng.standard_normal(3)
        offset = float(mm) * direction / np.linalg.norm(direction) / np.asarray(volume.spacing_mm)
        yield f"shift {i}: {mm:g} mm", _with(volume, shifted(distance, offset) < 0)


def names(options: Mapping[str, Any]) -> list[str]:
    """The names of the perturbations in their order."""
    return [
        *(f"erode {mm:g} mm" for mm in options.get("erode_mm") or ()),
        *(f"dilate {mm:g} mm" for mm in options.get("dilate_mm") or ()),
        *(f"shift {i}: {mm:g} mm" for i, mm in enumerate(options.get("shift_mm") or (), 1)),
    ]


def signed_distance(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Distance of each voxel's centre to the surface of the mask in mm, negative inside: float64 [z, y, x].

    The nearest voxel of the other kind gives the distance; the surface lies half way through the last voxel before it.
    Smoothed by less than a voxel and levelled so that below 0 lie as many voxels as the mask has: the perturbation by
    0 mm keeps its volume. Outside a margin around the lesion the distance is not computed and infinite.
    """
    margin = [int(np.ceil(_REACH_MM / mm)) + 3 for mm in spacing_mm]
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    near = tuple(slice(max(0, part.start - n), part.stop + n) for part, n in zip(box, margin, strict=True))
    lesion = mask[near]
    whole = np.full(mask.shape, np.inf)
    inside, outside = _depth(lesion, spacing_mm), _depth(~lesion, spacing_mm)
    stairs = outside - inside
    smooth = ndimage.gaussian_filter(stairs, _SMOOTH, mode="nearest")
    near_surface = np.exp(-np.square(stairs / (2 * np.prod(spacing_mm) ** (1 / 3))))
    smooth = near_surface * smooth + (1 - near_surface) * stairs  # the middle of a small lesion stays as deep as it is
    count = int(lesion.sum())
    if count < lesion.size:
        below, above = np.partition(smooth.ravel(), [count - 1, count])[[count - 1, count]]
        smooth -= (below + above) / 2
    whole[near] = smooth
    return whole


_REACH_MM = 15.0  # no perturbation reaches further; larger ones are refused by `refuse`


def refuse(options: Mapping[str, Any]) -> str:
    """What is wrong with the options, in words; empty where nothing is."""
    for name in ("erode_mm", "dilate_mm", "shift_mm"):
        for mm in options.get(name) or ():
            if not 0 < float(mm) <= _REACH_MM:
                return f"scans.robustness.{name}={mm:g}: give millimetres above 0 and at most {_REACH_MM:g}"
    if not names(options):
        return "scans.robustness.perturb=true needs one of erode_mm, dilate_mm, shift_mm"
    return ""


def shifted(distance: np.ndarray, offset_vox: np.ndarray) -> np.ndarray:
    """The distance map moved by a fraction of voxels [z, y, x], interpolated linearly."""
    finite = np.where(np.isfinite(distance), distance, 1e6)
    return np.asarray(ndimage.shift(finite, offset_vox, order=1, mode="nearest"))


def _depth(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """How deep each voxel of the mask lies below its surface, mm; 0 outside. An edge of the scan is no surface."""
    if mask.all():
        return np.full(mask.shape, _REACH_MM)
    far, at = ndimage.distance_transform_edt(mask, sampling=spacing_mm, return_indices=True)
    steps = np.zeros(mask.shape)
    for axis, index in enumerate(at):
        here = np.arange(mask.shape[axis]).reshape([-1 if a == axis else 1 for a in range(mask.ndim)])
        steps += (index - here) ** 2
    # a way of n voxels' steps ends half a step before the centre of the voxel that it leads to
    return np.where(mask, far * (1 - 0.5 / np.sqrt(np.maximum(steps, 1))), 0.0)


def _with(volume: Volume, mask: np.ndarray) -> Volume:
    return replace(volume, mask=mask.astype(np.uint8))
