"""Scans found in a tree of files: who lacks a file lacks the scan."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsclc_mtl.cohort import scan_files
from nsclc_mtl.cohort.folder import Absent
from nsclc_mtl.records import DataFault, UsageFault

DECLARED = {
    "image": "{patient}/{scan}_image.nii.gz",
    "mask": "{patient}/{scan}_mask.nii.gz",
    "modality": {"PET": "PT", "T1": "MR"},
}


def tree(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).touch()
    return root


def test_rows_of_what_is_there(tmp_path: Path) -> None:
    root = tree(tmp_path, "01/PET_image.nii.gz", "01/PET_mask.nii.gz", "01/T1_mask.nii.gz", "02/T1_image.nii.gz")
    table = scan_files.table(root, {"scans": DECLARED}, ["01", "02", "03"])
    assert table.to_dict("records") == [
        {"scan_id": "01-PET", "patient_id": "01", "modality": "PT", "image": "01/PET_image.nii.gz",
         "mask": "01/PET_mask.nii.gz"},
        {"scan_id": "02-T1", "patient_id": "02", "modality": "MR", "image": "02/T1_image.nii.gz", "mask": ""},
    ]  # fmt: skip


def test_nothing_there_is_absent_and_nonsense_refused(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="no scan"):
        scan_files.table(tmp_path, {"scans": DECLARED}, ["01"])
    with pytest.raises(Absent, match=r"cohort\.scans"):
        scan_files.table(tmp_path, {}, ["01"])
    with pytest.raises(UsageFault, match="no other word"):
        scan_files.table(tmp_path, {"scans": {**DECLARED, "image": "{patient}/{skan}.nii"}}, ["01"])
    with pytest.raises(UsageFault, match="needs image"):
        scan_files.table(tmp_path, {"scans": {"image": "x"}}, ["01"])
    with pytest.raises(DataFault, match="part of a path"):
        scan_files.table(tmp_path, {"scans": DECLARED}, ["../01"])
