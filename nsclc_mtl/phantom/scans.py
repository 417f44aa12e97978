"""CT scans of the phantom: a lesion in the lung whose size and texture follow the radiology statistic, and its mask.

What a voxel holds depends on the patient only through that statistic, the site's scanner and nuisance. As in
`section.py`, no transcendental function runs over voxels, so that the same seed gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from nsclc_mtl.phantom.evidence import STATISTIC_SD
from nsclc_mtl.phantom.section import soft, spline
from nsclc_mtl.phantom.truth import Truth

SHAPE = (40, 56, 56)  # z, y, x
SPACING_MM = (1.5, 1.25, 1.25)
VARIANCE = 151 / 315  # of a cubic B-spline field of unit knots, per axis

# The lesion as straight laws of z = statistic / SD: (value at z = 0, per unit of z, SD of the patient's own nuisance).
LOG_RADIUS = (np.log(10.0), 0.09, 0.20)  # mm; volume is mostly nuisance: its correlation with the statistic is .41
RADIUS_LIMITS_MM = (6.0, 17.0)
ATTENUATION_HU = (15.0, 14.0, 18.0)  # of the solid part
HETEROGENEITY_HU = (46.0, 17.0, 7.0)  # SD of the attenuation within the lesion
LOBULATION = (0.10, 0.04, 0.02)  # of the outline, share of the radius
SPICULES = (9.0, 4.0, 2.0)  # number of strands into the lung
NECROSIS = (0.30, 0.12, 0.08)  # radius of a soft centre, share of the lesion's
HALO_MM = (2.6, -0.6, 0.4)  # width of the margin: low-risk lesions fade into ground glass

LUNG_HU, FAT_HU, MUSCLE_HU, BONE_HU, BLOOD_HU, NECROTIC_HU = -850.0, -95.0, 50.0, 420.0, 35.0, -45.0
# noise SD in HU, offset in HU, width of the reconstruction kernel in voxels
SCANNERS = {"": (14.0, 0.0, 1), "A": (10.0, 0.0, 2), "B": (22.0, 12.0, 1), "C": (16.0, -15.0, 2)}


def render(drawn: Truth, root: Path, seed: int) -> None:
    """Draw `scans/*_image.nii.gz` and `*_mask.nii.gz` of everyone who has a CT, and `scans.csv`."""
    (root / "scans").mkdir(parents=True, exist_ok=True)
    rows = []
    for item in plan(drawn, seed):
        image, mask = draw(item)
        names = {kind: f"scans/{item['scan_id']}_{kind}.nii.gz" for kind in ("image", "mask")}
        write_nifti(root / names["image"], image)
        write_nifti(root / names["mask"], mask)
        rows.append({"scan_id": item["scan_id"], "patient_id": item["patient_id"], "modality": "CT", **names})
    columns = ["scan_id", "patient_id", "modality", "image", "mask"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "scans.csv", index=False, lineterminator="\n")


def plan(drawn: Truth, seed: int) -> list[dict[str, Any]]:
    """What every scan needs to be drawn: its ids, seed, statistic and look."""
    items = []
    for i in np.flatnonzero(drawn.has["ct_volume"]):
        patient = str(drawn.patients["patient_id"].iloc[i])
        z, look = float(drawn.statistics[i, 1] / STATISTIC_SD), str(drawn.patients["look"].iloc[i])
        items.append(
            {"scan_id": f"{patient}-CT", "patient_id": patient, "seed": [seed, 81, int(i)], "z": z, "look": look}
        )
    return items


def draw(item: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The scan in HU, int16 [z, y, x], and its lesion, uint8 [z, y, x]."""
    rng, z = np.random.Generator(np.random.PCG64(item["seed"])), item["z"]
    grid = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(SHAPE, SPACING_MM, strict=True)), indexing="ij"), -1)
    middle = (np.array(SHAPE) - 1) * SPACING_MM / 2
    centre = middle + rng.uniform(-1, 1, 3) * (5, 5, 5)

    hu = LUNG_HU + 22 * _noise(rng, 4) + 10 * _noise(rng, 12)
    hu = _vessels(rng, hu, grid, middle)
    hu = _lesion(rng, hu, grid - centre, z)
    lesion, hu = hu["mask"], hu["hu"]
    hu = _chest_wall(rng, hu, grid, middle)

    noise_hu, offset_hu, width = SCANNERS[item["look"]]
    for _ in range(width):
        for axis in range(3):
            hu = _blur(hu, axis)
    hu = hu + offset_hu + noise_hu * _noise(rng, 1.2)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16), lesion


def _line(rng: np.random.Generator, law: tuple[float, float, float], z: float, least: float) -> float:
    """A patient's value of a law: straight in z, with nuisance of its own."""
    return max(least, law[0] + law[1] * z + law[2] * rng.standard_normal())


def _lesion(rng: np.random.Generator, hu: np.ndarray, at: np.ndarray, z: float) -> dict[str, np.ndarray]:
    """The scan with the lesion in it and the lesion's mask; `at` [z, y, x, 3] is the place from its centre in mm."""
    radius = round(float(np.clip(np.exp(_line(rng, LOG_RADIUS, z, 0.0)), *RADIUS_LIMITS_MM)), 4)
    solid_hu, spread_hu = _line(rng, ATTENUATION_HU, z, -60.0), _line(rng, HETEROGENEITY_HU, z, 6.0)
    lobes, halo = _line(rng, LOBULATION, z, 0.02), _line(rng, HALO_MM, z, 0.8)
    necrosis, strands = _line(rng, NECROSIS, z, 0.0), round(_line(rng, SPICULES, z, 0.0))

    axes = rng.uniform(0.85, 1.15, 3)
    scaled = at / (radius * axes / np.cbrt(axes.prod()).round(6))
    distance = np.sqrt((scaled**2).sum(-1)) + lobes * _noise(rng, 5)
    inside_mm = (1 - distance) * radius
    tissue = solid_hu + spread_hu * (0.8 * _noise(rng, 2.2) + 0.6 * _noise(rng, 4.5))
    core = soft(necrosis - distance + 0.25 * _noise(rng, 4), 0.12)
    tissue = tissue * (1 - core) + NECROTIC_HU * core
    weight = soft(inside_mm + 0.5 * halo, 0.5 * halo + 0.4)
    mask = (weight > 0.5).astype(np.uint8)

    directions = rng.standard_normal((strands, 3))
    directions /= np.sqrt((directions**2).sum(1, keepdims=True))
    for direction, length in zip(directions, rng.uniform(1.5, 2.1, strands), strict=True):
        along = at @ direction
        aside = np.sqrt(np.maximum((at**2).sum(-1) - along**2, 0))
        reach = np.clip(1 - along / (length * radius), 0, 1)
        weight = np.maximum(weight, 0.85 * (along > 0) * soft(2.4 * reach - aside, 0.6) * (reach > 0))
    return {"hu": hu * (1 - weight) + tissue * weight, "mask": mask}


def _vessels(rng: np.random.Generator, hu: np.ndarray, grid: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Branching tubes of blood that leave the hilum and taper."""
    hilum = np.array([middle[0], middle[1], -8.0])
    points, widths = [], []
    for _ in range(int(rng.integers(7, 11))):
        at, heading = hilum + rng.uniform(-1, 1, 3) * (22, 26, 4), np.array([0.0, 0.0, 1.0])
        width = rng.uniform(1.3, 2.6)
        for step in range(70):
            points.append(at)
            widths.append(width * (1 - step / 90))
            heading = heading + 0.16 * rng.standard_normal(3)
            heading = heading / np.sqrt((heading**2).sum())
            at = at + heading
    distance, nearest = cKDTree(np.array(points)).query(grid.reshape(-1, 3), distance_upper_bound=4.0)
    width = np.array([*widths, 0.0])[nearest]
    tube = soft(width - np.minimum(distance, 9.0), 0.7).reshape(hu.shape)
    return hu * (1 - tube) + BLOOD_HU * tube


def _chest_wall(rng: np.random.Generator, hu: np.ndarray, grid: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Muscle, ribs and fat along one side of the volume."""
    bend = (grid[..., 1] - middle[1]) ** 2 / 140 + 1.2 * _noise(rng, 14)
    depth = grid[..., 2] + bend - rng.uniform(60, 64)  # mm below the pleura
    wall = MUSCLE_HU + 8 * _noise(rng, 2)
    wall = wall + (FAT_HU - wall) * soft(depth - 8 + 1.5 * _noise(rng, 6), 1.0)
    first = rng.uniform(0, 24)
    ribs = np.abs((grid[..., 0] - 0.35 * grid[..., 1] - first) % 26 - 13)  # oblique, 26 mm apart
    across = np.sqrt((ribs / 4.5) ** 2 + ((depth - 5) / 3.2) ** 2)
    bone = soft(1 - across, 0.15)
    marrow = soft(0.6 - across, 0.15)
    wall = wall * (1 - bone) + BONE_HU * bone - 260 * marrow
    weight = soft(depth, 0.7)
    return hu * (1 - weight) + wall * weight


def _noise(rng: np.random.Generator, cell: float) -> np.ndarray:
    """Smooth noise of unit variance [z, y, x], correlated over about `cell` voxels."""
    weights = [spline(n, cell) for n in SHAPE]
    field = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
    for axis, weight in enumerate(weights):
        front = np.moveaxis(field, axis, 0)
        field = np.moveaxis((weight @ front.reshape(len(front), -1)).reshape(-1, *front.shape[1:]), 0, axis)
    return np.ascontiguousarray(field) / np.float32(VARIANCE**1.5)


def _blur(field: np.ndarray, axis: int) -> np.ndarray:
    """Weights 1, 2, 1 along an axis; the border repeats itself."""
    ends = [(1, 1) if i == axis else (0, 0) for i in range(field.ndim)]
    wide = np.moveaxis(np.pad(field, ends, mode="edge"), axis, 0)
    return np.moveaxis((wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4, 0, axis)


def write_nifti(path: Path, array: np.ndarray) -> None:
    """Gzipped NIfTI of an array [z, y, x], the same bytes every time: no time and no name in the gzip header."""
    size = np.array(SHAPE[::-1]) * SPACING_MM[::-1]
    affine = np.diag([-SPACING_MM[2], -SPACING_MM[1], SPACING_MM[0], 1.0])
    affine[:3, 3] = size[0] / 2, size[1] / 2, -size[2] / 2
    image = nibabel.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    path.write_bytes(imagecodecs.gzip_encode(image.to_bytes(), level=6))
