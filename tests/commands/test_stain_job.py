"""`mtl extract` with a stain and with views: in the file, in the key, and in training alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_slide_jobs import QUICK, mtl, tissue_image

from nsclc_mtl.bags.cache import BagCache
from nsclc_mtl.features import store
from nsclc_mtl.phantom.slides import write_pyramid
from nsclc_mtl.records import DataFault, Features


@pytest.fixture
def slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slides").mkdir()
    write_pyramid(tmp_path / "slides" / "a.tiff", tissue_image())
    return tmp_path


def made() -> dict[str, Path]:
    return {path.parent.name: path for path in Path("out/features").rglob("*.h5")}


def test_stain_and_views_are_kept_with_their_reference(slides: Path) -> None:
    words = ["slides.dir=slides", "backbone.tile_px=64", *QUICK]
    assert mtl("extract", *words)[0] == 0
    (plain,) = made().values()
    assert mtl("extract", *words, "stain=macenko", "stain.views=2")[0] == 0
    (other,) = (path for path in made().values() if path != plain)
    before, after = store.read(plain), store.read(other)
    np.testing.assert_array_equal(before.coords, after.coords)
    assert not np.array_equal(before.features, after.features)
    assert "stain" not in before.attrs
    assert after.attrs["stain"]["method"] == "macenko"
    assert len(after.attrs["stain_vectors"]) == 2
    assert before.attrs["precision"] == "32"
    assert (store.view_count(plain), store.view_count(other)) == (0, 2)
    seen = [store.read_view(other, view) for view in range(2)]
    assert not np.array_equal(*seen)
    assert all(view.shape == after.features.shape for view in seen)
    content = other.read_bytes()
    other.unlink()
    assert mtl("extract", *words, "stain=macenko", "stain.views=2")[0] == 0
    assert other.read_bytes() == content


def test_views_are_in_the_order_of_the_tiles(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coords = np.stack([rng.permutation(9), rng.integers(0, 3, 9)], axis=1)
    values = rng.normal(size=(9, 2)).astype(np.float16)
    path = tmp_path / "a.h5"
    store.write(path, Features(values, coords, {"config_hash": "k"}, np.stack([values + 1, values + 2])))
    assert store.is_complete(path, "k", deep=True)
    np.testing.assert_array_equal(store.read_view(path, 1), (values + 2)[np.lexsort((coords[:, 0], coords[:, 1]))])
    cache = BagCache()
    plain, same = cache([str(path)]), cache([str(path)], 0)
    np.testing.assert_allclose(same[0], plain[0] + 1, atol=1e-2)
    np.testing.assert_array_equal(same[1], plain[1])
    assert cache.views([str(path)]) == 2
    with h5py.File(path, "a") as file:
        short = file["views"][:, :5]
        del file["views"]
        file["views"] = short
    assert not store.is_complete(path, "k")
    with pytest.raises(DataFault, match="views do not belong"):
        store.write(path, Features(values, coords, {}, np.zeros((1, 3, 2), np.float16)))


def test_a_gpu_that_is_not_there_ends_the_run(slides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _ = mtl("extract", "slides.dir=slides", "device=cuda", *QUICK)
    assert code == 2
    assert not Path("out").exists()


def test_weights_with_a_flipped_byte_end_the_run_before_any_tile(slides: Path) -> None:
    raw = bytearray(b"weights" * 1000)
    Path("w.pth").write_bytes(raw)
    words = ["slides.dir=slides", "backbone=squeezenet", "backbone.weights=w.pth", *QUICK]
    known = f"backbone.weights_sha256={hashlib.sha256(raw).hexdigest()}"
    assert mtl("extract", *words, known)[0] == 3  # the bytes that were meant, which are no weights
    raw[3500] ^= 1
    Path("w.pth").write_bytes(raw)
    assert mtl("extract", *words, known)[0] == 5
    assert not Path("out").exists()
