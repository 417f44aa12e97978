"""DICOM objects that hold many frames in one file, by highdicom: enhanced CT and MR, and segmentations (DICOM-SEG)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nsclc_mtl.records import ItemFault
from nsclc_mtl.scans.grid import from_axes


def read(file: Path, name: str) -> tuple[sitk.Image, list[str]]:
    """The one volume in an enhanced multi-frame file, float32, modality transform applied frame by frame.

    Raises `ItemFault`: missing_slices where the frames are no regular stack, mixed_series where there are several.
    """
    import highdicom

    try:
        image = highdicom.imread(file)
        volume = image.get_volume(dtype=np.float32, apply_presentation_lut=False, apply_real_world_transform=False)
    except Exception as error:  # highdicom and pydicom raise many kinds; the frames are no volume in any of them
        raise ItemFault("missing_slices", f"the frames of {name} are no one regular stack ({_told(error)})") from None
    return _image(volume), [f"enhanced DICOM file of {volume.array.shape[0]} frames, rescale applied"]


def segments(
    file: Path, choose: Callable[[dict[int, str]], list[int]], frame_of_reference: str
) -> tuple[sitk.Image, list[str]]:
    """The chosen segments of a DICOM-SEG as 0 and 1 on the grid of its own frames, and notes.

    `choose` picks segment numbers from number -> label. The grid spans the frames that are stored, often fewer than
    the image has. Raises `ItemFault`: corrupt, frame_of_reference.
    """
    import highdicom

    try:
        seg = highdicom.seg.segread(file)
        labels = {int(item.SegmentNumber): str(item.SegmentLabel) for item in seg.SegmentSequence}
    except Exception as error:
        raise ItemFault("corrupt", f"{file.name} is no DICOM segmentation that can be read ({_told(error)})") from None
    own = str(seg.get("FrameOfReferenceUID", "") or "")
    if frame_of_reference and own and own != frame_of_reference:
        raise ItemFault(
            "frame_of_reference", f"{file.name} was drawn in another frame of reference than the image; register them"
        )
    chosen = choose(labels)
    try:
        parts = [_image(seg.get_volume(segment_numbers=[n], combine_segments=True, relabel=True)) for n in chosen]
    except Exception as error:
        raise ItemFault("corrupt", f"the frames of {file.name} are no regular grid ({_told(error)})") from None
    return _union(parts, file), [f"segment {', '.join(labels[n] for n in chosen)} of a DICOM segmentation"]


def _union(parts: list[sitk.Image], file: Path) -> sitk.Image:
    first = parts[0]
    for part in parts[1:]:
        if part.GetSize() != first.GetSize() or not np.allclose(part.GetOrigin(), first.GetOrigin()):
            raise ItemFault("corrupt", f"the segments of {file.name} lie on several grids; choose one of them")
        first = first | part
    return first


def _image(volume: Any) -> sitk.Image:
    """highdicom's volume [slice, row, column] with its affine (LPS, mm) as an image of ITK."""
    array, affine = volume.array, volume.affine
    axes = affine[:3, [2, 1, 0]]
    origin = affine[:3, 3]
    if np.linalg.det(axes) < 0:  # mirrored: count the slices from the other end
        origin = origin + axes[:, 2] * (array.shape[0] - 1)
        axes = axes * [1, 1, -1]
        array = array[::-1]
    return from_axes(array.astype(np.uint8 if array.dtype.kind in "ub" else np.float32), axes, origin)


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
