"""ResNet-50 on tiles, with weights that the user brings."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.networks.nets.resnet import resnet50
from torch import Tensor, nn

from nsclc_mtl.features.backbones import file_hash
from nsclc_mtl.records import DataFault, IntegrityFault, UsageFault

# Mean and standard deviation of ImageNet in R, G, B, the normalisation of the usual checkpoints.
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Resnet50(nn.Module):
    """Vector of 2,048 a tile: the pooled last layer of ResNet-50 (He et al. 2016). Input uint8 [tile, px, px, 3].

    `weights` is a local state dict (.pth, loaded with weights_only, or .safetensors) with the parameter names of the
    usual ImageNet checkpoints; `hub` a repository of the hub that holds `model.safetensors`. There are no random
    weights: without either, UsageFault. `weights_sha256`, where given, must match (IntegrityFault).
    """

    dim = 2048
    mean: Tensor
    spread: Tensor

    def __init__(
        self,
        weights: str | None = None,
        hub: str | None = None,
        weights_sha256: str | None = None,
        name: str = "resnet50",
        tile_px: int = 256,
        batch: int = 32,
        um_per_px: float = 0.5,
    ) -> None:
        super().__init__()
        self.name, self.tile_px, self.batch, self.um_per_px = name, tile_px, batch, um_per_px
        path = Path(weights) if weights else _from_hub(hub)
        self.weights_hash = "sha256:" + file_hash(path)
        if weights_sha256 and self.weights_hash != f"sha256:{weights_sha256}":
            raise IntegrityFault(
                f"weights '{path.name}' have digest {self.weights_hash[7:19]}..., expected {weights_sha256[:12]}...; "
                "copy them again"
            )
        # MONAI's default stride of the first layer is 1: four times the work, and wrong for the published weights.
        self.net = resnet50(
            spatial_dims=2, n_input_channels=3, feed_forward=False, shortcut_type="B", bias_downsample=False,
            conv1_t_stride=2,
        )  # fmt: skip
        _load(self.net, path)
        self.net.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1) * 255.0)
        self.register_buffer("spread", torch.tensor(SPREAD).view(3, 1, 1) * 255.0)

    @torch.inference_mode()
    def forward(self, tiles: Tensor) -> Tensor:
        """float32 [tile, 2048] of uint8 [tile, px, px, 3]."""
        return self.net((tiles.permute(0, 3, 1, 2).float() - self.mean) / self.spread)


def _load(net: nn.Module, path: Path) -> None:
    import pickle

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: dict[str, Tensor] = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise DataFault(
            f"weights '{path.name}' are no plain state dict ({type(error).__name__}); nothing was loaded"
        ) from error
    except Exception as error:  # safetensors raises a type of its own
        raise DataFault(f"weights '{path.name}' cannot be read ({type(error).__name__}); copy them again") from error
    inner = state.get("state_dict", state) if isinstance(state, dict) else {}
    state = dict(inner)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    missing, strange = net.load_state_dict(state, strict=False)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or strange:
        example = (missing + strange)[0]
        raise DataFault(
            f"weights '{path.name}' do not fit ResNet-50: {len(missing)} parameters missing, {len(strange)} unknown "
            f"(for example '{example}'); give a checkpoint with the usual ImageNet names"
        )


def _from_hub(hub: str | None) -> Path:
    if not hub:
        raise UsageFault(
            "backbone=resnet50 needs weights: set backbone.weights=PATH (.pth or .safetensors) or "
            "backbone.hub=REPOSITORY, or take backbone=texture, which needs none"
        )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise UsageFault(
            "backbone.hub needs the extra `hub`: pip install 'nsclc-mtl[hub]', or set backbone.weights=PATH"
        ) from None
    try:
        return Path(hf_hub_download(hub, "model.safetensors"))
    except Exception as error:  # offline, gated, absent: many types, one thing to do
        raise UsageFault(
            f"no weights from the hub '{hub}' ({type(error).__name__}: offline, gated or unknown?); download the file "
            "and set backbone.weights=PATH"
        ) from error
