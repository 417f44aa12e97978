"""The 3-D encoder: shapes, the law of absent rows, and what a checkpoint carries."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nsclc_mtl.config import build, compose, plain
from nsclc_mtl.encoders.volumetric import GroupRMSNorm, SliceEncoder, VolumeEncoder
from nsclc_mtl.records import IntegrityFault, UsageFault


@pytest.fixture
def encoder() -> VolumeEncoder:
    torch.manual_seed(0)
    return VolumeEncoder(dim=12)


def crops(n: int = 3, size: int = 32) -> torch.Tensor:
    return torch.rand(n, 1, size, size, size, generator=torch.Generator().manual_seed(1))


def test_one_vector_a_crop(encoder: VolumeEncoder) -> None:
    assert encoder(crops()).vector.shape == (3, 12)
    assert 10_000 < sum(p.numel() for p in encoder.parameters()) < 300_000


@pytest.mark.parametrize("training", [True, False])
def test_a_row_of_zeros_leaves_the_others_untouched(encoder: VolumeEncoder, training: bool) -> None:
    encoder.train(training)
    full = crops()
    absent = full.clone()
    absent[1] = 0
    before, after = encoder(full).vector, encoder(absent).vector
    assert torch.allclose(before[[0, 2]], after[[0, 2]], atol=1e-6)
    assert not torch.allclose(before[1], after[1], atol=1e-4)
    assert torch.isfinite(after).all()


@pytest.mark.parametrize(("words", "kind"), [([], VolumeEncoder), (["volume_encoder=resnet_25d"], SliceEncoder)])
def test_the_configuration_builds_the_encoder_of_the_defaults(words: list[str], kind: type[nn.Module]) -> None:
    node = plain(compose("train", words))["parts"]["modalities"]["volume"]["encoder"]
    torch.manual_seed(0)
    made = build(node, dim=12)
    torch.manual_seed(0)
    plain_one = kind(dim=12)
    assert type(made) is kind
    x = crops(2)
    torch.testing.assert_close(made(x).vector, plain_one(x).vector, rtol=0, atol=0)


def test_no_batch_statistics_anywhere(encoder: VolumeEncoder) -> None:
    assert not [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [m for m in encoder.modules() if isinstance(m, GroupRMSNorm)]
    assert len(norms) == 1 + 3 * 2 + 2  # stem, three blocks of two, two shortcuts


def test_the_norm_scales_each_group_to_one_and_keeps_zero() -> None:
    x = torch.randn(2, 8, 4, 4, 4) * 7 + 3
    out = GroupRMSNorm(4, 8)(x).unflatten(1, (4, 2))
    assert torch.allclose(out.square().mean(dim=(2, 3, 4, 5)), torch.ones(2, 4), atol=1e-4)
    assert torch.equal(GroupRMSNorm(4, 8)(torch.zeros_like(x)), torch.zeros_like(x))


def test_resnet18_has_the_published_layout() -> None:
    encoder = VolumeEncoder(dim=8, widths=(64, 128, 256, 512), depths=(2, 2, 2, 2), max_pool=True)
    assert encoder.backbone.conv1.stride == (2, 2, 2)
    convolutions = [m for m in encoder.backbone.modules() if isinstance(m, nn.Conv3d) and m.kernel_size != (1, 1, 1)]
    assert len(convolutions) == 17  # and the linear layer makes eighteen
    assert encoder(crops(1, 64)).vector.shape == (1, 8)


def test_it_learns_the_size_of_a_lesion_in_seconds() -> None:
    torch.manual_seed(0)
    grid = torch.stack(torch.meshgrid(*[torch.arange(16.0) - 7.5] * 3, indexing="ij")).norm(dim=0)
    radius = torch.linspace(3, 7, 24)[torch.randperm(24)]
    volumes = torch.where(grid < radius[:, None, None, None], 0.8, 0.1)[:, None]
    volumes = volumes + 0.05 * torch.randn(volumes.shape)
    encoder, head = VolumeEncoder(dim=8), nn.Linear(8, 1)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], 5e-3)
    for _ in range(25):
        loss = (head(encoder(volumes[:16]).vector)[:, 0] - radius[:16] + 5).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    guess = head(encoder.eval()(volumes[16:]).vector)[:, 0].detach()
    assert torch.corrcoef(torch.stack([guess, radius[16:]]))[0, 1] > 0.9


def test_weights_come_from_a_local_file_and_must_fit(tmp_path: Path, encoder: VolumeEncoder) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in encoder.backbone.state_dict().items()}}, file)
    fresh = VolumeEncoder(dim=5, weights=file)
    assert torch.equal(fresh.backbone.conv1.weight, encoder.backbone.conv1.weight)
    with pytest.raises(IntegrityFault, match="lacks"):
        VolumeEncoder(dim=5, widths=(16, 16, 16), weights=file)
    with pytest.raises(UsageFault, match="does not exist"):
        VolumeEncoder(dim=5, weights=tmp_path / "none.pth")
    torch.save({"state_dict": nn.Linear(1, 1)}, file)  # a pickled object is never executed
    with pytest.raises(IntegrityFault, match="weights_only"):
        VolumeEncoder(dim=5, weights=file)


@pytest.mark.parametrize("options", [{"widths": (8, 16)}, {"widths": (6, 12, 24)}, {"depths": (1, 1)}])
def test_widths_that_do_not_fit_are_refused(options: dict) -> None:
    with pytest.raises(UsageFault):
        VolumeEncoder(dim=4, **options)


def test_slices_become_one_vector_and_absent_rows_leave_the_others_untouched() -> None:
    torch.manual_seed(0)
    encoder = SliceEncoder(dim=12)
    full = crops()
    assert encoder(full).vector.shape == (3, 12)
    absent = full.clone()
    absent[1] = 0
    assert torch.allclose(encoder(full).vector[[0, 2]], encoder(absent).vector[[0, 2]], atol=1e-6)
    assert not [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    aside = full.clone()
    aside[:, :, 0, 0, 0] += 9  # no slice passes there
    assert torch.equal(encoder(aside).vector, encoder(full).vector)
    aside[:, :, 16, 0, 0] += 9
    assert not torch.allclose(encoder(aside).vector, encoder(full).vector, atol=1e-4)
    with pytest.raises(UsageFault, match="1 or more"):
        SliceEncoder(dim=4, slices=0)
