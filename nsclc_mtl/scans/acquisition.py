"""How each scan was taken: manufacturer, model, kernel, slice thickness, field strength, tube voltage.

These are batch variables, for harmonisation and for a look at what a model may have learned instead of the disease.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from nsclc_mtl.records import ItemFault
from nsclc_mtl.scans import crop, dicom, sources

VARIABLES = {
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "kernel": "ConvolutionKernel",
    "slice_thickness_mm": "SliceThickness",
    "field_strength_t": "MagneticFieldStrength",
    "kvp": "KVP",
    "reconstruction": "ReconstructionMethod",
}
"""Column of the table (and of scans.csv, which is believed first) -> DICOM keyword. None of them tells who or when."""


def variables(image: Path, row: Mapping[str, Any]) -> dict[str, str]:
    """The batch variables of a scan as text, from the row's columns, else from the headers; empty where unknown."""
    header = _header(image)
    return {name: sources.text(row.get(name)) or _value(header, keyword) for name, keyword in VARIABLES.items()}


def write(path: Path, scans: pd.DataFrame, root: Path, cfg: Mapping[str, Any]) -> None:
    """Writes the table of all `scans`: scan_id, patient_id, modality, roi_origin, variables; whole or not at all.

    It holds no name, no date and no identifier but the cohort's own.
    """
    rows = []
    for row in scans.to_dict("records"):
        told = {str(name): value for name, value in row.items()}
        ours = {name: str(told[name]) for name in ("scan_id", "patient_id", "modality")}
        ours |= {"timepoint": sources.text(told["timepoint"])} if "timepoint" in told else {}
        ours |= {sources.ORIGIN: sources.origin(told, cfg)}
        rows.append(ours | variables(root / sources.text(told["image"]), told))
    table = pd.DataFrame(rows)
    crop.publish(path, lambda part: table.to_csv(part, index=False), lambda part: part.stat().st_size > 0)


def _header(image: Path) -> Any:
    """The header of the first slice; None for other formats, whose headers say nothing of the scanner."""
    if not image.exists() or not dicom.is_dicom(image):
        return None
    for file in sorted(p for p in image.rglob("*") if p.is_file()) if image.is_dir() else [image]:
        try:
            header = dicom.read_header(file)
        except ItemFault:
            continue
        if header is not None and "Rows" in header and str(header.get("Modality", "")) not in dicom.NOT_IMAGES:
            return header
    return None


def _value(header: Any, keyword: str) -> str:
    if header is None:
        return ""
    value = header.get(keyword)
    if value is None and "SharedFunctionalGroupsSequence" in header:  # where enhanced files keep it
        inner = header.SharedFunctionalGroupsSequence[0].iterall()
        value = next((element.value for element in inner if element.keyword == keyword), None)
    if value is None:
        return ""
    parts = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    words = "/".join(" ".join(str(part).split()) for part in parts)[:64]
    return f"'{words}" if words[:1] in {"=", "+", "-", "@"} else words  # a spreadsheet must not take it for a formula
