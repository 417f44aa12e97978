"""MR: the bias field is found and removed, and a mask follows its patient from one sequence to another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from nsclc_mtl.records import ItemFault
from nsclc_mtl.scans import align, bias, volume

Writer = Callable[..., Path]
SHAPE = (32, 48, 48)  # z, y, x
AFFINE = np.diag([-3.0, -3.0, 4.0, 1.0])


def head() -> tuple[np.ndarray, np.ndarray]:
    """Two tissues in a head (1 and 2) and a lesion, as labels; float32 and uint8 [z, y, x]."""
    z, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    inside = ((x - 24) / 20) ** 2 + ((y - 24) / 18) ** 2 + ((z - 16) / 14) ** 2 < 1
    grain = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 3)
    lesion = (x - 30) ** 2 + (y - 20) ** 2 + (2 * (z - 15)) ** 2 < 36
    return np.where(inside, 1.0 + (grain > 0), 0.0).astype(np.float32), (lesion & inside).astype(np.uint8)


def contrast(tissue: np.ndarray, levels: tuple[float, float, float], seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 4, SHAPE)
    smooth = ndimage.gaussian_filter(np.asarray(levels)[tissue.astype(int)], 0.6)
    return np.clip(smooth + noise, 0, None).astype(np.float32)


def test_n4_evens_out_the_field(write: Writer) -> None:
    tissue, lesion = head()
    clean = contrast(tissue, (0, 200, 300), 1)
    x = np.linspace(-1, 1, SHAPE[2])
    shaded = clean * np.exp(0.4 * x + 0.2 * x**2)
    image, mask = write("t1.nii.gz", shaded.astype(np.float32), AFFINE), write("mask.nii.gz", lesion, AFFINE)
    scan = volume.load(image, mask, "T1", n4={"shrink": 4, "iterations": [30, 30]})
    one = ndimage.binary_erosion(tissue == 1)

    def spread(array: np.ndarray) -> float:
        return float(array[one].std() / array[one].mean())

    assert spread(shaded) > 0.15
    assert spread(scan.array) < 0.3 * spread(shaded)
    assert spread(scan.array) < 2 * spread(clean)
    inside = tissue > 0
    assert np.log(scan.array[inside] + 1).mean() == pytest.approx(np.log(shaded[inside] + 1).mean(), abs=0.02)
    note = next(note for note in scan.history if note.startswith("N4"))
    assert "shrunk by 4x4x4" in note
    assert "30/30 iterations" in note
    again = volume.load(image, mask, "T1", n4={"shrink": 4, "iterations": [30, 30]})
    np.testing.assert_array_equal(scan.array, again.array)
    by_default = volume.load(image, mask, "T1", n4={})  # four levels of 50, every fourth voxel
    assert any("shrunk by 4x4x4, at most 50/50/50/50" in note for note in by_default.history)
    assert not any("N4" in note for note in volume.load(image, mask, "PET", n4={}).history)
    bare = volume.load(image, mask, "T1")
    assert not any("N4" in note for note in bare.history)
    np.testing.assert_array_equal(bare.array, shaded.astype(np.float32))


def test_the_body_is_neither_air_nor_a_part(write: Writer) -> None:
    tissue, _ = head()
    scan = sitk.ReadImage(str(write("t1.nii", contrast(tissue, (0, 200, 300), 1), AFFINE)))
    found = sitk.GetArrayFromImage(bias.body(scan, "t1"))
    inside = tissue > 0
    assert found[inside].all()
    assert not found[~ndimage.binary_dilation(inside, np.ones((3, 3, 3)))].any()  # a rim of partial volume, no more
    with pytest.raises(ItemFault, match="constant"):
        bias.body(scan * 0, "t1")


@pytest.fixture
def moved(write: Writer) -> tuple[Path, Path, Path, np.ndarray]:
    """T1 with its mask; T2 of the patient who has moved by 6, -4 and 3 mm; and the lesion where T2 shows it."""
    tissue, lesion = head()
    t1, mask = write("t1.nii.gz", contrast(tissue, (0, 200, 300), 1), AFFINE), write("mask.nii.gz", lesion, AFFINE)
    shift = (3 / 4, -4 / 3, 6 / 3)  # z, y, x in voxels
    elsewhere = ndimage.shift(contrast(tissue, (0, 300, 120), 2), shift, order=1)
    truth = ndimage.shift(lesion.astype(float), shift, order=1) >= 0.5
    return t1, mask, write("t2.nii.gz", elsewhere, AFFINE), truth


def test_a_mask_follows_the_patient(moved: tuple[Path, Path, Path, np.ndarray]) -> None:
    t1, mask, t2, truth = moved
    scan = volume.load(t2, mask, "T2", drawn_on=t1, register="rigid")
    dice = 2 * (scan.mask * truth).sum() / (scan.mask.sum() + truth.sum())
    stayed = volume.load(t2, mask, "T2", drawn_on=t1)
    unmoved = 2 * (stayed.mask * truth).sum() / (stayed.mask.sum() + truth.sum())
    assert unmoved < 0.75 < 0.9 < dice
    note = next(note for note in scan.history if "rigid registration" in note)
    displacement = float(note.split("moved by at most ")[1].split(" mm")[0])
    assert displacement == pytest.approx(np.sqrt(6**2 + 4**2 + 3**2), abs=1.5)
    before, after = (float(w) for w in note.split("mutual information ")[1].split(",")[0].split(" -> "))
    assert after > before
    assert "mask drawn on another sequence on the same grid, not registered" in stayed.history
    np.testing.assert_array_equal(scan.array, volume.load(t2, mask, "T2").array)  # voxels are not touched


@pytest.mark.slow
def test_the_same_scans_give_the_same_registration(moved: tuple[Path, Path, Path, np.ndarray]) -> None:
    t1, mask, t2, _ = moved
    one, two = (volume.load(t2, mask, "T2", drawn_on=t1, register="rigid") for _ in range(2))
    assert one.history == two.history
    np.testing.assert_array_equal(one.mask, two.mask)


def test_sequences_on_other_grids_are_refused_unless_registered(
    moved: tuple[Path, Path, Path, np.ndarray], write: Writer
) -> None:
    t1, mask, t2, truth = moved
    image = nibabel.load(t2)
    affine = image.affine.copy()
    affine[:3, 2] *= 2  # every second slice
    thin = write("thin.nii.gz", image.get_fdata().transpose(2, 1, 0)[::2].astype(np.float32), affine)
    with pytest.raises(ItemFault, match=r"scans\.register=rigid") as caught:
        volume.load(thin, mask, "T2", drawn_on=t1)
    assert caught.value.reason == "not_registered"
    scan = volume.load(thin, mask, "T2", drawn_on=t1, register="rigid")
    assert 2 * (scan.mask * truth[::2]).sum() / (scan.mask.sum() + truth[::2].sum()) > 0.8
    assert any("volume" in note and "ml (" in note for note in scan.history)


def test_a_registration_that_runs_away_is_refused(
    moved: tuple[Path, Path, Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    t1, mask, t2, _ = moved
    monkeypatch.setattr(align, "FARTHEST_MM", 2.0)
    with pytest.raises(ItemFault) as caught:
        volume.load(t2, mask, "T2", drawn_on=t1, register="rigid")
    assert caught.value.reason == "register_failed"
