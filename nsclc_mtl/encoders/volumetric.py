"""A crop of a scan becomes a vector: MONAI's 3-D ResNet, trained end to end, normalised within each patient.

No batch norm: a batch holds zeros where a patient has no scan, and batch statistics would let those rows change
everybody else's embedding. No plain group norm either: it subtracts a mean over the whole crop, so a lesion shifts the
background, the network reads it there, and Grad-CAM points beside the lesion (3 of 16 synthetic corners found, against
15 or 16 with the norm below, at equal accuracy).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from monai.networks.nets.resnet import ResNet
from monai.transforms import Flip, Rotate90
from torch import Tensor, nn

from nsclc_mtl.records import Embedding, IntegrityFault, UsageFault


class VolumeEncoder(nn.Module):
    """One vector a crop: float [patient, dim] from float [patient, 1, z, y, x], values about 0..1.

    `widths` are the channels of the stages (three or four) and `depths` their blocks; each stage after the first
    halves the grid, as does the stem. The default (about 60,000 parameters) turns 32 voxels into a last grid of 4,
    which is what Grad-CAM can tell apart. ResNet-18 is `widths=(64, 128, 256, 512), depths=(2, 2, 2, 2),
    max_pool=True` for crops of 64 voxels or more (Hara et al., CVPR 2018). `weights` names a local state dict of the
    same shape, loaded with weights_only. `augment` flips, turns and rescales crops in training mode, drawn from
    (seed, step): the step is part of the state, so a resumed training sees what an uninterrupted one would have seen.

    Raises `UsageFault` for widths that do not fit, `IntegrityFault` for weights of another shape.
    """

    def __init__(
        self,
        dim: int,
        widths: Sequence[int] = (8, 16, 32),
        depths: Sequence[int] = (1, 1, 1),
        groups: int = 8,
        max_pool: bool = False,
        dropout: float = 0.0,
        augment: bool = False,
        seed: int = 0,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        if len(widths) != len(depths) or len(widths) not in (3, 4):
            raise UsageFault(f"widths {tuple(widths)} and depths {tuple(depths)} must both name three or four stages")
        if any(width % groups for width in widths):
            raise UsageFault(f"widths {tuple(widths)} must be multiples of groups={groups}")
        self.backbone = _ResNet(tuple(widths), tuple(depths), groups, max_pool)
        self.target_layer: nn.Module = self.backbone.last_stage  # where Grad-CAM looks: [patient, channel, z', y', x']
        self.stride = 2 ** (len(widths) + max_pool)  # voxels from cell to cell there; cell 0 lies over voxel 0
        self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], dim))
        self.dim, self.augment, self.seed = dim, augment, seed
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.step: Tensor
        if weights is not None:
            self._load(Path(weights))

    def forward(self, volume: Tensor) -> Embedding:
        """The embedding of crops [patient, 1, z, y, x]."""
        if self.training and self.augment:
            volume = augmented(volume, torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.step)))
            self.step += 1
        return Embedding(vector=self.project(self.backbone(volume)))

    def _load(self, path: Path) -> None:
        if not path.is_file():
            raise UsageFault(f"scans.weights={path} does not exist; give a local file or null")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
            # published files often carry the prefix of the wrapper they were trained in
            state = {name.removeprefix("module."): value for name, value in state.items()}
            own = self.backbone.state_dict()
            kept = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
        except Exception as error:  # torch raises many kinds; all of them mean the file is not what it should be
            raise IntegrityFault(f"{path.name} is no state dict that loads with weights_only ({error})") from None
        if missing := sorted(own.keys() - kept.keys()):
            raise IntegrityFault(
                f"{path.name} lacks {len(missing)} of {len(own)} tensors of this encoder (first: {missing[0]}); "
                "set widths, depths and max_pool as they were in training"
            )
        self.backbone.load_state_dict(kept)


class GroupRMSNorm(nn.Module):
    """Each group of channels divided by its root mean square over the crop: as [patient, channel, z, y, x] as it came.

    Group norm (Wu and He, ECCV 2018) without its mean, as RMSNorm (Zhang and Sennrich, NeurIPS 2019) is to layer norm.
    """

    def __init__(self, groups: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised activations."""
        split = x.unflatten(1, (self.groups, -1))
        split = split * torch.rsqrt(split.square().mean(dim=(2, 3, 4, 5), keepdim=True) + self.eps)
        return torch.addcmul(_per_channel(self.bias), split.flatten(1, 2), _per_channel(self.weight))


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1, 1)


class _ResNet(ResNet):
    """MONAI's ResNet of one channel, normalised within a patient everywhere and, for three widths, one stage less."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], groups: int, max_pool: bool) -> None:
        spare = 4 - len(widths)
        super().__init__(
            block="basic",
            layers=[*depths, *[1] * spare],
            block_inplanes=[*widths, *[widths[-1]] * spare],
            spatial_dims=3,
            n_input_channels=1,
            conv1_t_size=7,
            conv1_t_stride=2,  # MONAI's default of 1 costs four times the work and is not the published network
            no_max_pool=not max_pool,
            feed_forward=False,
            bias_downsample=False,
        )
        if spare:
            self.layer4 = nn.Identity()  # type: ignore[assignment]
        self.last_stage: nn.Module = self.layer3 if spare else self.layer4
        # MONAI hands its argument `norm` to the stem alone, the blocks keep batch norm: so all are exchanged here
        for parent in list(self.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.BatchNorm3d):
                    setattr(parent, name, GroupRMSNorm(groups, child.num_features))


def augmented(volume: Tensor, generator: torch.Generator) -> Tensor:
    """Crops [patient, 1, z, y, x] flipped, turned by right angles, with contrast and brightness changed a little.

    Each row takes the same number of draws, so what happens to one patient does not depend on the others' content.
    """
    rows = []
    for row in volume:
        draws = torch.rand(6, generator=generator).tolist()
        if axes := [axis for axis, draw in enumerate(draws[:3]) if draw < 0.5]:
            row = Flip(spatial_axis=axes)(row)
        row = Rotate90(k=int(4 * draws[3]), spatial_axes=(1, 2))(row)  # in the axial plane: voxels are isotropic
        rows.append((row * (0.9 + 0.2 * draws[4]) + 0.1 * (draws[5] - 0.5)).as_subclass(Tensor))
    return torch.stack(rows)
