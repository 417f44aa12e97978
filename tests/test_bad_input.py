"""Bad input, end to end: the exit code, one clear sentence on stderr, no traceback, nothing half-written."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from typer.testing import CliRunner

from nsclc_mtl.cli import app
from nsclc_mtl.phantom.cohort import make
from nsclc_mtl.phantom.slides import write_pyramid

TOLD = tuple[int, list[str], dict]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound cohort at features level."""
    return make(tmp_path_factory.mktemp("whole") / "data", level="features", n=40)


@pytest.fixture
def data(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to be spoiled, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(whole, tmp_path / "data"))


@pytest.fixture
def glass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cohort of slides: one good, and a declaration `mine` of it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    image = np.full((512, 512, 3), 242, np.int16)
    image[100:, 100:] = (222, 160, 195)
    for y, x in rng.integers(110, 500, (150, 2)):
        image[y : y + 10, x : x + 10] = (90, 60, 140)
    image = (image + rng.integers(-3, 4, (512, 512, 1))).clip(0, 255).astype(np.uint8)
    write_pyramid(tmp_path / "good.tiff", image)
    tifffile.imwrite(tmp_path / "bare.tiff", image, photometric="rgb", tile=(256, 256), metadata=None)
    (tmp_path / "patients.csv").write_text("patient_id\nP1\n")
    conf = tmp_path / "conf" / "cohort"
    conf.mkdir(parents=True)
    (conf / "mine.yaml").write_text(
        "name: mine\nroot: .\npatients: {file: patients.csv, id: patient_id}\n"
        "tasks: {}\nmodalities: {wsi: {kind: bag, table: slides.csv}}\n"
    )
    return tmp_path


def mtl(*words: str) -> TOLD:
    """Exit code, the sentences on stderr and run.json of a command run in the current folder."""
    before = set(Path("runs").rglob("run.json"))
    told = CliRunner().invoke(app, list(words))
    assert not isinstance(told.exception, Exception) or isinstance(told.exception, SystemExit), told.exception
    assert "Traceback" not in told.output
    new = set(Path("runs").rglob("run.json")) - before
    assert not list(Path(".").rglob("*.tmp"))
    return told.exit_code, told.stderr.splitlines(), json.loads(new.pop().read_text()) if new else {}


def tables(data: Path, *words: str) -> list[str]:
    return [f"cohort.root={data}", "cohort.level=features", "cohort.n=40", "folds.n=2", *words]


def slides(*rows: str) -> None:
    Path("slides.csv").write_text("\n".join(["slide_id,patient_id,path", *rows]) + "\n")


SLIDES = ["--conf", "conf", "cohort=mine", "slides.workers=1", "slides.tile_um=64", "name=it"]


def left() -> list[str]:
    return sorted(path.name for path in Path(".").iterdir())


@pytest.mark.parametrize("word", ["trainer.max_epoch=3", "+folds.vlaidation=.1", "++cohort.rooot=x", "floods.n=3"])
def test_a_misspelt_override(word: str, data: Path) -> None:
    code, told, _ = mtl("train", *tables(data, word))
    assert code == 2
    assert len(told) == 1
    assert f"'{word.lstrip('+').split('=')[0]}'" in told[0]
    assert left() == ["data"]


def test_a_word_where_a_number_belongs(data: Path) -> None:
    code, told, _ = mtl("train", *tables(data, "optim.optimizer.lr=fast", "trainer.max_epochs=many"))
    assert (code, len(told)) == (2, 2)
    assert any("optim.optimizer.lr" in line for line in told)
    assert any("trainer.max_epochs" in line for line in told)
    assert left() == ["data"]


@pytest.mark.parametrize("verb", ["tile", "extract"])
def test_a_slide_listed_but_absent(verb: str, glass: Path) -> None:
    slides("gone,P1,gone.svs", "good,P1,good.tiff")
    more = ["backbone.tile_px=64"] if verb == "extract" else []
    code, told, run = mtl(verb, *SLIDES, *more)
    assert code == 4
    assert run["done"] == ["good"]
    assert run["failed"] == [{"id": "gone", "reason": "absent"}]
    assert told == ["mtl: 1 of 2 items failed: gone: slide 'gone' does not exist at 'gone.svs'; mend its path"]
    files = [path.name for path in Path("out").rglob("*.h5")]
    assert set(files) == {"good.h5"}


def test_a_zero_byte_slide_among_good_ones(glass: Path) -> None:
    Path("empty.svs").touch()
    slides("empty,P1,empty.svs", "good,P1,good.tiff")
    code, told, run = mtl("tile", *SLIDES)
    assert (code, run["done"]) == (4, ["good"])
    assert run["failed"] == [{"id": "empty", "reason": "unsupported"}]
    assert len(told) == 1
    assert told[0].startswith("mtl: 1 of 2 items failed: empty: ")


def test_a_slide_without_mpp(glass: Path) -> None:
    slides("bare,P1,bare.tiff", "good,P1,good.tiff")
    code, told, run = mtl("tile", *SLIDES)
    assert (code, run["done"], run["failed"]) == (4, ["good"], [{"id": "bare", "reason": "mpp_missing"}])
    slides("bare,P1,bare.tiff")
    code, told, run = mtl("tile", *SLIDES[:-1], "name=alone")
    assert (code, run["failed"]) == (3, [{"id": "bare", "reason": "mpp_missing"}])
    assert len(told) == 1
    assert told[0].startswith("mtl: nothing could be done: bare: ")
    assert "slides.mpp=" in told[0]
    assert mtl("tile", *SLIDES[:-1], "slides.mpp=0.5", "name=stated")[0] == 0


def test_tiles_too_small_for_the_filters(glass: Path) -> None:
    slides("good,P1,good.tiff")
    code, told, _ = mtl("extract", *SLIDES, "backbone.tile_px=32")
    assert (code, told) == (2, ["mtl: backbone.tile_px=32: the coarsest filters need 56 px at least"])
    assert not Path("out/features").exists()


def test_a_patient_in_two_parts(data: Path) -> None:
    ids = pd.read_csv(data / "patients.csv", dtype=str)["patient_id"]
    rows = [(p, 0, "test" if i < 10 else "train") for i, p in enumerate(ids)] + [(ids[0], 0, "train")]
    pd.DataFrame(rows, columns=["patient_id", "fold", "part"]).to_csv(data / "mine.csv", index=False)
    code, told, run = mtl("train", *tables(data, f"folds.file={data / 'mine.csv'}"))
    assert (code, len(told)) == (3, 1)
    assert f"patient {ids[0]} is in test and train of fold 0" in told[0]
    assert run["exit_code"] == 3
    assert not list(Path("runs").rglob("fold*"))
    assert not list(Path("runs").rglob("splits.csv"))


def test_an_event_that_the_map_does_not_name(data: Path) -> None:
    table = pd.read_csv(data / "patients.csv", dtype=str, keep_default_na=False)
    table.loc[table["os_status"] == "alive", "os_status"] = "living"
    table.to_csv(data / "patients.csv", index=False)
    count = (table["os_status"] == "living").sum()
    for verb in ("train", "check"):
        code, told, _ = mtl(verb, *tables(data))
        assert (code, len(told)) == (3, 1)
        assert f"'living' ({count} rows)" in told[0]
        assert "cohort.tasks.survival.events" in told[0]


@pytest.mark.parametrize("verb", ["tile", "extract", "train", "check"])
def test_no_phantom(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, told, _ = mtl(verb)
    assert (code, len(told)) == (3, 1)
    assert "`mtl demo" in told[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
@pytest.mark.parametrize("ckpt", ["nowhere", "folder"])
def test_no_run(verb: str, ckpt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    code, told, _ = mtl(verb, f"ckpt={ckpt}")
    assert (code, len(told)) == (2, 1)
    assert f"ckpt='{ckpt}'" in told[0]
    assert "mtl train" in told[0]
    assert left() == ["folder"]


def test_a_gpu_that_is_not_there(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = importlib.import_module("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for words in (["train", *tables(data)], ["predict", "ckpt=nowhere"]):
        code, told, _ = mtl(*words, "device=cuda")
        assert (code, len(told)) == (2, 1)
        assert "device=cpu" in told[0]
    assert left() == ["data"]


@pytest.mark.slow
def test_a_feature_file_cut_off_on_the_way(data: Path) -> None:
    file = next((data / "features").glob("*.h5"))
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(OSError, match="truncated"):
        h5py.File(file)
    code, told, _ = mtl("train", *tables(data, "folds.workers=0", "trainer.max_epochs=1"))
    assert code == 3
    assert len(told) == 1
    assert file.name in told[0]
