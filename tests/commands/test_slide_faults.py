"""Every row of the fault table that concerns reading, through `mtl tile`: its outcome, its exit code, nothing left."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nsclc_mtl.config.frame import execute
from nsclc_mtl.features import store
from nsclc_mtl.phantom.slides import write_pyramid

QUICK = ("slides.workers=1", "slides.tile_um=64", "slides.pictures=false")


def tissue(px: int = 768) -> np.ndarray:
    """uint8 [px, px, 3]: pink with blue specks, glass around it."""
    rng = np.random.default_rng(0)
    image = np.full((px, px, 3), 242, np.int16)
    image[px // 8 : -px // 8, px // 8 : -px // 8] = (222, 160, 195)
    for y, x in rng.integers(px // 8, px - px // 8 - 12, (200, 2)):
        image[y : y + 12, x : x + 12] = (90, 60, 140)
    return (image + rng.integers(-3, 4, (px, px, 1))).clip(0, 255).astype(np.uint8)


def mtl(verb: str, *words: str) -> tuple[int, dict]:
    seen = set(Path("runs").rglob("run.json"))
    code = execute(verb, [*words, *QUICK], lambda: importlib.import_module(f"nsclc_mtl.commands.{verb}").body)
    new = set(Path("runs").rglob("run.json")) - seen
    return code, json.loads(new.pop().read_text()) if new else {}


def reasons(account: dict, what: str = "failed") -> dict[str, str]:
    return {item["id"]: item["reason"] for item in account[what]}


def tiled(slide_id: str) -> store.Tiles:
    (path,) = Path("out/tiles").rglob(f"{slide_id}.h5")
    return store.read_tiles(path)


@pytest.fixture
def slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder `slides` in the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slides").mkdir()
    return Path("slides")


def flat_scale(path: Path, mpp: tuple[float, float] | None) -> None:
    scale = {"resolution": tuple(1e4 / v for v in mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    tifffile.imwrite(path, tissue(), photometric="rgb", compression="jpeg", tile=(256, 256), metadata=None, **scale)


def test_each_bad_slide_is_named_and_the_good_one_goes_on(slides: Path) -> None:
    write_pyramid(slides / "good.tiff", tissue())
    whole = (slides / "good.tiff").read_bytes()
    (slides / "zero.svs").touch()
    (slides / "text.svs").write_text("no slide\n" * 50)
    (slides / "header.tiff").write_bytes(whole[:8])
    (slides / "cut.tiff").write_bytes(whole[: int(0.6 * len(whole))])
    with tifffile.TiffFile(slides / "good.tiff") as tiff:  # cut within the last tile: all directories are there
        last = max(offset for page in tiff.pages for offset in page.dataoffsets)
    (slides / "cut_late.tiff").write_bytes(whole[: last + 20])
    tifffile.imwrite(slides / "label.svs", np.zeros((300, 200, 3), np.uint8), photometric="rgb", metadata=None)
    flat_scale(slides / "unscaled.tif", None)
    flat_scale(slides / "dpi.tif", (352.8, 352.8))
    flat_scale(slides / "oblong.tif", (0.5, 0.52))
    write_pyramid(slides / "tiny.tiff", tissue(64))
    code, account = mtl("tile", "slides")
    assert code == 4
    assert account["done"] == ["good"]
    found = reasons(account)
    assert found.pop("cut") in {"corrupt", "unsupported"}
    assert found.pop("header") in {"corrupt", "unsupported"}
    assert found == {
        "zero": "unsupported", "text": "unsupported", "cut_late": "corrupt", "label": "no_pyramid",
        "unscaled": "mpp_missing", "dpi": "mpp_implausible", "oblong": "mpp_anisotropic",
    }  # fmt: skip
    assert reasons(account, "skipped") == {"tiny": "too_small"}
    assert sorted(path.stem for path in Path("out").rglob("*.h5")) == ["good", "tiny"]
    assert tiled("good").attrs["read_by"] == "jpeg tiles"
    assert tiled("good").attrs["unreadable_fraction"] == 0


def test_only_bad_slides_is_an_exit_of_its_own(slides: Path) -> None:
    (slides / "zero.svs").touch()
    assert mtl("tile", "slides")[0] == 3


def test_names_links_and_folders_of_all_kinds(slides: Path) -> None:
    write_pyramid(slides / "A.tiff", tissue())
    names = ["Präparat № 7.tiff", "切片 1.tif", "wrong extension.svs", "UPPER.TIFF"]
    for name in names:
        (slides / name).write_bytes((slides / "A.tiff").read_bytes())
    away = Path("store").absolute()
    away.mkdir()
    (slides / "A.tiff").rename(away / "A.tiff")
    (slides / "link.tiff").symlink_to(away / "A.tiff")
    (slides / "dangling.tiff").symlink_to(away / "gone.tiff")
    (slides / "loop").symlink_to(slides.absolute(), target_is_directory=True)
    (slides / "to itself.svs").symlink_to("to itself.svs")
    (slides / "deep" / "er").mkdir(parents=True)
    (slides / "deep" / "up").symlink_to("..", target_is_directory=True)
    (slides / "deep" / "er" / "link.tiff").symlink_to(away / "A.tiff")
    for folder in (slides, away):
        folder.chmod(0o555)
    before = sorted(str(path) for folder in (slides, away) for path in folder.rglob("*"))
    try:
        code, account = mtl("tile", "slides")
    finally:
        for folder in (slides, away):
            folder.chmod(0o755)
    assert code == 4
    assert sorted(account["done"]) == sorted([Path(name).stem for name in names] + ["link", "deep__er__link"])
    assert reasons(account) == {"dangling": "absent", "to itself": "absent"}
    assert sorted(str(path) for folder in (slides, away) for path in folder.rglob("*")) == before
    assert tiled("wrong extension").attrs["vendor"] == "generic-tiff"


def test_the_power_of_the_objective_counts_only_by_leave(slides: Path) -> None:
    tifffile.imwrite(
        slides / "s.svs", tissue(), photometric="rgb", compression="jpeg", tile=(256, 256), metadata=None,
        description="Aperio Image Library v1.0\n768x768 |AppMag = 20",
    )  # fmt: skip
    code, account = mtl("tile", "slides")
    assert (code, reasons(account)) == (3, {"s": "mpp_missing"})
    assert mtl("tile", "slides", "slides.mpp_from_power=true")[0] == 0
    tiles = tiled("s")
    assert (tiles.mpp, tiles.attrs["mpp_source"]) == (0.5, "objective_power")


def test_pictures_count_where_nothing_else_is_there_and_their_scale_is_stated(slides: Path, capsys) -> None:
    Image.fromarray(tissue()).save(slides / "core.png")
    assert mtl("tile", "slides")[0] == 3
    assert "only PNG and JPEG pictures below 'slides', which state no um/px" in capsys.readouterr().err
    code, account = mtl("tile", "slides", "slides.mpp=0.5")
    assert (code, account["done"]) == (0, ["core"])
    assert tiled("core").attrs["read_by"] == "picture"
    write_pyramid(slides / "slide.tiff", tissue())
    code, account = mtl("tile", "slides", "slides.mpp=0.5", "paths.out=other")
    assert (code, account["done"], reasons(account, "skipped")) == (0, ["slide"], {"core.png": "picture"})
    assert reasons(mtl("tile", "slides", "paths.out=third")[1], "skipped") == {}


def test_a_packing_that_openslide_does_not_know_is_no_damage(slides: Path) -> None:
    scale = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(slides / "s.tif", tissue(), photometric="rgb", compression="jpeg2000", tile=(256, 256), **scale)
    code, account = mtl("tile", "slides")
    assert (code, reasons(account)) == (3, {"s": "unsupported"})


def test_libraries_do_not_chat_about_a_truncated_slide(slides: Path) -> None:
    write_pyramid(slides / "s.tiff", tissue())
    whole = (slides / "s.tiff").read_bytes()
    (slides / "s.tiff").write_bytes(whole[: len(whole) * 6 // 10])
    words = [sys.executable, "-m", "nsclc_mtl", "tile", "slides", "--dry-run"]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (3, "")


def test_a_slide_that_lost_little_is_taken_when_asked_and_says_how_much(slides: Path) -> None:
    """A stored tile of zeros: tissue is found on the coarse level, its features are left out, the rest is kept."""
    path, px = slides / "s.tiff", 2048
    image = tissue(px)
    write_pyramid(path, image)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        offset, count = page.dataoffsets[27], page.databytecounts[27]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(count))
    words = ["slides.dir=slides", "slides.tile_um=128", "backbone.tile_px=256"]

    def extract(*more: str) -> tuple[int, dict]:
        account = set(Path("runs").rglob("run.json"))
        body = "nsclc_mtl.commands.extract"
        code = execute("extract", [*QUICK, *words, *more], lambda: importlib.import_module(body).body)
        return code, json.loads((set(Path("runs").rglob("run.json")) - account).pop().read_text())

    code, account = extract("extract.scans=false")
    assert (code, reasons(account)) == (3, {"s": "corrupt"})
    assert not list(Path("out/features").rglob("*.h5"))
    for _ in range(2):  # and once more, where it is complete
        code, account = extract("extract.scans=false", "slides.max_unreadable=0.05")
        assert (code, account["done"]) == (0, ["s"])
    (path,) = Path("out/features").rglob("s.h5")
    features = store.read(path)
    assert features.attrs["unreadable_tiles"] == 1
    assert 0 < features.attrs["unreadable_fraction"] < 0.05
    whole = next(p for p in Path("out/tiles").rglob("s.h5") if len(store.read_tiles(p)) == len(features) + 1)
    missing = {tuple(at) for at in store.read_tiles(whole).coords} - {tuple(at) for at in features.coords}
    assert missing == {(27 % 8 * 256, 27 // 8 * 256)}
