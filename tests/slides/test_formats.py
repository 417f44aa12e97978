"""DICOM slides, plain pictures, and slides that lost a little: taken as what they are, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from dicom_slide import dicom
from PIL import Image

from nsclc_mtl.records import ItemFault, UsageFault
from nsclc_mtl.slides.reader import TileBatches, content_hash, one_a_series, open_slide
from nsclc_mtl.slides.reader.dicom import shortened

Maker = Callable[..., Path]


def reason(path: Path, **options: object) -> str:
    with pytest.raises(ItemFault) as fault:
        open_slide(path, **options).close()  # type: ignore[arg-type]
    assert path.name in str(fault.value)
    return fault.value.reason


# ---------------------------------------------------------------------------------------------------------------------
# DICOM
# ---------------------------------------------------------------------------------------------------------------------


def test_a_dicom_slide_is_one_slide_of_several_files(tmp_path: Path, drawn: np.ndarray) -> None:
    folder = tmp_path / "S1"
    files = [
        dicom(folder / "label.dcm", drawn[:256, :256], 8.0, "1.2.3.4", 3, "LABEL"),
        dicom(folder / "level0.dcm", drawn, 0.5, "1.2.3.4", 1),
        dicom(folder / "level1.dcm", np.ascontiguousarray(drawn[::4, ::4]), 2.0, "1.2.3.4", 2),
        dicom(tmp_path / "S2" / "a.dcm", drawn, 0.5, "1.2.3.5", 1),
    ]
    head = pydicom.dcmread(files[3], stop_before_pixels=True)
    head.SOPClassUID = head.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"  # a CT slice
    head.save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    (tmp_path / "text.dcm").write_text("no DICOM")
    (tmp_path / "cut.dcm").write_bytes(files[1].read_bytes()[:200])
    listed = one_a_series(tmp_path.rglob("*.dcm"))
    assert listed[:2] == [folder / "level0.dcm", tmp_path / "S2" / "a.dcm"]
    assert listed[2:] == [tmp_path / "cut.dcm", tmp_path / "text.dcm"]  # refused by name, not left out
    assert {reason(path) for path in listed[2:]} <= {"unsupported", "corrupt"}
    before = content_hash(files[1])
    for path in files[1:3]:  # any file of the series opens all of it
        with open_slide(path) as slide:
            assert (slide.vendor, slide.read_by, slide.mpp_source) == ("dicom", "openslide", "metadata")
            assert (slide.mpp, slide.dimensions, slide.magnification) == (0.5, (901, 700), 20)
            assert np.abs(slide.read(300, 200, 256, 256) - drawn[200:456, 300:556].astype(int)).mean() < 4
    files[2].unlink()
    assert content_hash(files[1]) != before  # the other levels count


def test_a_dicom_slide_may_lose_some_frames_where_the_user_lets_it(tmp_path: Path, drawn: np.ndarray) -> None:
    path = dicom(tmp_path / "level0.dcm", np.tile(drawn, (3, 3, 1)), 0.5, "1.2.3.4", 1)  # 9 x 11 frames
    whole = path.read_bytes()
    assert shortened(path) == {}
    path.write_bytes(whole[:-200])  # the last frame, and the mark of the end
    assert shortened(path) == {"level0.dcm": (1, 99)}
    assert reason(path) == "corrupt"
    with open_slide(path, max_unreadable=0.05) as slide:
        assert slide.unreadable == pytest.approx(1 / 99)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ItemFault, match=r"'level0\.dcm' is truncated, \d+ of its 99 stored tiles are lost"):
        open_slide(path, max_unreadable=0.05)


def test_a_dicom_series_with_only_a_label_is_no_slide(tmp_path: Path, drawn: np.ndarray) -> None:
    path = dicom(tmp_path / "label.dcm", drawn[:256, :256], 8.0, "1.2.3.4", 3, "LABEL")
    assert one_a_series([path]) == [path]
    assert reason(path, mpp=0.5) == "no_pyramid"


# ---------------------------------------------------------------------------------------------------------------------
# Plain pictures
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "svs"])
def test_a_picture_counts_where_its_scale_is_stated(tmp_path: Path, drawn: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"core.{suffix}"
    Image.fromarray(drawn).save(path, format={"jpg": "jpeg", "tif": "tiff", "svs": "png"}.get(suffix, suffix))
    assert reason(path) in {"unsupported", "no_pyramid"}
    assert reason(path, mpp=40.0) == "mpp_implausible"
    with open_slide(path, mpp=0.5, mpp_source="slides.csv") as slide:
        assert (slide.read_by, slide.vendor, slide.mpp_source) == ("picture", "picture", "slides.csv")
        assert (slide.dimensions, slide.mpp) == ((901, 700), 0.5)
        shown = slide.read(800, 600, 200, 200).astype(int)
        assert np.abs(shown[:100, :101] - drawn[600:, 800:]).mean() < 4
        assert (shown[100:] == 255).all()
        assert (shown[:, 101:] == 255).all()
        assert slide.thumbnail(8.0).shape == (44, 56, 3)


def test_glass_behind_a_transparent_picture_is_white(tmp_path: Path) -> None:
    image = np.zeros((64, 64, 4), np.uint8)
    image[:32] = (200, 100, 150, 255)
    Image.fromarray(image).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png", mpp=0.5) as slide:
        assert np.unique(slide.read(0, 0, 64, 64)[:, 0], axis=0).tolist() == [[200, 100, 150], [255, 255, 255]]


@pytest.mark.parametrize("words", ["Aperio Image Library\nlabel 300x200", "Macro image", "thumbnail"])
def test_a_label_or_a_macro_is_never_a_picture(tmp_path: Path, words: str) -> None:
    path = tmp_path / "s.svs"
    tifffile.imwrite(path, np.zeros((300, 200, 3), np.uint8), photometric="rgb", description=words, metadata=None)
    assert reason(path, mpp=0.5) == "no_pyramid"


def test_pictures_that_cannot_be_used(tmp_path: Path, drawn: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(drawn).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert reason(tmp_path / "cut.png", mpp=0.5) == "corrupt"
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(tmp_path / "deep.png")
    assert reason(tmp_path / "deep.png", mpp=0.5) == "unsupported"
    Image.fromarray(drawn).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert reason(tmp_path / "large.png", mpp=0.5) == "too_large"


# ---------------------------------------------------------------------------------------------------------------------
# Slides that lost a little
# ---------------------------------------------------------------------------------------------------------------------


def with_its_pixels_last(path: Path, image: np.ndarray) -> Path:
    """A slide whose coarse level stands first, so that a cut takes from level 0.

    OpenSlide reads the coarse one when it opens a file; it takes further directories only as reduced ones, and sorts.
    """
    with tifffile.TiffWriter(path) as tiff:
        for step in (4, 1):
            tiff.write(
                image[::step, ::step], photometric="rgb", compression="jpeg", tile=(256, 256), metadata=None,
                subfiletype=int(step == 1), resolution=(2e4 / step, 2e4 / step), resolutionunit="CENTIMETER",
            )  # fmt: skip
    return path


def cut(path: Path, lost: int) -> Path:
    """A copy whose last tiles lie beyond its end."""
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages[-1].aspage().dataoffsets[-lost]
    short = path.with_name(f"cut{lost}.tif")
    short.write_bytes(path.read_bytes()[: start + 5])
    return short


@pytest.mark.parametrize("fast", [True, False])
def test_a_small_loss_is_let_go_only_when_asked(tmp_path: Path, fast: bool) -> None:
    rng = np.random.default_rng(0)
    whole = with_its_pixels_last(tmp_path / "s.tif", rng.integers(0, 255, (1024, 1280, 3), dtype=np.uint8))  # 20 tiles
    path = cut(whole, 1)
    assert reason(path, fast=fast) == "corrupt"
    with open_slide(path, 0.5, max_unreadable=0.05, fast=fast) as slide, open_slide(whole, 0.5) as sound:
        assert slide.unreadable == pytest.approx(1 / 20)
        coords = np.array([(x, y) for y in range(0, 1024, 256) for x in range(0, 1280, 256)])
        batches = TileBatches(slide, coords, 256, 256, batch=4)
        found = np.concatenate([tiles for _, tiles in batches])
        assert batches.unreadable == [19]
        np.testing.assert_array_equal(found[7], sound.read(512, 256, 256, 256))
        small, truth = slide.thumbnail(1.0), sound.thumbnail(1.0)  # made from level 0
        assert (small[384:, 512:] == 255).all()
        np.testing.assert_array_equal(small[:384], truth[:384])
        np.testing.assert_array_equal(small[384:, :512], truth[384:, :512])
    assert reason(cut(whole, 2), max_unreadable=0.05, fast=fast) == "corrupt"
    with pytest.raises(UsageFault, match=r"outside 0-0\.05"):
        open_slide(path, max_unreadable=0.1)


def test_a_level_that_is_gone_is_no_small_loss(jpeg_slide: Maker) -> None:
    """All tiles of the coarse level are few of all tiles, but the thumbnail would be made from them."""
    path = jpeg_slide(tile=64, step=8)
    with tifffile.TiffFile(path) as tiff:
        first, second = (np.array(page.dataoffsets) for page in tiff.pages)
        assert len(second) / (len(first) + len(second)) < 0.05
        entry = tiff.pages[1].aspage().tags["TileOffsets"]
    with path.open("r+b") as file:
        file.seek(entry.valueoffset)
        file.write((np.array(second) + path.stat().st_size).astype("<u4").tobytes())
    assert reason(path, max_unreadable=0.05) == "corrupt"


def test_microns_at_any_scale(toy_slide: Maker) -> None:
    """128 um are 256 px at 0.5 um/px, also where the slide says 0.4988; what is read is the level itself."""
    image = np.random.default_rng(0).integers(0, 255, (1024, 1280, 3), dtype=np.uint8)
    path = toy_slide(mpp=0.4988, image=image)
    truth = tifffile.imread(path, key=0)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read_um(256, 512, 128.0, 0.5), truth[512:768, 256:512])
        assert slide.read_um(256, 512, 128.0, 0.5, tolerance=0.0).shape == (256, 256, 3)
        assert not np.array_equal(slide.read_um(256, 512, 128.0, 0.5, tolerance=0.0), truth[512:768, 256:512])
        assert slide.read_um(0, 0, 128.0, 1.0).shape == (128, 128, 3)
        assert slide.read_um(0, 0, 100.0, 2.0).shape == (50, 50, 3)


def test_whole_factors_are_means_of_areas(toy_slide: Maker) -> None:
    image = np.random.default_rng(1).integers(0, 255, (1024, 1280, 3), dtype=np.uint8)
    path = toy_slide(image=image)
    truth = tifffile.imread(path, key=0)[256:768, 128:640].reshape(256, 2, 256, 2, 3).mean((1, 3))
    with open_slide(path) as slide:
        assert np.abs(slide.read(128, 256, 512, 256) - truth).max() <= 0.5


@pytest.mark.parametrize("size", [300, 410, 512, 700])
def test_what_is_too_fine_does_not_fold_back(toy_slide: Maker, size: int) -> None:
    """Stripes finer than a pixel of the result become grey, not other stripes."""
    stripes = np.zeros((1024, 1280, 3), np.uint8)
    stripes[:, ::2] = 255
    path = toy_slide(image=stripes, levels=1)
    with open_slide(path) as slide:
        assert slide.read(128, 128, 256, 256).std() > 100
        assert slide.read(100, 100, size, 128).std() < 8


def test_neighbours_fit_together_at_any_scale(toy_slide: Maker) -> None:
    """Two tiles side by side are the same as one that covers both: resampling looks over the edge."""
    with open_slide(toy_slide()) as slide:
        both = slide.read(200, 200, 600, 256)
        parts = np.hstack([slide.read(200, 200, 300, 128), slide.read(500, 200, 300, 128)])
        assert np.abs(both[:128].astype(int) - parts).max() <= 1
