"""Contours of an RTSTRUCT as voxels: even-odd in the plane of each slice, in patient space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nsclc_mtl.records import ItemFault
from nsclc_mtl.scans.dicom import read_header
from nsclc_mtl.scans.grid import from_axes

PLANAR = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}
_OFF = 0.1  # of a slice: contours farther from every slice than this were drawn on another stack


def rasterise(
    file: Path, choose: Callable[[dict[int, str]], list[int]], frame_of_reference: str, image: sitk.Image
) -> tuple[sitk.Image, list[str]]:
    """The chosen regions as 0 and 1: on the grid of the image where the contours lie on its slices.

    A voxel belongs to the region where its centre lies inside an odd number of the region's contours on that slice, so
    that an inner contour cuts a hole; several regions are united. Contours that were drawn on other, parallel slices
    come back on a grid of their own planes, whose difference from the image the caller judges.

    Raises `ItemFault`: corrupt, frame_of_reference, contour_type, empty_roi, outside_image, oblique_contours.
    """
    header = read_header(file)
    names = {int(item.ROINumber): str(item.ROIName) for item in header.get("StructureSetROISequence") or []}
    chosen = choose(names)
    frames = {
        int(item.ROINumber): str(item.get("ReferencedFrameOfReferenceUID", "") or "")
        for item in header.get("StructureSetROISequence") or []
    }
    if frame_of_reference and any(frames[n] and frames[n] != frame_of_reference for n in chosen):
        raise ItemFault(
            "frame_of_reference", f"{file.name} was drawn in another frame of reference than the image; register them"
        )
    regions = [_contours(header, number, names[number], file, image) for number in chosen]
    regions = [region for region in regions if region]
    if not regions:
        raise ItemFault("empty_roi", f"region {', '.join(names[n] for n in chosen)} of {file.name} has no contour")
    planes = np.unique(np.concatenate([[plane for plane, _ in region] for region in regions]).round(3))
    first, step = _planes(planes, image, file)
    grid = image if (first, step) == (0.0, 1.0) else _own_grid(image, planes, first, step)
    size = grid.GetSize()[::-1]
    mask = np.zeros(size, np.uint8)
    beyond = 0
    for region in regions:
        inside = np.zeros(size, bool)
        for plane, polygon in region:
            z = round((plane - first) / step)
            if 0 <= z < size[0]:
                inside[z] ^= _filled(polygon, size[1:])
            else:
                beyond += 1
        mask |= inside.astype(np.uint8)
    if beyond and not mask.any():
        raise ItemFault("outside_image", f"the contours of {file.name} lie outside the image")
    drawn = sitk.GetImageFromArray(mask)
    drawn.CopyInformation(grid)
    number = sum(len(region) for region in regions)
    notes = [f"region {', '.join(names[n] for n in chosen)}: {number} contours rasterised, even-odd"]
    if beyond:
        notes.append(f"{beyond} contours lie above or below the image")
    if not frame_of_reference:
        notes.append("frame of reference not compared: the image is not DICOM")
    return drawn, notes


def _contours(header: Any, number: int, name: str, file: Path, image: sitk.Image) -> list[tuple[float, np.ndarray]]:
    """Plane (in slices) and polygon (voxel x, y; float [point, 2]) of every contour of a region."""
    found = []
    inverse = np.linalg.inv(np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing()))
    for item in header.get("ROIContourSequence") or []:
        if int(item.ReferencedROINumber) != number:
            continue
        for contour in item.get("ContourSequence") or []:
            kind = str(contour.get("ContourGeometricType", ""))
            if kind not in PLANAR:
                raise ItemFault(
                    "contour_type",
                    f"region {name} of {file.name} holds a contour of type {kind or 'unknown'}; only CLOSED_PLANAR "
                    "encloses a volume",
                )
            try:
                points = np.array([float(v) for v in contour.ContourData]).reshape(-1, 3)
            except (AttributeError, TypeError, ValueError):
                raise ItemFault("corrupt", f"region {name} of {file.name} has contours without points") from None
            if len(points) < 3:
                continue  # encloses nothing
            voxels = (points - np.asarray(image.GetOrigin())) @ inverse.T
            if np.ptp(voxels[:, 2]) > 2 * _OFF:
                raise ItemFault(
                    "oblique_contours",
                    f"the contours of region {name} in {file.name} are not parallel to the slices of the image; "
                    "export the mask on the image's grid",
                )
            found.append((float(voxels[:, 2].mean()), voxels[:, :2]))
    return found


def _planes(planes: np.ndarray, image: sitk.Image, file: Path) -> tuple[float, float]:
    """First plane and distance of planes in slices of the image; (0, 1) where the contours lie on its slices."""
    steps = np.diff(planes)
    steps = steps[steps > _OFF]
    usual = float(np.min(steps)) if len(steps) else 1.0
    if abs(usual - 1) < _OFF and np.abs(planes - planes.round()).max() <= _OFF:
        return 0.0, 1.0
    off = np.abs((planes - planes[0]) / usual - ((planes - planes[0]) / usual).round()).max()
    if off > _OFF:
        raise ItemFault(
            "oblique_contours", f"the planes of the contours in {file.name} are unevenly spaced; export voxels"
        )
    return float(planes[0]), usual


def _own_grid(image: sitk.Image, planes: np.ndarray, first: float, step: float) -> sitk.Image:
    """An empty grid with the rows and columns of the image and one slice a plane of contours."""
    size = image.GetSize()
    count = round((planes[-1] - first) / step) + 1
    spacing = np.asarray(image.GetSpacing()) * [1, 1, step]
    axes = np.reshape(image.GetDirection(), (3, 3)) * spacing
    origin = image.TransformContinuousIndexToPhysicalPoint((0.0, 0.0, first))
    return from_axes(np.zeros((count, size[1], size[0]), np.uint8), axes, origin)


def _filled(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Which voxel centres lie inside a polygon: bool [y, x]."""
    from skimage.draw import polygon as inside_of

    rows, columns = inside_of(polygon[:, 1], polygon[:, 0], shape)
    filled = np.zeros(shape, bool)
    filled[rows, columns] = True
    return filled
