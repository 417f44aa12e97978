"""The cube around the lesion: where it lies, how it is oriented, what it holds, and how it is stored."""

from __future__ import annotations

import errno
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from toy_scan import SPACING, ball, chest

from nsclc_mtl.records import IntegrityFault, ItemFault, TryAgain, Volume
from nsclc_mtl.scans import crop, radiomics, volume

WINDOW = (-1000.0, 400.0)
LPS = np.diag([-1.0, -1.0, 2.0, 1.0])


def scan(mask: np.ndarray, array: np.ndarray | None = None, modality: str = "CT") -> Volume:
    array = chest(mask) if array is None else array
    return Volume(array.astype(np.float32), mask, SPACING, LPS.copy(), modality)


def test_a_cube_of_the_asked_size_in_0_to_1() -> None:
    array, mask = crop.lesion_crop(scan(ball()), 16, 1.5, WINDOW)
    assert array.shape == mask.shape == (16, 16, 16)
    assert array.dtype == np.float32
    assert mask.dtype == np.uint8
    assert 0 <= array.min() < array.max() <= 1
    assert array[6:10, 6:10, 6:10].mean() == pytest.approx((40 + 1000) / 1400, abs=0.02)
    assert mask.sum() * 1.5**3 == pytest.approx(ball().sum() * 2.0, rel=0.05)


def test_anisotropic_voxels_are_resampled_and_their_spacing_is_kept(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])  # a ball of 6 mm has half as many voxels along z
    for name, array in (("image", chest(ball())), ("mask", ball())):
        nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), affine), tmp_path / f"{name}.nii.gz")
    read = volume.load(tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz", "CT")
    assert read.spacing_mm == (2.0, 1.0, 1.0)
    drawn = [np.ptp(axis) + 1 for axis in np.nonzero(read.mask)]
    assert drawn == [6, 12, 12]
    cube = crop.lesion_volume(read, 24, 1.0, WINDOW)
    assert cube.spacing_mm == (1.0, 1.0, 1.0)
    assert [np.ptp(axis) + 1 for axis in np.nonzero(cube.mask)] == pytest.approx([12, 12, 12], abs=1)
    assert "of 1x1x2 mm" in cube.history[0]
    settings = {"setting": {"binWidth": 25, "resampledPixelSpacing": [1, 1, 1]}, "featureClass": {"shape": []}}
    shape = radiomics.features(read, settings)
    assert shape["original_shape_MajorAxisLength"] == pytest.approx(shape["original_shape_LeastAxisLength"], rel=0.1)


def test_outside_the_scan_it_is_zero_and_the_history_says_so() -> None:
    cube = crop.lesion_volume(scan(ball()), 32, 4.0, WINDOW)
    assert cube.array[0].max() == cube.array[:, :, -1].max() == 0
    assert "padded with 0" in cube.history[-1]
    assert "window -1000 to 400" in cube.history[-1]


def test_the_lesion_is_in_the_middle_wherever_it_lay() -> None:
    corner = np.zeros_like(ball())
    corner[2:6, 3:9, 18:26] = 1
    cube = crop.lesion_volume(scan(corner), 24, 1.0, WINDOW)
    centre = np.argwhere(cube.mask).mean(0)
    np.testing.assert_allclose(centre, 11.5, atol=0.6)
    world = (cube.affine @ [11.5, 11.5, 11.5, 1])[:3]
    np.testing.assert_allclose(world, crop.lesion_centre(scan(corner)), atol=1e-6)


def test_the_scanners_orientation_does_not_matter() -> None:
    mask = np.zeros_like(ball())
    mask[6:14, 8:14, 9:20] = 1
    mask[6:9, 8:10, 9:12] = 0  # so that no mirror image is like it
    straight = scan(mask)
    flip = np.diag([-1.0, -1.0, -1.0, 1.0])  # voxel axes reversed ...
    flip[:3, 3] = np.array(mask.shape)[::-1] - 1
    flipped = Volume(
        straight.array[::-1, ::-1, ::-1].copy(), mask[::-1, ::-1, ::-1].copy(), SPACING, LPS @ flip, "CT"
    )  # ... and the affine with them: the same patient
    swap = np.eye(4)[[0, 2, 1, 3]]  # coronal slices
    turned = Volume(
        straight.array.transpose(1, 0, 2).copy(), mask.transpose(1, 0, 2).copy(), (1.0, 2.0, 1.0), LPS @ swap, "CT"
    )
    one, two, three = (crop.lesion_volume(v, 20, 1.0, WINDOW) for v in (straight, flipped, turned))
    np.testing.assert_allclose(one.array, two.array, atol=1e-5)
    np.testing.assert_allclose(one.array, three.array, atol=1e-5)
    np.testing.assert_array_equal(one.mask, three.mask)


def test_mr_is_scaled_by_its_own_percentiles() -> None:
    mask = ball()
    array = chest(mask).astype(np.float32) + 900
    one = crop.lesion_volume(scan(mask, array, "MR"), 16, 1.5, None).array
    other = crop.lesion_volume(scan(mask, array * 7, "MR"), 16, 1.5, None).array
    np.testing.assert_allclose(one, other, atol=1e-5)
    with pytest.raises(ItemFault) as caught:
        crop.lesion_volume(scan(mask, np.full(mask.shape, 5.0), "MR"), 16, 1.5, None)
    assert caught.value.reason == "flat"


def test_a_coarse_cube_does_not_alias() -> None:
    mask = np.ones_like(ball())
    stripes = np.where(np.arange(28) % 2, 300.0, -300.0) * np.ones(mask.shape)  # finer than the cube can show
    cube = crop.lesion_volume(scan(mask, stripes), 4, 5.0, (-500, 500))
    assert np.abs(cube.array - 0.5).max() < 0.05


def test_saved_and_loaded(tmp_path: Path) -> None:
    cube = crop.lesion_volume(scan(ball()), 16, 1.5, WINDOW)
    path = tmp_path / "deep" / "s1.h5"
    crop.save(path, cube, "P1", source="abc")
    back = crop.load(path)
    np.testing.assert_allclose(back.array, cube.array, atol=1e-3)  # half precision
    np.testing.assert_array_equal(back.mask, cube.mask)
    np.testing.assert_array_equal(back.affine, cube.affine)
    assert (back.spacing_mm, back.modality, back.history) == (cube.spacing_mm, "CT", cube.history)
    with h5py.File(path) as file:
        assert file["volume"].dtype == np.float16
        assert file["roi"].dtype == np.uint8
        assert file.attrs["patient_id"] == "P1"
    assert crop.is_complete(path, source="abc")
    assert not crop.is_complete(path, source="other")
    assert not crop.is_complete(tmp_path / "none.h5")
    assert [p.name for p in path.parent.iterdir()] == ["s1.h5"]


def test_a_broken_file_is_never_complete(tmp_path: Path) -> None:
    path = tmp_path / "s1.h5"
    crop.save(path, crop.lesion_volume(scan(ball()), 16, 1.5, WINDOW), "P1")
    whole = path.read_bytes()
    for broken in (whole[:-1], whole[:800], b""):
        path.write_bytes(broken)
        assert not crop.is_complete(path)
        with pytest.raises(IntegrityFault):
            crop.load(path)
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        file.attrs["complete"] = 0
    assert not crop.is_complete(path)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    def write(part: Path) -> None:
        part.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(TryAgain, match="No space"):
        crop.publish(tmp_path / "s1.h5", write, lambda part: True)
    with pytest.raises(TryAgain, match="read back"):
        crop.publish(tmp_path / "s1.h5", lambda part: part.write_bytes(b"x") and None, lambda part: False)
    assert not list(tmp_path.iterdir())


def test_the_key_changes_with_the_crop() -> None:
    cfg = {"modality": "CT", "crop": {"size_vox": 32, "spacing_mm": 2.0, "window": [-1000, 400]}, "workers": 2}
    key = crop.volume_key(cfg)
    assert crop.volume_key({**cfg, "workers": 1, "radiomics": {"setting": {}}}) == key
    assert crop.volume_key({**cfg, "crop": {**cfg["crop"], "spacing_mm": 1.0}}) != key
