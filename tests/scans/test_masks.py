"""Masks: RTSTRUCT, DICOM-SEG and label maps say the same, and nothing ambiguous is guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from toy_dicom import at, contours_of, rtstruct, segmentation, series
from toy_scan import SHAPE, ball, chest

from nsclc_mtl.records import ItemFault
from nsclc_mtl.scans import radiomics, volume

Writer = Callable[..., Path]
FEATURES = {"setting": {"binWidth": 25}, "featureClass": {"shape": [], "firstorder": [], "glcm": [], "glszm": []}}


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    return series(tmp_path / "ct", chest(ball()))


def lobed() -> np.ndarray:
    """A lesion with a hole in the middle slices and a second piece beside it."""
    mask = ball(8.0)
    mask[8:12, 10:14, 12:16] = 0
    mask[4:7, 2:5, 2:6] = 1
    return mask


def refused(reason: str, *args, **options) -> str:
    with pytest.raises(ItemFault) as caught:
        volume.load(*args, **options)
    assert caught.value.reason == reason, str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("made", [ball(), lobed()], ids=["ball", "lobed with a hole"])
def test_dicom_with_contours_or_segments_agrees_with_nifti(tmp_path: Path, write: Writer, made: np.ndarray) -> None:
    """Features of the same phantom as series + RTSTRUCT, series + SEG and NIfTI + mask, by PyRadiomics: within 1 %."""
    array = chest(made)
    folder = series(tmp_path / "ct", array)
    nifti = volume.load(write("ct.nii.gz", array), write("mask.nii.gz", made), "CT")
    contours = rtstruct(tmp_path / "rs.dcm", {"BODY": [], "GTV-1": contours_of(made)})
    drawn = volume.load(folder, contours, "CT", roi="GTV-1")
    filled = volume.load(folder, segmentation(tmp_path / "seg.dcm", {"GTV-1": made}), "CT")
    expected = radiomics.features(nifti, FEATURES)
    for scan in (drawn, filled):
        np.testing.assert_array_equal(scan.mask, made)
        found = radiomics.features(scan, FEATURES)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=0.01), name
    assert any("contours rasterised, even-odd" in note for note in drawn.history)
    assert any("segment GTV-1 of a DICOM segmentation" in note for note in filled.history)


def test_a_voxel_belongs_to_a_contour_when_its_centre_does(ct: Path, tmp_path: Path) -> None:
    turn = np.linspace(0, 2 * np.pi, 500, endpoint=False)
    circles = [at(13.4 + 7.3 * np.cos(turn), 11.7 + 7.3 * np.sin(turn), z) for z in range(6, 12)]
    scan = volume.load(ct, rtstruct(tmp_path / "rs.dcm", {"GTV": circles}), "CT")
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    disc = np.hypot(x - 13.4, y - 11.7) < 7.3
    np.testing.assert_array_equal(scan.mask[6:12], np.stack([disc] * 6))
    assert scan.mask.sum() == 6 * disc.sum()


def test_contours_of_several_regions(ct: Path, tmp_path: Path) -> None:
    one, two = ball(), np.roll(ball(4.0), 6, 2)
    path = rtstruct(tmp_path / "rs.dcm", {"GTV-1": contours_of(one), "Nodes": contours_of(two)})
    assert "'GTV-1', 'Nodes'" in refused("several_labels", ct, path, "CT")
    assert "'gtv 1'" in refused("label_absent", ct, path, "CT", roi="gtv 1")
    np.testing.assert_array_equal(volume.load(ct, path, "CT", roi="nodes").mask, two)
    both = volume.load(ct, path, "CT", roi=["GTV-1", "Nodes"]).mask
    np.testing.assert_array_equal(both, one | two)  # a union, though their contours overlap


def test_a_folder_may_hold_one_structure_set(ct: Path, tmp_path: Path) -> None:
    rtstruct(ct / "rs.dcm", {"GTV": contours_of(ball())})
    np.testing.assert_array_equal(volume.load(ct, ct, "CT").mask, ball())
    segmentation(ct / "seg.dcm", {"GTV": ball()})
    refused("unsupported", ct, ct, "CT")
    (tmp_path / "none").mkdir()
    refused("unsupported", ct, tmp_path / "none", "CT")


def test_contours_that_enclose_nothing(ct: Path, tmp_path: Path) -> None:
    refused("contour_type", ct, rtstruct(tmp_path / "a.dcm", {"GTV": contours_of(ball())}, kind="OPEN_PLANAR"), "CT")
    point = [at(np.ones(1), np.ones(1), 3)]
    refused("contour_type", ct, rtstruct(tmp_path / "b.dcm", {"P": point}, kind="POINT"), "CT")
    refused("empty_roi", ct, rtstruct(tmp_path / "c.dcm", {"GTV": []}), "CT")
    refused("empty_roi", ct, rtstruct(tmp_path / "d.dcm", {}), "CT")


def test_a_region_of_another_frame_of_reference(ct: Path, tmp_path: Path, write: Writer) -> None:
    mask = ball()
    for path in (
        rtstruct(tmp_path / "rs.dcm", {"GTV": contours_of(mask)}, frame="1.2.99"),
        segmentation(tmp_path / "seg.dcm", {"GTV": mask}, frame="1.2.99"),
    ):
        sentence = refused("frame_of_reference", ct, path, "CT")
        assert "1.2.99" not in sentence
    scan = volume.load(write("ct.nii", chest(mask)), tmp_path / "rs.dcm", "CT")  # a NIfTI has none to compare
    np.testing.assert_array_equal(scan.mask, mask)
    assert "frame of reference not compared: the image is not DICOM" in scan.history


def test_contours_on_other_slices_are_refused_or_resampled(ct: Path, tmp_path: Path) -> None:
    mask = ball(9.0)
    second = [c for c in contours_of(mask) if round((c[0, 2] + 100) / 2) % 2 == 0]
    path = rtstruct(tmp_path / "second.dcm", {"GTV": second})
    refused("geometry_mismatch", ct, path, "CT")
    scan = volume.load(ct, path, "CT", on_mismatch="resample")
    assert scan.mask.sum() == pytest.approx(mask.sum(), rel=0.2)
    assert scan.mask.any((1, 2)).sum() == 2 * len({c[0, 2] for c in second})  # no empty slice between
    assert any("mask resampled" in note and "ml (" in note for note in scan.history)
    between = rtstruct(tmp_path / "between.dcm", {"GTV": [c + np.array([0, 0, 1.0]) for c in contours_of(mask)]})
    refused("geometry_mismatch", ct, between, "CT")
    slanted = rtstruct(tmp_path / "slanted.dcm", {"GTV": [c + c[:, :1] * [0, 0, 0.1] for c in contours_of(mask)]})
    refused("oblique_contours", ct, slanted, "CT")
    far = rtstruct(tmp_path / "far.dcm", {"GTV": [c + np.array([0, 0, 400.0]) for c in contours_of(mask)]})
    refused("outside_image", ct, far, "CT")


def test_segments_by_name_and_on_another_grid(ct: Path, tmp_path: Path) -> None:
    one, two = ball(), np.roll(ball(4.0), 7, 2)
    path = segmentation(tmp_path / "seg.dcm", {"Primary": one, "Nodes": two})
    refused("several_labels", ct, path, "CT")
    np.testing.assert_array_equal(volume.load(ct, path, "CT", roi="Nodes").mask, two)
    np.testing.assert_array_equal(volume.load(ct, path, "CT", roi=["Primary", "Nodes"]).mask, one | two)
    moved = segmentation(tmp_path / "moved.dcm", {"Primary": one}, shift_mm=0.4)
    refused("geometry_mismatch", ct, moved, "CT")
    scan = volume.load(ct, moved, "CT", on_mismatch="resample")
    assert scan.mask.sum() == pytest.approx(one.sum(), rel=0.1)
    (tmp_path / "bad.dcm").write_bytes(path.read_bytes()[:-900])
    refused("corrupt", ct, tmp_path / "bad.dcm", "CT", roi="Primary")


def test_labels_by_name(write: Writer, tmp_path: Path) -> None:
    mask = ball().astype(np.int16)
    mask[:10] *= 2
    image, drawn = write("ct.nii", chest(ball())), write("mask.nii", mask)
    names = {"primary": 1, "nodes": 2}
    scan = volume.load(image, drawn, "CT", roi="nodes", labels=names)
    assert scan.mask.sum() == (mask == 2).sum()
    assert "label 2 = nodes" in scan.history
    assert volume.load(image, drawn, "CT", roi=["primary", "nodes"], labels=names).mask.sum() == (mask > 0).sum()
    assert "2 = nodes" in refused("several_labels", image, drawn, "CT", labels=names)
    refused("label_absent", image, drawn, "CT", roi="gland", labels=names)
    assert "no label 3" in refused("label_absent", image, drawn, "CT", roi="gland", labels={**names, "gland": 3})
    assert "scans.labels={nodes: NUMBER}" in refused("several_labels", image, drawn, "CT", roi="nodes")
    largest = volume.load(image, drawn, "CT", label="largest")
    assert largest.mask.sum() == max((mask == 1).sum(), (mask == 2).sum())
    slicer = sitk.ReadImage(str(drawn))
    for number, (name, value) in enumerate(names.items()):
        slicer.SetMetaData(f"Segment{number}_Name", name)
        slicer.SetMetaData(f"Segment{number}_LabelValue", str(value))
    sitk.WriteImage(slicer, str(tmp_path / "a.seg.nrrd"))
    assert volume.load(image, tmp_path / "a.seg.nrrd", "CT", roi="nodes").mask.sum() == (mask == 2).sum()


def test_the_largest_piece(write: Writer) -> None:
    mask = lobed()
    image, drawn = write("ct.nii", chest(mask)), write("mask.nii", mask)
    everything = volume.load(image, drawn, "CT")
    assert any("2 separate pieces, all kept (" in note for note in everything.history)
    scan = volume.load(image, drawn, "CT", component="largest")
    assert scan.mask.sum() == mask.sum() - 36
    assert any("the largest of 2 pieces kept" in note for note in scan.history)


def test_a_flat_mask_lies_on_the_patient_not_on_the_array(ct: Path, write: Writer) -> None:
    """A mask whose axes are turned around is another grid, though the same voxels of the patient are drawn."""
    affine = np.diag([1.0, -1.0, 2.0, 1.0])
    affine[:3, 3] = (40 - (SHAPE[2] - 1), 30, -100)
    turned = write("turned.nii", ball()[:, :, ::-1], affine)
    refused("geometry_mismatch", ct, turned, "CT")
    np.testing.assert_array_equal(volume.load(ct, turned, "CT", on_mismatch="resample").mask, ball())
