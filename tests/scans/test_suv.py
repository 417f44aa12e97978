"""SUV scalars on phantoms whose values are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from nsclc_mtl.records import Volume
from nsclc_mtl.scans import suv

SPACING = (2.0, 1.5, 1.5)


def phantom(array: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float] = SPACING) -> Volume:
    return Volume(array.astype(np.float32), mask.astype(np.uint8), spacing, np.eye(4), "PT")


def distance(shape: tuple[int, int, int], spacing: tuple[float, float, float] = SPACING) -> np.ndarray:
    axes = [(np.arange(n) - n // 2) * mm for n, mm in zip(shape, spacing, strict=True)]
    return np.sqrt(sum(np.square(a) for a in np.meshgrid(*axes, indexing="ij")))


def test_a_uniform_ball() -> None:
    r = distance((25, 31, 31))
    mask = r <= 12
    told = suv.scalars(phantom(np.where(mask, 5.0, 1.0), mask))
    ml = mask.sum() * math.prod(SPACING) / 1000
    assert told["suv_max"] == told["suv_mean"] == 5
    assert told["suv_peak"] == pytest.approx(5)  # a sphere of 6.2 mm fits inside
    assert told["suv_mtv_ml"] == pytest.approx(ml)
    assert ml == pytest.approx(4 / 3 * math.pi * 1.2**3, rel=0.03)
    assert told["suv_tlg"] == pytest.approx(5 * ml, rel=1e-6)
    assert told["suv_mtv_41_ml"] == pytest.approx(ml)
    assert told["suv_tlg_41"] == pytest.approx(told["suv_tlg"])


def test_a_hot_core_in_a_warm_rim() -> None:
    r = distance((25, 31, 31))
    mask, core = r <= 12, r <= 6
    told = suv.scalars(phantom(np.where(core, 10.0, np.where(mask, 4.0, 1.0)), mask))
    per = math.prod(SPACING) / 1000
    assert told["suv_mtv_41_ml"] == pytest.approx(core.sum() * per)  # 4 < 41 % of 10
    assert told["suv_mean_41"] == 10
    assert told["suv_tlg_41"] == pytest.approx(10 * core.sum() * per)
    assert told["suv_tlg"] == pytest.approx((10 * core.sum() + 4 * (mask.sum() - core.sum())) * per)
    half = suv.scalars(phantom(np.where(core, 10.0, np.where(mask, 4.0, 1.0)), mask), 0.4)
    assert half["suv_mtv_40_ml"] == pytest.approx(mask.sum() * per)


def test_the_threshold_does_not_grow_beyond_the_mask() -> None:
    array = np.full((9, 9, 9), 8.0)
    mask = np.zeros(array.shape)
    mask[4, 4, 3:6] = 1
    assert suv.scalars(phantom(array, mask))["suv_mtv_41_ml"] == pytest.approx(3 * 4.5 / 1000)


def test_the_peak_of_a_linear_ramp_is_its_centre() -> None:
    """The mean of a symmetric sphere over a ramp is the value at its centre, so the peak is the highest centre."""
    shape = (21, 21, 21)
    x = np.broadcast_to(np.arange(21.0), shape)
    mask = np.zeros(shape)
    mask[8:13, 8:13, 8:13] = 1
    assert suv.peak(phantom(x, mask, (2.0, 2.0, 2.0))) == pytest.approx(12)
    assert suv.peak(phantom(x, mask, (2.0, 2.0, 2.0)), at_hottest=True) == pytest.approx(12)


def test_the_peak_is_not_always_at_the_hottest_voxel() -> None:
    shape = (15, 15, 61)
    array = np.ones(shape)
    array[7, 7, 10] = 9  # one hot voxel, and a lake of 6
    array[distance((15, 15, 61), (2.0, 2.0, 2.0)) <= 10] = 6
    mask = np.ones(shape)
    whole = phantom(array, mask, (2.0, 2.0, 2.0))
    assert suv.peak(whole) == pytest.approx(6)
    sphere = int((distance((9, 9, 9), (2.0, 2.0, 2.0)) <= suv.PEAK_RADIUS_MM).sum())
    assert suv.peak(whole, at_hottest=True) == pytest.approx((9 + sphere - 1) / sphere)


def test_the_sphere_holds_a_millilitre_and_ends_with_the_scan() -> None:
    assert 4 / 3 * math.pi * (suv.PEAK_RADIUS_MM / 10) ** 3 == pytest.approx(1)
    spacing = (0.5, 0.5, 0.5)
    held = (distance((41, 41, 41), spacing) <= suv.PEAK_RADIUS_MM).sum() * math.prod(spacing) / 1000
    assert held == pytest.approx(1, rel=0.01)
    mask = np.zeros((9, 9, 9))
    mask[0, 0, 0] = mask[0, 0, 1] = 1
    assert suv.peak(phantom(np.full(mask.shape, 3.0), mask)) == pytest.approx(3)  # no zeros from beyond the edge


@pytest.mark.realdata
def test_ibsi_local_intensity(real_data: Path) -> None:
    """Consensus values of the digital phantom: local peak 2.6, global peak 3.1."""
    from nsclc_mtl.scans import volume

    files = real_data / "radiology" / "ibsi" / "ibsi_1_digital_phantom" / "nifti"
    ours = volume.load(files / "image" / "phantom.nii.gz", files / "mask" / "mask.nii.gz", "MR")
    assert suv.peak(ours, at_hottest=True) == pytest.approx(2.6, abs=0.005)
    assert suv.peak(ours) == pytest.approx(3.1, abs=0.005)
