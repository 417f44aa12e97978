"""The mean of a slide's tiles: no weights, and what every other encoder has to be better than."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Mean:
    """float32 [dim]: each feature averaged over the tiles of the slide."""

    weights_hash = "none"
    backbones: Sequence[str] = ()
    input_dim: int | None = None
    places = size = False

    def __init__(self, name: str = "mean") -> None:
        self.name = name

    def __call__(self, features: np.ndarray, coords: np.ndarray, size_level0: int) -> np.ndarray:
        """float32 [dim] of float32 [tile, dim]; coordinates and size are not looked at."""
        return features.mean(axis=0, dtype=np.float64).astype(np.float32)
