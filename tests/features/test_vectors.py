"""One vector a slide and a patient: written whole or not at all, and read by whatever reads NumPy."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from nsclc_mtl.features import store, vectors
from nsclc_mtl.records import DataFault, IntegrityFault

ONE, TWO = np.array([1.0, -2.5, 1e30], np.float32), np.array([3.0, 0.5, 1e30], np.float32)


def test_a_vector_comes_back_with_its_provenance(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    vectors.write(path, ONE, {"config_hash": "k", "tiles": 7, "stain": {"method": "none"}, "patch_size": 3})
    found, attrs = vectors.read(path)
    np.testing.assert_array_equal(found, ONE)  # single precision: half would end at 65504
    assert found.dtype == np.float32
    assert (attrs["tiles"], attrs["stain"], attrs["config_hash"]) == (7, {"method": "none"}, "k")
    assert store.is_complete(path, "k", deep=True)
    assert not store.is_complete(path, "other")
    before = path.read_bytes()
    vectors.write(path, ONE, {"config_hash": "k", "tiles": 7, "stain": {"method": "none"}, "patch_size": 3})
    assert path.read_bytes() == before
    with h5py.File(path, "r+") as file:
        file["vector"][0, 0] = 9.0
    assert not store.is_complete(path, "k", deep=True)
    assert not list(tmp_path.glob("*.tmp"))


def test_what_is_no_vector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFault, match=r"slide 's': number 1 of its vector is nan \(1 of 2\)"):
        vectors.write(tmp_path / "s.h5", np.array([1.0, np.nan]), {})
    with pytest.raises(DataFault, match=r"\(2, 2\) is no vector"):
        vectors.write(tmp_path / "s.h5", np.zeros((2, 2)), {})
    assert not list(tmp_path.iterdir())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["features"] = np.zeros((2, 2))
    with pytest.raises(IntegrityFault, match="no complete vector"):
        vectors.read(tmp_path / "other.h5")


def test_a_patient_is_the_mean_of_its_slides_under_any_id(tmp_path: Path) -> None:
    for name, vector in (("a", ONE), ("b", TWO)):
        vectors.write(tmp_path / f"{name}.h5", vector, {})
    a, b = tmp_path / "a.h5", tmp_path / "b.h5"
    found = vectors.of_patients({"file": [b, a], "00123": [a], "NA": [b], "É 1/2": [a]})
    np.testing.assert_allclose(found["file"], [2.0, -1.0, 1e30])
    path = tmp_path / vectors.patients_file("mine", "tables/slides.csv")
    assert path.name == "mine-slides.npz"
    vectors.write_patients(path, found)
    with np.load(path, allow_pickle=False) as archive:
        assert sorted(archive.files) == sorted(found)
        np.testing.assert_array_equal(archive["NA"], TWO)
    before = path.read_bytes()
    vectors.write_patients(path, dict(reversed(found.items())))
    assert path.read_bytes() == before
