"""Frozen backbones: uint8 tiles in, one vector a tile out; and the key under which their features are kept.

Importing this costs neither torch nor MONAI: training asks only for the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nsclc_mtl.features.backbones import hub
from nsclc_mtl.features.keys import code_digest, config_hash, tiling_key
from nsclc_mtl.features.keys import file_hash as digest_of
from nsclc_mtl.records import UsageFault

if TYPE_CHECKING:
    from torch import Tensor

# Options that change how fast the features come, not what they are.
INCIDENTAL = ("batch", "weights", "weights_sha256", "device", "about", "licence", "gate")


class Backbone(Protocol):
    """What `extract` needs of a backbone; frozen, and the same on every call."""

    name: str
    tile_px: int  # edge of the tiles it wants
    batch: int  # tiles at a time
    weights_hash: str

    def __call__(self, tiles: Tensor) -> Tensor:
        """float32 [tile, dim] of uint8 [tile, px, px, 3]."""


def feature_key(
    slides_cfg: Mapping[str, Any], backbone_cfg: Mapping[str, Any], stain: Mapping[str, Any] | None = None
) -> str:
    """`<backbone>-<key8>`: folder of the features that these settings give.

    The key is a digest of tiling, backbone, content of the weights, stain, and the code that reads, tiles and computes:
    a change of any of them never meets old files. Of weights on the hub it is the content of the local copy
    (hub.py). Raises UsageFault where the weights are not on this machine.
    """
    name = str(backbone_cfg.get("name") or "backbone")
    settings = {key: value for key, value in backbone_cfg.items() if key not in INCIDENTAL}
    changed = stain is not None and (stain.get("method", "none") != "none" or int(stain.get("views", 0)) > 0)
    restained = {"stain": dict(stain or {}), "restain": code_digest("slides/stain.py", "slides/restain.py")}
    digest = config_hash(
        {
            **(restained if changed else {}),
            "tiling": tiling_key(slides_cfg),
            "backbone": settings,
            "weights": _content(backbone_cfg),
            "code": code_digest("features/backbones", "slides/reader"),
        }
    )
    return f"{name}-{digest[:8]}"


def _content(backbone_cfg: Mapping[str, Any]) -> str:
    """SHA-256 of the weights; the promised one counts, because extraction ends where the file is another."""
    if backbone_cfg.get("weights"):
        return file_hash(Path(backbone_cfg["weights"]))
    if not backbone_cfg.get("hub"):
        return "none"
    promised = str(backbone_cfg.get("weights_sha256") or "").lower().removeprefix("sha256:")
    return promised or digest_of(hub.copy_of(backbone_cfg))


def file_hash(path: Path) -> str:
    """SHA-256 of a weights file, read once a process. Raises UsageFault where it does not exist."""
    path = Path(path).resolve()
    if not path.is_file():
        raise UsageFault(f"no weights at '{path}'; set backbone.weights to a local .pth or .safetensors file")
    return digest_of(path)
