"""Values of `slides` and `stain` that make no sense end a command before any slide is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsclc_mtl.commands import tile
from nsclc_mtl.config import compose, execute
from nsclc_mtl.config.values import faults


@pytest.mark.parametrize("verb", ["tile", "extract"])
@pytest.mark.parametrize("words", [[], ["slides=biopsy"], ["slides=overview"], ["slides.mpp=0.25", "slides.sample=5"]])
def test_what_is_shipped_holds(verb: str, words: list[str]) -> None:
    assert faults(compose(verb, words)) == []


@pytest.mark.parametrize(
    "word",
    [
        "slides.mpp=abc", "slides.tile_um=abc", "slides.tile_um=0", "slides.tile_um=null", "slides.overlap_um=-1",
        "slides.overlap_um=128", "slides.min_tissue=30", "slides.sample=0", "slides.sample=2.5", "slides.sample_seed=x",
        "slides.max_unreadable=0.5", "slides.workers=many", "slides.readers=x", "slides.stage_ahead=x",
        "slides.mpp_tolerance=x", "slides.mpp_from_power=maybe", "slides.pictures=2", "slides.roi_classes=Tumor",
        "slides.roi_exclude=3",
        "slides.tissue.min_area_um2=x", "slides.dir=3", "stain.views=x", "stain.spread=nan",
    ],
)  # fmt: skip
def test_each_wrong_value_is_named(word: str) -> None:
    (told,) = faults(compose("extract", [word]))
    assert told.startswith(word.split("=")[0] + ":")


def test_the_command_ends_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert execute("tile", ["slides.dir=.", "slides.mpp=abc", "slides.workers=many"], lambda: tile.body) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in told] == ["slides.mpp", "slides.workers"], told
    assert list(tmp_path.iterdir()) == []
