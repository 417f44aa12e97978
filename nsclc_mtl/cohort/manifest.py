"""The manifest: who has what, read from a folder of plain tables as the cohort's declaration says."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from nsclc_mtl.cohort import names, sources, times, words
from nsclc_mtl.cohort.folder import Absent, Folder
from nsclc_mtl.cohort.specs import task_spec
from nsclc_mtl.records import DataFault, Fault, Manifest, ModalitySpec, TaskSpec, UsageFault
from nsclc_mtl.tables import applicable, outcomes
from nsclc_mtl.tables.covariates import covariates


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
    an unknown task or modality, and on a word of the declaration that nobody reads.
    """
    words.refuse_unknown(cohort)
    return _Loader(cohort, Path(out), dict(keys or {}), icc_lower).load(tasks, modalities)


def declared(
    cohort: Mapping[str, Any], tasks: Sequence[str] | None = None, modalities: Sequence[str] | None = None
) -> tuple[dict[str, TaskSpec], dict[str, ModalitySpec]]:
    """Tasks and modalities as a cohort declares them, of which no table is read: for who has no patients.

    Without a choice optional tasks are left out, as by `load`. Raises UsageFault on an unknown name.
    """
    name = str(cohort.get("name") or "cohort")
    chosen = _pick(cohort["tasks"], tasks, "tasks", name)
    if tasks is None:
        chosen = {task: said for task, said in chosen.items() if not said.get("optional")}
    wanted = _pick(cohort["modalities"], modalities, "modalities", name)
    return (
        {task: task_spec(task, said) for task, said in chosen.items()},
        {word: ModalitySpec(word, str(said["kind"]), _plain(word, said)) for word, said in wanted.items()},
    )


def whole(
    cohort: Mapping[str, Any],
    out: Path,
    picked: Manifest,
    *,
    modalities: bool,
    keys: Mapping[str, str] | None = None,
    icc_lower: float = 0.75,
) -> Manifest:
    """The cohort as declared, of which a run picked the tasks and, where `modalities`, the modalities of `picked`.

    That is what the folds rest on. Only what the run did not pick is read here; an optional task counts where it was
    picked. What cannot be read is left out, and `notes` holds that alone. `picked` itself where it is the whole.
    """
    tasks = [name for name, task in cohort["tasks"].items() if name in picked.tasks or not task.get("optional")]
    others = [name for name in cohort["modalities"] if modalities and name not in picked.modalities]
    if tasks == list(picked.tasks) and not others:
        return picked
    rest = _Loader(cohort, Path(out), dict(keys or {}), icc_lower).rest(set(tasks) - set(picked.tasks), others)
    labels = {**picked.labels, **rest.labels}

    def both(kind: str) -> dict[str, Any]:
        held = {**getattr(picked, kind), **getattr(rest, kind)}
        return {name: held[name] for name in cohort["modalities"] if name in held}

    bags = [name for name, options in cohort["modalities"].items() if options.get("kind") == "bag"]
    theirs = rest.slides is not None and (picked.slides is None or bags[-1] in others)  # the last one's table counts
    return replace(
        picked,
        labels={name: labels[name] for name in tasks if name in labels},
        tables=both("tables"),
        bags=both("bags"),
        volumes=both("volumes"),
        series=both("series"),
        slides=rest.slides if theirs else picked.slides,
        notes=rest.notes,
        inputs=rest.inputs,
    )


def text_only(cohort: Mapping[str, Any]) -> pd.DataFrame:
    """The patients table as written, indexed by patient id."""
    return _Loader(cohort, Path(), {}, 0.75).patients


class _Loader:
    """What the declaration makes of the cohort's own tables (`folder`) and of the derived files (below `out`)."""

    def __init__(self, cohort: Mapping[str, Any], out: Path, keys: dict[str, str], icc_lower: float) -> None:
        self.cohort, self.out, self.keys, self.icc_lower = cohort, out, keys, icc_lower
        self.name = str(cohort.get("name") or "cohort")
        patients = cohort["patients"]
        style = str(patients.get("ids") or "text")
        self.folder = Folder(self.name, cohort.get("root"), str(patients.get("id", "patient_id")), style)
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
        specs = {name: task_spec(name, d) for name, d in declared.items()}
        manifest, index, places = self._begun(specs)
        for name, spec in specs.items():
            self._label(manifest, spec, declared[name], index)
        for name, options in wanted.items():
            modality = ModalitySpec(name, str(options["kind"]), _plain(name, options))
            try:
                found = sources.fill(places, manifest, ModalitySpec(name, modality.kind, options))
            except times.Later:
                if modalities is not None or not options.get("optional"):
                    raise
                self.notes.append(f"modality '{name}' left out: it is known only after {index}")
                continue
            except Absent:
                if modalities is None and options.get("optional"):
                    found = 0
                else:
                    raise
            if found:
                manifest.modalities[name] = modality
            elif modalities is not None:
                raise DataFault(
                    f"cohort={self.name}: no patient has the modality '{name}'; run {sources.made_by(modality)} first"
                )
            elif modality.kind in ("bag", "volume") or not options.get(
                "optional"
            ):  # an optional table is just not there
                self.notes.append(f"modality '{name}' left out: no patient has it here")
        if not manifest.modalities:
            raise DataFault(
                f"cohort={self.name}: no patient has any modality; run `mtl tile` and `mtl extract`, or `mtl demo`"
            )
        undated = times.undated(self.cohort, list(manifest.modalities))
        if undated:
            self.notes.append(f"no `time` is declared for {', '.join(undated)}: taken as known by {index}")
        manifest.inputs = list(self.folder.inputs.values())
        return manifest

    def _begun(self, specs: dict[str, TaskSpec]) -> tuple[Manifest, times.IndexDate, sources.Sources]:
        """The manifest of the patients table alone, and what fills it."""
        patients = self.patients
        site = self.cohort["patients"].get("site")
        if site and site not in patients:
            raise DataFault(f"'{self.cohort['patients']['file']}' has no column '{site}' (cohort.patients.site)")
        frame = patients.assign(site=patients[site] if site else "")
        index = self._index_date()
        # every declared outcome is kept from the inputs, also of tasks that this run does not train
        all_specs = [task_spec(name, d) for name, d in self.cohort["tasks"].items()]
        outcome_columns = {column for spec in all_specs for column in spec.columns}
        forbidden = frozenset(outcome_columns | set(self.cohort.get("never_inputs") or ()))
        manifest = Manifest(
            name=self.name,
            patients=frame,
            tasks=specs,
            modalities={},
            labels={},
            notes=self.notes,
            unmatched=self.folder.unmatched,
        )
        places = sources.Sources(self.cohort, self.folder, self.out, self.keys, self.icc_lower, forbidden, index)
        return manifest, index, places

    def rest(self, tasks: Collection[str], modalities: Collection[str]) -> Manifest:
        """Labels and data of what a run did not pick, as far as they can be read; the notes say what cannot."""
        manifest, index, places = self._begun({})
        lost = []
        for name, task in self.cohort["tasks"].items():
            try:
                if name in tasks:
                    self._label(manifest, task_spec(name, task), task, index)
            except Fault as fault:
                lost.append(f"the task '{name}', which this run does not train: {fault}")
        for name, options in self.cohort["modalities"].items():
            try:
                if name in modalities:
                    sources.fill(places, manifest, ModalitySpec(name, str(options.get("kind")), options))
            except Fault as fault:
                if not (options.get("optional") and isinstance(fault, (Absent, times.Later))):
                    lost.append(f"the modality '{name}', which this run does not read: {fault}")
        inputs = list(self.folder.inputs.values())
        return replace(manifest, notes=[f"the folds are dealt without {what}" for what in lost], inputs=inputs)

    def _index_date(self) -> times.IndexDate:
        declared = self.cohort.get("index_date") or {}
        file = declared.get("file") or self.cohort["patients"]["file"]
        return times.index_date(self.cohort, self.folder.table(file, declared.get("id")))

    def _label(self, manifest: Manifest, spec: TaskSpec, declared: Mapping[str, Any], index: times.IndexDate) -> None:
        """Fills in the labels of one task, and to whom it applies."""
        patients = manifest.patients.index
        file = declared.get("file") or self.cohort["patients"]["file"]
        table = self.folder.table(file, declared.get("id"))
        plain, dated = times.counted(declared, table, index, f"cohort.tasks.{spec.name}")
        made = outcomes.labels(spec, applicable.plain_map(plain), dated, file, self.notes)
        self.folder.matched(made.index, patients, file, float(declared.get("matched", 0.9)))
        applies = applicable.coded(declared, table).reindex(patients, fill_value=True)
        if "applicable" in made:  # a derived outcome may know that it does not exist
            applies &= made.pop("applicable").reindex(patients, fill_value=True)
        if by := declared.get("applies"):
            of = by.get("file") or file
            rows = self.folder.table(of, by.get("id") or (declared.get("id") if of == file else None))
            applies &= applicable.by_column(spec.name, by, rows, of).reindex(patients, fill_value=True)
        manifest.labels[spec.name] = made.reindex(patients).where(applies)
        manifest.applicable[spec.name] = applies.astype(bool)
        if not applies.all():
            missing = int((applies & manifest.labels[spec.name].isna().any(axis=1)).sum())
            self.notes.append(
                f"{spec.name}: not applicable to {int((~applies).sum())} of {len(applies)} patients "
                f"(no missing label); missing for {missing}"
            )


def _plain(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with columns in the short form that encoders take."""
    columns = covariates(options.get("columns"), f"cohort.modalities.{name}.columns")
    return {**options, **({"columns": {key: one.short for key, one in columns.items()}} if columns else {})}


def _pick(declared: Mapping[str, Any], wanted: Sequence[str] | None, word: str, name: str) -> dict[str, Any]:
    if wanted is None:
        return dict(declared)
    unknown = [w for w in wanted if w not in declared]
    if unknown:
        one = {"tasks": "task", "modalities": "modality"}[word]
        raise UsageFault(f"cohort={name} declares no {one} '{unknown[0]}'; it has {', '.join(declared)}")
    return {w: declared[w] for w in wanted}
