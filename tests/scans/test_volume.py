"""Reading scans: what comes out is right, and every fault has its word."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from toy_dicom import series
from toy_scan import SPACING, ball, chest

from nsclc_mtl.records import ItemFault, UsageFault
from nsclc_mtl.scans import volume


@pytest.fixture
def pair(write: Callable[..., Path]) -> tuple[Path, Path]:
    mask = ball()
    return write("ct.nii.gz", chest(mask)), write("mask.nii.gz", mask)


def refused(reason: str, *args, **options) -> str:
    """The sentence of the refusal; it names a file and ends without a path of the machine."""
    with pytest.raises(ItemFault) as caught:
        volume.load(*args, **options)
    assert caught.value.reason == reason, str(caught.value)
    return str(caught.value)


def test_a_nifti_pair(pair: tuple[Path, Path]) -> None:
    scan = volume.load(*pair, "CT")
    assert scan.array.shape == scan.mask.shape == (20, 24, 28)
    assert scan.array.dtype == np.float32
    assert scan.spacing_mm == SPACING
    assert scan.mask.sum() == ball().sum()
    assert scan.array[scan.mask > 0].mean() == pytest.approx(40, abs=5)
    np.testing.assert_allclose(scan.affine, nibabel.load(pair[0]).affine, atol=1e-5)
    assert "28x24x20 voxels of 1x1x2 mm" in scan.history[0]


def test_nrrd_and_nifti_say_the_same(pair: tuple[Path, Path], tmp_path: Path) -> None:
    for path in pair:
        sitk.WriteImage(sitk.ReadImage(str(path)), str(tmp_path / f"{path.name.split('.')[0]}.nrrd"), True)
    nrrd = volume.load(tmp_path / "ct.nrrd", tmp_path / "mask.nrrd", "CT")
    nifti = volume.load(*pair, "CT")
    np.testing.assert_array_equal(nrrd.array, nifti.array)
    np.testing.assert_allclose(nrrd.affine, nifti.affine, atol=1e-5)


def test_to_sitk_is_the_way_back(pair: tuple[Path, Path]) -> None:
    scan = volume.load(*pair, "CT")
    np.testing.assert_allclose(volume.affine_of(volume.to_sitk(scan.array, scan.affine)), scan.affine)
    assert not volume.geometry_difference(volume.to_sitk(scan.array, scan.affine), sitk.ReadImage(str(pair[0])))


@pytest.mark.parametrize("value", [255, 31, 0.0039])
def test_one_label_may_have_any_value(write: Callable[..., Path], value: float) -> None:
    mask = ball()
    image = write("ct.nii", chest(mask))
    scan = volume.load(image, write("mask.nii", (mask * value).astype(np.float32)), "CT")
    assert scan.mask.dtype == np.uint8
    assert scan.mask.sum() == mask.sum()


def test_several_labels_are_listed_and_one_is_picked(write: Callable[..., Path]) -> None:
    mask = ball().astype(np.int16)
    mask[:10] *= 9
    image, drawn = write("ct.nii", chest(mask)), write("mask.nii", mask)
    sentence = refused("several_labels", image, drawn, "CT")
    assert f"1 ({(mask == 1).sum()} voxels)" in sentence
    assert f"9 ({(mask == 9).sum()} voxels)" in sentence
    assert volume.load(image, drawn, "CT", label=9).mask.sum() == (mask == 9).sum()
    assert "no label 4" in refused("label_absent", image, drawn, "CT", label=4)


def test_masks_without_a_lesion(write: Callable[..., Path]) -> None:
    mask = ball()
    image = write("ct.nii", chest(mask))
    refused("empty_roi", image, write("empty.nii", mask * 0), "CT")
    one = np.zeros_like(mask)
    one[10, 10, 10] = 1
    assert "1 voxels" in refused("roi_too_small", image, write("one.nii", one), "CT")
    refused("not_a_mask", image, write("float.nii", np.random.default_rng(0).random(mask.shape, np.float32)), "CT")
    refused("not_a_mask", image, write("negative.nii", mask.astype(np.int16) - 1), "CT")


@pytest.mark.parametrize(
    ("change", "word"),
    [("size", "size"), ("origin", "origin"), ("direction", "direction"), ("spacing", "spacing")],
)
def test_a_mask_on_another_grid_is_refused_or_resampled(
    pair: tuple[Path, Path], write: Callable[..., Path], change: str, word: str
) -> None:
    affine = nibabel.load(pair[1]).affine.copy()
    mask = ball()
    if change == "size":
        mask = mask[2:]
        affine[:3, 3] += affine[:3, 2] * 2
    elif change == "origin":
        affine[0, 3] += 1.5
    elif change == "spacing":
        affine[:3, :3] *= 1.1
    else:
        turn = np.deg2rad(5)
        affine[:3, :3] = (
            np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]) @ affine[:3, :3]
        )
    other = write("other.nii.gz", mask, affine)
    assert word in refused("geometry_mismatch", pair[0], other, "CT")
    scan = volume.load(pair[0], other, "CT", on_mismatch="resample")
    assert scan.mask.shape == scan.array.shape
    assert int(scan.mask.sum()) == pytest.approx(int(ball().sum()), rel=0.4)
    assert "mask resampled" in scan.history[1]
    assert "ml (" in scan.history[1]


def test_a_lesion_outside_the_scan(pair: tuple[Path, Path], write: Callable[..., Path]) -> None:
    affine = nibabel.load(pair[1]).affine.copy()
    affine[0, 3] += 500
    refused("outside_image", pair[0], write("far.nii", ball(), affine), "CT", on_mismatch="resample")


def test_two_poses_in_one_header(pair: tuple[Path, Path], tmp_path: Path) -> None:
    image = nibabel.load(pair[0])
    moved = image.affine.copy()
    moved[0, 3] += 5
    image.set_sform(image.affine, code=1)
    image.set_qform(moved, code=1)
    nibabel.save(image, tmp_path / "two.nii.gz")
    assert "5.00 mm apart" in refused("qform_sform", tmp_path / "two.nii.gz", pair[1], "CT")


def test_axes_that_are_not_at_right_angles(pair: tuple[Path, Path], write: Callable[..., Path]) -> None:
    affine = nibabel.load(pair[0]).affine.copy()
    affine[0, 1] = 0.3
    refused("sheared", write("sheared.nii", chest(ball()), affine), pair[1], "CT")


def test_files_that_are_no_scans(pair: tuple[Path, Path], tmp_path: Path) -> None:
    refused("absent", tmp_path / "none.nii", pair[1], "CT")
    refused("absent", pair[0], tmp_path / "none.nii", "CT")
    (tmp_path / "text.csv").write_text("a,b")
    refused("unsupported", tmp_path / "text.csv", pair[1], "CT")
    (tmp_path / "zero.nii.gz").touch()
    refused("corrupt", tmp_path / "zero.nii.gz", pair[1], "CT")
    (tmp_path / "text.nii").write_text("no header here" * 40)
    refused("corrupt", tmp_path / "text.nii", pair[1], "CT")
    (tmp_path / "cut.nii.gz").write_bytes(pair[0].read_bytes()[:2000])
    refused("corrupt", tmp_path / "cut.nii.gz", pair[1], "CT")
    sitk.WriteImage(sitk.ReadImage(str(pair[0])), str(tmp_path / "ct.nrrd"))
    (tmp_path / "cut.nrrd").write_bytes((tmp_path / "ct.nrrd").read_bytes()[:-100])
    refused("corrupt", tmp_path / "cut.nrrd", pair[1], "CT")
    (tmp_path / "empty").mkdir()
    refused("unsupported", tmp_path / "empty", pair[1], "CT")


def test_values_that_mean_nothing(pair: tuple[Path, Path], write: Callable[..., Path], tmp_path: Path) -> None:
    array = chest(ball()).astype(np.float32)
    refused("not_hu", write("grey.nii", np.clip(array + 1000, 0, None)), pair[1], "CT")
    assert volume.load(write("grey.nii", np.clip(array + 1000, 0, None)), pair[1], "MRI").modality == "MR"
    array[0, 0, 0] = np.nan
    refused("corrupt", write("nan.nii", array), pair[1], "CT")
    four = np.stack([chest(ball())] * 2, axis=-1).transpose(2, 1, 0, 3)
    nibabel.save(nibabel.Nifti1Image(four, np.eye(4)), tmp_path / "four.nii")
    refused("not_3d", tmp_path / "four.nii", pair[1], "CT")
    with pytest.raises(UsageFault, match="unknown"):
        volume.load(*pair, "ultrasound")


def test_the_size_is_capped_before_memory_is_taken(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """What a header announces counts, packed or not; 108 TB are announced here, and some bytes are there."""
    assert "GiB" in refused("too_large", *pair, "CT", max_bytes=1000)
    header = nibabel.load(pair[0]).header.copy()
    header.set_data_shape((30000, 30000, 30000))
    with (tmp_path / "bomb.nii").open("wb") as file:
        header.write_to(file)
        file.write(b"\0" * 4)
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress((tmp_path / "bomb.nii").read_bytes()))
    refused("too_large", tmp_path / "bomb.nii", pair[1], "CT")
    refused("too_large", tmp_path / "bomb.nii.gz", pair[1], "CT")
    refused("too_large", pair[0], tmp_path / "bomb.nii.gz", "CT")
    nrrd = "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 30000 30000 30000\n"
    nrrd += "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nendian: little\nencoding: gzip\n\n"
    (tmp_path / "bomb.nrrd").write_bytes(nrrd.encode() + gzip.compress(b"\0" * 100))
    refused("too_large", tmp_path / "bomb.nrrd", pair[1], "CT")


def test_packed_data_unpack_no_further_than_announced(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """An eighth of a gigabyte of zeros behind a small scan takes no memory."""
    zeros = b"\0" * 2**27
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(gzip.decompress(pair[0].read_bytes()) + zeros, 1))
    sitk.WriteImage(sitk.ReadImage(str(pair[0])), str(tmp_path / "ct.nrrd"), False)
    head, data = (tmp_path / "ct.nrrd").read_bytes().split(b"\n\n", 1)
    head = head.replace(b"encoding: raw", b"encoding: gzip")
    (tmp_path / "a.nrrd").write_bytes(head + b"\n\n" + gzip.compress(data + zeros, 1))
    offset = nibabel.load(pair[0]).header.copy()
    offset["vox_offset"] = 2.0**40
    with (tmp_path / "far.nii").open("wb") as file:
        offset.write_to(file)
        file.write(b"\0" * 64)
    script = (
        "import resource, sys; from pathlib import Path; from nsclc_mtl.scans import files\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "folder = Path(sys.argv[1])\n"
        "files.read(folder / 'ct.nii.gz'); files.read(folder / 'ct.nrrd'); before = peak()\n"
        "print(files.read(folder / 'a.nii.gz')[0].GetSize(), files.read(folder / 'a.nrrd')[0].GetSize())\n"
        "print(peak() - before)"
    )
    told = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True)
    sizes, grown_kb = told.stdout.splitlines()
    assert sizes == "(28, 24, 20) (28, 24, 20)"
    assert int(grown_kb) < 2**15
    refused("too_large", tmp_path / "far.nii", pair[1], "CT")


@pytest.mark.parametrize("place", ["../secret.raw", "{tmp}/secret.raw"])
def test_headers_that_refer_outside_their_folder(pair: tuple[Path, Path], tmp_path: Path, place: str) -> None:
    array = chest(ball())
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.raw").write_bytes(array.tobytes())
    named = place.format(tmp=tmp_path)
    nrrd = "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 28 24 20\n"
    nrrd += "space directions: (1,0,0) (0,1,0) (0,0,2)\nspace origin: (-40,-30,-100)\nendian: little\nencoding: raw\n"
    meta = "ObjectType = Image\nNDims = 3\nDimSize = 28 24 20\nElementSpacing = 1 1 2\nOffset = -40 -30 -100\n"
    meta += "ElementType = MET_SHORT\n"
    for suffix in ("nhdr", "nrrd"):
        (tmp_path / "in" / f"a.{suffix}").write_text(f"{nrrd}data file: {named}\n\n")
        sentence = refused("outside_root", tmp_path / "in" / f"a.{suffix}", pair[1], "CT")
        assert "secret" not in sentence
    for suffix in ("mhd", "mha"):
        (tmp_path / "in" / f"a.{suffix}").write_text(f"{meta}ElementDataFile = {named}\n")
        refused("outside_root", tmp_path / "in" / f"a.{suffix}", pair[1], "CT")
    (tmp_path / "in" / "near.raw").write_bytes(array.tobytes())
    (tmp_path / "in" / "near.nhdr").write_text(f"{nrrd}data file: near.raw\n\n")
    (tmp_path / "in" / "near.mhd").write_text(f"{meta}ElementDataFile = near.raw\n")
    for name in ("near.nhdr", "near.mhd"):
        np.testing.assert_array_equal(volume.load(tmp_path / "in" / name, pair[1], "CT").array, array)
    (tmp_path / "in" / "list.nhdr").write_text(f"{nrrd}data file: LIST\na.raw\n")
    refused("unsupported", tmp_path / "in" / "list.nhdr", pair[1], "CT")


def test_a_dicom_series(pair: tuple[Path, Path], tmp_path: Path) -> None:
    array = chest(ball())
    folder = series(tmp_path / "good", array)
    scan = volume.load(folder, pair[1], "CT")
    np.testing.assert_array_equal(scan.array, array)
    np.testing.assert_allclose(scan.affine, nibabel.load(pair[0]).affine, atol=1e-5)
    assert "20 slices" in scan.history[1]
    assert not any("Nobody" in note for note in scan.history)
    refused("not_suv", series(tmp_path / "pet", array, modality="PT"), pair[1], "PET")


@pytest.mark.realdata
def test_a_sarcoma_patient_loads(real_data: Path) -> None:
    folder = real_data / "radiology" / "sts_pet_mr_ct" / "STS_001"
    for name, word in (("CT", "CT"), ("MR_T1", "MR"), ("PET", "PET")):
        scan = volume.load(folder / f"{name}_image.nii.gz", folder / f"{name}_mask.nii.gz", word)
        _, pieces = ndimage.label(scan.mask)
        assert pieces >= 1
        ml = scan.mask.sum() * np.prod(scan.spacing_mm) / 1000
        assert 200 < ml < 600
        low, high = {"CT": (-200, 200), "MR": (50, 2000), "PT": (1, 30)}[scan.modality]
        assert low < scan.array[scan.mask > 0].mean() < high
