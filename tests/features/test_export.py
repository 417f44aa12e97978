"""Our features as the readers of TRIDENT, CLAM and STAMP take them, and theirs as ours does."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from nsclc_mtl.features import export, store
from nsclc_mtl.records import Features, UsageFault

ATTRS = {
    "config_hash": "k", "name": "A 7", "mpp": 0.25, "tile_um": 128.0, "patch_size": 256, "patch_size_level0": 512,
    "level0_magnification": 40, "target_magnification": 20.0, "level0_width": 4096, "level0_height": 2048, "overlap": 0,
    "backbone": "resnet50", "code_digest": "c0de",
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A feature file of the store, with its exports."""
    rng = np.random.default_rng(0)
    coords = np.array([[x, y] for y in (0, 512) for x in (512, 1024, 2048)], np.int64)
    store.write(tmp_path / "A 7.h5", Features(rng.normal(size=(6, 4)).astype(np.float16), coords, dict(ATTRS)))
    for kind in export.KINDS:
        export.write(kind, tmp_path / "A 7.h5")
    return tmp_path / "A 7.h5"


def test_trident_takes_our_file(path: Path) -> None:
    """Features and coordinates by name; size of a tile, scale and overlap from the attributes of the coordinates."""
    with h5py.File(path) as file:
        assert file["features"][:].shape == (6, 4)
        assert file["coords"][:].shape == (6, 2)
        attrs = dict(file["coords"].attrs)
    wanted = ("patch_size", "patch_size_level0", "level0_magnification", "target_magnification", "overlap", "name")
    assert {key: attrs[key] for key in wanted} == {key: ATTRS[key] for key in wanted}
    assert (attrs["level0_width"], attrs["level0_height"]) == (4096, 2048)


def test_clam_takes_our_tensors_and_our_hdf5(path: Path) -> None:
    """A float32 tensor a slide in `pt_files`; tiles of `patch_size` at `patch_level` in `h5_files`."""
    own = store.read(path)
    tensor = torch.load(path.parent / "clam" / "pt_files" / "A 7.pt", weights_only=True)
    assert tensor.dtype == torch.float32
    assert torch.nn.Linear(4, 2)(tensor).shape == (6, 2)
    np.testing.assert_array_equal(tensor.numpy(), own.features.astype(np.float32))
    with h5py.File(path.parent / "clam" / "h5_files" / "A 7.h5") as file:
        np.testing.assert_array_equal(file["features"][:], tensor.numpy())
        np.testing.assert_array_equal(file["coords"][:], own.coords)
        assert (file["coords"].attrs["patch_level"], file["coords"].attrs["patch_size"]) == (0, 512)


def test_stamp_takes_our_file(path: Path) -> None:
    """`feats`, coordinates in um where `unit` or `tile_size_um` says so; um/px of a tile from its two sizes."""
    own = store.read(path)
    with h5py.File(path.parent / "stamp" / "A 7.h5") as file:
        np.testing.assert_array_equal(file["feats"][:], own.features)
        np.testing.assert_allclose(file["coords"][:], own.coords * 0.25)
        assert file.attrs["unit"] == "um"
        assert file.attrs["tile_size_um"] / file.attrs["tile_size_px"] == 0.5
        assert (file.attrs["extractor"], file.attrs["feat_type"]) == ("resnet50", "tile")
        assert "stamp_version" not in file.attrs


@pytest.mark.parametrize("name", ["stamp/A 7.h5", "clam/h5_files/A 7.h5", "clam/pt_files/A 7.pt"])
def test_what_was_exported_is_read_back(path: Path, name: str) -> None:
    found, own = store.read(path.parent / name), store.read(path)
    np.testing.assert_array_equal(found.features, own.features)
    if not name.endswith(".pt"):
        np.testing.assert_array_equal(found.coords, own.coords)
        assert found.attrs["coords_unit"] == "level0_px"


def test_an_export_that_is_absent_damaged_or_old_is_not_complete(path: Path) -> None:
    assert all(export.is_complete(kind, path) for kind in export.KINDS)
    file = path.parent / "clam" / "pt_files" / "A 7.pt"
    file.write_bytes(file.read_bytes()[:-1000])
    assert not export.is_complete("clam", path)
    file.unlink()
    assert not export.is_complete("clam", path)
    own = store.read(path)
    own.features[0, 0] += 1
    store.write(path, own)
    assert not export.is_complete("stamp", path)
    export.write("stamp", path)
    assert export.is_complete("stamp", path)
    assert not list(path.parent.rglob("*.tmp"))


def test_unknown_layouts_are_refused() -> None:
    assert export.check("stamp") == ["stamp"]
    assert export.check(["clam", "stamp"]) == ["clam", "stamp"]
    with pytest.raises(UsageFault, match=r"extract\.also=trident: the layouts are stamp, clam"):
        export.check(["trident"])


@pytest.mark.parametrize(
    ("attrs", "unit_um"),
    [({"unit": "um", "tile_size": 256.0}, 1.0), ({"tile_size_um": 256.0}, 1.0), ({"tile_size": 224}, 256 / 224)],
)
def test_the_versions_of_stamp_are_told_apart(tmp_path: Path, attrs: dict[str, object], unit_um: float) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["feats"] = np.zeros((2, 3), np.float16)
        file["coords"] = np.array([[0.0, 0.0], [224.0, 448.0]])
        file.attrs.update(attrs)
    found = store.read(tmp_path / "s.h5", mpp=0.5)
    assert found.attrs["coords_unit"] == "level0_px"
    np.testing.assert_array_equal(found.coords[1], np.rint(np.array([224, 448]) * unit_um / 0.5))
