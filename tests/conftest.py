"""Fixtures that every room's tests may use."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

import nsclc_mtl  # noqa: F401  before any test module imports Lightning: it makes a torchvision built for CUDA importable

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


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A hub's cache as `huggingface_hub` lays it, with no way to the hub; returns what puts a file into it."""
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert huggingface_hub.constants is constants

    def put(content: bytes, file: str = "model.safetensors", repository: str = "some/where") -> Path:
        root = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        commit = hashlib.sha1(content).hexdigest()
        snapshot = root / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / "main").write_text(commit)
        (snapshot / file).write_bytes(content)
        return snapshot / file

    return put
