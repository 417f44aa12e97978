"""Models of timm by name, and the foundation models of pathology that timm can build, with weights of the user's own.

Nothing is downloaded where `weights` names a local file. Facts of each foundation model (hub, licence, gate, scale,
normalisation, architecture) stand in `conf/backbone/NAME.yaml`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from nsclc_mtl.features.backbones.attention_pool import AttentionPooled
from nsclc_mtl.features.backbones.frozen import MEAN, SPREAD, Frozen
from nsclc_mtl.features.backbones.weights import fill, found, state_of
from nsclc_mtl.records import DataFault, IntegrityFault, UsageFault

POOLS = ("model", "class", "class_mean", "attention")


class Timm(Frozen):
    """Vector of `dim` a tile from a model of timm (`model` is its name there), uint8 [tile, px, px, 3] in.

    `weights` is a local state dict, else `file` of the repository `hub`. `options` go to timm's maker; layers in them
    are named (`SwiGLUPacked`, `SiLU`). `pool`: `model` takes what the model gives; of models that give tokens, `class`
    takes the first, `class_mean` joins it with the mean of those after the `skipped` register tokens, and `attention`
    asks a learned query of `dim` (attention_pool.py). `mean` and `spread` default to those of timm's own weights, which
    are not always those of somebody else's. `mpp` is the um/px that the model was trained at, or several. `prefix` and
    `unused` name what stands before the parameters, and those that are left over (a text tower, a head).

    Raises UsageFault without timm, for unknown names, tiles of another size or scale; IntegrityFault where the
    weights' digest or the dimension is another.
    """

    def __init__(
        self,
        model: str | None = None,
        weights: str | None = None,
        hub: str | None = None,
        file: str | None = None,
        weights_sha256: str | None = None,
        name: str = "timm",
        tile_px: int = 224,
        batch: int = 32,
        um_per_px: float = 0.5,
        mpp: float | Sequence[float] | None = None,
        dim: int | None = None,
        mean: Sequence[float] | None = None,
        spread: Sequence[float] | None = None,
        pool: str = "model",
        skipped: int = 0,
        options: Mapping[str, Any] | None = None,
        prefix: str = "",
        unused: Sequence[str] = (),
        licence: str | None = None,
        gate: str | None = None,
        precision: str | int = "auto",
        device: str = "auto",
    ) -> None:
        if not model:
            raise UsageFault("backbone=timm needs the name of a model: set backbone.model=NAME")
        if pool not in POOLS:
            raise UsageFault(f"backbone.pool={pool!r} is none of {', '.join(POOLS)}")
        if pool == "attention" and not dim:
            raise UsageFault("backbone.pool=attention needs backbone.dim, the length of the learned query")
        net = make(model, tile_px, options or {}, dim if pool == "attention" else None)
        about = "; ".join(filter(None, (f"licence {licence}" if licence else "", gate)))
        path, digest = found(name, weights, hub, file, weights_sha256, about)
        state = {key.removeprefix(prefix): value for key, value in state_of(path).items() if key.startswith(prefix)}
        if not state:
            raise DataFault(f"weights '{path.name}' hold nothing below '{prefix}'; this is another model's file")
        state = from_dinov2(state) if "embeddings.cls_token" in state else state
        if model.startswith("swin_"):  # names of old timm as the present one has them
            state = importlib.import_module("timm.models.swin_transformer").checkpoint_filter_fn(state, net)
        fill(net, state, f"timm's {model}", path.name, unused=("head.", "fc.", "classifier.", *unused))
        own = getattr(net, "pretrained_cfg", None) or {}
        super().__init__(
            net, name=name, tile_px=tile_px, batch=batch, um_per_px=um_per_px, weights_hash=digest,
            mean=mean or own.get("mean") or MEAN, spread=spread or own.get("std") or SPREAD, precision=precision,
            device=device, expected_mpp=mpp,
        )  # fmt: skip
        self.pool, self.skipped = pool, skipped
        self.dim = self._measured(model)
        if dim is not None and self.dim != dim:
            raise IntegrityFault(
                f"backbone={name} gives {self.dim} features a tile, {dim} were promised; see its options"
            )

    def pooled(self, seen: Tensor) -> Tensor:
        """float32 [tile, dim] of what the model gives: vectors, or tokens [tile, token, dim]."""
        seen = seen.float()
        if self.pool in ("model", "attention"):
            return seen.flatten(1) if seen.ndim != 3 else seen[:, 0]
        first = seen[:, 0]
        return first if self.pool == "class" else torch.cat([first, seen[:, 1 + self.skipped :].mean(1)], dim=1)

    def _measured(self, model: str) -> int:
        """Length of the vector of one grey tile; a model that refuses the tile's size is told in one sentence."""
        try:
            return int(self(torch.full((1, self.tile_px, self.tile_px, 3), 128, dtype=torch.uint8)).shape[1])
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UsageFault(
                f"backbone.tile_px={self.tile_px}: timm's {model} does not take tiles of this size "
                f"({str(error).splitlines()[0]}); set backbone.tile_px to what it expects"
            ) from error


def make(model: str, tile_px: int, options: Mapping[str, Any], query_dim: int | None = None) -> nn.Module:
    """The model without its head and without weights; with `query_dim`, its tokens pooled by a learned query.

    Raises UsageFault without timm, or where it cannot be made.
    """
    timm = imported()
    if model not in timm.list_models():
        near = timm.list_models(f"*{model.split('_')[0]}*")[:3]
        raise UsageFault(
            f"backbone.model={model!r} is no model of timm{f'; there are {chr(44).join(near)}' if near else ''}"
        )
    layers = importlib.import_module("timm.layers")
    words = {key: _layer(value, layers) if key.endswith("_layer") else value for key, value in options.items()}
    # Transformers and Swin take a size, convolutions take any: what does not know `img_size` is made without it.
    for sized in ({"img_size": tile_px}, {}):
        try:
            net: nn.Module = timm.create_model(model, pretrained=False, num_classes=0, **{**sized, **words})
        except TypeError as error:
            wrong = error
            continue
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UsageFault(f"backbone.model={model} cannot be made of these options ({error})") from error
        return AttentionPooled(net, query_dim) if query_dim else net
    raise UsageFault(f"backbone.model={model} cannot be made of these options ({wrong})")


def _layer(name: Any, layers: ModuleType) -> Any:
    if name == "ConvStem":
        return ConvStem
    found = getattr(layers, str(name), None) or getattr(nn, str(name), None)
    made = getattr(found, "func", found)  # some are partials of a class
    if not (isinstance(made, type) and issubclass(made, nn.Module)):
        raise UsageFault(f"backbone.options: {name!r} is no layer of timm or torch")
    return found


def imported() -> Any:
    """The package timm. Raises UsageFault where it is not installed."""
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise UsageFault(
            f"this backbone needs the extra `timm` ({error}): pip install 'nsclc-mtl[timm]', or take backbone=resnet50"
        ) from None


class ConvStem(nn.Module):
    """What CTransPath (Wang et al., Med Image Anal 2022) puts in place of Swin's patches: convolutions of stride 2."""

    def __init__(
        self, img_size: int = 224, patch_size: int = 4, in_chans: int = 3, embed_dim: int = 96,
        norm_layer: type[nn.Module] | None = None, **others: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.img_size, self.patch_size = (img_size, img_size), (patch_size, patch_size)
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        stem: list[nn.Module] = []
        before, width = in_chans, embed_dim // 8
        for _ in range(2):
            stem += [nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before, width = width, 2 * width
        self.proj = nn.Sequential(*stem, nn.Conv2d(before, embed_dim, 1))
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def forward(self, light: Tensor) -> Tensor:
        """[tile, y, x, embed_dim]."""
        return self.norm(self.proj(light).permute(0, 2, 3, 1))


def from_dinov2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A vision transformer's state under timm's names, from the names that DINOv2 has in the package transformers."""
    plain = {
        "embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection.": "patch_embed.proj.", "layernorm.": "norm.",
    }  # fmt: skip
    inner = {
        "attention.output.dense.": "attn.proj.", "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma", "norm1.": "norm1.", "norm2.": "norm2.", "mlp.": "mlp.",
    }  # fmt: skip
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith("encoder.layer."):
            number, _, rest = key.removeprefix("encoder.layer.").partition(".")
            if rest.startswith("attention.attention.query."):
                parts = [state[key.replace("query", part)] for part in ("query", "key", "value")]
                found[f"blocks.{number}.attn.qkv.{rest.rsplit('.', 1)[1]}"] = torch.cat(parts)
                continue
            own = next((old for old in inner if rest.startswith(old)), None)
            if own:
                found[f"blocks.{number}.{inner[own]}{rest.removeprefix(own)}"] = value
        elif old := next((old for old in plain if key.startswith(old)), None):
            found[plain[old] + key.removeprefix(old)] = value
    return found
