"""Grad-CAM: it points at what drives the output, has a sign, and lies where the scan lies."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nsclc_mtl.encoders.volumetric import GroupRMSNorm, SliceEncoder, VolumeEncoder, interpolated
from nsclc_mtl.explain.gradcam import grad_cam, occlusion, picture, strongest, write_nifti
from nsclc_mtl.records import Embedding, UsageFault, Volume
from nsclc_mtl.scans import crop

SIZE = 32
CORNERS = [(i >> 2 & 1, i >> 1 & 1, i & 1) for i in range(8)]


def with_blob(corner: tuple[int, int, int], change: float = 0.4, seed: int = 0) -> Tensor:
    """Noise about 0.5 with one corner brighter or darker."""
    volume = 0.5 + 0.05 * torch.randn(1, 1, SIZE, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    z, y, x = (22 * c for c in corner)
    volume[0, 0, z : z + 10, y : y + 10, x : x + 10] += change
    return volume


@pytest.fixture(scope="module")
def trained() -> tuple[VolumeEncoder, nn.Linear]:
    """An encoder that has learnt to tell a brighter corner from a darker one, whichever corner it is."""
    torch.manual_seed(0)
    encoder, head = VolumeEncoder(dim=8), nn.Linear(8, 1)
    volumes = torch.cat([with_blob(c, change, 10 + i) for i, c in enumerate(CORNERS) for change in (0.4, -0.4)])
    truth = torch.tensor([1.0, 0.0] * 8)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], 5e-3)
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy_with_logits(head(encoder(volumes).vector)[:, 0], truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss < 0.05:
            break
    assert loss < 0.2
    return encoder.eval(), head


def logit(head: nn.Linear):
    def score(embedding: Embedding) -> Tensor:
        return head(embedding.vector)[0, 0]

    return score


def test_the_corner_that_drives_the_output_is_the_extreme(trained) -> None:
    """Brighter corners are the maximum, darker ones the minimum; plain group norm finds 3 of these 16."""
    encoder, head = trained
    found = 0
    for corner in CORNERS:
        for change in (0.4, -0.4):
            cam = grad_cam(encoder, with_blob(corner, change), logit(head))
            assert cam.shape == (SIZE,) * 3
            assert cam.dtype == np.float32
            extreme = np.unravel_index((np.sign(change) * cam).argmax(), cam.shape)
            # cells stand 8 voxels apart and the blob is 10 wide: its own cells, or those that touch them
            found += np.abs(extreme - (22 * np.array(corner) + 4.5)).max() < 12
    assert found >= 13


def test_cells_lie_where_their_receptive_fields_are() -> None:
    encoder = VolumeEncoder(dim=4)
    for module in encoder.modules():
        if isinstance(module, GroupRMSNorm):
            module.forward = lambda x: x  # its sum over the crop would spread the field everywhere
    volume = torch.rand(1, 1, SIZE, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    seen: list[Tensor] = []
    encoder.target_layer.register_forward_hook(lambda _, __, out: seen.append(out))
    encoder(volume)
    (field,) = torch.autograd.grad(seen[0][0, :, 2, 2, 2].sum(), volume)
    weight = field[0, 0].square()
    coarse = torch.zeros(1, 1, 4, 4, 4)
    coarse[0, 0, 2, 2, 2] = 1
    peak = np.unravel_index(int(interpolated(coarse, (SIZE,) * 3, encoder.stride).argmax()), (SIZE,) * 3)
    for axis in range(3):
        profile = weight.sum(dim=[a for a in range(3) if a != axis])
        centre = float((profile * torch.arange(float(SIZE))).sum() / profile.sum())
        assert centre == pytest.approx(float(peak[axis]), abs=1.5)  # resizing by tiles would say 19.5, not 16


def test_the_map_has_a_sign(trained) -> None:
    encoder, head = trained
    volume = with_blob((1, 1, 1))
    raises = grad_cam(encoder, volume, logit(head))
    lowers = grad_cam(encoder, volume, lambda embedding: -logit(head)(embedding))
    np.testing.assert_allclose(raises, -lowers, atol=1e-6)
    assert raises.max() > 0


def test_it_leaves_the_encoder_as_it_was(trained) -> None:
    encoder, head = trained
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    encoder.train()
    with torch.no_grad():  # as predict runs
        cam = grad_cam(encoder, with_blob((0, 0, 1)), logit(head))
    assert np.abs(cam).max() > 0
    assert encoder.training
    assert not encoder.target_layer._forward_hooks
    assert all(parameter.grad is None or not parameter.requires_grad for parameter in encoder.parameters())
    encoder.eval()


def cube_with_lesion() -> Volume:
    mask = np.zeros((SIZE,) * 3, np.uint8)
    mask[20:28, 6:14, 4:12] = 1
    affine = np.array([[-2.0, 0, 0, 50], [0, -2.0, 0, 60], [0, 0, 2.0, -70], [0, 0, 0, 1]])
    return Volume(with_blob((1, 0, 0))[0, 0].clamp(0, 1).numpy(), mask, (2.0, 2.0, 2.0), affine, "CT")


def test_picture_and_nifti(tmp_path: Path) -> None:
    cube = cube_with_lesion()
    cam = np.zeros_like(cube.array)
    cam[22, 8, 5], cam[2, 2, 2] = -3.0, 5.0
    assert strongest(cam, cube.mask) == (22, 8, 5)
    assert strongest(cam, np.zeros_like(cube.mask)) == (2, 2, 2)
    picture(cube, cam, tmp_path / "cam.png", "P1: log-risk")
    assert (tmp_path / "cam.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "cam.png").stat().st_size > 10_000
    write_nifti(cam, cube.affine, tmp_path / "cam.nii.gz")
    back = nibabel.load(tmp_path / "cam.nii.gz")
    np.testing.assert_allclose(back.affine, cube.affine)
    assert back.header["sform_code"] == back.header["qform_code"] == 1  # the scanner's space
    assert back.get_fdata()[5, 8, 22] == -3.0


def test_a_flat_map_is_still_a_picture(tmp_path: Path) -> None:
    cube = cube_with_lesion()
    picture(cube, np.zeros_like(cube.array), tmp_path / "flat.png", "nothing")
    assert (tmp_path / "flat.png").is_file()
    assert cube.mask[strongest(np.zeros_like(cube.array), cube.mask)] == 1


# One task for both encoders: is the bright ball in the crop or is it not? It lies near the middle, as lesions do.
def with_ball(centre: tuple[int, int, int] | None, seed: int) -> Tensor:
    volume = 0.3 + 0.05 * torch.randn(1, 1, SIZE, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    if centre is not None:
        volume[0, 0] += 0.5 * (distance(centre) <= 4)
    return volume


def distance(centre: tuple[int, int, int]) -> Tensor:
    axes = [torch.arange(float(SIZE)) - c for c in centre]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)


PLACES = [(z, y, x) for z in (11, 20) for y in (11, 20) for x in (11, 20)]
MAKERS = {"3-D": lambda: VolumeEncoder(dim=8), "2.5-D": lambda: SliceEncoder(dim=8, slices=4, gap_vox=4)}


@pytest.fixture(scope="module", params=list(MAKERS))
def taught(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Linear, nn.Module]:
    """An encoder that finds the ball, its head, and the same encoder with other, random weights."""
    torch.manual_seed(1)
    encoder, head = MAKERS[request.param](), nn.Linear(8, 1)
    volumes = torch.cat([with_ball(c, 50 + i) for i, c in enumerate([*PLACES, *[None] * 8])])
    truth = torch.tensor([1.0] * 8 + [0.0] * 8)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], 5e-3)
    for _ in range(80):
        loss = nn.functional.binary_cross_entropy_with_logits(head(encoder(volumes).vector)[:, 0], truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss < 0.02:
            break
    assert loss < 0.2
    torch.manual_seed(9)
    return encoder.eval(), head, MAKERS[request.param]().eval()


def maps(method: str, encoder: nn.Module, head: nn.Linear, volume: Tensor) -> np.ndarray:
    if method == "Grad-CAM":
        return grad_cam(encoder, volume, logit(head))
    return occlusion(encoder, volume, {"t": logit(head)}, windows=4)["t"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["Grad-CAM", pytest.param("occlusion", marks=pytest.mark.slow)])
def test_weight_randomisation(taught: tuple[nn.Module, nn.Linear, nn.Module], method: str) -> None:
    """The sanity check of Adebayo et al. (NeurIPS 2018): a map that survives random weights shows the image, no model.

    The trained maps lie on the signal, those of random weights are another pattern and a fraction of the strength.
    """
    encoder, head, random = taught
    found, alike, share = 0, [], []
    for seed, centre in enumerate(PLACES[::2]):
        volume = with_ball(centre, 900 + seed)
        learnt, drawn = (maps(method, net, head, volume) for net in (encoder, random))
        assert learnt.shape == (SIZE,) * 3
        away = distance(centre).numpy()
        # cells, and hidden cubes, stand up to 8 voxels apart
        found += away.ravel()[learnt.argmax()] < 9 and learnt[away <= 6].mean() > 1.5 * learnt[away > 12].mean()
        alike.append(np.corrcoef(learnt.ravel(), drawn.ravel())[0, 1])
        share.append(np.abs(drawn).max() / np.abs(learnt).max())
    assert found == 4
    assert abs(np.mean(alike)) < 0.6
    assert max(share) < 0.2


def test_occlusion_is_the_score_that_is_lost() -> None:
    """Of a score that is the sum of the voxels it must be exact: each hidden cube loses what it held above the mean."""

    class Sum(nn.Module):
        def forward(self, volume: Tensor) -> Embedding:
            return Embedding(vector=volume.flatten(1).sum(1, keepdim=True))

    volume = torch.zeros(1, 1, 8, 8, 8)
    volume[0, 0, 1, 1, 1] = 64.0
    seen = {"plus": lambda e: e.vector.sum(), "minus": lambda e: -e.vector.sum()}
    told = occlusion(Sum().train(), volume, seen, windows=4, batch=5)
    mean = 64 / 8**3
    assert told["plus"][0, 0, 0] == pytest.approx(64 - 8 * mean)  # hidden by one cube of 2 x 2 x 2 alone
    assert told["plus"][7, 7, 7] == pytest.approx(-8 * mean)
    np.testing.assert_allclose(told["plus"], -told["minus"])
    with pytest.raises(UsageFault, match="windows"):
        occlusion(Sum(), volume, seen, windows=1)


def test_slices_lie_where_they_were_cut() -> None:
    encoder = SliceEncoder(dim=4, slices=2, gap_vox=4)
    cells = torch.zeros(6, 1, 4, 4)
    cells[1] = 1.0  # the second axial slice
    out = encoder.to_voxels(cells, (SIZE,) * 3)
    seen = torch.nonzero(out.sum(dim=(1, 2)))[:, 0].tolist()
    assert seen == [17, 18, 19, 20]  # slices at 14 and 18
    cells = torch.zeros(6, 1, 4, 4)
    cells[4, 0, 2, 1] = 1.0  # the first sagittal slice, z cell 2 and y cell 1
    out = encoder.to_voxels(cells, (SIZE,) * 3)
    z, y, x = np.unravel_index(int(out.argmax()), (SIZE,) * 3)
    assert (z, y) == (16, 8)
    assert 13 <= x <= 16
    with pytest.raises(UsageFault, match="cubes"):
        encoder(torch.zeros(1, 1, 8, 8, 9))


@pytest.mark.parametrize("oblique", [False, True])
def test_a_map_lies_on_the_scan_it_came_from(tmp_path: Path, oblique: bool) -> None:
    """A blob in an anisotropic scan, also tilted and in another orientation: through crop, map and NIfTI back to it."""
    spacing, shape = np.array([0.9, 1.1, 3.0]), (40, 90, 100)  # x, y, z in mm; voxels z, y, x
    turn = np.eye(3)
    if oblique:
        a, b = np.deg2rad(20), np.deg2rad(-15)
        turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.array(
            [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
        )
        turn = turn[:, [1, 0, 2]] * [1, -1, 1]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * spacing, (-120, 35, 410)
    at = np.array([61, 33, 17])  # voxel x, y, z
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    far = np.sqrt(((x - at[0]) * 0.9) ** 2 + ((y - at[1]) * 1.1) ** 2 + ((z - at[2]) * 3.0) ** 2)
    scan = Volume(
        np.exp(-((far / 8) ** 2)).astype(np.float32), (far < 8).astype(np.uint8), (3.0, 1.1, 0.9), affine, "MR"
    )
    cube = crop.lesion_volume(scan, 32, 2.0, (0.0, 1.0))
    crop.save(tmp_path / "s.h5", cube, "P", scan=scan)
    grid = crop.scan_grid(tmp_path / "s.h5")
    write_nifti(crop.on_grid(cube.array, cube.affine, grid), grid[1], tmp_path / "map.nii.gz")
    back = nibabel.load(tmp_path / "map.nii.gz")
    assert back.shape == shape[::-1]
    np.testing.assert_allclose(back.affine, affine, atol=1e-4)
    values = back.get_fdata()
    centre = [float((values * np.indices(values.shape)[i]).sum() / values.sum()) for i in range(3)]
    np.testing.assert_allclose(centre, at, atol=0.3)
    inside = far.transpose(2, 1, 0) < 15
    np.testing.assert_allclose(values[inside], scan.array.transpose(2, 1, 0)[inside], atol=0.12)
