"""`mtl extract` on DICOM slides, staged and not: a series is one slide, and all of it is copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_slide import dicom
from test_slide_jobs import mtl, reasons, tissue_image

from nsclc_mtl.commands import staging
from nsclc_mtl.features import store

WORDS = ["slides.dir=slides", "slides.tile_um=128", "backbone.tile_px=64", "slides.workers=1", "slides.pictures=false"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose `slides/` holds two series side by side, one of them of two levels and a label."""
    monkeypatch.chdir(tmp_path)
    image = tissue_image(600)
    folder = tmp_path / "slides" / "study"
    dicom(folder / "b0.dcm", image, 0.5, "1.2.3.4", 1)
    dicom(folder / "a1.dcm", np.ascontiguousarray(image[::4, ::4]), 2.0, "1.2.3.4", 2)
    dicom(folder / "c label.dcm", image[:256, :256], 8.0, "1.2.3.4", 3, "LABEL")
    dicom(folder / "other.dcm", tissue_image(600, seed=1), 0.5, "1.2.3.5", 1)
    return tmp_path


def content(out: str) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(Path(out).rglob("*.h5"))}


def test_a_staged_series_gives_the_same_and_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mtl("extract", *WORDS, "paths.out=plain")[0] == 0
    copied: list[tuple[str, str]] = []
    copyfile = shutil.copyfile

    def seen(source: Path, target: Path) -> None:
        copied.append((target.parent.name, source.name))
        copyfile(source, target)

    monkeypatch.setattr(staging.shutil, "copyfile", seen)
    code, account = mtl("extract", *WORDS, "slides.stage=fast", "paths.out=staged")
    assert code == 0
    assert len(account["done"]) == 2
    assert content("staged") == content("plain")
    assert list(Path("fast").iterdir()) == []
    folders = {folder: {name for other, name in copied if other == folder} for folder, _ in copied}
    wholes = [{"b0.dcm", "a1.dcm", "c label.dcm"}, {"other.dcm"}]
    assert sorted(folders.values(), key=len, reverse=True) == wholes

    copied.clear()
    assert mtl("extract", *WORDS, "slides.stage=fast", "paths.out=staged")[0] == 0
    assert copied == []  # complete slides are not copied again
    path = next(path for path in Path("staged").rglob("features/*/*.h5") if "other" not in path.name)
    assert store.read(path).attrs["patch_size_level0"] == 256


@pytest.mark.parametrize("share", [0.02, 0.6, 0.99])
def test_a_level_cut_short_is_corrupt_though_no_tile_needs_it(here: Path, share: float) -> None:
    """Tiles of 128 um at 64 px come from the second level, which is whole; the first one has lost its end."""
    level = here / "slides" / "study" / "b0.dcm"
    with level.open("r+b") as file:
        file.truncate(int(level.stat().st_size * share))
    for words in ([], ["slides.stage=fast"]):
        code, account = mtl("tile", "slides", *WORDS[1:2], *WORDS[3:], *words)
        assert (code, account["done"]) == (4, ["study__other"])
        assert reasons(account["failed"]) == {"study__a1": "corrupt"}
    assert list(Path("fast").iterdir()) == []
