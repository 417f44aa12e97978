"""DICOM series: ordered by position, rescaled slice by slice, and refused where they are no regular volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MediaStorageDirectoryStorage
from toy_dicom import ORIGIN, empty, rtstruct, series
from toy_scan import SPACING, ball, chest

from nsclc_mtl.records import ItemFault
from nsclc_mtl.scans import dicom, files
from nsclc_mtl.scans.grid import affine_of

ARRAY = chest(ball())


def voxels(folder: Path, modality: str = "CT") -> np.ndarray:
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(files.read(folder, modality=modality)[0])


def refused(reason: str, folder: Path, modality: str = "CT", **options) -> str:
    """The sentence of the refusal, which never names a patient."""
    with pytest.raises(ItemFault) as caught:
        files.read(folder, modality=modality, **options)
    assert caught.value.reason == reason, str(caught.value)
    assert not any(word in str(caught.value) for word in ("Nobody", "MRN12345", "1950"))
    return str(caught.value)


def test_slices_stand_by_position_and_not_by_name_or_number(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(len(ARRAY))

    def number(slice_: Dataset, z: int) -> None:
        slice_.InstanceNumber = int(order[z])

    folder = series(tmp_path / "ct", ARRAY, name=lambda z: f"{order[z]:03d}", change=number)
    (folder / "Thumbs.db").write_bytes(b"no DICOM")
    image, notes = files.read(folder, modality="CT")
    np.testing.assert_array_equal(voxels(folder), ARRAY)
    assert image.GetSpacing() == pytest.approx((SPACING[2], SPACING[1], SPACING[0]))
    np.testing.assert_allclose(affine_of(image)[:3, 3], [-ORIGIN[0], -ORIGIN[1], ORIGIN[2]])
    assert notes == ["DICOM series of 20 slices, rescale applied"]


def test_a_stack_that_runs_downwards_or_lies_obliquely(tmp_path: Path) -> None:
    """Rows towards the head, columns to the back: a sagittal series, counted from left to right."""

    def sagittal(slice_: Dataset, z: int) -> None:
        slice_.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        slice_.ImagePositionPatient = [10 - 2 * z, -50, 40]

    image, _ = files.read(series(tmp_path / "sagittal", ARRAY, change=sagittal), modality="CT")
    first = image.TransformIndexToPhysicalPoint((0, 0, 0))
    along = np.array(image.TransformIndexToPhysicalPoint((0, 0, 1))) - first
    assert np.linalg.det(np.reshape(image.GetDirection(), (3, 3))) == pytest.approx(1)
    np.testing.assert_allclose(along, [-2, 0, 0], atol=1e-6)  # (0, 1, 0) x (0, 0, -1)
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((3, 5, 0)), np.add(first, [0, 3, -5]), atol=1e-6)


def test_every_slice_has_its_own_slope(tmp_path: Path) -> None:
    """As GE writes PET and some MR; the first slope is a whole number, which must not round the others."""
    array = np.abs(ARRAY).astype(float) / 7
    slopes = np.linspace(0.01, 0.05, len(array))
    slopes[0] = 1
    folder = series(tmp_path / "mr", array, modality="MR", slope=slopes, intercept=0)
    np.testing.assert_allclose(voxels(folder, "MR")[1:], array[1:], atol=0.03)
    np.testing.assert_allclose(voxels(folder, "MR")[0], array[0], atol=0.5)


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    def sheared(slice_: Dataset, z: int) -> None:
        slice_.GantryDetectorTilt = 10
        slice_.ImagePositionPatient = [-40, -30 + 2 * z * np.tan(np.deg2rad(10)), -100 + 2 * z]

    assert "10.0 degrees" in refused("gantry_tilt", series(tmp_path / "tilted", ARRAY, change=sheared))

    def corrected(slice_: Dataset, z: int) -> None:
        slice_.GantryDetectorTilt = 10

    _, notes = files.read(series(tmp_path / "corrected", ARRAY, change=corrected), modality="CT")
    assert "10 degrees in the header, none in the positions" in notes[1]


def test_missing_slices(tmp_path: Path) -> None:
    assert "2 of 17" in refused("missing_slices", series(tmp_path / "holes", ARRAY, leave_out=(5, 9)))
    refused("missing_slices", series(tmp_path / "one", ARRAY, leave_out=range(1, 20)))


def test_mixed_series(tmp_path: Path) -> None:
    two = series(tmp_path / "two", ARRAY)
    series(two, ARRAY, uid="1.2.4", name="other{}.dcm".format)
    assert "2 series" in refused("mixed_series", two)

    def phases(slice_: Dataset, z: int) -> None:
        slice_.ImagePositionPatient = [-40, -30, -100 + 2 * (z // 2)]

    assert "10 slices" in refused("mixed_series", series(tmp_path / "phases", ARRAY, change=phases))

    def localizer(slice_: Dataset, z: int) -> None:
        if z == 0:
            slice_.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    assert "localizers" in refused("mixed_series", series(tmp_path / "localizer", ARRAY, change=localizer))


def test_what_lies_beside_a_series_is_not_part_of_it(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", ARRAY)
    rtstruct(folder / "rs.dcm", {"GTV": []})
    np.testing.assert_array_equal(voxels(folder), ARRAY)


def test_values_without_a_unit(tmp_path: Path) -> None:
    def bare(slice_: Dataset, z: int) -> None:
        del slice_.RescaleIntercept

    def other(slice_: Dataset, z: int) -> None:
        slice_.RescaleType = "Z_EFF"

    refused("not_hu", series(tmp_path / "bare", ARRAY, change=bare))
    assert "Z_EFF" in refused("not_hu", series(tmp_path / "other", ARRAY, change=other))
    refused("wrong_modality", series(tmp_path / "ct", ARRAY), "MR")


def test_broken_files(tmp_path: Path) -> None:
    refused("too_large", series(tmp_path / "big", ARRAY), max_bytes=1000)
    folder = series(tmp_path / "cut", ARRAY)
    (folder / "3.dcm").write_bytes((folder / "3.dcm").read_bytes()[:-700])
    refused("corrupt", folder)
    (folder / "3.dcm").write_bytes(b"")
    assert "3.dcm" in refused("corrupt", folder)

    def nowhere(slice_: Dataset, z: int) -> None:
        del slice_.ImagePositionPatient

    refused("corrupt", series(tmp_path / "nowhere", ARRAY, change=nowhere))
    (tmp_path / "empty").mkdir()
    refused("unsupported", tmp_path / "empty")


def dicomdir(folder: Path, listed: list[list[str]]) -> Path:
    """A DICOMDIR in a folder that refers to files by their parts."""
    made = empty(MediaStorageDirectoryStorage, "1.2.8", "")
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.DirectoryRecordSequence = []
    for parts in listed:
        record = Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", parts
        made.DirectoryRecordSequence.append(record)
    made.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_dicomdir_is_followed_inside_its_folder_only(tmp_path: Path) -> None:
    disc = tmp_path / "disc"
    series(disc / "IMG", ARRAY, name="I{}".format)
    dicomdir(disc, [["IMG", f"I{z}"] for z in range(len(ARRAY))])
    np.testing.assert_array_equal(voxels(disc), ARRAY)
    series(tmp_path / "secret", ARRAY, name="S{}".format)
    sentence = refused("outside_root", dicomdir(disc, [["..", "secret", "S0"]]))
    assert "secret" not in sentence
    refused("missing_slices", dicomdir(disc, [["IMG", "I99"]]))


def enhanced(path: Path, array: np.ndarray, leave_out: tuple[int, ...] = ()) -> Path:
    """An enhanced MR file, frames in any order, each with its own slope."""
    made = empty(EnhancedMRImageStorage, "1.2.9.1", "MR")
    assert isinstance(made.file_meta, FileMetaDataset)
    made.SeriesInstanceUID, made.InstanceNumber, made.ImageType = "1.2.9", 1, ["ORIGINAL", "PRIMARY", "M", "NONE"]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.Rows, made.Columns = array.shape[1:]
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness, measures.SpacingBetweenSlices = [1, 1], 2, 2
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence = [shared], []
    order = [z for z in np.random.default_rng(1).permutation(len(array)) if z not in leave_out]
    pixels = []
    for z in order:
        frame, place, rescale, content = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + 2 * float(z)]
        slope = 0.5 + float(z) / 10
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = slope, 0, "US"
        content.DimensionIndexValues = [int(z) + 1]
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [place], [rescale]
        frame.FrameContentSequence = [content]
        made.PerFrameFunctionalGroupsSequence.append(frame)
        pixels.append(np.round(array[z] / slope).astype(np.uint16))
    made.NumberOfFrames, made.PixelData = len(pixels), np.stack(pixels).tobytes()
    made.save_as(path, enforce_file_format=True)
    return path


def test_an_enhanced_file(tmp_path: Path) -> None:
    array = np.abs(ARRAY).astype(float)
    (tmp_path / "mr").mkdir()
    for where in (enhanced(tmp_path / "mr" / "a.dcm", array), tmp_path / "mr"):
        image, notes = files.read(where, modality="MR")
        np.testing.assert_allclose(voxels(where, "MR"), array, atol=1.3)
        np.testing.assert_allclose(affine_of(image)[:3, 3], [-ORIGIN[0], -ORIGIN[1], ORIGIN[2]])
        assert image.GetSpacing() == pytest.approx((1, 1, 2))
        assert "20 frames" in notes[0]
    refused("missing_slices", enhanced(tmp_path / "holes.dcm", array, leave_out=(7,)), "MR")
    refused("wrong_modality", tmp_path / "mr")


def test_a_frame_of_reference_is_compared_and_never_shown(tmp_path: Path) -> None:
    assert dicom.frame_of_reference(series(tmp_path / "ct", ARRAY)) == "1.2.77"
    (tmp_path / "a.nii").write_bytes(b"\0" * 400)
    assert dicom.frame_of_reference(tmp_path / "a.nii") == ""
