"""What stands in for a mask that nobody drew: a box, the lungs, a network of the user's own."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet
from scipy import ndimage
from toy_scan import SPACING, ball, chest

from nsclc_mtl.records import ItemFault, UsageFault
from nsclc_mtl.scans import regions, volume

Writer = Callable[..., Path]
ARRAY = chest(ball())


def load(image: Path, how: str, modality: str = "CT", **options: Any):
    return volume.load(image, None, modality, without_mask={"how": how, **options})


def refused(reason: str, image: Path, how: str, modality: str = "CT", **options: Any) -> None:
    with pytest.raises(ItemFault) as caught:
        load(image, how, modality, **options)
    assert caught.value.reason == reason, str(caught.value)


def test_the_whole_scan_and_a_box(write: Writer) -> None:
    image = write("ct.nii", ARRAY)
    whole = load(image, "box")
    assert whole.mask.all()
    assert "no mask drawn: the region is the whole scan" in whole.history
    middle = (whole.affine @ [13, 12, 10, 1])[:3]  # voxel x, y, z
    scan = load(image, "box", size_mm=[5, 7, 9], point_mm=tuple(middle))
    where = np.argwhere(scan.mask)
    assert where.min(0).tolist() == [8, 9, 11]  # 9 mm of 2 mm slices: 10 - 2 .. 10 + 2
    assert where.max(0).tolist() == [12, 15, 15]
    assert len(where) == 5 * 7 * 5
    assert any("a box of 5x7x9 mm around a stated point" in note for note in scan.history)
    refused("no_point", image, "box", size_mm=20)
    refused("outside_image", image, "box", size_mm=5, point_mm=(500.0, 0.0, 0.0))


def test_a_point_in_the_table() -> None:
    assert regions.point_of({"x_mm": "1.5", "y_mm": "-2", "z_mm": "0"}) == (1.5, -2.0, 0.0)
    assert regions.point_of({"x_mm": "", "y_mm": None, "z_mm": float("nan")}) is None
    assert regions.point_of({}) is None
    for row in ({"x_mm": "1"}, {"x_mm": "1", "y_mm": "here", "z_mm": "2"}, {"x_mm": "1", "y_mm": "2", "z_mm": "nan"}):
        with pytest.raises(ItemFault, match="number"):
            regions.point_of(row)


@pytest.fixture
def thorax(write: Writer) -> Path:
    """A body in air, voxels of 4 mm: two lungs, a nodule in one, a vessel in the other, and a little air in the gut."""
    shape = (40, 60, 80)
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    array = np.full(shape, -1000.0)
    array[((x - 40) / 36) ** 2 + ((y - 30) / 26) ** 2 + 0 * z < 1] = 40
    for middle in (24, 56):
        array[((x - middle) / 11) ** 2 + ((y - 30) / 15) ** 2 + ((z - 20) / 16) ** 2 < 1] = -850
    array[(x - 24) ** 2 + (y - 30) ** 2 + (z - 20) ** 2 < 9] = 50  # a nodule of 2.4 cm
    array[12:28, 30, 52:60] = 30  # a vessel, one voxel thick
    array[2:5, 40:44, 38:42] = -900
    affine = np.diag([-4.0, -4.0, 4.0, 1.0])
    return write("thorax.nii", array.astype(np.int16), affine)


def test_the_lungs(thorax: Path) -> None:
    scan = load(thorax, "lung")
    _, count = ndimage.label(scan.mask)
    assert count == 2
    assert scan.mask[20, 30, 24] == 1  # the nodule belongs to the lung
    assert scan.mask[20, 30, 56] == 1  # and the vessel
    assert scan.mask[3, 42, 40] == 0  # the gut does not
    assert scan.mask[0, 0, 0] == 0  # nor the air around
    ellipsoids = 2 * 4 / 3 * np.pi * 11 * 15 * 16
    assert scan.mask.sum() == pytest.approx(ellipsoids, rel=0.03)
    assert any("below -400 HU" in note for note in scan.history)
    refused("wrong_modality", thorax, "lung", "MR")
    refused("no_lung", thorax, "lung", least_ml=5000)


def test_a_scan_that_lies_on_its_side_has_the_same_lungs(thorax: Path, write: Writer) -> None:
    upright = load(thorax, "lung")
    turned = upright.array.transpose(1, 0, 2)  # slices are coronal: array y of the patient first
    affine = upright.affine.copy()[:, [0, 2, 1, 3]]
    scan = load(write("coronal.nii", turned.astype(np.int16), affine), "lung")
    np.testing.assert_array_equal(scan.mask.transpose(1, 0, 2), upright.mask)


ARGS = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "features": [2, 2, 2, 2, 2, 2]}


class Threshold(torch.nn.Module):
    """Stands in the place of the network: class 1 where the window's value is above a half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.5 - x, x - 0.5], 1)


def test_a_network_is_asked_in_its_own_space(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network that thresholds, the answer is known: the tumour, whatever the spacing and the tiles."""
    from nsclc_mtl.scans import network

    monkeypatch.setattr(network, "load", lambda options: (Threshold(), "the network Threshold (weights 0)"))
    image = write("ct.nii", ARRAY)
    scan = load(image, "bundle", window=[-800, 40], tile_vox=[16, 16, 16])
    np.testing.assert_array_equal(scan.mask, ARRAY > -380)
    assert any("no mask drawn: the region is what the network Threshold" in note for note in scan.history)
    fine = load(image, "bundle", window=[-800, 40], spacing_mm=1.0, tile_vox=[32, 32, 32])
    assert fine.mask.shape == ARRAY.shape
    dice = 2 * (fine.mask & scan.mask).sum() / (fine.mask.sum() + scan.mask.sum())
    assert dice > 0.95
    oblique = np.diag([-1.0, -1.0, 2.0, 1.0])[:, [1, 0, 2, 3]] * [1, -1, 1, 1]  # rows and columns change place
    turned = write("turned.nii", ARRAY.transpose(0, 2, 1), oblique)
    sideways = load(turned, "bundle", window=[-800, 40], tile_vox=[32, 32, 32])
    np.testing.assert_array_equal(sideways.mask, scan.mask.transpose(0, 2, 1))
    refused("empty_roi", image, "bundle", window=[-800, 5000])


def test_weights_of_the_users_own(write: Writer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = BasicUNet(**ARGS)
    with torch.no_grad():  # so that it calls everything a lesion
        net.final_conv.bias.copy_(torch.tensor([-50.0, 50.0]))
    bundle = tmp_path / "bundle"
    (bundle / "models").mkdir(parents=True)
    (bundle / "configs").mkdir()
    torch.save({"state_dict": net.state_dict()}, bundle / "models" / "model.pt")
    told = {"network_def": {"_target_": "monai.networks.nets.BasicUNet", **ARGS}, "device": "$torch.device('cuda')"}
    (bundle / "configs" / "inference.json").write_text(json.dumps(told))
    image = write("ct.nii", ARRAY)
    by_bundle = load(image, "bundle", bundle=str(bundle), tile_vox=[32, 32, 32])
    assert by_bundle.mask.all()
    assert any("BasicUNet (weights " in note for note in by_bundle.history)
    weights = str(bundle / "models" / "model.pt")
    by_name = load(image, "bundle", network="BasicUNet", args=ARGS, weights=weights, tile_vox=[32, 32, 32])
    np.testing.assert_array_equal(by_name.mask, by_bundle.mask)
    assert by_name.history == by_bundle.history


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("exploded"),)  # type: ignore[return-value]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "needs a network"),
        ({"network": "BasicUNet", "args": ARGS}, "weights is not set"),
        ({"network": "BasicUNet", "args": ARGS, "weights": "absent.pt"}, "does not exist"),
        ({"network": "os", "weights": "weights.pt"}, "no class of monai.networks.nets"),
        ({"network": "BasicUNet", "args": {"layers": 3}, "weights": "weights.pt"}, "args do not fit"),
        ({"network": "BasicUNet", "args": ARGS, "weights": "weights.pt"}, "are no weights"),
        ({"network": "BasicUNet", "args": ARGS, "weights": "pickle.pt"}, "are no weights"),
        ({"weight": "weights.pt"}, "not weight"),
        ({"bundle": "."}, "network_def"),
        ({"bundle": "strange"}, "not plain"),
    ],
)
def test_networks_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"strange": torch.zeros(3)}, "weights.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"model": Bomb()}))
    (tmp_path / "strange" / "configs").mkdir(parents=True)
    network = {
        "_target_": "monai.networks.nets.BasicUNet",
        "spatial_dims": "$__import__('os').system('touch exploded')",
    }
    (tmp_path / "strange" / "configs" / "inference.json").write_text(json.dumps({"network_def": network}))
    with pytest.raises(UsageFault, match=word):
        regions.check({"how": "bundle", **options})
    assert not (tmp_path / "exploded").exists()


def test_options_without_a_meaning() -> None:
    with pytest.raises(UsageFault, match="size"):
        regions.check({"how": "box", "size": 4})
    with pytest.raises(UsageFault, match="no_mask=balloon"):
        volume.options({"no_mask": "balloon"})
    assert volume.options({})["without_mask"] is None
    by_network = volume.options({"no_mask": "bundle", "segmenter": {"label": 2}})["without_mask"]
    assert by_network == {"how": "bundle", "label": 2}
    assert SPACING == (2.0, 1.0, 1.0)  # what the boxes above count with
