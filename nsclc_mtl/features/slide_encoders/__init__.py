"""Slide encoders: frozen, all tile features of a slide in, one vector out; and the key under which vectors are kept.

Importing this costs neither torch nor onnxruntime: training asks only for the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nsclc_mtl.features.keys import code_digest, config_hash, file_hash
from nsclc_mtl.records import UsageFault

from .mean import Mean
from .onnx import Onnx

__all__ = ["Mean", "Onnx", "SlideEncoder", "fits", "slide_key"]

# Options that say where an encoder comes from and what it was trained on, not what it computes.
INCIDENTAL = ("weights", "weights_sha256", "hub", "licence", "gate", "backbones", "tile_um", "input_dim", "dim")
SIZE_TOLERANCE = 0.1  # of the edge of a tile, as for the scale of backbones


class SlideEncoder(Protocol):
    """What `extract` needs of a slide encoder; frozen, and the same on every call."""

    name: str
    weights_hash: str
    backbones: Sequence[str]  # names of the backbone whose features it was trained on; empty = any
    input_dim: int | None  # length of a tile's features; None = any
    places: bool  # whether it looks at the coordinates of the tiles
    size: bool  # whether it asks for the edge of a tile

    def __call__(self, features: np.ndarray, coords: np.ndarray, size_level0: int) -> np.ndarray:
        """float32 [dim] of float32 [tile, input_dim], int64 [tile, 2] (x, y) and an edge, both in level-0 pixels."""


def slide_key(feature_key: str, encoder_cfg: Mapping[str, Any]) -> str:
    """`<encoder>-<key8>`: folder of the vectors that these settings make of the features under `feature_key`.

    The key is a digest of the features' own key, the encoder's settings, the content of its weights and its code.
    Raises UsageFault where the weights are not on this machine.
    """
    settings = {key: value for key, value in encoder_cfg.items() if key not in INCIDENTAL}
    digest = config_hash(
        {
            "features": feature_key,
            "encoder": settings,
            "weights": _content(encoder_cfg),
            "code": code_digest("features/slide_encoders"),
        }
    )
    return f"{encoder_cfg['name']}-{digest[:8]}"


def fits(encoder_cfg: Mapping[str, Any], backbone: str, tile_um: float | None) -> None:
    """Raises UsageFault where an encoder was trained on features of another backbone, or of tiles of another size."""
    name, known = encoder_cfg["name"], list(encoder_cfg.get("backbones") or ())
    if known and backbone not in known:
        raise UsageFault(
            f"slide_encoder={name} reads features of {' or '.join(known)}, not of {backbone}; take that backbone, or "
            "let slides.csv name feature files of it"
        )
    wanted = encoder_cfg.get("tile_um")
    if wanted and tile_um and abs(tile_um / float(wanted) - 1.0) > SIZE_TOLERANCE:
        raise UsageFault(
            f"slide_encoder={name} was trained on tiles of {wanted:g} um, these have {tile_um:g}; set "
            f"slides.tile_um={wanted:g}, or slide_encoder.tile_um=null to go on with these"
        )


def _content(encoder_cfg: Mapping[str, Any]) -> str:
    weights = encoder_cfg.get("weights")
    if not weights:
        return str(encoder_cfg.get("weights_sha256") or "none").lower().removeprefix("sha256:")
    try:
        return file_hash(Path(weights))
    except OSError as error:
        raise UsageFault(f"no weights at '{weights}': set slide_encoder.weights to a local .onnx file") from error
