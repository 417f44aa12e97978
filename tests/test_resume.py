"""`mtl train --resume`: finished folds stay as they are, the others are trained again; what a killed fold leaves."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_way import SMALL, Way

from nsclc_mtl.commands import fold as one_fold
from nsclc_mtl.commands import train
from nsclc_mtl.config import execute
from nsclc_mtl.records import TryAgain


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    """A working folder in which a small model was trained on two folds."""
    made = Way(tmp_path_factory.mktemp("resume"))
    assert made.train("a", *CHEAP) == 0
    return made


CHEAP = ("modalities=[clinical]", "tasks=[grade,survival]")


def resume(way: Way, *words: str, name: str = "a") -> int:
    given = [f"name={name}", *way.paths, f"cohort.root={way.data}", *SMALL, *CHEAP, *words]
    return execute("train", given, lambda: train.body, resume=True)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The folds that are trained from here on."""
    seen: list[int] = []
    plain = one_fold.train_fold

    def noted(settings: Mapping[str, Any], fold: int, path: Path) -> None:
        seen.append(fold)
        plain(settings, fold, path)

    monkeypatch.setattr(one_fold, "train_fold", noted)
    return seen


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("fold*/*") if p.is_file()}


def test_finished_folds_are_kept(way: Way, trained: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    folder = way.folder(name="a")
    before, said = files(folder), (folder / "predictions.csv").read_bytes()
    assert resume(way) == 0
    assert trained == []
    assert files(folder) == before
    assert (folder / "predictions.csv").read_bytes() == said
    out = capsys.readouterr().out
    assert "fold 0 is finished and kept" in out
    assert "fold 1 is finished and kept" in out
    assert json.loads((folder / "run.json").read_text())["done"] == ["fold0", "fold1"]


@pytest.mark.parametrize("how", ["weights", "predictions", "unsealed", "killed"])
def test_what_is_broken_or_unfinished_is_trained_again(
    way: Way, trained: list[int], capsys: pytest.CaptureFixture[str], how: str
) -> None:
    folder = way.folder(name="a")
    said = (folder / "predictions.csv").read_bytes()
    kept = {name: data for name, data in files(folder).items() if name.startswith("fold0")}
    broken = folder / "fold1"
    if how == "weights":
        raw = bytearray((broken / "model0.ckpt").read_bytes())
        raw[len(raw) // 2] ^= 1
        (broken / "model0.ckpt").write_bytes(raw)
        (broken / "model1.ckpt").write_bytes(raw)
    elif how == "predictions":
        (broken / "predictions.csv").write_text((broken / "predictions.csv").read_text()[:-9])
    elif how == "unsealed":
        (broken / "manifest.sha256").unlink()
    else:  # what a killed process leaves: weights and a seal, and no word that it came to its end
        (broken / "finished.json").unlink()
    assert resume(way) == 0
    assert trained == [1]
    assert "fold 1 is trained again: " in capsys.readouterr().out
    assert {name: data for name, data in files(folder).items() if name.startswith("fold0")} == kept
    assert (folder / "predictions.csv").read_bytes() == said
    assert not (broken / "model1.ckpt").exists()


def test_another_configuration_is_another_run(way: Way, trained: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    folder = way.folder(name="a")
    config = (folder / "config.yaml").read_bytes()
    assert resume(way, "trainer.max_epochs=3") == 2
    assert "trainer.max_epochs" in capsys.readouterr().err
    assert (folder / "config.yaml").read_bytes() == config
    assert resume(way, "folds.workers=2", "fold=1") == 0  # how many at a time, and which, is no other model
    assert trained == []


def test_other_tables_are_other_folds(
    way: Way, trained: list[int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = way.data / "patients.csv"
    before = file.read_text()
    try:
        file.write_text(before.replace(",female", ",male", 1))
        assert resume(way) == 0
        assert trained == [0, 1]
        assert "the cohort's tables have changed" in capsys.readouterr().out
    finally:
        file.write_text(before)


def killed(settings: Mapping[str, Any], fold: int, path: Path) -> None:
    """Fold 0 comes to its end; the process of fold 1 is killed, as by a machine without memory left."""
    if fold == 1:
        while not (path / "fold0").exists():
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    (path / "fold0").mkdir()


class Heard:
    """A run that keeps what it was told."""

    def __init__(self, path: Path) -> None:
        self.path, self.verb, self.quiet = path, "train", True

    def track(self, items: Any, label: str, total: int | None = None) -> Any:
        yield from items


def test_a_killed_fold_is_one_sentence_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_fold, "train_fold", killed)
    path = tmp_path / "mine"
    path.mkdir()
    done: list[int] = []
    with pytest.raises(TryAgain) as caught:
        done.extend(fold for fold, _ in train.train_folds({"folds": {"workers": 2}}, [0, 1], Heard(path)))
    assert caught.value.exit_code == 75
    assert "fold 1" in str(caught.value)
    assert "memory" in str(caught.value)
    assert "name=mine --resume" in str(caught.value)
    assert set(done) <= {0}
    assert (path / "fold0").is_dir()
