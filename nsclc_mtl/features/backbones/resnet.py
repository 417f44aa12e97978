"""ResNet-50 on tiles, with weights that the user brings."""

from __future__ import annotations

from monai.networks.nets.resnet import ResNet, resnet50

from nsclc_mtl.features.backbones.frozen import Frozen
from nsclc_mtl.features.backbones.weights import fill, found, state_of


def resnet50_of_tiles() -> ResNet:
    """ResNet-50 of pictures, without its last layer, with the parameter names of the usual ImageNet checkpoints."""
    # MONAI's default stride of the first layer is 1: four times the work, and wrong for the published weights.
    return resnet50(
        spatial_dims=2, n_input_channels=3, feed_forward=False, shortcut_type="B", bias_downsample=False,
        conv1_t_stride=2,
    )  # fmt: skip


class Resnet50(Frozen):
    """Vector of 2,048 a tile: the pooled last layer of ResNet-50 (He et al. 2016). Input uint8 [tile, px, px, 3].

    `weights` is a local state dict (.pth, loaded with weights_only, or .safetensors) with the parameter names of the
    usual ImageNet checkpoints; `hub` a repository of the hub that holds `model.safetensors`. There are no random
    weights: without either, UsageFault. `weights_sha256`, where given, must match (IntegrityFault).
    """

    dim = 2048

    def __init__(
        self,
        weights: str | None = None,
        hub: str | None = None,
        weights_sha256: str | None = None,
        name: str = "resnet50",
        tile_px: int = 256,
        batch: int = 32,
        um_per_px: float = 0.5,
        precision: str | int = "auto",
        device: str = "auto",
    ) -> None:
        path, digest = found("resnet50", weights, hub, sha256=weights_sha256)
        net = resnet50_of_tiles()
        fill(net, state_of(path), "ResNet-50", path.name, unused=("fc.",))
        super().__init__(
            net, name=name, tile_px=tile_px, batch=batch, um_per_px=um_per_px, weights_hash=digest,
            precision=precision, device=device,
        )  # fmt: skip
