"""Lanczos is Pillow's up to one grey level; plain areas stay plain, and what is too fine to show becomes grey."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from nsclc_mtl.slides.reader import resample


def picture(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """uint8 [rows, columns, 3]: blobs of a pixel or two with all contrast there is."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(rows, columns, 3)), (1.0, 1.0, 0))
    return (128 + 500 * noise).clip(0, 255).astype(np.uint8)


def by_pillow(pixels: np.ndarray, box: resample.Box, width: int, height: int) -> np.ndarray:
    """First across, then down; asked for both at once, some versions go the cheaper way first."""
    left, top, right, bottom = box
    wide = Image.fromarray(pixels).resize(
        (width, len(pixels)), Image.Resampling.LANCZOS, box=(left, 0.0, right, len(pixels))
    )
    return np.asarray(wide.resize((width, height), Image.Resampling.LANCZOS, box=(0.0, top, width, bottom)))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 150), st.integers(1, 150), st.integers(1, 150), st.integers(1, 150),
    st.tuples(*[st.floats(0, 0.45)] * 4), st.integers(0, 999),
)  # fmt: skip
def test_any_box_of_any_picture_as_pillow_has_it(
    rows: int, columns: int, height: int, width: int, cut: tuple[float, float, float, float], seed: int
) -> None:
    pixels = picture(rows, columns, seed)
    box = (cut[0] * columns, cut[1] * rows, columns - cut[2] * columns, rows - cut[3] * rows)
    ours = resample.lanczos(pixels, box, width, height)
    assert ours.shape == (height, width, 3)
    off = np.abs(ours.astype(int) - by_pillow(pixels, box, width, height))
    assert off.max() <= 2  # two roundings, and hardly ever both the other way
    # a pixel of the picture in between that was rounded the other way stands in several rows of one that is enlarged
    assert (off > 1).sum() <= max(1 + height // rows, off.size // 1000)


@pytest.mark.parametrize(("size", "out"), [(308, 256), (606, 256), (1024, 64), (200, 256)])
def test_tiles_and_thumbnails(size: int, out: int) -> None:
    pixels, noise = picture(size, size), np.random.default_rng(1).integers(0, 256, (size, size, 3)).astype(np.uint8)
    box = (4.0, 4.25, size - 4.0, size - 3.75)
    for seen, most in ((pixels, 1), (noise, 2)):
        off = np.abs(resample.lanczos(seen, box, out, out).astype(int) - by_pillow(seen, box, out, out))
        assert off.max() <= most
        assert (off > 0).mean() < 0.01
        assert (off > 1).mean() < 1e-4
    for level in (0, 1, 128, 254, 255):
        assert (resample.lanczos(np.full_like(pixels, level), box, out, out) == level).all()


def test_the_size_of_the_products_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are exact, so neither their order nor the rows at a time change a pixel."""
    pixels = np.random.default_rng(2).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    at_once = resample.lanczos(pixels, (1.5, 2.0, 118.0, 88.0), 77, 50)
    monkeypatch.setattr(resample, "MOST_PRODUCTS", 1)
    np.testing.assert_array_equal(resample.lanczos(pixels, (1.5, 2.0, 118.0, 88.0), 77, 50), at_once)
    np.testing.assert_array_equal(resample.lanczos(pixels[..., :1], (1.5, 2.0, 118.0, 88.0), 77, 50), at_once[..., :1])


def test_stripes_too_fine_to_show_become_grey() -> None:
    stripes = np.zeros((300, 300, 3), np.uint8)
    stripes[:, ::2] = 255
    found = resample.resample(stripes, (0.0, 0.0, 300.0, 300.0), 128, 128)[:, 8:-8]
    assert found.min() >= 126
    assert found.max() <= 129
