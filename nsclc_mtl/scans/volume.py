"""A scan and its lesion as one record, or a refusal that says what is wrong with the files.

Nothing ambiguous is guessed: two labels, a mask on another grid or a header that contradicts itself stop the scan. What
was done on the way (resampling, registration, a mask that nobody drew) stands in the history of the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from nsclc_mtl.records import ItemFault, UsageFault, Volume
from nsclc_mtl.scans import files, masks
from nsclc_mtl.scans.grid import affine_of, geometry_difference, to_sitk
from nsclc_mtl.scans.masks import Label, Mismatch, Roi

__all__ = ["MODALITIES", "READING", "affine_of", "canonical_modality", "geometry_difference", "load", "to_sitk"]

MODALITIES = {"CT": "CT", "MR": "MR", "MRI": "MR", "T1": "MR", "T1C": "MR", "T2": "MR", "FLAIR": "MR", "DWI": "MR"}
MODALITIES |= {"ADC": "MR", "PT": "PT", "PET": "PT"}
"""What a table may say, and the DICOM word for it."""

READING = (
    "modality", "label", "labels", "roi", "component", "on_mismatch", "register", "min_voxels", "no_mask", "box",
    "lung", "segmenter", "n4",
)  # fmt: skip
"""The options that decide what is read; they belong to the key of everything that is made from a scan."""

_OF = {"bundle": "segmenter"}  # where the options of a way to do without a mask stand
MIN_VOXELS = 8  # below 2 x 2 x 2 voxels neither a surface nor a texture exists


def load(
    image: Path,
    mask: Path | None,
    modality: str,
    label: Label = None,
    *,
    roi: Roi = None,
    labels: Mapping[str, int] | None = None,
    component: Literal["all", "largest"] = "all",
    on_mismatch: Mismatch = "refuse",
    drawn_on: Path | None = None,
    register: Literal["refuse", "rigid"] = "refuse",
    without_mask: Mapping[str, Any] | None = None,
    n4: Mapping[str, Any] | None = None,
    min_voxels: int = MIN_VOXELS,
    max_bytes: int = files.MAX_BYTES,
) -> Volume:
    """The scan with its lesion as one record: CT in HU, PET in SUV, MR in arbitrary units, axes z, y, x.

    `image` is a NIfTI, NRRD or multi-frame DICOM file or the folder of one DICOM series; `mask` a NIfTI or NRRD label
    map, an RTSTRUCT or a DICOM-SEG. `label`, `roi` and `labels` pick one region of several (`masks.read`), `component`
    its largest piece. `on_mismatch="resample"` brings a mask on another grid to the grid of the image (nearest
    neighbour) and notes the change of volume; the default refuses it. `drawn_on` is the image on which the mask was
    drawn, where that is another sequence of the patient: it must lie on the same grid, or is registered
    (`register="rigid"`). Without a mask, `without_mask` states the region (`regions.stated`). `n4` corrects the bias
    field of MR.

    Raises `ItemFault` with the reasons absent, unsupported, corrupt, outside_root, not_3d, too_large, qform_sform,
    sheared, mixed_series, missing_slices, gantry_tilt, not_hu, not_suv, wrong_modality, geometry_mismatch, not_a_mask,
    several_labels, label_absent, empty_roi, roi_too_small, outside_image, and those of the modules named above.
    """
    kind = canonical_modality(modality)
    scan, history = files.read(Path(image), max_bytes, kind)
    size, spacing = scan.GetSize(), scan.GetSpacing()
    history.insert(0, f"read {'x'.join(map(str, size))} voxels of {'x'.join(f'{s:.4g}' for s in spacing)} mm")
    _refuse_meaningless(scan, kind, Path(image).name)
    if n4 is not None and kind == "MR":
        from nsclc_mtl.scans import bias

        scan, note = bias.corrected(scan, n4, Path(image).name)
        history.append(note)
    if mask is None:
        if not without_mask:
            raise UsageFault(f"{Path(image).name} has no mask; set scans.no_mask or name one in scans.csv")
        from nsclc_mtl.scans import regions

        lesion, notes = regions.stated(scan, kind, without_mask, Path(image).name)
    elif drawn_on is not None:
        from nsclc_mtl.scans import align

        where, _ = files.read(Path(drawn_on), max_bytes)
        lesion, notes = masks.read(
            Path(mask), where, Path(drawn_on), label=label, roi=roi, labels=labels, on_mismatch=on_mismatch,
            max_bytes=max_bytes,
        )  # fmt: skip
        lesion, carried = align.carried(lesion, where, scan, register, Path(image).name)
        notes.extend(carried)
    else:
        lesion, notes = masks.read(
            Path(mask), scan, Path(image), label=label, roi=roi, labels=labels, on_mismatch=on_mismatch,
            max_bytes=max_bytes,
        )  # fmt: skip
    lesion, pieces = masks.component(lesion, component)
    region = sitk.GetArrayFromImage(lesion)
    voxels = int(region.sum())
    if voxels < min_voxels:
        name = Path(mask).name if mask is not None else f"the region in {Path(image).name}"
        raise ItemFault("roi_too_small", f"the lesion of {name} has {voxels} voxels, {min_voxels} are needed")
    stored = sitk.GetArrayViewFromImage(scan).dtype.name
    array = sitk.GetArrayFromImage(scan).astype(np.float32, copy=False)
    history += [*notes, *pieces]
    return Volume(array, region, (spacing[2], spacing[1], spacing[0]), affine_of(scan), kind, history, stored)


def options(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `load` that a `scans` group states for all scans of a cohort.

    `without_mask` is None where `no_mask` is skip. Raises `UsageFault` where an option is none of its words.
    """
    words = {
        "component": ("all", "largest"),
        "on_mismatch": ("refuse", "resample"),
        "register": ("refuse", "rigid"),
        "no_mask": ("skip", "box", "lung", "bundle"),
    }
    for name, known in words.items():
        if cfg.get(name, known[0]) not in known:
            raise UsageFault(f"scans.{name}={cfg[name]} is none of {', '.join(known)}")
    how = cfg.get("no_mask", "skip")
    return {
        "label": cfg.get("label"),
        "roi": cfg.get("roi"),
        "labels": cfg.get("labels"),
        "component": cfg.get("component", "all"),
        "on_mismatch": cfg.get("on_mismatch", "refuse"),
        "register": cfg.get("register", "refuse"),
        "without_mask": None if how == "skip" else {"how": how, **dict(cfg.get(_OF.get(how, how)) or {})},
        "n4": cfg.get("n4"),
        "min_voxels": int(cfg.get("min_voxels", MIN_VOXELS)),
        "max_bytes": int(float(cfg.get("max_gib", 4)) * 2**30),
    }


def canonical_modality(word: str) -> str:
    """CT, MR or PT for what a table calls the scan; `UsageFault` for anything else."""
    kind = MODALITIES.get(str(word).strip().upper())
    if kind is None:
        raise UsageFault(f"scan modality {word!r} is unknown; write one of {', '.join(MODALITIES)}")
    return kind


def _refuse_meaningless(scan: sitk.Image, kind: str, name: str) -> None:
    values = sitk.GetArrayViewFromImage(scan)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ItemFault("corrupt", f"{name} holds NaN or infinite voxels; export it again")
    if kind == "CT" and values.min() >= 0:
        raise ItemFault(
            "not_hu",
            f"the smallest voxel of {name} is {values.min():g}, so it is not in Hounsfield units (air: -1000); "
            "apply the rescale slope and intercept before export",
        )
