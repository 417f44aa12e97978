"""The manifest: who has what, read from a folder of plain tables as the cohort's declaration says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nsclc_mtl.cohort import names, scan_files
from nsclc_mtl.cohort.folder import Absent, Folder
from nsclc_mtl.features import store, vectors
from nsclc_mtl.records import DataFault, Manifest, ModalitySpec, Repeated, TaskSpec, UsageFault
from nsclc_mtl.tables import outcomes, read

KINDS = ("bag", "clinical", "deep", "omics", "radiomics", "vector", "volume")
VECTORS = ("deep", "vector")  # tables whose columns have no meaning of their own


def load(
    cohort: Mapping[str, Any],
    out: Path,
    *,
    tasks: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    keys: Mapping[str, str] | None = None,
    icc_lower: float = 0.75,
) -> Manifest:
    """The manifest of a declared cohort (a plain mapping, see `conf/cohort/`); derived files lie under `out`.

    `tasks` and `modalities` pick among the declared ones; modalities that were not asked for by name and have no data
    are left out with a note. `keys` names the derived files (`features`, `slides`, those of `scan_files.made`, and
    `perturbed` where radiomics are to be judged by `icc_lower`). Raises DataFault on invalid tables and UsageFault on
    an unknown task or modality.
    """
    return _Loader(cohort, Path(out), dict(keys or {}), icc_lower).load(tasks, modalities)


def text_only(cohort: Mapping[str, Any]) -> pd.DataFrame:
    """The patients table as written, indexed by patient id."""
    return _Loader(cohort, Path(), {}, 0.75).patients


class _Loader:
    """What the declaration makes of the cohort's own tables (`folder`) and of the derived files (below `out`)."""

    def __init__(self, cohort: Mapping[str, Any], out: Path, keys: dict[str, str], icc_lower: float) -> None:
        self.cohort, self.out, self.keys, self.icc_lower = cohort, out, keys, icc_lower
        self.name = str(cohort.get("name") or "cohort")
        self.folder = Folder(self.name, cohort.get("root"), str(cohort["patients"].get("id", "patient_id")))
        self.notes = self.folder.notes

    @property
    def patients(self) -> pd.DataFrame:
        return self.folder.table(self.cohort["patients"]["file"])

    def load(self, tasks: Sequence[str] | None, modalities: Sequence[str] | None) -> Manifest:
        declared = _pick(self.cohort["tasks"], tasks, "tasks", self.name)
        if tasks is None:  # an optional task is trained where it is asked for by name
            declared = {name: task for name, task in declared.items() if not task.get("optional")}
        wanted = _pick(self.cohort["modalities"], modalities, "modalities", self.name)
        names.refuse(declared, "tasks", self.name)
        names.refuse(wanted, "modalities", self.name)
        patients = self.patients
        site = self.cohort["patients"].get("site")
        if site and site not in patients:
            raise DataFault(f"'{self.cohort['patients']['file']}' has no column '{site}' (cohort.patients.site)")
        frame = patients.assign(site=patients[site] if site else "")
        specs = {name: outcomes.task_spec(name, d) for name, d in declared.items()}
        # every declared outcome is kept from the inputs, also of tasks that this run does not train
        all_specs = [outcomes.task_spec(name, d) for name, d in self.cohort["tasks"].items()]
        forbidden = {column for spec in all_specs for column in spec.columns} | set(
            self.cohort.get("never_inputs") or ()
        )
        manifest = Manifest(
            name=self.name,
            patients=frame,
            tasks=specs,
            modalities={},
            labels={name: self._labels(spec, declared[name], frame.index) for name, spec in specs.items()},
            notes=self.notes,
        )
        for name, options in wanted.items():
            spec = ModalitySpec(name, str(options["kind"]), options)
            if spec.kind not in KINDS:
                raise UsageFault(f"cohort.modalities.{name}.kind={spec.kind!r} is none of {', '.join(KINDS)}")
            try:
                found = self._modality(manifest, spec, forbidden)
            except Absent:
                if modalities is None and options.get("optional"):
                    found = 0
                else:
                    raise
            if found:
                manifest.modalities[name] = spec
            elif modalities is not None:
                raise DataFault(
                    f"cohort={self.name}: no patient has the modality '{name}'; run {self._maker(spec)} first"
                )
            elif spec.kind in ("bag", "volume") or not options.get("optional"):  # an optional table is just not there
                self.notes.append(f"modality '{name}' left out: no patient has it here")
        if not manifest.modalities:
            raise DataFault(
                f"cohort={self.name}: no patient has any modality; run `mtl tile` and `mtl extract`, or `mtl demo`"
            )
        manifest.inputs = list(self.folder.inputs.values())
        return manifest

    @staticmethod
    def _maker(spec: ModalitySpec) -> str:
        extracted = spec.kind == "vector" and not spec.options.get("file")
        return (
            "`mtl extract`"
            if extracted or spec.kind in ("bag", "volume", "radiomics", "deep")
            else "nothing: its table is empty; correct it"
        )

    def _labels(self, spec: TaskSpec, declared: Mapping[str, Any], index: pd.Index) -> pd.DataFrame:
        file = declared.get("file") or self.cohort["patients"]["file"]
        made = outcomes.labels(spec, declared, self.folder.table(file, declared.get("id")), file)
        self.folder.matched(made.index, index, file)
        return made.reindex(index)

    def _modality(self, manifest: Manifest, spec: ModalitySpec, forbidden: set[str]) -> int:
        """Fills in one modality; the number of patients who have it."""
        if spec.kind == "bag":
            manifest.bags[spec.name] = bags = self._bags(manifest, spec)
            return len(bags)
        if spec.kind == "volume":
            manifest.volumes[spec.name] = volumes = self._volumes(manifest, spec)
            return len(volumes)
        table = self._table(manifest, spec, forbidden)
        if len(table):
            manifest.tables[spec.name] = table
        return len(table)

    def _table(self, manifest: Manifest, spec: ModalitySpec, forbidden: set[str]) -> pd.DataFrame:
        options = spec.options
        if spec.kind == "vector":
            table = self.folder.vectors(options["file"] if options.get("file") else self._encoded(spec))
        elif spec.kind == "radiomics" and not (options.get("file") and (self.folder.root / options["file"]).is_file()):
            table = self._extracted(spec, "radiomics")
            if again := scan_files.made(spec, "perturbed", self.keys):
                manifest.repeated[spec.name] = Repeated(scan_files.perturbed(self.out, again, table), self.icc_lower)
        elif spec.kind == "deep":
            table = self._extracted(spec, "deep")
        else:
            table = self.folder.table(options["file"], options.get("id"), options.get("duplicates", "refuse"))
        self.folder.matched(table.index, manifest.patients.index, str(options.get("file", spec.name)))
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
                raise DataFault(
                    f"'{options['file']}' has no column '{absent[0]}' (cohort.modalities.{spec.name}.columns)"
                )
            table = table[list(columns)]
        elif spec.kind not in VECTORS:
            match = re.compile(options.get("match") or "")
            keep = [c for c in table.columns if match.search(c) and c not in set(options.get("exclude") or ())]
            out = [c for c in keep if c in forbidden]
            if out:
                self.notes.append(f"{spec.name}: {', '.join(out)} kept out (outcome columns are never inputs)")
            table = table[[c for c in keep if c not in forbidden]]
            if table.shape[1] == 0:
                raise DataFault(f"cohort.modalities.{spec.name}: no column of '{options.get('file')}' is left to use")
        typed = _typed(table, columns, spec.name)
        for column, order in (columns or {}).items():
            if not isinstance(order, str):
                self._unordered(typed[column], [str(value) for value in order], spec.name)
        return typed

    def _unordered(self, column: pd.Series, order: Sequence[str], name: str) -> None:
        """Notes the values of an ordered column that its order does not name: they count as missing."""
        strange = column[~column.isin(order) & ~column.isin(read.MISSING)]
        if len(strange):
            listed = ", ".join(f"'{value}' ({count} rows)" for value, count in strange.value_counts().head(5).items())
            self.notes.append(f"{name}: column '{column.name}' holds {listed}, outside its order: taken as missing")

    def _encoded(self, spec: ModalitySpec) -> str:
        """The `.npz` of patients that a slide encoder made of this cohort's slides."""
        if not self.keys.get("slides"):
            raise Absent(
                f"cohort.modalities.{spec.name} names no file, so it is what a slide encoder makes of the slides: set "
                "slide_encoder=NAME as for `mtl extract`, or name an .npz of patient_id -> vector"
            )
        name = vectors.patients_file(self.name, spec.options.get("table", "slides.csv"))
        path = (self.out / "slides" / self.keys["slides"] / name).resolve()
        if not path.is_file():
            raise Absent(f"no slide vectors at '{path}'; run `mtl extract` with the same slide_encoder")
        return str(path)

    def _extracted(self, spec: ModalitySpec, what: str) -> pd.DataFrame:
        path = self.out / "scans" / f"{scan_files.made(spec, what, self.keys)}.parquet"
        if not path.is_file():
            told = {"radiomics": "radiomics", "deep": "deep features"}[what]
            raise Absent(f"no {told} of '{spec.name}' at '{path}'; run `mtl extract` (the phantom: `mtl demo`)")
        table = pd.read_parquet(path)
        table.index = table.index.astype(str)
        return table.select_dtypes("number").astype(float)

    def _bags(self, manifest: Manifest, spec: ModalitySpec) -> dict[str, list[str]]:
        file = spec.options.get("table", "slides.csv")
        slides = self.folder.table(file, "slide_id")
        for name in ("patient_id", "path"):
            if name not in slides:
                raise DataFault(f"'{file}' has no column '{name}'")
        manifest.slides = slides
        derived = self.out / "features" / self.keys.get("features", "")
        bags: dict[str, list[str]] = {}
        waiting = empty = 0
        for slide_id, row in slides.iterrows():
            if row["patient_id"] not in manifest.patients.index:
                continue
            given = self.folder.root / row["path"]
            ours = derived / f"{slide_id}.h5"
            path = given if given.suffix in {".h5", ".hdf5", ".npz", ".pt", ".pth"} else ours
            if path is given and _no_tile(path):
                empty += 1
            elif path.is_file():
                bags.setdefault(row["patient_id"], []).append(str(path))
            else:
                waiting += 1
        strange = set(slides["patient_id"]) - set(manifest.patients.index)
        if strange:
            self.notes.append(f"'{file}': slides of {len(strange)} patients outside the cohort")
        if empty:
            self.notes.append(f"{spec.name}: {empty} of {len(slides)} slides hold no tile: taken as absent")
        if waiting:
            self.notes.append(
                f"{spec.name}: {waiting} of {len(slides)} slides have no features (not extracted, or without tissue)"
            )
        if not bags:
            raise Absent(f"no features of '{spec.name}' under '{derived}'; run `mtl extract` (the phantom: `mtl demo`)")
        return bags

    def _volumes(self, manifest: Manifest, spec: ModalitySpec) -> dict[str, str]:
        file = spec.options.get("table", scan_files.FILE)
        if self.cohort.get("scans"):
            scans = scan_files.table(self.folder.root, self.cohort, manifest.patients.index).set_index("scan_id")
        else:
            scans = self.folder.table(file, "scan_id")
        wanted = spec.options.get("scan_modality")
        derived = self.out / "scans" / scan_files.made(spec, "volumes", self.keys)
        volumes: dict[str, str] = {}
        chosen = derived.with_suffix(".csv")  # which scan is the patient's, where there are several
        first = set(read.read_text(chosen)["scan_id"]) if chosen.is_file() else None
        for scan_id, row in scans.iterrows():
            path = derived / f"{scan_id}.h5"
            right = wanted is None or row.get("modality") == wanted
            right = right and (first is None or scan_id in first)
            if right and path.is_file() and row["patient_id"] in manifest.patients.index:
                volumes.setdefault(row["patient_id"], str(path))
        if not volumes:
            raise Absent(f"no volumes of '{spec.name}' under '{derived}'; run `mtl extract` (the phantom: `mtl demo`)")
        return volumes


_SOME_TILES = 100_000  # bytes: a larger feature file holds a tile, and need not be opened to know it


def _no_tile(path: Path) -> bool:
    """Whether a feature file of another tool is whole and empty; what cannot be read is told by who reads it."""
    try:
        return path.stat().st_size < _SOME_TILES and store.header(path)[0] == 0
    except (OSError, DataFault):
        return False


def _typed(table: pd.DataFrame, columns: Mapping[str, Any] | None, name: str) -> pd.DataFrame:
    """Numeric columns as float64, the others as text without spaces around it."""
    if all(dtype.kind == "f" for dtype in table.dtypes):
        return table
    text = [c for c in table.columns if columns is not None and columns[c] != "numeric"]
    made = read.numeric_table(table.drop(columns=text), f"modality '{name}'")
    for column in text:
        made[column] = table[column].astype(str).str.strip()
    return made[list(table.columns)]


def _pick(declared: Mapping[str, Any], wanted: Sequence[str] | None, word: str, name: str) -> dict[str, Any]:
    if wanted is None:
        return dict(declared)
    unknown = [w for w in wanted if w not in declared]
    if unknown:
        one = {"tasks": "task", "modalities": "modality"}[word]
        raise UsageFault(f"cohort={name} declares no {one} '{unknown[0]}'; it has {', '.join(declared)}")
    return {w: declared[w] for w in wanted}
