"""Crops as they might have been seen: flipped, turned, brighter or darker. In training only."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from nsclc_mtl.records import UsageFault

WORDS = ("flip", "rotate_deg", "contrast", "brightness")


def wanted(options: Mapping[str, Any] | None, modality: str) -> dict[str, float]:
    """The options that change anything, by name; empty where nothing is to be changed. Raises UsageFault on others."""
    given = {str(name): float(value or 0) for name, value in (options or {}).items()}
    if strange := sorted(set(given) - set(WORDS)):
        raise UsageFault(f"augment of modality '{modality}' has no option '{strange[0]}'; it has {', '.join(WORDS)}")
    return {name: value for name, value in given.items() if value}


def changed(volume: np.ndarray, options: Mapping[str, float], seed: int, epoch: int, patient: str) -> np.ndarray:
    """The crop [z, y, x] as this patient's is seen in this epoch: float32, values still in 0..1.

    flip: along each axis with one chance in two; rotate_deg: turned by up to so many degrees about each axis;
    contrast, brightness: factor and shift of the values, up to so much. The draw depends on (seed, epoch, patient)
    alone, so that neither the order of patients nor the number of processes changes anything.
    """
    from monai.transforms import Flip, Rotate

    number = zlib.crc32(patient.encode())
    rng = np.random.Generator(np.random.PCG64([seed, epoch, number, 2]))
    coins, turns, (factor, shift) = rng.random(3), rng.uniform(-1, 1, 3), rng.uniform(-1, 1, 2)  # always all of them
    out: Any = volume[None]
    if options.get("flip") and (axes := [axis for axis in range(3) if coins[axis] < 0.5]):
        out = Flip(spatial_axis=axes)(out)
    if degrees := options.get("rotate_deg"):
        turn = Rotate([math.radians(degrees) * t for t in turns], mode="bilinear", padding_mode="zeros")
        out = turn(out)
    array = np.asarray(out, np.float32)[0]
    if options.get("contrast") or options.get("brightness"):
        array = array * (1 + options.get("contrast", 0.0) * factor) + options.get("brightness", 0.0) * shift
    return np.clip(array, 0, 1).astype(np.float32)
