"""A slide opens with a scale that somebody stated, or is refused with its public reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nsclc_mtl.records import ItemFault
from nsclc_mtl.slides.reader import content_hash, open_slide

Maker = Callable[..., Path]


def reason(path: Path, **options: object) -> str:
    with pytest.raises(ItemFault) as fault:
        open_slide(path, **options).close()  # type: ignore[arg-type]
    assert path.name in str(fault.value)
    assert "\n" not in str(fault.value)
    return fault.value.reason


def test_a_slide_knows_its_scale_and_where_it_came_from(toy_slide: Maker) -> None:
    with open_slide(toy_slide(mpp=0.25)) as slide:
        assert slide.mpp == pytest.approx(0.25, rel=1e-3)
        assert slide.mpp_source == "tiff_resolution"
        assert slide.dimensions == (1280, 1024)
        assert slide.magnification == pytest.approx(40, rel=0.01)
    with open_slide(toy_slide(mpp=0.25), mpp=0.5, mpp_source="slides.csv") as slide:
        assert (slide.mpp, slide.mpp_source) == (0.5, "slides.csv")


def test_pixels_are_those_of_the_picture_and_outside_is_white(toy_slide: Maker) -> None:
    path = toy_slide()
    truth = tifffile.imread(path, key=0)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(300, 200, 256, 256), truth[200:456, 300:556])
        beyond = slide.read(1280 - 100, 1024 - 100, 256, 256)
        assert (beyond[100:, 100:] == 255).all()


@pytest.mark.parametrize(("size", "out"), [(512, 128), (256, 224), (300, 100), (900, 77), (100, 128)])
def test_reading_at_another_scale_averages_areas(toy_slide: Maker, size: int, out: int) -> None:
    """The mean survives resampling, and a ramp stays where it is: no level and no rounding shifts the picture."""
    y, x = np.mgrid[:1024, :1280]
    ramp = np.stack([x / 1280 * 255, y / 1024 * 255, np.full(x.shape, 128)], axis=2).astype(np.uint8)
    with open_slide(toy_slide(image=ramp)) as slide:
        found = slide.read(130, 70, size, out).astype(float)
    middle = (np.arange(out) + 0.5) * size / out
    np.testing.assert_allclose(found[..., 0].mean(0), (130 + middle) / 1280 * 255 - 0.5, atol=2.0)
    np.testing.assert_allclose(found[..., 1].mean(1), (70 + middle) / 1024 * 255 - 0.5, atol=2.0)


def test_an_area_is_the_square_without_the_rest(toy_slide: Maker) -> None:
    with open_slide(toy_slide()) as slide:
        assert (slide.read_area(256, 128, 512, 512, 128, 128) == slide.read(256, 128, 512, 128)).all()
        wide = slide.read_area(0, 0, 1280, 512, 320, 128)
        assert wide.shape == (128, 320, 3)
        assert np.abs(wide[:, :128].astype(float) - slide.read(0, 0, 512, 128)).mean() < 1


def test_the_thumbnail_covers_the_slide_at_the_wished_scale(toy_slide: Maker) -> None:
    path = toy_slide()
    with open_slide(path) as slide:
        small = slide.thumbnail(8.0)
    assert small.shape == (64, 80, 3)
    truth = tifffile.imread(path, key=0).reshape(64, 16, 80, 16, 3).mean((1, 3))
    assert np.abs(small - truth).mean() < 2


def test_large_slides_are_read_in_blocks_that_fit(toy_slide: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toy_slide()
    with open_slide(path) as slide:
        at_once = slide.thumbnail(2.0)
        monkeypatch.setattr("nsclc_mtl.slides.reader.slide.BLOCK_PX", 100)
        np.testing.assert_array_equal(slide.thumbnail(2.0), at_once)


def test_faults_have_their_public_reasons(toy_slide: Maker, tmp_path: Path) -> None:
    (tmp_path / "empty.svs").touch()
    (tmp_path / "text.svs").write_text("this is no slide")
    assert reason(tmp_path / "absent.svs") == "absent"
    assert reason(tmp_path / "empty.svs") == "unsupported"
    assert reason(tmp_path / "text.svs") == "unsupported"
    assert reason(toy_slide("none.tif", mpp=None)) == "mpp_missing"
    assert reason(toy_slide("dpi.tif", mpp=352.8)) == "mpp_implausible"
    assert reason(toy_slide("oblong.tif", mpp=(0.5, 0.52))) == "mpp_anisotropic"
    assert reason(toy_slide("wrong.tif"), mpp=25.0) == "mpp_implausible"
    with open_slide(toy_slide("nearly.tif", mpp=(0.5, 0.505))) as slide:
        assert slide.mpp == pytest.approx(0.5025, rel=1e-3)
    with open_slide(toy_slide("stated.tif", mpp=None), mpp=0.5) as slide:
        assert slide.mpp == 0.5


def test_a_truncated_body_is_refused_before_a_tile_is_read(toy_slide: Maker) -> None:
    path = toy_slide()
    whole = path.read_bytes()
    for share in (0.6, 0.9, 0.999):
        cut = path.with_name(f"cut{share}.tif")
        cut.write_bytes(whole[: int(len(whole) * share)])
        assert reason(cut) in {"corrupt", "unsupported"}
    # The directories may lie before the pixels: then the file opens and only the places of the tiles tell.
    with tifffile.TiffFile(path) as tiff:
        last = max(offset for page in tiff.pages for offset in page.dataoffsets)
    early = path.with_name("early.tif")
    early.write_bytes(whole[: last + 10])
    assert reason(early) == "corrupt"
    path.with_name("head.tif").write_bytes(whole[:200])
    assert reason(path.with_name("head.tif")) in {"corrupt", "unsupported"}


def test_only_a_label_or_a_macro_is_no_slide(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "label.svs", np.zeros((300, 200, 3), np.uint8), photometric="rgb")
    assert reason(tmp_path / "label.svs") == "no_pyramid"


def test_content_counts_and_not_the_name(toy_slide: Maker) -> None:
    one, other = toy_slide("a/Präparat 1.tif"), toy_slide("b/x.svs")
    assert content_hash(one) == content_hash(other)
    with open_slide(one) as slide:
        assert slide.read(0, 0, 64, 64).shape == (64, 64, 3)
    other.write_bytes(other.read_bytes() + b"0")
    assert content_hash(one) != content_hash(other)


@pytest.mark.realdata
def test_real_slides(real_data: Path) -> None:
    expected = {"cmu-1-small-region.svs": ((2220, 2967), 0.499), "1065626.svs": ((11952, 10249), 0.5026)}
    for name, (dimensions, mpp) in expected.items():
        with open_slide(real_data / "wsi" / name) as slide:
            assert (slide.dimensions, slide.vendor, slide.mpp_source) == (dimensions, "aperio", "metadata")
            assert slide.mpp == pytest.approx(mpp)
            assert slide.magnification == 20


@pytest.mark.realdata
def test_a_real_slide_cut_at_sixty_percent(real_data: Path, tmp_path: Path) -> None:
    whole = (real_data / "wsi" / "cmu-1-small-region.svs").read_bytes()
    (tmp_path / "cut.svs").write_bytes(whole[: int(len(whole) * 0.6)])
    assert reason(tmp_path / "cut.svs") in {"corrupt", "unsupported"}
