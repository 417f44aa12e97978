"""Grad-CAM: it points at what drives the output, has a sign, and lies where the scan lies."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nsclc_mtl.encoders.volumetric import GroupRMSNorm, VolumeEncoder
from nsclc_mtl.explain.gradcam import _to_voxels, grad_cam, picture, strongest, write_nifti
from nsclc_mtl.records import Embedding, Volume

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
    peak = np.unravel_index(int(_to_voxels(coarse, (SIZE,) * 3, encoder.stride).argmax()), (SIZE,) * 3)
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


def test_other_weights_other_map(trained) -> None:
    """The sanity check of Adebayo et al. (NeurIPS 2018): a map that survives random weights explains the image only."""
    encoder, head = trained
    volume = with_blob((1, 0, 0))
    torch.manual_seed(5)
    random = grad_cam(VolumeEncoder(dim=8), volume, logit(head))
    learnt = grad_cam(encoder, volume, logit(head))
    assert abs(np.corrcoef(random.ravel(), learnt.ravel())[0, 1]) < 0.9


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
    write_nifti(cube, cam, tmp_path / "cam.nii.gz")
    back = nibabel.load(tmp_path / "cam.nii.gz")
    np.testing.assert_allclose(back.affine, cube.affine)
    assert back.get_fdata()[5, 8, 22] == -3.0


def test_a_flat_map_is_still_a_picture(tmp_path: Path) -> None:
    cube = cube_with_lesion()
    picture(cube, np.zeros_like(cube.array), tmp_path / "flat.png", "nothing")
    assert (tmp_path / "flat.png").is_file()
    assert cube.mask[strongest(np.zeros_like(cube.array), cube.mask)] == 1
