"""Fixtures that every room's tests may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; the test is skipped with one sentence where it is absent."""
    folder = Path(os.environ.get("MTL_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder.name!r}: set MTL_REAL_DATA to the folder that holds wsi/, tcga/, ...")
    return folder
