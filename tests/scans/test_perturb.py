"""Perturbed masks: millimetres are millimetres, below a voxel too, and the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from nsclc_mtl.records import Volume
from nsclc_mtl.scans import perturb

Spacing = tuple[float, float, float]
GRIDS: list[Spacing] = [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (3.27, 0.977, 0.977)]


def ball(radius_mm: float, spacing: Spacing) -> np.ndarray:
    axes = [
        np.arange(-n, n + 1) * mm for n, mm in zip((np.ceil((radius_mm + 8) / np.array(spacing))), spacing, strict=True)
    ]
    grid = np.meshgrid(*axes, indexing="ij")
    return sum((a - b) ** 2 for a, b in zip(grid, (0.3, 0.2, -0.1), strict=True)) <= radius_mm**2


def radius(mask: np.ndarray, spacing: Spacing) -> float:
    return float((mask.sum() * np.prod(spacing) * 3 / 4 / np.pi) ** (1 / 3))


@pytest.mark.parametrize("spacing", GRIDS)
@pytest.mark.parametrize("radius_mm", [8.0, 15.0])
def test_a_ball_shrinks_and_grows_by_the_millimetres_asked(spacing: Spacing, radius_mm: float) -> None:
    mask = ball(radius_mm, spacing)
    distance = perturb.signed_distance(mask, spacing)
    at = radius(mask, spacing)
    for mm in (-2.0, -1.5, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 1.5, 2.0):
        assert radius(distance < mm, spacing) - at == pytest.approx(mm, abs=0.35), mm
    assert (distance < 0).sum() == mask.sum()
    # half a millimetre is something, although it is half a voxel
    assert (distance < -0.5).sum() < 0.93 * mask.sum()
    assert (distance < 0.5).sum() > 1.04 * mask.sum()


@pytest.mark.parametrize("spacing", GRIDS)
def test_a_shift_moves_the_centre_and_keeps_the_volume(spacing: Spacing) -> None:
    mask = ball(12.0, spacing)
    distance = perturb.signed_distance(mask, spacing)
    for offset in ([0.0, 0.5, 0.0], [0.6, 0.5, -0.62], [-1.0, 0.0, 0.3]):
        moved = perturb.shifted(distance, np.array(offset) / spacing) < 0
        centre = (np.argwhere(moved).mean(0) - np.argwhere(mask).mean(0)) * spacing
        assert (np.abs(centre - offset) <= 0.15 * np.array(spacing)).all()
        assert moved.sum() == pytest.approx(mask.sum(), rel=0.06)


def volume(mask: np.ndarray, spacing: Spacing) -> Volume:
    return Volume(np.zeros(mask.shape, np.float32), mask.astype(np.uint8), spacing, np.eye(4), "CT")


OPTIONS = {"erode_mm": [1.0], "dilate_mm": [0.5, 1.5], "shift_mm": [1.0, 1.0], "seed": 3}


def test_the_same_on_every_machine_and_another_for_another_scan() -> None:
    scan = volume(ball(8.0, GRIDS[0]), GRIDS[0])
    first = dict(perturb.perturbations(scan, "a", OPTIONS))
    assert list(first) == perturb.names(OPTIONS)
    assert list(first) == ["erode 1 mm", "dilate 0.5 mm", "dilate 1.5 mm", "shift 1: 1 mm", "shift 2: 1 mm"]
    again = dict(perturb.perturbations(scan, "a", OPTIONS))
    other = dict(perturb.perturbations(scan, "b", OPTIONS))
    assert all(np.array_equal(first[n].mask, again[n].mask) for n in first)
    assert np.array_equal(first["erode 1 mm"].mask, other["erode 1 mm"].mask)
    assert not np.array_equal(first["shift 1: 1 mm"].mask, other["shift 1: 1 mm"].mask)
    assert not np.array_equal(first["shift 1: 1 mm"].mask, first["shift 2: 1 mm"].mask)
    assert all(v.mask.dtype == np.uint8 and v.array is scan.array for v in first.values())


def test_at_the_edge_of_the_scan_and_away_to_nothing() -> None:
    mask = np.zeros((6, 20, 20), bool)
    mask[0:2, 8:12, 8:12] = True
    distance = perturb.signed_distance(mask, (1.0, 1.0, 1.0))
    assert not (distance < -5).any()
    assert (distance < 1)[0, 9, 7]
    full = np.ones((4, 4, 4), bool)  # no surface inside the scan
    assert (perturb.signed_distance(full, (1.0, 1.0, 1.0)) < -1).all()


def test_options_that_cannot_be_followed() -> None:
    assert perturb.refuse(OPTIONS) == ""
    assert "erode_mm=-1" in perturb.refuse({"erode_mm": [-1.0]})
    assert "at most 15" in perturb.refuse({"shift_mm": [20.0]})
    assert "needs one of" in perturb.refuse({})
