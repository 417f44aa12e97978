"""Tables with a row a patient: a cohort's own, and those that a network or a measurement made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from nsclc_mtl.cohort import barcodes, omics, scan_files, times
from nsclc_mtl.cohort.folder import Absent
from nsclc_mtl.features import vectors
from nsclc_mtl.records import DataFault, Manifest, ModalitySpec, Repeated, UsageFault
from nsclc_mtl.tables import read
from nsclc_mtl.tables.covariates import Covariate, covariates, plausible

if TYPE_CHECKING:
    from nsclc_mtl.cohort.sources import Sources

VECTORS = ("deep", "vector")  # tables whose columns have no meaning of their own


def table(sources: Sources, manifest: Manifest, spec: ModalitySpec) -> pd.DataFrame:
    """The table of one modality, a row a patient who has it: numbers as float64, words as text.

    Raises DataFault where the table names an outcome, lacks a column, holds implausible values, or was not known by
    the index date.
    """
    options, where = spec.options, f"cohort.modalities.{spec.name}"
    file = str(options.get("file", spec.name))
    columns = covariates(options.get("columns"), f"{where}.columns")
    raw = _read(sources, manifest, spec)
    sources.folder.matched(raw.index, manifest.patients.index, file, float(options.get("matched", 0.9)))
    raw = raw.loc[[p for p in manifest.patients.index if p in raw.index]]
    raw = raw.drop(index=_late(sources, spec, raw, file))
    if columns:
        named = sorted(set(columns) & sources.forbidden)
        if named:
            raise DataFault(
                f"{where}.columns names '{named[0]}', which is an outcome or a part of one; "
                "an outcome is never an input: take it out"
            )
        absent = [name for name in columns if name not in raw.columns]
        if absent:
            raise DataFault(f"'{options['file']}' has no column '{absent[0]}' ({where}.columns)")
        chosen = _in_time(sources, spec, raw, columns)
    else:
        chosen = raw if spec.kind in VECTORS else _matching(sources, spec, raw)
    typed = _typed(chosen, columns, spec.name)
    for name, wanted in columns.items():
        plausible(typed[name], wanted, f"modality '{spec.name}', column '{name}'")
        if wanted.type == "ordered":
            _unordered(sources, typed[name], wanted.values, spec.name)
    return omics.prepared(sources.folder, manifest, spec, typed) if spec.kind in omics.KINDS else typed


def _read(sources: Sources, manifest: Manifest, spec: ModalitySpec) -> pd.DataFrame:
    """The table as it lies, by patient: text of a file, numbers of what was derived."""
    options, folder = spec.options, sources.folder
    style = options.get("ids") or folder.ids
    if spec.kind == "vector":
        made = folder.vectors(options["file"] if options.get("file") else _encoded(sources, spec))
    elif spec.kind == "radiomics" and not (options.get("file") and (folder.root / options["file"]).is_file()):
        made = _extracted(sources, spec, "radiomics")
        if again := scan_files.made(spec, "perturbed", sources.keys):
            manifest.repeated[spec.name] = Repeated(scan_files.perturbed(sources.out, again, made), sources.icc_lower)
    elif spec.kind == "deep":
        made = _extracted(sources, spec, "deep")
    else:
        policies = {"duplicates": options.get("duplicates", "refuse"), "samples": options.get("samples", "tumour")}
        return folder.table(options["file"], options.get("id"), ids=style, repeats=omics.repeats(spec), **policies)
    return made.set_axis(pd.Index(barcodes.patients(made.index, style, f"modality '{spec.name}'")))


def _matching(sources: Sources, spec: ModalitySpec, raw: pd.DataFrame) -> pd.DataFrame:
    """The columns whose names match, without outcomes and without those that say when."""
    match = re.compile(spec.options.get("match") or "")
    when = times.columns(spec.options.get("time")) | {str((sources.cohort.get("index_date") or {}).get("column"))}
    out = set(spec.options.get("exclude") or ()) | when
    written = read.plain
    keep = [c for c in raw.columns if match.search(written(c)) and written(c) not in out]
    never = [c for c in keep if written(c) in sources.forbidden]
    if never:
        sources.folder.notes.append(f"{spec.name}: {', '.join(never)} kept out (outcome columns are never inputs)")
    chosen = raw[[c for c in keep if written(c) not in sources.forbidden]]
    if chosen.shape[1] == 0:
        raise DataFault(f"cohort.modalities.{spec.name}: no column of '{spec.options.get('file')}' is left to use")
    return chosen


# ---------------------------------------------------------------------------------------------------------------------
# Times
# ---------------------------------------------------------------------------------------------------------------------


def too_late(sources: Sources, spec: ModalitySpec, rows: pd.DataFrame, patients: Sequence[str], file: str) -> pd.Index:
    """The rows that are taken as missing because they are later than the index date; the notes say so.

    Raises DataFault where later rows are refused.
    """
    time, where = spec.options.get("time"), f"cohort.modalities.{spec.name}"
    after = times.policy(spec.options.get("after_index"), where)
    if isinstance(time, Mapping):
        days = sources.index.days(time, rows, patients, where)
        out, note = times.late(days, sources.index, after, where, f"'{file}'")
    else:
        out = pd.Series(False, index=rows.index)
        note = times.whole(sources.index, time, after, where, f"modality '{spec.name}'")
    if note:
        sources.folder.notes.append(note)
    return rows.index[out.to_numpy(bool)]


def _late(sources: Sources, spec: ModalitySpec, raw: pd.DataFrame, file: str) -> pd.Index:
    """As `too_late`; what was derived of slides or scans is as late as those in their table say."""
    derived = spec.kind in (*VECTORS, "radiomics") and not spec.options.get("file")
    if not derived or not isinstance(spec.options.get("time"), Mapping):
        if spec.kind == "vector" and isinstance(spec.options.get("time"), Mapping):
            raise UsageFault(f"cohort.modalities.{spec.name}.time: vectors have no columns; say before or after")
        return too_late(sources, spec, raw, list(map(str, raw.index)), file)
    slides = spec.kind == "vector"
    listed = str(spec.options.get("table") or ("slides.csv" if slides else scan_files.FILE))
    rows = sources.folder.table(listed, "slide_id" if slides else "scan_id", ids="text")
    style = spec.options.get("ids") or sources.folder.ids
    owners = pd.Series(barcodes.patients(rows["patient_id"], style, f"'{listed}'"), index=rows.index)
    rows = rows[owners.isin(raw.index)]
    owners = owners[rows.index]
    where = f"cohort.modalities.{spec.name}"
    days = sources.index.days(spec.options["time"], rows, list(owners), where)
    # the vector of a patient is the mean over all slides; of several scans the earliest is taken
    by = days.groupby(owners.to_numpy()).agg("max" if slides else "min").reindex(raw.index)
    out, note = times.late(
        by, sources.index, times.policy(spec.options.get("after_index"), where), where, f"'{listed}'"
    )
    if note:
        sources.folder.notes.append(note)
    return raw.index[out.to_numpy(bool)]


def _in_time(sources: Sources, spec: ModalitySpec, raw: pd.DataFrame, columns: dict[str, Covariate]) -> pd.DataFrame:
    """The declared columns, with blanks for cells that are later than the index date and to be dropped."""
    made = raw[list(columns)].copy()
    for name, wanted in columns.items():
        where = f"cohort.modalities.{spec.name}.columns.{name}"
        after = times.policy(wanted.after_index or spec.options.get("after_index"), where)
        what = f"'{spec.options.get('file')}' column '{name}'"
        if isinstance(wanted.time, Mapping):
            filled = raw[~raw[name].isin(read.MISSING)]
            days = sources.index.days(wanted.time, filled, list(map(str, filled.index)), where)
            out, note = times.late(days, sources.index, after, where, what)
            made.loc[filled.index[out.to_numpy(bool)], name] = ""
        else:
            note = times.whole(sources.index, wanted.time, after, where, what)
        if note:
            sources.folder.notes.append(note)
    return made


def _unordered(sources: Sources, column: pd.Series, order: Sequence[str], name: str) -> None:
    """Notes the values of an ordered column that its order does not name: they count as missing."""
    strange = column[~column.isin(order) & ~column.isin(read.MISSING)]
    if len(strange):
        listed = ", ".join(
            f"'{read.shown(value)}' ({count} rows)" for value, count in strange.value_counts().head(5).items()
        )
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


def _typed(table: pd.DataFrame, columns: dict[str, Covariate], name: str) -> pd.DataFrame:
    """Numeric columns as float64, the others as text without spaces around it."""
    if all(dtype.kind == "f" for dtype in table.dtypes):
        return table
    text = [name for name, wanted in columns.items() if wanted.type != "numeric"]
    made = read.numeric_table(table.drop(columns=text), f"modality '{name}'")
    for column in text:
        made[column] = table[column].astype(str).str.strip()
    return made[list(table.columns)]
