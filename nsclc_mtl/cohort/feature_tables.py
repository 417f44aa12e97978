"""Tables with a row a patient: a cohort's own, and those that a network or a measurement made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from nsclc_mtl.cohort import scan_files
from nsclc_mtl.cohort.folder import Absent
from nsclc_mtl.features import vectors
from nsclc_mtl.records import DataFault, Manifest, ModalitySpec, Repeated
from nsclc_mtl.tables import read

if TYPE_CHECKING:
    from nsclc_mtl.cohort.sources import Sources

VECTORS = ("deep", "vector")  # tables whose columns have no meaning of their own


def table(sources: Sources, manifest: Manifest, spec: ModalitySpec) -> pd.DataFrame:
    """The table of one modality, a row a patient who has it: numbers as float64, words as text."""
    forbidden = sources.forbidden
    options = spec.options
    if spec.kind == "vector":
        table = sources.folder.vectors(options["file"] if options.get("file") else _encoded(sources, spec))
    elif spec.kind == "radiomics" and not (options.get("file") and (sources.folder.root / options["file"]).is_file()):
        table = _extracted(sources, spec, "radiomics")
        if again := scan_files.made(spec, "perturbed", sources.keys):
            manifest.repeated[spec.name] = Repeated(scan_files.perturbed(sources.out, again, table), sources.icc_lower)
    elif spec.kind == "deep":
        table = _extracted(sources, spec, "deep")
    else:
        table = sources.folder.table(options["file"], options.get("id"), options.get("duplicates", "refuse"))
    sources.folder.matched(table.index, manifest.patients.index, str(options.get("file", spec.name)))
    table = table.loc[[p for p in manifest.patients.index if p in table.index]]
    columns = options.get("columns")
    if columns:
        named = sorted(set(columns) & forbidden)
        if named:
            raise DataFault(
                f"cohort.modalities.{spec.name}.columns names '{named[0]}', which is an outcome or a part of one; "
                "an outcome is never an input: take it out"
            )
        absent = [name for name in columns if name not in table.columns]
        if absent:
            raise DataFault(f"'{options['file']}' has no column '{absent[0]}' (cohort.modalities.{spec.name}.columns)")
        table = table[list(columns)]
    elif spec.kind not in VECTORS:
        match = re.compile(options.get("match") or "")
        keep = [c for c in table.columns if match.search(c) and c not in set(options.get("exclude") or ())]
        out = [c for c in keep if c in forbidden]
        if out:
            sources.folder.notes.append(f"{spec.name}: {', '.join(out)} kept out (outcome columns are never inputs)")
        table = table[[c for c in keep if c not in forbidden]]
        if table.shape[1] == 0:
            raise DataFault(f"cohort.modalities.{spec.name}: no column of '{options.get('file')}' is left to use")
    typed = _typed(table, columns, spec.name)
    for column, order in (columns or {}).items():
        if not isinstance(order, str):
            _unordered(sources, typed[column], [str(value) for value in order], spec.name)
    return typed


def _unordered(sources: Sources, column: pd.Series, order: Sequence[str], name: str) -> None:
    """Notes the values of an ordered column that its order does not name: they count as missing."""
    strange = column[~column.isin(order) & ~column.isin(read.MISSING)]
    if len(strange):
        listed = ", ".join(f"'{value}' ({count} rows)" for value, count in strange.value_counts().head(5).items())
        sources.folder.notes.append(
            f"{name}: column '{column.name}' holds {listed}, outside its order: taken as missing"
        )


def _encoded(sources: Sources, spec: ModalitySpec) -> str:
    """The `.npz` of patients that a slide encoder made of this cohort's slides."""
    if not sources.keys.get("slides"):
        raise Absent(
            f"cohort.modalities.{spec.name} names no file, so it is what a slide encoder makes of the slides: set "
            "slide_encoder=NAME as for `mtl extract`, or name an .npz of patient_id -> vector"
        )
    name = vectors.patients_file(sources.name, spec.options.get("table", "slides.csv"))
    path = (sources.out / "slides" / sources.keys["slides"] / name).resolve()
    if not path.is_file():
        raise Absent(f"no slide vectors at '{path}'; run `mtl extract` with the same slide_encoder")
    return str(path)


def _extracted(sources: Sources, spec: ModalitySpec, what: str) -> pd.DataFrame:
    path = sources.out / "scans" / f"{scan_files.made(spec, what, sources.keys)}.parquet"
    if not path.is_file():
        told = {"radiomics": "radiomics", "deep": "deep features"}[what]
        raise Absent(f"no {told} of '{spec.name}' at '{path}'; run `mtl extract` (the phantom: `mtl demo`)")
    table = pd.read_parquet(path)
    table.index = table.index.astype(str)
    return table.select_dtypes("number").astype(float)


def _typed(table: pd.DataFrame, columns: Mapping[str, Any] | None, name: str) -> pd.DataFrame:
    """Numeric columns as float64, the others as text without spaces around it."""
    if all(dtype.kind == "f" for dtype in table.dtypes):
        return table
    text = [c for c in table.columns if columns is not None and columns[c] != "numeric"]
    made = read.numeric_table(table.drop(columns=text), f"modality '{name}'")
    for column in text:
        made[column] = table[column].astype(str).str.strip()
    return made[list(table.columns)]
