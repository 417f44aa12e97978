"""PyRadiomics through our record: the features of a lesion under the library's own names.

The settings are the groups of PyRadiomics' own parameter file (`setting`, `imageType`, `featureClass`), so a published
file can be pasted into `conf/scans/` or named by `scans.params`. The library runs its own steps up to the filtered
images; what is measured in them is cut into parts that any process can take, in any order, with the same values. The
library is an extra and imported only when it is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from nsclc_mtl.records import ItemFault, UsageFault, Volume
from nsclc_mtl.scans.grid import to_sitk
from nsclc_mtl.scans.params import GROUPS, RECIPE, resolved
from nsclc_mtl.scans.volume import READING

READERS = (
    "volume", "files", "grid", "dicom", "pet", "multiframe", "masks", "rtstruct", "regions", "network", "align", "bias",
)  # fmt: skip
"""The modules that decide what is read from files; what is made from a scan depends on all of them."""
_REFUSALS = (ValueError, RuntimeError, AssertionError, ZeroDivisionError, IndexError)
_FEW = 4  # images: below that a lesion is cut by feature class too, so that a single large one keeps every core busy
_TAIL = 32  # voxels: the pole of the cubic B-spline's filter, .268, leaves 1e-18 of a border that far away


@dataclass
class Part:
    """One image of a lesion, filtered and cut to its bounding box, with the feature classes to measure in it."""

    image: Any  # SimpleITK images, which travel between processes
    mask: Any
    name: str  # of the image: original, log-sigma-1-0-mm-3D, wavelet-LLH, ...
    settings: dict[str, Any]
    classes: dict[str, list[str] | None]


@dataclass
class Opened:
    """A lesion whose images are made: what is known already (diagnostics, shape) and what is still to be measured."""

    known: dict[str, Any]
    parts: list[Part]

    def closed(self, measured: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """All features in the library's order, from what `measure` gave for each part."""
        whole = dict(self.known)
        for values in measured:
            whole.update(values)
        return whole


def features(volume: Volume, params: Mapping[str, Any]) -> dict[str, float]:
    """PyRadiomics' features of the lesion, by its names (`original_shape_Sphericity`, ...), NaN where undefined.

    `params` holds `setting`, `imageType` and `featureClass` as in PyRadiomics' parameter file. Shape is in mm, first
    order in the unit of the scan. Definitions: van Griethuysen et al., Cancer Research 77 (2017) e104.

    Raises `UsageFault` where the library is absent or the settings are wrong, `ItemFault` (`radiomics`) where the
    lesion cannot be measured with them.
    """
    opened = open_volume(volume, params)
    return numbers(opened.closed(measure(part) for part in opened.parts))


def open_volume(volume: Volume, params: Mapping[str, Any]) -> Opened:
    """The lesion of a record, opened without diagnostics; see `features`."""
    return open_lesion(*_images(volume, dict(params.get("setting") or {})), params)


def open_lesion(
    image: Any,
    mask: Any,
    params: Mapping[str, Any],
    label: int | None = 1,
    label_channel: int | None = None,
    *,
    diagnostics: bool = False,
) -> Opened:
    """The lesion read, normalised, resampled and filtered by PyRadiomics, with its shape (and `diagnostics_*`) known.

    `image` and `mask` are SimpleITK images or paths of files.
    """
    plain = {group: dict(params.get(group) or {}) for group in GROUPS}
    extractor = _extractor(json.dumps({group: value for group, value in plain.items() if value}))
    told = extractor.settings if diagnostics else {**extractor.settings, "additionalInfo": False}
    try:
        known, parts = extractor.opened(image, mask, label, label_channel, told)
    except _REFUSALS as error:
        raise _refused(error) from None
    if len(parts) < _FEW:
        parts = [Part(p.image, p.mask, p.name, p.settings, {c: n}) for p in parts for c, n in p.classes.items()]
    return Opened(known, parts)


def measure(part: Part) -> dict[str, Any]:
    """The features of one part by their full names; the order of parts and the process change nothing."""
    bare = _bare()
    bare.enabledFeatures = part.classes
    try:
        with _binned_once():
            return dict(bare.computeFeatures(part.image, part.mask, part.name, **part.settings))
    except _REFUSALS as error:
        raise _refused(error) from None


def numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """The features of a result as floats, without its diagnostics."""
    return {name: float(value) for name, value in result.items() if not name.startswith("diagnostics_")}


def radiomics_key(cfg: Mapping[str, Any]) -> str:
    """Eight hex digits that change with everything that changes a feature: reading, settings and the code itself."""
    cfg = resolved(cfg)
    wanted = {"radiomics": dict(cfg.get("radiomics") or {}), "suv": dict(cfg.get("suv") or {})}
    return key8({k: cfg.get(k) for k in READING}, wanted, digest(__file__, "suv.py"))


def radiomics_table(out: Path, cfg: Mapping[str, Any]) -> Path:
    """Where the table of one row a patient lies (index patient_id)."""
    return Path(out) / "scans" / f"radiomics-{radiomics_key(cfg)}.parquet"


def version() -> str:
    """The version of the library."""
    from importlib.metadata import version

    return version("pyradiomics")


def key8(*parts: object) -> str:
    """Eight hex digits of plain values, the same in every process and on every machine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]


def digest(file: str, *beside: str) -> str:
    """The content of the code that makes a feature, together with the code that reads the scan."""
    room = Path(file).parent
    return hashlib.sha256(
        b"".join((room / name).read_bytes() for name in (Path(file).name, *beside, *(f"{r}.py" for r in READERS)))
    ).hexdigest()


def _images(volume: Volume, settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """The scan, in the type in which it was stored, and the mask, for the library.

    The library interpolates an image in its own type and cuts off the decimals of whole numbers, half a HU on average.
    Values that are to be those of the library on the same file have to do as it does.

    Where a B-spline resamples, the scan is cut to what it can see around the lesion; a large scan costs no more than a
    small one. The mask leads the sampling from its first voxel on, so it is cut at its far ends alone, and the library
    samples the same points. What changes is rounding in float64, far below a float32 and below the halves at which
    whole numbers turn (a linear interpolation of whole numbers would meet those).
    """
    array, mask, affine = volume.array, volume.mask, volume.affine
    spline = settings.get("interpolator", "sitkBSpline") == "sitkBSpline" and settings.get("resampledPixelSpacing")
    inside = ndimage.find_objects((mask > 0).view(np.uint8))
    if spline and not settings.get("normalize") and len(spline) == 3 and inside:
        ours, wanted = np.asarray(volume.spacing_mm), np.asarray(spline, float)[::-1]
        pad = (int(settings.get("padDistance", 5)) + 2) * np.maximum(wanted, ours) / ours
        reach = np.ceil(pad).astype(int) + _TAIL
        near = [slice(max(0, part.start - n), part.stop + n) for part, n in zip(inside[0], reach.tolist(), strict=True)]
        array, mask = array[tuple(near)], mask[tuple(slice(part.stop) for part in near)]
        affine = affine.copy()
        affine[:3, 3] = (affine @ [*(float(part.start) for part in reversed(near)), 1.0])[:3]
    kind = np.dtype(volume.stored)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        if limits.min <= array.min() and array.max() <= limits.max:
            whole = array.astype(kind)
            array = whole if np.array_equal(whole, array) else array  # a scan may have been processed since
    return to_sitk(array, affine), to_sitk(mask, volume.affine)


def _refused(error: Exception) -> ItemFault:
    return ItemFault("radiomics", f"PyRadiomics cannot measure the lesion ({error}); check its size")


def _library() -> Any:
    for name in ("radiomics", "pykwalify"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        from radiomics import featureextractor
    except ImportError:
        raise UsageFault(RECIPE) from None
    logging.getLogger("radiomics").setLevel(logging.ERROR)
    return featureextractor


@contextmanager
def _binned_once() -> Iterator[None]:
    """Inside, the classes of one image share its grey levels, which each of them would otherwise find anew.

    That is a sixth of all the work. Levels are shared only where image, mask and settings are the same.
    """
    from radiomics.base import RadiomicsFeaturesBase as Base

    kept: list[tuple[np.ndarray, np.ndarray, dict[str, Any], np.ndarray, dict[str, Any]]] = []
    plain = Base._applyBinning

    def binned(self: Any, matrix: np.ndarray) -> np.ndarray:
        for image, mask, settings, levels, told in kept:
            if settings == self.settings and np.array_equal(image, matrix) and np.array_equal(mask, self.maskArray):
                self.coefficients.update(told)
                return levels.copy()
        image = matrix.copy()
        levels = plain(self, matrix)
        told = {name: self.coefficients[name] for name in ("grayLevels", "Ng")}
        kept.append((image, self.maskArray.copy(), dict(self.settings), levels.copy(), told))
        return np.asarray(levels)

    Base._applyBinning = binned
    try:
        yield
    finally:
        Base._applyBinning = plain


@lru_cache(maxsize=1)
def _bare() -> Any:
    """An extractor that measures what it is told; it validates nothing, so that it costs nothing."""
    return _library().RadiomicsFeatureExtractor()


@lru_cache(maxsize=4)
def _extractor(params: str) -> Any:
    """The library's extractor; validating the settings costs more than a small lesion, so it is kept."""
    library = _library()

    class Opener(library.RadiomicsFeatureExtractor):  # type: ignore[name-defined]
        """Runs the library's own steps; where it would measure a filtered image, it keeps it as a part."""

        settings: dict[str, Any]
        parts: list[Part]

        def opened(
            self, image: Any, mask: Any, label: int | None, channel: int | None, told: Mapping[str, Any]
        ) -> tuple[dict[str, Any], list[Part]]:
            kept, self.settings, self.parts = self.settings, dict(told), []
            try:
                known = dict(self.execute(image, mask, label, channel))
                return known, self.parts
            finally:
                self.settings, self.parts = kept, []

        def computeFeatures(self, image: Any, mask: Any, imageTypeName: str, **settings: Any) -> dict[str, Any]:
            classes = {name: list(n) if n else None for name, n in self.enabledFeatures.items()}
            textures = {name: n for name, n in classes.items() if not name.startswith("shape")}
            if textures:
                same = self.parts[0].mask if self.parts else mask  # one box, one mask: it travels once
                self.parts.append(Part(image, same, imageTypeName, settings, textures))
            return {}

    try:
        return Opener(json.loads(params))
    except Exception as error:  # pykwalify's schema errors have no common root in the standard library
        told = " ".join(str(error).split())[:300]
        raise UsageFault(f"PyRadiomics refuses the settings in scans.radiomics: {told}") from None
