"""The fast way into JPEG tiles shows what OpenSlide shows, pixel by pixel, or steps aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from nsclc_mtl.records import ItemFault
from nsclc_mtl.slides.reader import Slide, jpeg, open_slide

Maker = Callable[..., Path]


def places(slide: Slide, edges: tuple[int, ...] = (128, 100, 257, 33)) -> Iterator[tuple[int, int, int]]:
    """Squares on the grid, across it, over the edge and outside."""
    rng = np.random.default_rng(4)
    width, height = slide.dimensions
    yield from ((0, 0, 128), (128, 256, 128), (width - 5, height - 7, 60), (-20, -9, 128), (width + 50, 10, 64))
    for edge in edges:
        for x, y in rng.integers(-40, (width, height), (6, 2)):
            yield int(x), int(y), edge


def assert_equal_to_openslide(path: Path) -> None:
    with open_slide(path) as ours, open_slide(path, fast=False) as theirs:
        assert (ours.read_by, theirs.read_by) == ("jpeg tiles", "openslide")
        for x, y, edge in places(ours):
            np.testing.assert_array_equal(ours.read(x, y, edge, edge), theirs.read(x, y, edge, edge))
        np.testing.assert_array_equal(ours.thumbnail(2.0), theirs.thumbnail(2.0))


@pytest.mark.parametrize("tables", [False, True])
@pytest.mark.parametrize(
    ("photometric", "subsampling", "adobe"),
    [("ycbcr", "420", None), ("ycbcr", "422", None), ("ycbcr", "444", None), ("ycbcr", "420", 0), ("rgb", "444", None),
     ("ycbcr", "444", 1)],
)  # fmt: skip
def test_equal_whatever_the_layout(
    jpeg_slide: Maker, drawn: np.ndarray, photometric: str, subsampling: str, adobe: int | None, tables: bool
) -> None:
    path = jpeg_slide("s.tif", photometric, subsampling, tables, adobe)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        assert (page.photometric.name.lower(), page.jpegtables is not None) == (photometric, tables)
    assert_equal_to_openslide(path)
    with open_slide(path) as slide:  # and the colours are those that were drawn
        truth = drawn[128:384, 256:512].astype(int)
        assert np.abs(slide.read(256, 128, 256, 256) - truth).mean() < 4


def _set(path: Path, tag: str, index: int, value: int) -> None:
    """Overwrite one number of a tag of the first page."""
    with tifffile.TiffFile(path) as tiff:
        entry = tiff.pages.first.tags[tag]
        width = {3: 2, 4: 4, 16: 8}[int(entry.dtype)]
        at = entry.valueoffset + index * width
    with path.open("r+b") as file:
        file.seek(at)
        file.write(value.to_bytes(width, "little"))


@pytest.mark.parametrize("tag", ["TileByteCounts", "TileOffsets"])
def test_a_missing_tile_is_left_to_openslide(jpeg_slide: Maker, tag: str) -> None:
    path = jpeg_slide("s.tif")
    _set(path, tag, 9, 0)
    with open_slide(path) as slide:
        assert slide.read_by == "openslide"
        assert slide.read(0, 0, 128, 128).std() > 0


def outcome(slide: Slide, x: int, y: int) -> bytes | str:
    try:
        return slide.read(x, y, 128, 128).tobytes()
    except ItemFault as fault:
        return fault.reason


def test_damage_has_openslides_verdict_and_good_tiles_stay_good(jpeg_slide: Maker) -> None:
    """Random bytes and nothing at all in place of a tile; the tiles around it can still be read afterwards."""
    path = jpeg_slide("s.tif")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        spots = [(page.dataoffsets[i], page.databytecounts[i]) for i in (1, 6)]
    with path.open("r+b") as file:
        for (offset, count), seed in zip(spots, (None, 3), strict=True):
            file.seek(offset)
            file.write(bytes(count) if seed is None else np.random.default_rng(seed).bytes(count))
    with open_slide(path) as ours, open_slide(path, fast=False) as theirs:
        assert ours.read_by == "jpeg tiles"
        found = [outcome(ours, i % 8 * 128, i // 8 * 128) for i in range(48)]
        assert found == [outcome(theirs, i % 8 * 128, i // 8 * 128) for i in range(48)]
    assert found[1] == found[6] == "corrupt"
    assert sum(one == "corrupt" for one in found) == 2


def test_other_layouts_are_left_to_openslide(tmp_path: Path, drawn: np.ndarray) -> None:
    for name, compression in (("deflate.tif", "zlib"), ("plain.tif", None), ("lzw.tif", "lzw")):
        tifffile.imwrite(
            tmp_path / name, drawn, photometric="rgb", compression=compression, tile=(128, 128),
            metadata=None, resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
        )  # fmt: skip
        with open_slide(tmp_path / name) as slide:
            assert slide.read_by == "openslide"
            np.testing.assert_array_equal(slide.read(10, 20, 100, 100), drawn[20:120, 10:110])


def test_a_sample_that_differs_turns_the_fast_way_off(jpeg_slide: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jpeg_slide("s.tif")
    decode = imagecodecs.jpeg8_decode

    def off_by_one(*args: object, **options: object) -> np.ndarray:
        found = decode(*args, **options)
        found ^= 1
        return found

    monkeypatch.setattr(jpeg.imagecodecs, "jpeg8_decode", off_by_one)
    with open_slide(path) as slide:
        assert slide.read_by == "openslide"


def test_a_tile_is_decoded_once_also_by_threads_and_the_cache_is_bounded(
    jpeg_slide: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    decode = jpeg.JpegSource._decode

    def counted(self: jpeg.JpegSource, level: jpeg.Level, index: int, out: np.ndarray | None = None) -> np.ndarray:
        decoded.append(index)
        return decode(self, level, index, out)

    with open_slide(jpeg_slide("s.tif")) as slide:
        source = slide._source
        assert isinstance(source, jpeg.JpegSource)
        source.decoded = jpeg.DecodedTiles(1 << 30)
        monkeypatch.setattr(jpeg.JpegSource, "_decode", counted)
        straddling = [(x, y) for y in range(60, 500, 128) for x in range(60, 700, 128)]
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda at: slide.read(*at, 128, 128), straddling))
        assert len(decoded) == len(set(decoded))
        monkeypatch.undo()
        small = source.decoded = jpeg.DecodedTiles(5 * 128 * 128 * 3)
        with ThreadPoolExecutor(6) as pool:
            again = list(pool.map(lambda at: slide.read(*at, 128, 128), straddling))
        np.testing.assert_array_equal(found, again)
        assert small.held <= small.room
        assert small.held == 128 * 128 * 3 * len(small._kept)


def test_a_failed_decode_is_not_kept() -> None:
    cache = jpeg.DecodedTiles(1000)

    def bad() -> np.ndarray:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        cache.get("a", bad)
    assert cache.peek("a") is None
    assert cache.get("a", lambda: np.ones(3)).sum() == 3


def test_an_oversized_level_is_read_without_interpolation(jpeg_slide: Maker) -> None:
    """Where a level's downsample is no whole number, the level's own pixels are shown."""
    path = jpeg_slide("s.tif", size=(701, 903))
    truth = tifffile.imread(path, key=1)
    with open_slide(path) as slide:
        assert slide._source.downsamples[1] != 4
        assert slide.read_by == "jpeg tiles"
        shown = slide.read(0, 0, 4 * 96, 96, tolerance=0.01)
        np.testing.assert_array_equal(shown, truth[:96, :96])


@pytest.mark.realdata
def test_real_jpeg_slides_are_equal_everywhere(real_data: Path) -> None:
    path = real_data / "wsi" / "cmu-1-small-region.svs"
    with open_slide(path) as ours, open_slide(path, fast=False) as theirs:
        assert ours.read_by == "jpeg tiles"
        for size, step in ((240, 240), (256, 256), (224, 509)):  # the grid of the file, and across it
            for y in range(0, ours.dimensions[1], step):
                for x in range(0, ours.dimensions[0], step):
                    np.testing.assert_array_equal(ours.read(x, y, size, size), theirs.read(x, y, size, size))
        for x, y, edge in places(ours):
            np.testing.assert_array_equal(ours.read(x, y, edge, 77), theirs.read(x, y, edge, 77))
        np.testing.assert_array_equal(ours.thumbnail(8.0), theirs.thumbnail(8.0))


@pytest.mark.realdata
def test_a_real_jpeg_2000_slide_is_openslides(real_data: Path) -> None:
    with open_slide(real_data / "wsi" / "1065626.svs") as slide:
        assert slide.read_by == "openslide"
        assert slide.read(6000, 5000, 256, 256).std() > 1
