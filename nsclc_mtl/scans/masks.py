"""The lesion as its file holds it (label map, RTSTRUCT, DICOM-SEG), one region of it, on the grid of the image.

Nothing ambiguous is guessed: several regions, another grid or another frame of reference stop the scan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nsclc_mtl.records import ItemFault
from nsclc_mtl.scans import dicom, files, multiframe, rtstruct
from nsclc_mtl.scans.grid import geometry_difference, onto

Mismatch = Literal["refuse", "resample"]
Roi = str | Sequence[str] | None
Label = int | Literal["largest"] | None
_NEIGHBOURS = np.ones((3, 3, 3), bool)  # voxels that touch at a corner belong together, as in PyRadiomics' shape


def read(
    path: Path,
    image: sitk.Image,
    scan: Path,
    *,
    label: Label = None,
    roi: Roi = None,
    labels: Mapping[str, int] | None = None,
    on_mismatch: Mismatch = "refuse",
    max_bytes: int = files.MAX_BYTES,
) -> tuple[sitk.Image, list[str]]:
    """The lesion as 0 and 1 on the grid of `image`, which was read from `scan`, and notes on how it came there.

    `roi` names a region, or several that are united: of an RTSTRUCT or DICOM-SEG by their own names, of a label map by
    `labels` (name -> label) or by the names in the header of a Slicer segmentation. `label` picks one of several
    labels, or the one with the most voxels ("largest").

    Raises `ItemFault`: absent, unsupported, corrupt, not_3d, too_large, not_a_mask, several_labels, label_absent,
    empty_roi, geometry_mismatch, outside_image, and those of `rtstruct.rasterise`.
    """
    if not path.exists():
        raise ItemFault("absent", f"{path} does not exist; correct the path in scans.csv")
    if dicom.is_dicom(path):
        lesion, notes = _dicom(path, image, scan, roi)
    else:
        drawn, _ = files.read(path, max_bytes)
        lesion, notes = _label_map(drawn, path, label, roi, {**slicer_names(drawn), **(labels or {})})
    if not sitk.GetArrayViewFromImage(lesion).any():
        raise ItemFault("empty_roi", f"mask {path.name} is empty; draw the lesion or leave the mask out of scans.csv")
    difference = geometry_difference(image, lesion)
    placed = _pasted(image, lesion) if difference and dicom.is_dicom(path) else None
    if placed is not None:
        return placed, notes
    if difference and on_mismatch != "resample":
        raise ItemFault(
            "geometry_mismatch",
            f"mask {path.name} does not lie on the grid of {scan.name} ({difference}); export it on the image's "
            "grid, or set scans.on_mismatch=resample",
        )
    if difference:
        lesion, note = onto(image, lesion)
        notes.append(f"mask resampled onto the image ({difference}): {note}")
    if not sitk.GetArrayViewFromImage(lesion).any():
        raise ItemFault("outside_image", f"the lesion of {path.name} lies outside {scan.name}")
    return lesion, notes


def choose(names: Mapping[int, str], roi: Roi, path: Path) -> list[int]:
    """The numbers of the regions that `roi` names (letter case counts only where it must); refuses to guess."""
    listed = ", ".join(repr(name) for name in names.values()) or "none"
    if not roi:
        if len(names) == 1:
            return list(names)
        if not names:
            raise ItemFault("empty_roi", f"{path.name} holds no region; draw the lesion or leave the mask out")
        raise ItemFault("several_labels", f"{path.name} has several regions: {listed}; set scans.roi=")
    found = []
    for wish in [roi] if isinstance(roi, str) else roi:
        exact = [number for number, name in names.items() if name.strip() == str(wish).strip()]
        alike = [n for n, name in names.items() if name.strip().casefold() == str(wish).strip().casefold()]
        match = exact or alike
        if len(match) != 1:
            told = "has no region" if not match else "has several regions"
            raise ItemFault("label_absent", f"{path.name} {told} {wish!r}; it has {listed}")
        found += match
    return found


def component(lesion: sitk.Image, which: Literal["all", "largest"]) -> tuple[sitk.Image, list[str]]:
    """The mask, or its largest piece (26 neighbours), and a note where the mask has several pieces."""
    mask = sitk.GetArrayFromImage(lesion)
    pieces, count = ndimage.label(mask, structure=_NEIGHBOURS)
    if count < 2:
        return lesion, []
    sizes = np.bincount(pieces.ravel())[1:]
    share = f"{100 * sizes.max() / sizes.sum():.0f} % of the voxels lie in the largest"
    if which == "all":
        return lesion, [f"{count} separate pieces, all kept ({share})"]
    kept = sitk.GetImageFromArray((pieces == 1 + int(sizes.argmax())).astype(np.uint8))
    kept.CopyInformation(lesion)
    return kept, [f"the largest of {count} pieces kept ({share})"]


def slicer_names(drawn: sitk.Image) -> dict[str, int]:
    """Name -> label of the segments that 3D Slicer writes into the header of a .seg.nrrd; empty elsewhere."""
    found = {}
    for key in drawn.GetMetaDataKeys():
        if key.startswith("Segment") and key.endswith("_Name"):
            value = key.removesuffix("_Name") + "_LabelValue"
            if drawn.HasMetaDataKey(value) and drawn.GetMetaData(value).strip().isdigit():
                found[drawn.GetMetaData(key).strip()] = int(drawn.GetMetaData(value))
    return found


def _label_map(
    drawn: sitk.Image, path: Path, label: Label, roi: Roi, names: Mapping[str, int]
) -> tuple[sitk.Image, list[str]]:
    """One label, or the union of the named ones, as 0 and 1; refuses to choose where there are several."""
    values = sitk.GetArrayViewFromImage(drawn)
    found, counts = np.unique(values, return_counts=True)
    if not np.isfinite(found).all() or (found < 0).any() or len(found) > 256:
        raise ItemFault("not_a_mask", f"{path.name} holds {len(found)} values, some not labels; save a label map")
    positive, voxels = found[found > 0], counts[found > 0]
    if len(positive) == 0:
        raise ItemFault("empty_roi", f"mask {path.name} is empty; draw the lesion or leave the mask out of scans.csv")
    known = {value: name for name, value in names.items()}
    listed = ", ".join(
        f"{v:.4g}{f' = {known[v]}' if v in known else ''} ({n} voxels)" for v, n in zip(positive, voxels, strict=True)
    )
    wanted: list[float]
    notes: list[str] = []
    if roi and names:
        numbers = choose(dict(enumerate(names)), roi, path)
        wanted = [float(list(names.values())[n]) for n in numbers]
        notes = [f"label {', '.join(f'{w:g}' for w in wanted)} = {roi if isinstance(roi, str) else ', '.join(roi)}"]
    elif roi and label is None and len(positive) > 1:
        raise ItemFault(
            "several_labels", f"mask {path.name} has labels without names: {listed}; set scans.labels={{{roi}: NUMBER}}"
        )
    elif label == "largest":
        wanted = [float(positive[voxels.argmax()])]
        notes = [f"label {wanted[0]:g}, the largest of {len(positive)}"] if len(positive) > 1 else []
    elif label is not None:
        wanted = [float(label)]
    elif len(positive) > 1:
        raise ItemFault("several_labels", f"mask {path.name} has several labels: {listed}; set scans.label=")
    else:
        wanted = [float(positive[0])]
    for value in wanted:
        if not np.isclose(positive, value).any():
            raise ItemFault("label_absent", f"mask {path.name} has no label {value:g}; it has {listed}")
    chosen = positive[np.isclose(positive[:, None], wanted).any(1)]
    lesion = sitk.GetImageFromArray(np.isin(values, chosen).astype(np.uint8))
    lesion.CopyInformation(drawn)
    return lesion, notes


def _dicom(path: Path, image: sitk.Image, scan: Path, roi: Roi) -> tuple[sitk.Image, list[str]]:
    """The region of an RTSTRUCT or DICOM-SEG, named by its file or the folder that holds just one of them."""
    candidates = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    found = []
    for file in candidates:
        header = dicom.read_header(file)
        kind = str(header.get("Modality", "")) if header is not None else ""
        if kind in {"RTSTRUCT", "SEG"}:
            found.append((file, kind))
    if len(found) != 1:
        told = "no RTSTRUCT or SEG" if not found else f"{len(found)} RTSTRUCT or SEG files; name one of them"
        raise ItemFault("unsupported", f"{path.name}, the mask of {scan.name}, holds {told}")
    file, kind = found[0]
    frame = dicom.frame_of_reference(scan)

    def pick(names: Mapping[int, str]) -> list[int]:
        return choose(names, roi, file)

    if kind == "RTSTRUCT":
        return rtstruct.rasterise(file, pick, frame, image)
    return multiframe.segments(file, pick, frame)


def _pasted(image: sitk.Image, lesion: sitk.Image) -> sitk.Image | None:
    """The lesion laid into the grid of the image voxel by voxel; None where the two do not share their voxels.

    A DICOM-SEG stores only the frames that it needs, so its grid is a part of the image's. The tolerances are those of
    `geometry_difference`.
    """
    corner = image.TransformPhysicalPointToContinuousIndex(lesion.GetOrigin())
    first = [round(c) for c in corner]
    last = [a + n for a, n in zip(first, lesion.GetSize(), strict=True)]
    if min(first) < 0 or any(b > n for b, n in zip(last, image.GetSize(), strict=True)):
        return None
    part = image[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    if geometry_difference(part, lesion):
        return None
    whole = np.zeros(image.GetSize()[::-1], np.uint8)
    where = tuple(slice(a, b) for a, b in zip(first[::-1], last[::-1], strict=True))
    whole[where] = sitk.GetArrayViewFromImage(lesion)
    placed = sitk.GetImageFromArray(whole)
    placed.CopyInformation(image)
    return placed
