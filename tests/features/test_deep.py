"""Frozen networks on lesions: which slices they see, what they refuse, and that the key follows the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nsclc_mtl.features.backbones.resnet import resnet50_of_tiles
from nsclc_mtl.features.backbones.squeezenet import PLACES, Convolutions
from nsclc_mtl.features.deep import deep_key, slices
from nsclc_mtl.features.deep.networks import Planes, resnet50_25d, resnet_3d, squeezenet_25d
from nsclc_mtl.records import DataFault, IntegrityFault, UsageFault, Volume


def cube(size: int = 24) -> Volume:
    """A lesion of 10 x 6 x 4 voxels (z, y, x) whose slices differ: the value grows with z."""
    mask = np.zeros((size,) * 3, np.uint8)
    mask[8:18, 4:10, 14:18] = 1
    mask[12, 3:11, 13:19] = 1  # the largest axial slice
    array = np.broadcast_to(np.arange(size, dtype=np.float32)[:, None, None] / size, mask.shape).copy()
    return Volume(array, mask, (2.0, 2.0, 2.0), np.diag([-2.0, -2.0, 2.0, 1.0]), "MR")


def test_the_slices_that_cut_most_of_the_lesion() -> None:
    mask = cube().mask
    assert slices.largest(mask, 0, 1) == [12]
    assert slices.largest(mask, 0, 3) in ([12, 13, 14], [11, 12, 13])  # ties go to the middle
    assert slices.largest(mask, 2, 4) == [14, 15, 16, 17]
    assert slices.largest(np.zeros_like(mask), 1, 2) == [11, 12]
    thin = np.zeros_like(mask)
    thin[5, 5, 5] = 1
    assert slices.largest(thin, 0, 3) == [4, 5, 6]


def test_pictures_show_the_lesion_with_its_margin() -> None:
    given = cube()
    axial, coronal, sagittal = slices.pictures(given, 1, margin_mm=4.0)
    # box of 8 x 6 (y, x), 10 x 6 (z, x) and 10 x 8 (z, y) voxels, two voxels on each side
    assert [p.shape for p in (axial, coronal, sagittal)] == [(12, 12), (14, 14), (14, 14)]
    assert np.unique(axial[axial > 0]).tolist() == [0.5]  # slice 12 of 24
    assert (np.diff(coronal[:, 5]) < 0).all()  # the head is up, and the value grows towards it
    assert coronal[:, 5].max() == pytest.approx(19 / 24)
    whole = slices.pictures(given, 1, margin_mm=None)
    assert [p.shape for p in whole] == [(24, 24)] * 3
    np.testing.assert_array_equal(whole[0], given.array[12])


def test_a_lesion_at_the_edge_is_padded_with_the_lower_end_of_the_window() -> None:
    given = cube()
    given.array[:] = 0.7
    axial = slices.pictures(given, 1, margin_mm=20.0)[0]
    assert axial.shape == (28, 28)
    assert set(np.unique(axial)) == {np.float32(0), np.float32(0.7)}
    assert axial[:7].max() == 0  # seven rows before the crop begins
    assert axial[7:].any(1).sum() == 21


class Mean(torch.nn.Module):
    def forward(self, light: torch.Tensor) -> torch.Tensor:
        return light.mean((2, 3))


def planes(pool: str, n: int = 2) -> Planes:
    from nsclc_mtl.features.backbones.frozen import Frozen

    net = Frozen(Mean(), name="mean", tile_px=32, batch=2, um_per_px=1, weights_hash="none", mean=(0,) * 3,
                 spread=(1,) * 3, precision="32", device="cpu")  # fmt: skip
    return Planes(net, n, 0.0, pool)


def test_pooling_over_slices_and_axes() -> None:
    given = cube()
    seen = [float(p.mean()) for p in slices.pictures(given, 2, 0.0)]
    np.testing.assert_allclose(planes("mean")(given), np.mean(seen), rtol=1e-3)
    np.testing.assert_allclose(planes("max")(given), np.max(seen), rtol=1e-3)
    joined = planes("concat")(given)
    assert joined.shape == (9,)
    np.testing.assert_allclose(joined[::3], [np.mean(seen[:2]), np.mean(seen[2:4]), np.mean(seen[4:])], rtol=1e-3)
    for wrong in (lambda: planes("median"), lambda: planes("mean", 0)):
        with pytest.raises(UsageFault, match=r"deep\."):
            wrong()


@pytest.mark.parametrize("make", [resnet50_25d, squeezenet_25d, resnet_3d])
def test_without_weights_it_is_refused_and_random_ones_are_asked_for_by_name(make, tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match=r"needs weights.*deep\.random=true"):
        make()
    with pytest.raises(UsageFault, match="exclude"):
        make(random=True, weights="x.pth")
    with pytest.raises(UsageFault, match=r"deep\.weights"):
        make(weights=str(tmp_path / "absent.pth"))
    small = {} if make is resnet_3d else {"px": 64, "slices": 1}
    first, again, other = (make(random=True, seed=s, device="cpu", **small) for s in (1, 1, 2))
    assert first.weights_hash == "random:1"
    before = torch.random.get_rng_state()
    told = first(cube(32))
    assert torch.equal(before, torch.random.get_rng_state())
    assert told.dtype == np.float32
    np.testing.assert_array_equal(told, again(cube(32)))
    assert not np.allclose(told, other(cube(32)))


def test_weights_from_a_file_with_the_usual_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = resnet50_of_tiles()
    state = {**net.state_dict(), "fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}
    torch.save(state, path := tmp_path / "r50.pth")
    made = resnet50_25d(weights=str(path), slices=1, px=64, device="cpu")
    assert made(cube()).shape == (2048,)
    assert made.weights_hash.startswith("sha256:")
    with pytest.raises(IntegrityFault, match="digest"):
        resnet50_25d(weights=str(path), weights_sha256="0" * 64)
    with pytest.raises(DataFault, match="do not fit"):
        resnet_3d(weights=str(path))
    places = {f"fire{number}.": f"features.{place}." for number, place in PLACES.items()} | {"conv1.": "features.0."}
    small = {}
    for key, value in Convolutions().state_dict().items():
        ours = next(name for name in places if key.startswith(name))
        small[places[ours] + key.removeprefix(ours)] = value
    torch.save(small, path := tmp_path / "sqz.pth")
    assert squeezenet_25d(weights=str(path), slices=1, px=64, device="cpu")(cube()).shape == (1280,)


def test_weights_of_the_3d_network_with_the_prefix_of_its_publisher(tmp_path: Path) -> None:
    drawn = resnet_3d(random=True, seed=3, device="cpu")
    state = {f"module.{name}": value for name, value in drawn.net.state_dict().items()}
    torch.save({"state_dict": state}, path := tmp_path / "resnet_10.pth")
    made = resnet_3d(weights=str(path), device="cpu")
    np.testing.assert_array_equal(made(cube(32)), drawn(cube(32)))
    assert made(cube(32)).shape == (512,)
    with pytest.raises(UsageFault, match=r"deep\.depth"):
        resnet_3d(random=True, depth=12)


def test_the_key_follows_weights_network_and_crops(tmp_path: Path) -> None:
    (path := tmp_path / "w.pth").write_bytes(b"a")
    given = {"_target_": "x", "name": "net", "slices": 3, "weights": str(path), "batch": 32}
    key = deep_key(given, "volumes-1")
    assert key.startswith("deep-net-")
    assert deep_key({**given, "batch": 8}, "volumes-1") == key
    (other := tmp_path / "elsewhere.pth").write_bytes(b"a")
    assert deep_key({**given, "weights": str(other)}, "volumes-1") == key
    other.write_bytes(b"b")
    changed = [
        ({**given, "weights": str(other)}, "volumes-1"),
        ({**given, "slices": 1}, "volumes-1"),
        (given, "volumes-2"),
    ]
    assert len({key, *(deep_key(*each) for each in changed)}) == 4
    assert deep_key({"name": None}, "volumes-1") is None
    with pytest.raises(UsageFault, match=r"deep\.weights"):
        deep_key({**given, "weights": str(tmp_path / "absent")}, "volumes-1")
