"""Frozen networks on lesion crops: one vector a scan, and the key under which the table of them is kept.

Importing this costs neither torch nor MONAI: training asks only for the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nsclc_mtl.features.keys import code_digest, config_hash, file_hash
from nsclc_mtl.records import UsageFault, Volume

if TYPE_CHECKING:
    import numpy as np

# Options that change how fast the features come, not what they are.
INCIDENTAL = ("batch", "weights", "weights_sha256", "device")
CODE = (
    "features/deep",
    "features/backbones/frozen.py",
    "features/backbones/squeezenet.py",
    "features/backbones/resnet.py",
)


class DeepNetwork(Protocol):
    """What `extract` needs of a frozen network for scans; the same on every call."""

    weights_hash: str

    def __call__(self, cube: Volume) -> np.ndarray:
        """float32 [dim] of a crop whose values run from 0 to 1."""


def deep_key(deep: Mapping[str, Any], volumes: str) -> str | None:
    """`deep-<network>-<key8>`: name of the table that these settings give for the crops `volumes`.

    None without a network. The key is a digest of the network, the content of its weights, the crops and the code.
    """
    if "_target_" not in deep:
        return None
    settings = {key: value for key, value in deep.items() if key not in INCIDENTAL}
    weights = deep.get("weights")
    if weights and not Path(weights).is_file():
        raise UsageFault(f"no weights at '{weights}'; set deep.weights (or scans.weights) to a local file")
    told = {"deep": settings, "weights": file_hash(Path(weights)) if weights else "none", "crops": volumes}
    return f"deep-{deep['name']}-{config_hash({**told, 'code': code_digest(*CODE)})[:8]}"
