"""A crop of a scan becomes a vector: MONAI's ResNet, in 3-D or on flat slices, trained end to end, normalised within
each patient.

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
from torch import Tensor, nn
from torch.nn import functional

from nsclc_mtl.records import Embedding, IntegrityFault, UsageFault


class VolumeEncoder(nn.Module):
    """One vector a crop: float [patient, dim] from float [patient, 1, z, y, x], values about 0..1.

    `widths` are the channels of the stages (three or four) and `depths` their blocks; each stage after the first
    halves the grid, as does the stem. The default (about 60,000 parameters) turns 32 voxels into a last grid of 4,
    which is what Grad-CAM can tell apart. ResNet-18 is `widths=(64, 128, 256, 512), depths=(2, 2, 2, 2),
    max_pool=True` for crops of 64 voxels or more (Hara et al., CVPR 2018). `weights` names a local state dict of the
    same shape, loaded with weights_only.

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
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.backbone = _ResNet(3, widths, depths, groups, max_pool)
        self.target_layer: nn.Module = self.backbone.last_stage  # where Grad-CAM looks: [patient, channel, z', y', x']
        self.stride = self.backbone.stride
        self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], dim))
        self.dim = dim
        if weights is not None:
            _load(self.backbone, Path(weights))

    def forward(self, volume: Tensor) -> Embedding:
        """The embedding of crops [patient, 1, z, y, x]."""
        return Embedding(vector=self.project(self.backbone(volume)))

    def to_voxels(self, cells: Tensor, size: Sequence[int]) -> Tensor:
        """A map of the target layer [1, 1, z', y', x'] on the voxels of its crop [z, y, x]."""
        return interpolated(cells, size, self.stride)[0, 0]


class SliceEncoder(nn.Module):
    """One vector a crop from flat slices (2.5-D): float [patient, dim] from float [patient, 1, z, y, x].

    `slices` slices along each of the three axes, `gap_vox` apart, about the middle of the crop, which is the middle of
    the lesion; one 2-D ResNet sees them all, and their vectors are averaged. Parameters as `VolumeEncoder`.
    """

    def __init__(
        self,
        dim: int,
        slices: int = 3,
        gap_vox: int = 4,
        widths: Sequence[int] = (8, 16, 32),
        depths: Sequence[int] = (1, 1, 1),
        groups: int = 8,
        max_pool: bool = False,
        dropout: float = 0.0,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        if slices < 1 or gap_vox < 1:
            raise UsageFault(f"slices={slices} and gap_vox={gap_vox} must be 1 or more")
        self.slices, self.gap_vox = slices, gap_vox
        self.backbone = _ResNet(2, widths, depths, groups, max_pool)
        self.target_layer: nn.Module = self.backbone.last_stage  # [patient * axis * slice, channel, rows', columns']
        self.stride = self.backbone.stride
        self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], dim))
        self.dim = dim
        if weights is not None:
            _load(self.backbone, Path(weights))

    def forward(self, volume: Tensor) -> Embedding:
        """The embedding of crops [patient, 1, n, n, n], which are cubes."""
        flat = [volume.index_select(2 + axis, at).movedim(2 + axis, 1) for axis, at in self._places(volume.shape[2:])]
        seen = torch.cat(flat, dim=1).flatten(0, 1)  # [patient * axis * slice, 1, rows, columns]
        return Embedding(vector=self.project(self.backbone(seen).unflatten(0, (len(volume), -1)).mean(1)))

    def to_voxels(self, cells: Tensor, size: Sequence[int]) -> Tensor:
        """Maps of the target layer [axis * slice, 1, rows', columns'] on the voxels of the crop [z, y, x].

        The map of a slice fills the slab that it stands for, half a gap to either side; slabs that cross are added,
        and what no slice saw is 0.
        """
        out = cells.new_zeros(tuple(size))
        maps = interpolated(cells, (size[0], size[0]), self.stride)[:, 0].unflatten(0, (3, -1))
        for (axis, places), own in zip(self._places(size), maps, strict=True):
            for at, plane in zip(places.tolist(), own, strict=True):
                first = max(at - (self.gap_vox - 1) // 2, 0)
                thick = min(first + self.gap_vox, size[axis]) - first
                out.narrow(axis, first, thick).add_(plane.unsqueeze(axis))
        return out

    def _places(self, size: Sequence[int]) -> list[tuple[int, Tensor]]:
        """Positions of the slices along each axis."""
        if len(set(size)) != 1:
            raise UsageFault(f"the 2.5-D encoder needs cubes, not crops of {list(size)} voxels; see scans.crop")
        device = next(self.project.parameters()).device
        offset = (torch.arange(self.slices, device=device) * self.gap_vox) - self.gap_vox * (self.slices - 1) // 2
        at = (size[0] // 2 + offset).clamp(0, size[0] - 1)
        return [(axis, at) for axis in range(3)]


def interpolated(cells: Tensor, size: Sequence[int], stride: int) -> Tensor:
    """Cells [n, 1, ...] interpolated to voxels or pixels [n, 1, *size], each where its receptive field is centred.

    Odd kernels padded by half keep cell k over voxel k * stride. The usual resizing takes cells for tiles and would
    move the map by half a cell, which is nearly a centimetre at 2 mm.
    """
    axes = []
    for voxels, number in zip(size, cells.shape[2:], strict=True):
        place = torch.arange(voxels, device=cells.device, dtype=cells.dtype) / stride
        axes.append(2 * place.clamp(max=number - 1) / max(number - 1, 1) - 1)
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)  # x first
    grid = grid.expand(len(cells), *grid.shape)
    return functional.grid_sample(cells, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _load(net: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise UsageFault(f"weights '{path}' does not exist; give the encoder a local file, or null")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        # published files often carry the prefix of the wrapper they were trained in
        state = {name.removeprefix("module."): value for name, value in state.items()}
        own = net.state_dict()
        kept = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    except Exception as error:  # torch raises many kinds; all of them mean the file is not what it should be
        raise IntegrityFault(f"{path.name} is no state dict that loads with weights_only ({error})") from None
    if missing := sorted(own.keys() - kept.keys()):
        raise IntegrityFault(
            f"{path.name} lacks {len(missing)} of {len(own)} tensors of this encoder (first: {missing[0]}); "
            "set widths, depths and max_pool as they were in training"
        )
    net.load_state_dict(kept)


class GroupRMSNorm(nn.Module):
    """Each group of channels divided by its root mean square over the crop: [patient, channel, ...] as it came.

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
        split = split * torch.rsqrt(split.square().mean(dim=tuple(range(2, split.ndim)), keepdim=True) + self.eps)
        per_channel = (1, -1, *[1] * (x.ndim - 2))
        return torch.addcmul(self.bias.view(per_channel), split.flatten(1, 2), self.weight.view(per_channel))


class _ResNet(ResNet):
    """MONAI's ResNet of one channel, normalised within a patient everywhere and, for three widths, one stage less."""

    def __init__(self, dims: int, widths: Sequence[int], depths: Sequence[int], groups: int, max_pool: bool) -> None:
        if len(widths) != len(depths) or len(widths) not in (3, 4):
            raise UsageFault(f"widths {tuple(widths)} and depths {tuple(depths)} must both name three or four stages")
        if any(width % groups for width in widths):
            raise UsageFault(f"widths {tuple(widths)} must be multiples of groups={groups}")
        spare = 4 - len(widths)
        super().__init__(
            block="basic",
            layers=[*depths, *[1] * spare],
            block_inplanes=[*widths, *[widths[-1]] * spare],
            spatial_dims=dims,
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
        self.stride = 2 ** (len(widths) + max_pool)  # voxels from cell to cell there; cell 0 lies over voxel 0
        # MONAI hands its argument `norm` to the stem alone, the blocks keep batch norm: so all are exchanged here
        for parent in list(self.modules()):
            for name, child in parent.named_children():
                if isinstance(child, (nn.BatchNorm2d, nn.BatchNorm3d)):
                    setattr(parent, name, GroupRMSNorm(groups, child.num_features))
