"""Tables with a row a slide, a scan or a section: whose each row is, and whether it was known in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from nsclc_mtl.cohort import barcodes, feature_tables
from nsclc_mtl.records import DataFault, Manifest, ModalitySpec

if TYPE_CHECKING:
    from nsclc_mtl.cohort.sources import Sources


def rows(sources: Sources, manifest: Manifest, spec: ModalitySpec, table: pd.DataFrame, file: str) -> pd.DataFrame:
    """The rows of slides, scans or sections of the cohort's patients, by their ids, which were known in time."""
    options = spec.options
    style = options.get("ids") or sources.folder.ids
    if "patient_id" not in table and style != "tcga":
        raise DataFault(f"'{file}' has no column 'patient_id'")
    ids = table.get("patient_id", table.index)  # the barcode of a slide begins with the patient
    blank = table.index[ids.str.strip() == ""]
    if len(blank):
        raise DataFault(f"'{file}': {blank[0]} has no patient_id ({len(blank)} such rows); fill it or drop the row")
    table = table.assign(patient_id=barcodes.patients(ids, style, f"'{file}'"))
    least = float(options.get("matched", 0.9))
    word = {"bag": "slides", "spots": "sections"}.get(spec.kind, "scans")
    sources.folder.matched(pd.Index(table["patient_id"]), manifest.patients.index, file, least, word)
    ours = table[table["patient_id"].isin(manifest.patients.index)]
    out = feature_tables.too_late(sources, spec, ours, list(ours["patient_id"]), file)
    return table.drop(index=out)
