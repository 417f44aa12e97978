"""Rows read at their place on the disk are those that HDF5 reads, whole or drawn; other files fall back."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.features import layouts, store
from nsclc_mtl.features.lying import lying
from nsclc_mtl.records import DataFault, Features, IntegrityFault


def features(tiles: int, dim: int = 3, seed: int = 0, views: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    places = rng.choice(4 * tiles + 1, size=tiles, replace=False)
    values = rng.normal(size=(tiles, dim)).astype(np.float16)
    stack = rng.normal(size=(views, tiles, dim)).astype(np.float16) if views else None
    return Features(values, np.stack([places % 50, places // 50], axis=1).astype(np.int64), {"mpp": 0.5}, stack)


@given(
    tiles=st.integers(1, 2500), seed=st.integers(0, 99), views=st.integers(0, 2), ordered=st.booleans(), data=st.data()
)
@pytest.mark.slow
def test_rows_are_those_that_hdf5_gives(tmp_path_factory, tiles, seed, views, ordered, data) -> None:
    path, made = tmp_path_factory.mktemp("lying") / "s.h5", features(tiles, seed=seed, views=views)
    order = np.lexsort((made.coords[:, 0], made.coords[:, 1]))
    if ordered:
        made.features, made.coords = made.features[order], made.coords[order]
        order = np.arange(tiles)
    store.write(path, made)
    keep = np.array(sorted(data.draw(st.sets(st.integers(0, tiles - 1), max_size=20))), np.int64)
    for view in (None, *range(views)):
        values, coords, _ = layouts.read(path)  # through HDF5
        if view is not None:
            with h5py.File(path) as file:
                values = file["views"][view]
        found = lying(path, view)
        assert found is not None
        assert (found.order is None) == bool((order == np.arange(tiles)).all())
        np.testing.assert_array_equal(found.whole(), values[order])
        np.testing.assert_array_equal(found.drawn(keep), values[order][keep])
        assert coords is not None
        np.testing.assert_array_equal(found.coords, coords[order])
    assert store.read(path).attrs["mpp"] == 0.5
    assert store.read(path).attrs["coords_unit"] == "level0_px"


def test_one_piece_lies_as_well(tmp_path: Path) -> None:
    made = features(30, views=2)
    store.write(tmp_path / "pieces.h5", made)
    with h5py.File(tmp_path / "pieces.h5") as old, h5py.File(tmp_path / "one.h5", "w") as new:
        new.attrs.update(old.attrs)
        for name in ("features", "coords", "views"):
            new.create_dataset(name, data=old[name][()])  # contiguous
    for view in (None, 0, 1):
        found, other = lying(tmp_path / "one.h5", view), lying(tmp_path / "pieces.h5", view)
        assert found is not None
        assert other is not None
        np.testing.assert_array_equal(found.whole(), other.whole())
        np.testing.assert_array_equal(found.drawn(np.array([0, 7, 29])), other.drawn(np.array([0, 7, 29])))


@pytest.mark.parametrize("how", ["compressed", "wide", "columns apart", "another tool", "npz", "in um"])
def test_what_does_not_lie_plainly_is_read_through_hdf5(tmp_path: Path, how: str) -> None:
    made, path = features(30), tmp_path / "s.h5"
    store.write(path, made)
    wanted = store.read(path)
    with h5py.File(path, "r+") as file:
        if how in ("compressed", "wide", "columns apart"):
            del file["features"]
            options = {"compressed": {"compression": "gzip"}, "columns apart": {"chunks": (30, 1)}}.get(how, {})
            file.create_dataset("features", data=made.features.astype("f4" if how == "wide" else "f2"), **options)
        if how == "another tool":
            del file.attrs["format"]
        if how == "in um":
            file.attrs["unit"], file.attrs["mpp"] = "um", 1.0
    if how == "npz":
        path = tmp_path / "s.npz"
        np.savez(path, features=made.features, coords=made.coords)
    assert lying(path) is None
    np.testing.assert_array_equal(store.read(path).features, wanted.features)


def test_nan_is_told_with_its_row_and_lost_rows_too(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    store.write(path, features(1500))
    with h5py.File(path, "r+") as file:
        file["features"][1200, 1] = np.nan
    found = lying(path)
    assert found is not None
    with pytest.raises(DataFault, match=r"slide 's': 1 tiles hold NaN.*the first is tile 1200"):
        found.whole()
    place = int(np.flatnonzero(found.order == 1200)[0])
    assert np.isfinite(found.drawn(np.delete(np.arange(1500), place)[:50])).all()  # who was not drawn is not looked at
    with pytest.raises(DataFault, match="NaN"):
        found.drawn(np.array([place]))
    with h5py.File(path, "r+") as file:
        file.attrs["rows"] = 1600
    with pytest.raises(IntegrityFault, match="holds 1500 of 1600 rows"):
        lying(path)
