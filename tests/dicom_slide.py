"""A DICOM slide, small enough to be made in every test."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from nsclc_mtl.slides.reader.dicom import WHOLE_SLIDE


def dicom(path: Path, image: np.ndarray, mpp: float, series: str, number: int, flavour: str = "VOLUME") -> Path:
    """One level of a DICOM slide: full tiles of 256 px as JPEG frames (PS3.3, A.32.8)."""
    height, width, tile = *image.shape[:2], 256
    down, across = -(-height // tile), -(-width // tile)
    padded = np.pad(image, ((0, down * tile - height), (0, across * tile - width), (0, 0)), mode="edge")
    blocks = padded.reshape(down, tile, across, tile, 3).transpose(0, 2, 1, 3, 4).reshape(-1, tile, tile, 3)
    frames = [imagecodecs.jpeg8_encode(np.ascontiguousarray(block), level=90) for block in blocks]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = WHOLE_SLIDE, JPEGBaseline8Bit
    meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    measures, groups, light = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1000, mpp / 1000], 0.001
    groups.PixelMeasuresSequence = [measures]
    light.OpticalPathIdentifier, light.ObjectiveLensPower = "0", 20
    for word, value in {
        "SOPClassUID": WHOLE_SLIDE, "SOPInstanceUID": f"{series}.{number}", "SeriesInstanceUID": series,
        "StudyInstanceUID": f"{series}.0", "FrameOfReferenceUID": f"{series}.99", "Modality": "SM",
        "ImageType": ["ORIGINAL", "PRIMARY", flavour, "NONE"], "InstanceNumber": number, "SamplesPerPixel": 3,
        "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0, "Rows": tile, "Columns": tile,
        "NumberOfFrames": len(frames), "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0,
        "TotalPixelMatrixColumns": width, "TotalPixelMatrixRows": height, "TotalPixelMatrixFocalPlanes": 1,
        "ImagedVolumeWidth": width * mpp / 1000, "ImagedVolumeHeight": height * mpp / 1000, "ImagedVolumeDepth": 0.001,
        "DimensionOrganizationType": "TILED_FULL", "NumberOfOpticalPaths": 1, "OpticalPathSequence": [light],
        "SharedFunctionalGroupsSequence": [groups], "PixelData": encapsulate(frames),
    }.items():  # fmt: skip
        setattr(file, word, value)
    file["PixelData"].VR = "OB"
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
    return path
