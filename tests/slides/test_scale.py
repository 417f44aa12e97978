"""um/px by the ladder: each rung is used only where the one above says nothing, and its name is kept."""

from __future__ import annotations

import pytest

from nsclc_mtl.records import ItemFault
from nsclc_mtl.slides.reader.scale import scale_of

SCANNER = {"openslide.vendor": "aperio", "openslide.mpp-x": "0.25", "openslide.mpp-y": "0.2501"}
RESOLUTION = {"tiff.ResolutionUnit": "centimeter", "tiff.XResolution": "20000", "tiff.YResolution": "20000"}
INCHES = {"tiff.ResolutionUnit": "inch", "tiff.XResolution": "50800", "tiff.YResolution": "50800"}
DPI_72 = {"tiff.ResolutionUnit": "inch", "tiff.XResolution": "72", "tiff.YResolution": "72"}
POWER = {"openslide.objective-power": "20"}


@pytest.mark.parametrize(
    ("properties", "given", "power", "expected"),
    [
        (SCANNER | RESOLUTION | POWER, 0.3, True, (0.3, "slides.csv")),
        (SCANNER | RESOLUTION | POWER, None, True, (0.25005, "metadata")),
        (SCANNER | RESOLUTION, float("nan"), True, (0.25005, "metadata")),
        (RESOLUTION | POWER, None, True, (0.5, "tiff_resolution")),
        (INCHES, None, False, (0.5, "tiff_resolution")),
        (SCANNER | {"openslide.vendor": "generic-tiff"}, None, False, (0.25005, "tiff_resolution")),
        (SCANNER | {"openslide.mpp-x": "unknown"} | RESOLUTION, None, False, (0.5, "tiff_resolution")),
        (SCANNER | {"openslide.mpp-x": "0"} | RESOLUTION, None, False, (0.5, "tiff_resolution")),
        (POWER, None, True, (0.5, "objective_power")),
        (DPI_72 | POWER, None, True, (0.5, "objective_power")),
    ],
)
def test_the_highest_rung_that_says_something(
    properties: dict[str, str], given: float | None, power: bool, expected: tuple[float, str]
) -> None:
    value, source = scale_of("s.svs", properties, given, "slides.csv", power)
    assert (pytest.approx(value), source) == expected


@pytest.mark.parametrize(
    ("properties", "given", "reason"),
    [
        ({}, None, "mpp_missing"),
        (POWER, None, "mpp_missing"),  # not without leave
        (DPI_72 | POWER, None, "mpp_implausible"),
        (RESOLUTION | {"tiff.ResolutionUnit": "none"}, None, "mpp_missing"),
        (SCANNER, 25.0, "mpp_implausible"),
        (SCANNER, 0.049, "mpp_implausible"),
        (SCANNER, -1.0, "mpp_implausible"),
        (SCANNER | {"openslide.mpp-y": "0.2552"}, None, "mpp_anisotropic"),
    ],
)
def test_nothing_is_guessed(properties: dict[str, str], given: float | None, reason: str) -> None:
    with pytest.raises(ItemFault) as fault:
        scale_of("s.svs", properties, given, "slides.csv")
    assert fault.value.reason == reason
    assert "s.svs" in str(fault.value)


def test_the_limits_themselves_are_allowed() -> None:
    assert scale_of("s", {}, 0.05, "given")[0] == 0.05
    assert scale_of("s", {}, 4.0, "given")[0] == 4.0
    edge = {"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.51"}
    assert scale_of("s", edge, None, "given") == (0.505, "metadata")


def test_a_power_that_is_there_is_named_as_a_way_out() -> None:
    with pytest.raises(ItemFault, match="mpp_from_power=true"):
        scale_of("s", POWER, None, "given")
