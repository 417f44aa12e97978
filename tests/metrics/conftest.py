"""Golden values made by R (tests/golden/make)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.fixture(scope="session")
def lung() -> dict[str, Any]:
    return json.loads((GOLDEN / "survival.json").read_text())


@pytest.fixture(scope="session")
def bleeding() -> dict[str, Any]:
    return json.loads((GOLDEN / "roc.json").read_text())
