"""The cube around a lesion that the 3-D encoder sees: isotropic, in one orientation, scaled to 0..1, and its file.

Every crop has the axes of the patient (x towards left, y towards the back, z towards the head), whatever the scanner's.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nsclc_mtl.records import IntegrityFault, ItemFault, TryAgain, Volume
from nsclc_mtl.scans.grid import affine_of, to_sitk
from nsclc_mtl.scans.radiomics import digest, key8
from nsclc_mtl.scans.volume import READING

_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def lesion_crop(
    volume: Volume, size_vox: int, spacing_mm: float, window: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """The cube and its lesion: float32 [z, y, x] in 0..1 and uint8 [z, y, x]; see `lesion_volume`."""
    cube = lesion_volume(volume, size_vox, spacing_mm, window)
    return cube.array, cube.mask


def lesion_volume(volume: Volume, size_vox: int, spacing_mm: float, window: tuple[float, float] | None) -> Volume:
    """The cube of `size_vox` voxels of `spacing_mm` centred on the lesion's bounding box, values 0..1.

    `window` are the values (HU, SUV) that become 0 and 1; None takes the 1st and 99th percentile of the scan's positive
    voxels, for MR, which has no unit. Outside the scan the cube is 0, the lower end of the window. Where the scan is
    finer than the cube it is smoothed first (sigma = (ratio - 1) / 2 voxels), so that texture does not alias.
    """
    low, high = window if window is not None else _percentiles(volume)
    if not high > low:
        raise ItemFault("flat", f"the scan is constant between {low:g} and {high:g}; nothing can be seen in it")
    centre = lesion_centre(volume)
    edge = size_vox * spacing_mm
    array, mask, affine = _around(volume, centre, edge)
    ratio = spacing_mm / np.asarray(volume.spacing_mm)
    array = ndimage.gaussian_filter(array, np.maximum(ratio - 1, 0) / 2, mode="nearest")
    grid = _cube(centre, size_vox, spacing_mm)
    seen = sitk.Resample(to_sitk(array, affine), grid, sitk.Transform(), sitk.sitkLinear, float(low), sitk.sitkFloat32)
    soft = to_sitk(mask.astype(np.float32), affine)
    inside = sitk.GetArrayFromImage(sitk.Resample(soft, grid, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32))
    roi = (inside >= 0.5).astype(np.uint8)
    scaled = np.clip((sitk.GetArrayFromImage(seen) - low) / (high - low), 0, 1).astype(np.float32)
    volume_mm3 = float(volume.mask.sum() * np.prod(volume.spacing_mm))
    note = (
        f"cube of {size_vox} voxels of {spacing_mm:g} mm, window {low:.4g} to {high:.4g} scaled to 0..1, "
        f"padded with 0, holds {100 * roi.sum() * spacing_mm**3 / volume_mm3:.0f} % of the lesion"
    )
    return Volume(scaled, roi, (spacing_mm,) * 3, affine_of(grid), volume.modality, [*volume.history, note])


def lesion_centre(volume: Volume) -> np.ndarray:
    """The middle of the lesion's bounding box in patient space, mm RAS+: float64 [3]."""
    box = ndimage.find_objects(volume.mask)[0]
    middle = [(part.start + part.stop - 1) / 2 for part in reversed(box)]  # x, y, z
    return (volume.affine @ [*middle, 1.0])[:3]


def volume_key(cfg: Mapping[str, Any]) -> str:
    """Eight hex digits that change with everything that changes a crop: reading, crop options and the code itself."""
    return key8({k: cfg.get(k) for k in READING}, dict(cfg.get("crop") or {}), digest(__file__))


def volume_folder(out: Path, cfg: Mapping[str, Any]) -> Path:
    """Where the crops lie, one `<scan_id>.h5` each."""
    return Path(out) / "scans" / f"volumes-{volume_key(cfg)}"


def save(path: Path, cube: Volume, patient_id: str, scan: Volume | None = None, **attrs: str) -> None:
    """Writes the crop so that it is either whole under its name or not there at all.

    `scan` is what the crop was cut from; its grid is kept, so that maps of the crop can be laid over it.
    """

    def write(part: Path) -> None:
        held = io.BytesIO()  # HDF5 itself goes on writing where a disk is full, and crashes the process at its exit
        with h5py.File(held, "w") as file:
            file.create_dataset("volume", data=cube.array.astype(np.float16), compression="gzip", shuffle=True)
            file.create_dataset("roi", data=cube.mask, compression="gzip")
            told = {"affine": cube.affine, "spacing_mm": cube.spacing_mm, "patient_id": patient_id}
            told |= {"modality": cube.modality, "history": "\n".join(cube.history), **attrs, "complete": 1}
            if scan is not None:
                told |= {"scan_shape": scan.array.shape, "scan_affine": scan.affine}
            file.attrs.update(told)
        part.write_bytes(held.getbuffer())

    def verify(part: Path) -> bool:
        return load(part).array.shape == cube.array.shape

    publish(path, write, verify)


def load(path: Path) -> Volume:
    """The crop in a file of ours: float32 [z, y, x] in 0..1, its lesion, and the affine of its voxels."""
    try:
        with h5py.File(path) as file:
            if file.attrs.get("complete") != 1:
                raise IntegrityFault(f"{path.name} is not complete; run mtl extract again")
            spacing = tuple(float(s) for s in file.attrs["spacing_mm"])
            history = str(file.attrs["history"]).splitlines()
            modality, affine = str(file.attrs["modality"]), np.asarray(file.attrs["affine"])
            array, roi = file["volume"][:].astype(np.float32), file["roi"][:]
    except (OSError, KeyError):
        raise IntegrityFault(f"{path.name} is not a whole crop of ours; delete it and run mtl extract again") from None
    return Volume(array, roi, (spacing[0], spacing[1], spacing[2]), affine, modality, history)


def source(path: Path) -> str:
    """Digest of the image and mask that a crop was made from."""
    with h5py.File(path) as file:
        return str(file.attrs.get("source", ""))


def scan_grid(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape [z, y, x] and affine (RAS+, of voxels x, y, z) of the scan that the crop was cut from.

    Raises IntegrityFault where the file does not say.
    """
    with h5py.File(path) as file:
        if "scan_affine" not in file.attrs:
            raise IntegrityFault(f"{path.name} does not say which grid it was cut from; run mtl extract again")
        z, y, x = (int(n) for n in file.attrs["scan_shape"])
        return (z, y, x), np.asarray(file.attrs["scan_affine"], float)


def on_grid(values: np.ndarray, affine: np.ndarray, grid: tuple[tuple[int, int, int], np.ndarray]) -> np.ndarray:
    """Values of a crop, float [z, y, x], on the grid of its scan: float32 [z, y, x], 0 outside the crop.

    `affine` is that of the crop, `grid` what `scan_grid` gives. Interpolated linearly.
    """
    (z, y, x), given = grid
    lps = _TO_LPS @ given
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    resample = sitk.ResampleImageFilter()
    resample.SetSize((x, y, z))
    resample.SetOutputSpacing(spacing.tolist())
    resample.SetOutputDirection((lps[:3, :3] / spacing).ravel().tolist())
    resample.SetOutputOrigin(lps[:3, 3].tolist())
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetOutputPixelType(sitk.sitkFloat32)
    return np.asarray(sitk.GetArrayFromImage(resample.Execute(to_sitk(values.astype(np.float32), affine))))


def is_complete(path: Path, **attrs: str) -> bool:
    """Whether a whole crop with these attributes lies there: read to the end, not merely existing."""
    if not path.is_file():
        return False
    try:
        load(path)
        with h5py.File(path) as file:
            return all(file.attrs.get(name) == value for name, value in attrs.items())
    except (IntegrityFault, OSError):
        return False


def publish(path: Path, write: Callable[[Path], None], verify: Callable[[Path], bool]) -> None:
    """Writes beside the final name, verifies, and only then renames; a full disk leaves nothing (`TryAgain`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        if not verify(part):
            raise OSError(errno.EIO, "what was written cannot be read back")
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, IntegrityFault) as error:
        raise TryAgain(f"{path.name} could not be written ({error}); free space and run it again") from None
    finally:
        part.unlink(missing_ok=True)


def _percentiles(volume: Volume) -> tuple[float, float]:
    tissue = volume.array[volume.array > 0]  # air around the body is 0 in MR and would drag the lower end down
    if tissue.size == 0:
        raise ItemFault("flat", "the scan has no positive voxel; nothing can be seen in it")
    low, high = np.percentile(tissue, [1, 99])
    return float(low), float(high)


def _around(volume: Volume, centre: np.ndarray, edge_mm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of the scan that the cube can touch, so that a large scan costs no more than a small one."""
    spacing = np.asarray(volume.spacing_mm)[::-1]
    middle = (np.linalg.inv(volume.affine) @ [*centre, 1.0])[:3]
    # half the diagonal covers the cube in any orientation; four voxels more feed the smoothing and interpolation
    reach = np.sqrt(3) / 2 * edge_mm / spacing + 4 + 2 * np.maximum(edge_mm / spacing / 32, 1)
    size = np.asarray(volume.array.shape)[::-1]
    first = np.clip(np.floor(middle - reach), 0, size - 1).astype(int)
    last = np.clip(np.ceil(middle + reach) + 1, first + 1, size).astype(int)
    part = tuple(slice(a, b) for a, b in zip(first[::-1], last[::-1], strict=True))
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ [*first, 1.0])[:3]
    return volume.array[part], volume.mask[part], affine


def _cube(centre: np.ndarray, size_vox: int, spacing_mm: float) -> sitk.Image:
    """An empty cube along the patient's axes (left, posterior, superior) around a centre in RAS mm."""
    grid = sitk.Image([size_vox] * 3, sitk.sitkUInt8)
    grid.SetSpacing([spacing_mm] * 3)
    middle = (_TO_LPS @ [*centre, 1.0])[:3]
    grid.SetOrigin((middle - spacing_mm * (size_vox - 1) / 2).tolist())
    return grid
