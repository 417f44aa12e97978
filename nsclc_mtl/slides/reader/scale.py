"""The um/px of a slide by a ladder that never guesses, and where the value came from.

The rungs: what somebody states (slides.csv, then the override), the scanner's own metadata, the resolution of the TIFF,
and the power of the objective only where the user allows it: 10x is 1 um/px by the usual reckoning, no more than that.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import openslide

from nsclc_mtl.records import ItemFault

PLAUSIBLE_MPP = (0.05, 4.0)  # um/px; a 72-dpi TIFF reads as 352.8
ANISOTROPY = 0.02  # largest relative difference of the two directions
UM_AT_1X = 10.0  # um/px at power 1
UM_PER_UNIT = {"centimeter": 1e4, "inch": 25400.0}
_WAY_OUT = "set slides.mpp=0.25 or fill the column `mpp` of slides.csv"

Pair = tuple[float, float]


def scale_of(
    name: str, properties: Mapping[str, str], given: float | None, given_source: str, from_power: bool = False
) -> tuple[float, str]:
    """(um/px, where it came from) of the slide called `name` with these OpenSlide properties.

    Raises ItemFault `mpp_missing`, `mpp_implausible` or `mpp_anisotropic`.
    """
    power = number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER))
    spare = (UM_AT_1X / power, UM_AT_1X / power) if from_power and power else None
    if given is not None and np.isfinite(given):
        pair, source = (float(given), float(given)), given_source
    elif found := _stated(properties):
        pair, source = found
        # 72 and 96 dpi are what programs write when they know nothing: no statement, where another rung is allowed.
        if spare and source == "tiff_resolution" and not _plausible(pair):
            pair, source = spare, "objective_power"
    elif spare:
        pair, source = spare, "objective_power"
    else:
        hint = f", or allow its {power:g}x objective with slides.mpp_from_power=true" if power else ""
        raise ItemFault("mpp_missing", f"slide '{name}' has no mpp; {_WAY_OUT}{hint}")
    if not _plausible(pair):
        low, high = PLAUSIBLE_MPP
        sentence = f"slide '{name}' says {pair[0]:.4g} um/px ({source}), outside {low}-{high}; {_WAY_OUT}"
        raise ItemFault("mpp_implausible", sentence)
    mean = (pair[0] + pair[1]) / 2
    if abs(pair[0] - pair[1]) > ANISOTROPY * mean:
        sentence = f"slide '{name}' has pixels of {pair[0]:.4g} x {pair[1]:.4g} um, which differ by more than 2 %; "
        raise ItemFault("mpp_anisotropic", sentence + "resample it, or state one value in the column `mpp`")
    return mean, source


def number(text: str | None) -> float | None:
    """A positive finite number that a property states, or None: scanners write words and zeros as well."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if np.isfinite(value) and value > 0 else None


def _stated(properties: Mapping[str, str]) -> tuple[Pair, str] | None:
    x, y = (number(properties.get(key)) for key in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y))
    if x and y:
        flat = properties.get(openslide.PROPERTY_NAME_VENDOR) == "generic-tiff"
        return (x, y), "tiff_resolution" if flat else "metadata"
    per_unit = UM_PER_UNIT.get(str(properties.get("tiff.ResolutionUnit")))
    x, y = (number(properties.get(f"tiff.{axis}Resolution")) for axis in "XY")
    return ((per_unit / x, per_unit / y), "tiff_resolution") if per_unit and x and y else None


def _plausible(pair: Pair) -> bool:
    return all(PLAUSIBLE_MPP[0] <= value <= PLAUSIBLE_MPP[1] for value in pair)
