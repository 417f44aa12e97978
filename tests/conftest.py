"""Fixtures that every room's tests may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# CI judges a change, so it tries the same examples every time; elsewhere Hypothesis hunts for new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("hunt", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "hunt")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; the test is skipped with one sentence where it is absent."""
    folder = Path(os.environ.get("MTL_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder.name!r}: set MTL_REAL_DATA to the folder that holds wsi/, tcga/, ...")
    return folder
