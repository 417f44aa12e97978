"""The store writes whole files or none, says what is complete, and reads what other tools wrote."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nsclc_mtl.features import store
from nsclc_mtl.records import DataFault, Features, IntegrityFault, Tiles, TryAgain


def toy(tiles: int = 7, dim: int = 3, **attrs: object) -> Features:
    rng = np.random.default_rng(1)
    coords = np.stack([np.arange(tiles) % 3, np.arange(tiles) // 3], axis=1).astype(np.int64) * 256
    values = rng.normal(size=(tiles, dim)).astype(np.float16)
    return Features(values, coords, {"config_hash": "k", "patch_size_level0": 256, **attrs})


def plain_values() -> st.SearchStrategy:
    scalars = (
        st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text('abcäß µ{["', max_size=9) | st.booleans()
    )
    return (
        scalars
        | st.none()
        | st.lists(scalars, max_size=3)
        | st.dictionaries(st.text("abc", max_size=3), scalars, max_size=3)
    )


@given(
    values=hnp.arrays(
        np.float16, st.tuples(st.integers(0, 12), st.integers(1, 5)), elements=st.floats(-9, 9, width=16)
    ),
    attrs=st.dictionaries(st.text("xyz", min_size=1, max_size=4), plain_values(), max_size=4),
    seed=st.integers(0, 999),
)
def test_what_is_written_is_read_in_canonical_order(tmp_path_factory, values, attrs, seed) -> None:
    path = tmp_path_factory.mktemp("store") / "slide.h5"
    places = np.random.default_rng(seed).choice(400, size=len(values), replace=False)
    coords = np.stack([places % 20, places // 20], axis=1)
    store.write(path, Features(values, coords, {"config_hash": "c", **attrs}))
    found = store.read(path)
    order = np.lexsort((coords[:, 0], coords[:, 1]))
    np.testing.assert_array_equal(found.features, values[order])
    np.testing.assert_array_equal(found.coords, coords[order])
    assert {key: found.attrs[key] for key in attrs} == attrs
    assert store.header(path) == values.shape
    assert store.is_complete(path, "c", deep=True)


def test_same_content_gives_the_same_bytes_and_leaves_nothing_beside(tmp_path: Path) -> None:
    for name in "ab":
        store.write(tmp_path / f"{name}.h5", toy(tiling={"tile_um": 128.0}))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_other_tools_find_the_geometry_on_the_coordinates(tmp_path: Path) -> None:
    store.write(tmp_path / "s.h5", toy(patch_size=256, level0_magnification=20, mpp=0.5))
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["coords"].attrs["patch_size_level0"] == 256
        assert file["coords"].attrs["level0_magnification"] == 20
        assert file["features"].dtype == np.float16
        assert file["coords"].dtype == np.int64
        assert file.attrs["mpp"] == 0.5


@pytest.mark.parametrize("value", [70000.0, np.nan, np.inf])
def test_a_value_beyond_half_precision_names_slide_and_tile(tmp_path: Path, value: float) -> None:
    features = toy()
    features.features = features.features.astype(np.float32)
    features.features[4, 1] = value
    with pytest.raises(DataFault, match=r"slide 'A7', tile 4 at \(256, 256\)"):
        store.write(tmp_path / "A7.h5", features)
    assert not list(tmp_path.iterdir())


def test_a_file_cut_short_or_with_dropped_rows_is_not_complete(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    store.write(path, toy())
    assert store.is_complete(path, "k")
    assert not store.is_complete(path, "another configuration")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert not store.is_complete(path, "k")
    with pytest.raises(DataFault, match="not a whole HDF5 file"):
        store.read(path)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        for name in ("features", "coords"):
            rows = file[name][:-2]
            del file[name]
            file[name] = rows
    assert not store.is_complete(path, "k")
    with pytest.raises(IntegrityFault, match="5 of 7 rows"):
        store.read(path)
    assert not store.is_complete(tmp_path / "absent.h5", "k")


def test_a_changed_value_shows_in_the_deep_check(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    store.write(path, toy())
    with h5py.File(path, "r+") as file:
        file["features"][2, 1] = 5
    assert store.is_complete(path, "k")
    assert not store.is_complete(path, "k", deep=True)


def test_an_interrupted_or_full_disk_leaves_no_file_under_the_final_name(tmp_path: Path, monkeypatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "fsync", full)
    with pytest.raises(TryAgain, match=r"no space left while writing 's\.h5'"):
        store.write(tmp_path / "s.h5", toy())
    assert not list(tmp_path.iterdir())


def test_a_failed_rewrite_keeps_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "s.h5"
    store.write(path, toy())
    before = path.read_bytes()
    monkeypatch.setattr(store, "is_complete", lambda *a, **k: False)
    with pytest.raises(IntegrityFault, match="did not read back"):
        store.write(path, toy(dim=9))
    assert path.read_bytes() == before


def test_features_of_other_tools_are_read(tmp_path: Path) -> None:
    plain = toy()
    values, coords = plain.features.astype(np.float32), plain.coords
    with h5py.File(tmp_path / "trident.h5", "w") as file:
        file["features"] = values[None]
        file["coords"] = coords[None]
        file["coords"].attrs["patch_size_level0"] = 512
    found = store.read(tmp_path / "trident.h5")
    assert found.features.shape == (7, 3)
    assert found.attrs["patch_size_level0"] == 512
    assert store.header(tmp_path / "trident.h5") == (7, 3)

    with h5py.File(tmp_path / "stamp.h5", "w") as file:
        file["feats"] = values
        file["coords"] = coords * 0.5
        file.attrs["unit"] = "um"
    assert store.read(tmp_path / "stamp.h5").attrs["coords_unit"] == "um"
    found = store.read(tmp_path / "stamp.h5", mpp=0.5)
    assert found.attrs["coords_unit"] == "level0_px"
    np.testing.assert_array_equal(found.coords, coords)

    np.savez(tmp_path / "plain.npz", features=values, coords=coords)
    torch.save({"features": torch.from_numpy(values), "coords": torch.from_numpy(coords)}, tmp_path / "dict.pt")
    torch.save(torch.from_numpy(values), tmp_path / "bare.pt")
    for name in ("plain.npz", "dict.pt", "bare.pt"):
        np.testing.assert_array_equal(store.read(tmp_path / name).features, plain.features)
        assert store.header(tmp_path / name) == (7, 3)
    assert store.read(tmp_path / "bare.pt").attrs["coords_unit"] == "row"


def test_pickles_and_odd_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    torch.save({"features": Path("object")}, tmp_path / "object.pt")
    np.savez(tmp_path / "object.npz", features=np.array([{"a": 1}], dtype=object))
    (tmp_path / "text.h5").write_text("nothing")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["embeddings"] = np.zeros((2, 2))
    for name in ("object.pt", "object.npz", "text.h5", "other.h5", "absent.h5", "absent.npz", "absent.pt", "a.csv"):
        with pytest.raises(DataFault, match=name):
            store.read(tmp_path / name)


@pytest.mark.realdata
def test_real_files_of_another_tool(real_data: Path) -> None:
    folder = real_data / "mil" / "mopadi_features"
    first = store.read(folder / "TCGA-AD-6964-01Z-00-DX1" / "features.h5")
    assert first.features.shape == (777, 512)
    assert first.attrs["coords_unit"] == "unknown"
    second = store.read(folder / "TCGA-3X-AAVA-01Z-00-DX1" / "features.h5")
    assert second.features.shape == (180, 512)
    assert second.attrs["coords_unit"] == "row"


def test_tiles_round_trip_and_an_empty_slide_needs_its_reason(tmp_path: Path) -> None:
    coords = np.array([[0, 0], [256, 0]], np.int64)
    tiles = Tiles(
        "a__b", coords, 256, 128.0, 0.5, np.array([0.5, 1], np.float32), {"config_hash": "k", "tiling": {"a": 1}}
    )
    store.write_tiles(tmp_path / "t.h5", tiles)
    found = store.read_tiles(tmp_path / "t.h5")
    assert (found.slide_id, found.size_level0, found.tile_um, found.mpp) == ("a__b", 256, 128.0, 0.5)
    np.testing.assert_array_equal(found.coords, coords)
    np.testing.assert_array_equal(found.tissue, tiles.tissue)
    assert found.attrs["tiling"] == {"a": 1}
    assert store.is_complete(tmp_path / "t.h5", "k", deep=True)

    empty = Tiles("e", np.zeros((0, 2), np.int64), 256, 128.0, 0.5, np.zeros(0, np.float32), {"config_hash": "k"})
    with pytest.raises(DataFault, match="no reason"):
        store.write_tiles(tmp_path / "e.h5", empty)
    empty.attrs["reason"] = "no_tissue"
    store.write_tiles(tmp_path / "e.h5", empty)
    assert store.read_tiles(tmp_path / "e.h5").attrs["reason"] == "no_tissue"
    assert len(store.read_tiles(tmp_path / "e.h5")) == 0
