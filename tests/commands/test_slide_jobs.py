"""`mtl tile` and `mtl extract` from end to end: what is done, what is not and why, and what a rerun does."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from nsclc_mtl.commands.engine import work_through
from nsclc_mtl.commands.job import Outcome
from nsclc_mtl.commands.pool import Here
from nsclc_mtl.commands.staging import Stage
from nsclc_mtl.config.frame import execute
from nsclc_mtl.features import store
from nsclc_mtl.features.backbones import feature_key
from nsclc_mtl.lease import _here
from nsclc_mtl.phantom.slides import write_pyramid
from nsclc_mtl.slides import geojson

QUICK = ["slides.workers=1", "slides.tile_um=64"]


def tissue_image(px: int = 768, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((px, px, 3), 242, np.int16)
    image[px // 4 :, px // 4 :] = (222, 160, 195)
    places = rng.integers(px // 4, px - 12, (200, 2))
    for y, x in places:
        image[y : y + 12, x : x + 12] = (90, 60, 140)
    return (image + rng.integers(-3, 4, (px, px, 1))).clip(0, 255).astype(np.uint8)


def mtl(verb: str, *words: str, conf_dirs: Sequence[Path] = ()) -> tuple[int, dict]:
    """Exit code and run.json of a command run in the current folder."""
    seen = set(Path("runs").rglob("run.json"))
    body = f"nsclc_mtl.commands.{verb}"
    code = execute(verb, list(words), lambda: importlib.import_module(body).body, conf_dirs=list(conf_dirs))
    new = set(Path("runs").rglob("run.json")) - seen
    return code, json.loads(new.pop().read_text()) if new else {}


def reasons(items: list[dict]) -> dict[str, str]:
    return {item["id"]: item["reason"] for item in items}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `slides/` that holds one good slide."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slides" / "a b").mkdir(parents=True)
    write_pyramid(tmp_path / "slides" / "a b" / "Schnitt ä.tiff", tissue_image())
    return tmp_path


def test_a_zero_byte_slide_among_good_ones(bench: Path) -> None:
    whole = (bench / "slides" / "a b" / "Schnitt ä.tiff").read_bytes()
    (bench / "slides" / "empty.svs").touch()
    (bench / "slides" / "cut.tiff").write_bytes(whole[: int(len(whole) * 0.6)])
    write_pyramid(bench / "slides" / "glass.tiff", np.full((768, 768, 3), 243, np.uint8))
    write_pyramid(bench / "slides" / "tiny.tiff", tissue_image(64))
    (bench / "slides" / "one.tiff").write_bytes(whole)
    (bench / "slides" / "one.tif").write_bytes(whole)
    (bench / "slides" / "notes.txt").write_text("not a slide")
    (bench / "slides" / "loop").symlink_to(bench / "slides", target_is_directory=True)
    before = sorted(p.name for p in (bench / "slides").rglob("*"))
    code, account = mtl("tile", "slides", *QUICK)
    assert code == 4
    assert account["done"] == ["a b__Schnitt ä"]
    assert reasons(account["skipped"]) == {"glass": "no_tissue", "tiny": "too_small"}
    found = reasons(account["failed"])
    assert found.pop("cut") in {"corrupt", "unsupported"}
    assert found == {"empty": "unsupported", "one": "id_collision"}
    assert sorted(p.name for p in (bench / "slides").rglob("*")) == before
    (folder,) = (bench / "out" / "tiles").iterdir()
    assert sorted(p.suffix for p in folder.glob("a b*")) == [".geojson", ".h5", ".jpg"]
    tiles = store.read_tiles(folder / "a b__Schnitt ä.h5")
    assert len(tiles) > 10
    assert tiles.attrs["mpp_source"] == "tiff_resolution"
    assert store.read_tiles(folder / "glass.h5").attrs["reason"] == "no_tissue"
    assert not list(bench.rglob("*.tmp"))


def test_extract_writes_what_train_looks_for_and_a_rerun_keeps_it(bench: Path) -> None:
    words = ["slides.dir=slides", "backbone.tile_px=64", *QUICK]
    code, account = mtl("extract", *words)
    assert (code, account["done"]) == (0, ["a b__Schnitt ä"])
    from nsclc_mtl.config import compose, plain

    settings = plain(compose("extract", words))
    path = bench / "out" / "features" / feature_key(settings["slides"], settings["backbone"]) / "a b__Schnitt ä.h5"
    found = store.read(path)
    assert found.features.shape == store.header(path)
    assert len(found) > 10
    assert np.isfinite(found.features).all()
    assert found.attrs["backbone"] == "texture"
    assert found.attrs["tile_um"] == 64
    with h5py.File(path) as file:
        assert file["coords"].attrs["patch_size_level0"] == 128
        assert file["coords"].attrs["patch_size"] == 64
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns

    code, account = mtl("extract", *words)
    assert (code, account["done"]) == (0, ["a b__Schnitt ä"])
    assert path.stat().st_mtime_ns == stamp

    path.write_bytes(before[:-1])  # what a killed writer of another kind would leave
    assert mtl("extract", *words)[0] == 0
    assert path.read_bytes() == before

    write_pyramid(bench / "slides" / "a b" / "Schnitt ä.tiff", tissue_image(seed=9))  # the slide was scanned again
    assert mtl("extract", *words)[0] == 0
    assert path.read_bytes() != before


def mtl_of_a_cohort(bench: Path, *words: str) -> tuple[int, dict]:
    """`mtl tile` on the slides that `slides.csv` lists, declared as a cohort of one's own."""
    (bench / "patients.csv").write_text("patient_id\n001\n")
    (bench / "conf" / "cohort").mkdir(parents=True, exist_ok=True)
    (bench / "conf" / "cohort" / "mine.yaml").write_text(
        "name: mine\nroot: .\npatients: {file: patients.csv, id: patient_id}\n"
        "tasks: {}\nmodalities: {wsi: {kind: bag, table: slides.csv}}\n"
    )
    return mtl("tile", "cohort=mine", *words, conf_dirs=[bench / "conf"])


def test_a_cohort_says_which_slides_and_at_which_scale(bench: Path) -> None:
    shutil.copy(bench / "slides" / "a b" / "Schnitt ä.tiff", bench / "good.tiff")
    tifffile.imwrite(bench / "bare.tiff", tissue_image(), photometric="rgb", tile=(256, 256), metadata=None)
    rows = [
        "slide_id,patient_id,path,mpp", "good,001,good.tiff,", "bare,001,bare.tiff,", "stated,001,bare.tiff,0.5",
        "words,001,bare.tiff,about 1", "gone,001,gone.svs,", "ready,001,ready.h5,",
    ]  # fmt: skip
    (bench / "slides.csv").write_text("\n".join(rows) + "\n")
    code, account = mtl_of_a_cohort(bench, *QUICK)
    assert code == 4
    assert account["done"] == ["good", "stated"]
    assert reasons(account["skipped"]) == {"ready": "features_given"}
    assert reasons(account["failed"]) == {"bare": "mpp_missing", "words": "mpp_implausible", "gone": "absent"}
    (folder,) = (bench / "out" / "tiles").iterdir()
    assert store.read_tiles(folder / "stated.h5").attrs["mpp_source"] == "slides.csv"


def test_nothing_to_do_and_no_weights_have_their_exit_codes(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mtl("tile", "nowhere")[0] == 3
    (bench / "bare").mkdir()
    assert mtl("tile", "bare")[0] == 3
    assert mtl("extract", "slides.dir=slides", "backbone=resnet50", *QUICK)[0] == 2
    assert "backbone.weights=PATH" in capsys.readouterr().err
    assert not (bench / "out" / "features").exists()


def test_a_full_disk_stops_the_job_and_leaves_nothing(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "fsync", full)
        assert mtl("tile", "slides", *QUICK)[0] == 75
    assert not list((bench / "out").rglob("*.h5*"))
    assert mtl("tile", "slides", *QUICK)[0] == 0


@pytest.mark.slow
def test_two_processes_give_what_one_gives(bench: Path) -> None:
    for seed in range(5):
        write_pyramid(bench / "slides" / f"s{seed}.tiff", tissue_image(seed=seed))
    words = ["slides.dir=slides", "slides.tile_um=64", "backbone.tile_px=64"]
    assert mtl("extract", *words, "slides.workers=1", "paths.out=one")[0] == 0
    assert mtl("extract", *words, "slides.workers=2", "paths.out=two")[0] == 0
    files = sorted(path.relative_to("one") for path in Path("one").rglob("*.h5"))
    assert len(files) == 12
    for file in files:
        assert ("one" / file).read_bytes() == ("two" / file).read_bytes()


def drawn(path: Path, *corners: tuple[int, int, int], name: str = "Tumor") -> None:
    """A GeoJSON file of squares (x, y, edge in level-0 pixels)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    squares = [[[x, y], [x + e, y], [x + e, y + e], [x, y + e], [x, y]] for x, y, e in corners]
    geojson.write(path, [geojson.annotation([[list(map(float, p)) for p in ring]], name) for ring in squares])


def test_regions_drawn_in_qupath_restrict_the_tiling(bench: Path) -> None:
    for name in ("one", "none", "broken"):
        write_pyramid(bench / "slides" / f"{name}.tiff", tissue_image())
    drawn(bench / "roi" / "one.geojson", (256, 256, 256))
    drawn(bench / "roi" / "a b__Schnitt ä.geojson", (0, 0, 400), name="Tissue")
    (bench / "roi" / "broken.geojson").write_text("{")
    words = ["slides", "slides.roi=roi", "slides.tile_um=32", "slides.workers=1"]
    code, account = mtl("tile", *words)
    assert code == 4
    assert account["done"] == ["a b__Schnitt ä", "one"]
    assert reasons(account["skipped"]) == {"none": "no_roi"}
    assert reasons(account["failed"]) == {"broken": "roi_invalid"}
    (folder,) = (bench / "out" / "tiles").iterdir()
    before = store.read_tiles(folder / "one.h5")
    assert 0 < len(before) <= 16
    assert (before.coords >= 256 - 32).all()
    assert (before.coords + before.size_level0 <= 512 + 32).all()
    corrected = store.read_tiles(folder / "a b__Schnitt ä.h5")  # the user says that glass is tissue: so it is
    assert [0, 0] in corrected.coords.tolist()

    drawn(bench / "roi" / "one.geojson", (256, 256, 448))
    assert mtl("tile", *words)[0] == 4
    after = store.read_tiles(folder / "one.h5")
    assert len(after) > len(before)
    assert after.attrs["config_hash"] != before.attrs["config_hash"]

    code, account = mtl("tile", *words, "slides.roi_classes=[Stroma]")
    assert code == 3
    assert set(reasons(account["failed"]).values()) == {"roi_invalid"}


def test_the_column_roi_comes_before_the_folder(bench: Path) -> None:
    whole = (bench / "slides" / "a b" / "Schnitt ä.tiff").read_bytes()
    for name in ("own", "folder", "gone", "neither"):
        (bench / "slides" / f"{name}.tiff").write_bytes(whole)
    drawn(bench / "drawn by hand" / "own regions.geojson", (256, 256, 128))
    for name in ("own", "folder", "gone"):
        drawn(bench / "roi" / f"{name}.geojson", (512, 512, 128))
    rows = ["own,drawn by hand/own regions.geojson", "folder,", "gone,drawn by hand/gone.geojson", "neither,NA"]
    told = [f"{row.split(',')[0]},001,slides/{row.split(',')[0]}.tiff,{row.split(',')[1]}" for row in rows]
    (bench / "slides.csv").write_text("\n".join(["slide_id,patient_id,path,roi", *told]) + "\n")
    code, account = mtl_of_a_cohort(bench, *QUICK[:1], "slides.tile_um=32", "slides.roi=roi")
    assert code == 4
    assert account["done"] == ["own", "folder"]
    assert reasons(account["skipped"]) == {"neither": "no_roi"}
    assert reasons(account["failed"]) == {"gone": "roi_absent"}
    (at,) = (bench / "out" / "tiles").iterdir()
    own, folder = (store.read_tiles(at / f"{name}.h5") for name in ("own", "folder"))
    for tiles, corner in ((own, 256), (folder, 512)):
        assert len(tiles) > 0
        assert (tiles.coords > corner - 64).all()
        assert (tiles.coords < corner + 128).all()

    code, account = mtl_of_a_cohort(bench, *QUICK[:1], "slides.tile_um=32")  # no folder: the rest is tiled whole
    assert account["done"] == ["own", "folder", "neither"]
    assert reasons(account["failed"]) == {"gone": "roi_absent"}
    places = {path.stem: len(store.read_tiles(path)) for path in bench.glob("out/tiles/*/*.h5")}
    assert places["neither"] > 10 * places["own"]

    before = own.attrs["roi_hash"]
    drawn(bench / "drawn by hand" / "own regions.geojson", (256, 256, 256))
    mtl_of_a_cohort(bench, *QUICK[:1], "slides.tile_um=32", "slides.roi=roi")
    again = store.read_tiles(at / "own.h5")  # the file was drawn anew, so the slide is tiled anew
    assert again.attrs["roi_hash"] != before
    assert len(again) > len(own)


def test_a_sample_and_the_segmenter_have_tiles_of_their_own(bench: Path) -> None:
    for words in ([], ["slides.sample=5"], ["slides.sample=5", "slides.sample_seed=1"], ["segmenter.closing_um=40"]):
        assert mtl("tile", "slides", *QUICK, *words)[0] == 0
    found = [store.read_tiles(path) for path in sorted((bench / "out" / "tiles").rglob("*.h5"))]
    assert len(found) == 4
    assert sorted(len(tiles) for tiles in found)[:2] == [5, 5]


def test_a_model_of_the_user_finds_the_tissue(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is an optional extra")
    from tests.slides.test_segmenters import GREENLESS, network

    (bench / "model.onnx").write_bytes(network(*GREENLESS))
    words = ["segmenter=onnx", "segmenter.weights=model.onnx", "segmenter.mean=[0,0,0]", "segmenter.std=[1,1,1]"]
    assert mtl("tile", "slides", *QUICK, *words)[0] == 0
    first = set((bench / "out" / "tiles").iterdir())
    (bench / "elsewhere.onnx").write_bytes((bench / "model.onnx").read_bytes())
    words[1] = "segmenter.weights=elsewhere.onnx"
    assert mtl("tile", "slides", *QUICK, *words)[0] == 0
    assert set((bench / "out" / "tiles").iterdir()) == first  # the content counts, not the place
    (bench / "elsewhere.onnx").write_bytes(network(-GREENLESS[0], -GREENLESS[1]))  # glass instead
    assert mtl("tile", "slides", *QUICK, *words)[0] == 0
    assert len(list((bench / "out" / "tiles").iterdir())) == 2
    assert mtl("tile", "slides", *QUICK, "segmenter=onnx")[0] == 2
    assert "segmenter.weights=PATH" in capsys.readouterr().err
    assert mtl("tile", "slides", *QUICK, *words, f"segmenter.weights_sha256={'0' * 64}")[0] == 5


def test_the_page_of_all_slides_warns_where_tissue_went(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inked = tissue_image()
    inked[400:, 200:] = (25, 140, 95)
    write_pyramid(bench / "slides" / "inked <b>.tiff", inked)
    inked[180:] = (25, 140, 95)  # clean-up leaves nothing: that must be told too
    write_pyramid(bench / "slides" / "full.tiff", inked)
    (bench / "slides" / "empty.svs").touch()
    assert mtl("tile", "slides", *QUICK)[0] == 4
    assert "'inked <b>': " in (told := " ".join(capsys.readouterr().out.split()))
    assert "warning: slide 'full': slide 'full' holds no tissue; 100 % of what looked like tissue was cut out" in told
    assert "of what looked like tissue was cut out (pen" in told
    page = next(Path("runs").rglob("slides.html")).read_text()
    for text in ("inked &lt;b&gt;", "zero bytes", "Worth a look (1)", "Failed (1)", "a b__Schnitt ä"):
        assert text in page
    assert page.count("data:image/jpeg;base64,") == 3
    assert "<b>.tiff" not in page
    assert "http" not in page.replace("http-equiv", "")
    tiles = store.read_tiles(next(Path("out").rglob("inked*.h5")))
    assert tiles.attrs["pen_fraction"] > 0.5
    assert tiles.attrs["lost_fraction"] >= tiles.attrs["pen_fraction"]


def test_a_run_that_is_ended_leaves_no_lease_of_its_dead_processes(tmp_path: Path) -> None:
    lease = tmp_path / "s1.lease"
    dead = {"host": _here(), "pid": os.getpid(), "started": "1", "token": ""}

    class Told:
        path = tmp_path
        done: list[str] = []  # noqa: RUF012

        def say(self, text: str) -> None: ...

        def track(self, each: Any, label: str, total: int) -> Any:
            lease.write_text(json.dumps(dead))  # a process of the pool was killed with its slide half done
            yield from each
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_through([], Here(lambda job: Outcome()), Told(), "tile", [tmp_path], Stage())  # type: ignore[arg-type]
    assert not lease.exists()


@pytest.mark.slow
def test_weights_of_the_hub_are_read_once_and_their_content_is_the_key(
    bench: Path, hub_cache: Callable[..., Path]
) -> None:
    from monai.networks.nets.resnet import resnet50
    from safetensors.torch import save

    from nsclc_mtl.commands.cohort import derived
    from nsclc_mtl.config import compose, plain

    net = resnet50(spatial_dims=2, n_input_channels=3, shortcut_type="B", bias_downsample=False, conv1_t_stride=2)
    hub_cache(save(net.state_dict()))
    words = ["backbone=resnet50", "backbone.hub=some/where", "backbone.tile_px=64", *QUICK]
    code, account = mtl("extract", "slides.dir=slides", *words)
    assert (code, account["done"]) == (0, ["a b__Schnitt ä"])
    (folder,) = (bench / "out" / "features").iterdir()
    settings = plain(compose("train", words))
    assert derived(settings)["features"] == folder.name  # training finds it without asking the hub
    hub_cache(b"other weights")
    assert derived(settings)["features"] != folder.name
    assert mtl("extract", "slides.dir=slides", *words, "backbone.weights_sha256=" + "0" * 64)[0] == 5
