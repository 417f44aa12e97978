"""A small scan with a lesion, and the files that hold it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from toy_scan import SPACING

Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Writes an array [z, y, x] as NIfTI whose axes are those of the patient (LPS), or with another affine."""

    def write_nifti(name: str, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
        if affine is None:
            affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
            affine[:3, 3] = (40, 30, -100)
        path = tmp_path / name
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), affine), path)
        return path

    return write_nifti
