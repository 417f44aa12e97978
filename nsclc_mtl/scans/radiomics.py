"""PyRadiomics through our record: the features of a lesion under the library's own names.

The settings are the three groups of PyRadiomics' own parameter file (`setting`, `imageType`, `featureClass`), so a
published file can be pasted into `conf/scans/`. The library is an extra and imported only when it is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from nsclc_mtl.records import ItemFault, UsageFault, Volume
from nsclc_mtl.scans.grid import to_sitk
from nsclc_mtl.scans.volume import READING

RECIPE = (
    "pyradiomics is not installed: pip install -U 'setuptools>=77' wheel && "
    "pip install --no-build-isolation pyradiomics==3.0.1 (after numpy), or run `make setup`"
)
READERS = (
    "volume", "files", "grid", "dicom", "pet", "multiframe", "masks", "rtstruct", "regions", "network", "align", "bias",
)  # fmt: skip
"""The modules that decide what is read from files; what is made from a scan depends on all of them."""


def features(volume: Volume, params: Mapping[str, Any]) -> dict[str, float]:
    """PyRadiomics' features of the lesion, by its names (`original_shape_Sphericity`, ...), NaN where undefined.

    `params` holds `setting`, `imageType` and `featureClass` as in PyRadiomics' parameter file. Shape is in mm, first
    order in the unit of the scan. Definitions: van Griethuysen et al., Cancer Research 77 (2017) e104.

    Raises `UsageFault` where the library is absent or the settings are wrong, `ItemFault` (`radiomics`) where the
    lesion cannot be measured with them.
    """
    plain = {group: dict(params.get(group) or {}) for group in ("setting", "imageType", "featureClass")}
    extractor = _extractor(json.dumps({group: value for group, value in plain.items() if value}))
    image, mask = to_sitk(volume.array, volume.affine), to_sitk(volume.mask, volume.affine)
    try:
        result = extractor.execute(image, mask, label=1)
    except (ValueError, RuntimeError, AssertionError, ZeroDivisionError, IndexError) as error:
        raise ItemFault("radiomics", f"PyRadiomics cannot measure the lesion ({error}); check its size") from None
    return {name: float(value) for name, value in result.items() if not name.startswith("diagnostics_")}


def radiomics_key(cfg: Mapping[str, Any]) -> str:
    """Eight hex digits that change with everything that changes a feature: reading, settings and the code itself."""
    return key8({k: cfg.get(k) for k in READING}, dict(cfg.get("radiomics") or {}), digest(__file__))


def radiomics_table(out: Path, cfg: Mapping[str, Any]) -> Path:
    """Where the table of one row a patient lies (index patient_id)."""
    return Path(out) / "scans" / f"radiomics-{radiomics_key(cfg)}.parquet"


def key8(*parts: object) -> str:
    """Eight hex digits of plain values, the same in every process and on every machine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]


def digest(file: str) -> str:
    """The content of the code that makes a feature, together with the code that reads the scan."""
    room = Path(file).parent
    return hashlib.sha256(
        b"".join((room / name).read_bytes() for name in (Path(file).name, *(f"{module}.py" for module in READERS)))
    ).hexdigest()


@lru_cache(maxsize=4)
def _extractor(params: str) -> Any:
    """The library's extractor; validating the settings costs more than a small lesion, so it is kept."""
    for name in ("radiomics", "pykwalify"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        from radiomics import featureextractor
    except ImportError:
        raise UsageFault(RECIPE) from None
    logging.getLogger("radiomics").setLevel(logging.ERROR)
    try:
        return featureextractor.RadiomicsFeatureExtractor(json.loads(params))
    except Exception as error:  # pykwalify's schema errors have no common root in the standard library
        told = " ".join(str(error).split())[:300]
        raise UsageFault(f"PyRadiomics refuses the settings in scans.radiomics: {told}") from None
