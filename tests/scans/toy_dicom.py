"""DICOM files of the toy chest, written with pydicom alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)
from skimage.measure import find_contours
from toy_scan import SPACING

ORIGIN = (-40.0, -30.0, -100.0)  # LPS, the same place as the NIfTI of the fixture `write`
FRAME = "1.2.77"
CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}
Change = Callable[[Dataset, int], None]


def empty(kind: str, uid: str, modality: str) -> Dataset:
    """A dataset with the identifiers that every object needs."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        ExplicitVRLittleEndian,
        kind,
        uid,
    )
    made = Dataset()
    made.file_meta = meta
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = kind, uid, modality
    made.StudyInstanceUID, made.FrameOfReferenceUID = "1.2", FRAME
    made.PatientName, made.PatientID, made.PatientBirthDate = "Nobody^Real", "MRN12345", "19500101"
    return made


def series(
    folder: Path,
    array: np.ndarray,
    *,
    uid: str = "1.2.3",
    leave_out: Sequence[int] = (),
    modality: str = "CT",
    slope: Sequence[float] | float = 1,
    intercept: float = -1024,
    name: Callable[[int], str] = "{}.dcm".format,
    change: Change = lambda slice_, z: None,
) -> Path:
    """A series of `array` [z, y, x], slices of 2 mm and pixels of 1 mm; `change` may alter each slice before saving."""
    folder.mkdir(exist_ok=True, parents=True)
    slopes = np.broadcast_to(slope, len(array))
    for z in sorted(set(range(len(array))) - set(leave_out)):
        slice_ = empty(CLASSES[modality], f"{uid}.{z + 1}", modality)
        slice_.SeriesInstanceUID, slice_.InstanceNumber = uid, z + 1
        slice_.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + SPACING[0] * z]
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.PixelSpacing, slice_.SliceThickness = [SPACING[1], SPACING[2]], SPACING[0]
        slice_.Rows, slice_.Columns = array.shape[1:]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
        slice_.RescaleSlope, slice_.RescaleIntercept = float(slopes[z]), intercept
        stored = np.round((array[z] - intercept) / slopes[z])
        slice_.PixelData = stored.astype(np.uint16).tobytes()
        change(slice_, z)
        slice_.save_as(folder / name(z), enforce_file_format=True)
    return folder


def contours_of(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of a mask [z, y, x], outer and inner, in patient space: float [point, 3] each, mm LPS."""
    found = []
    for z, plane in enumerate(mask):
        padded = np.pad(plane, 1)
        for outline in find_contours(padded, 0.5):
            rows, columns = (outline - 1).T
            found.append(at(columns, rows, z))
    return found


def at(x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
    """Voxels to patient space, mm LPS."""
    voxels = np.stack([x, y, np.full_like(x, z, dtype=float)], axis=1)
    return np.asarray(ORIGIN) + voxels * SPACING[::-1]


def rtstruct(
    path: Path,
    regions: Mapping[str, Sequence[np.ndarray]],
    *,
    frame: str = FRAME,
    kind: str = "CLOSED_PLANAR",
) -> Path:
    """An RTSTRUCT with named regions, each a list of contours in patient space."""
    made = empty(RTStructureSetStorage, "1.2.5.1", "RTSTRUCT")
    made.SeriesInstanceUID, made.StructureSetLabel = "1.2.5", "RT"
    made.StructureSetROISequence, made.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions.items(), start=1):
        region = Dataset()
        region.ROINumber, region.ROIName, region.ReferencedFrameOfReferenceUID = number, name, frame
        region.ROIGenerationAlgorithm = "MANUAL"
        made.StructureSetROISequence.append(region)
        drawn = Dataset()
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = [f"{v:.6f}" for v in np.ravel(points)]
            drawn.ContourSequence.append(contour)
        made.ROIContourSequence.append(drawn)
    made.save_as(path, enforce_file_format=True)
    return path


def segmentation(path: Path, segments: Mapping[str, np.ndarray], *, frame: str = FRAME, shift_mm: float = 0.0) -> Path:
    """A binary DICOM-SEG of named masks [z, y, x] that stores only the frames that are not empty, last slice first."""
    made = empty(SegmentationStorage, "1.2.6.1", "SEG")
    made.SeriesInstanceUID, made.FrameOfReferenceUID, made.SegmentationType = "1.2.6", frame, "BINARY"
    made.SeriesNumber, made.InstanceNumber, made.ImageType = 6, 1, ["DERIVED", "PRIMARY"]
    made.ContentLabel, made.LossyImageCompression = "SEG", "00"
    made.StudyDate = made.StudyTime = made.StudyID = made.AccessionNumber = made.PatientSex = ""
    made.ReferringPhysicianName = made.ContentDescription = made.ContentCreatorName = ""
    made.ContentDate, made.ContentTime = "20200101", "120000"
    made.Manufacturer, made.ManufacturerModelName, made.DeviceSerialNumber, made.SoftwareVersions = "m", "m", "1", "1"
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 1, 1, 0, 0
    made.SegmentSequence, made.PerFrameFunctionalGroupsSequence, frames = [], [], []
    organization = Dataset()
    organization.DimensionOrganizationUID = "1.2.6.2"
    made.DimensionOrganizationSequence = [organization]
    made.DimensionIndexSequence = []
    for pointer, group in ((0x0062000B, 0x0062000A), (0x00200032, 0x00209113)):
        index = Dataset()
        index.DimensionOrganizationUID = "1.2.6.2"
        index.DimensionIndexPointer, index.FunctionalGroupPointer = pointer, group
        made.DimensionIndexSequence.append(index)
    for number, (name, mask) in enumerate(segments.items(), start=1):
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel, segment.SegmentAlgorithmType = number, name, "MANUAL"
        tissue = Dataset()
        tissue.CodeValue, tissue.CodingSchemeDesignator, tissue.CodeMeaning = "85756007", "SCT", "Tissue"
        segment.SegmentedPropertyCategoryCodeSequence = [tissue]
        segment.SegmentedPropertyTypeCodeSequence = [tissue]
        made.SegmentSequence.append(segment)
        for z in np.flatnonzero(mask.any((1, 2)))[::-1]:
            frame_, place, which, content = Dataset(), Dataset(), Dataset(), Dataset()
            place.ImagePositionPatient = [ORIGIN[0] + shift_mm, ORIGIN[1], ORIGIN[2] + SPACING[0] * float(z)]
            which.ReferencedSegmentNumber = number
            content.DimensionIndexValues = [number, int(z) + 1]
            frame_.PlanePositionSequence, frame_.SegmentIdentificationSequence = [place], [which]
            frame_.FrameContentSequence = [content]
            made.PerFrameFunctionalGroupsSequence.append(frame_)
            frames.append(mask[z])
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness, measures.SpacingBetweenSlices = [1, 1], 2, 2
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    made.SharedFunctionalGroupsSequence = [shared]
    made.Rows, made.Columns = frames[0].shape
    made.NumberOfFrames = len(frames)
    bits = np.packbits(np.concatenate([f.ravel() for f in frames]).astype(np.uint8), bitorder="little").tobytes()
    made.PixelData = bits + b"\0" * (len(bits) % 2)
    made.save_as(path, enforce_file_format=True)
    return path
