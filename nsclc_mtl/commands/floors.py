"""The floors of an evaluation: on the folds of the run, or carried over to another cohort."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import Fault, Manifest, TaskSpec, UsageFault

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.config import Run
    from nsclc_mtl.report.evaluation import TaskResult

SLIDES = "mean slide feature"
EVERY = "all tables"
OURS, THEIRS = "trained/", "new/"  # two cohorts may count their patients alike


def fit_floors(
    settings: Mapping[str, Any],
    trained: Mapping[str, Any],
    manifest: Manifest,
    splits: pd.DataFrame | None,
    predictions: pd.DataFrame,
    tasks: Mapping[str, TaskSpec],
    apart: tuple[dict[str, pd.DataFrame], str | None] | None = None,
) -> pd.DataFrame:
    """Predictions of the floors that `floors` asks for (`baselines.fit_floors`). Raises UsageFault on an unknown one.

    `apart` is what `apart_tables` gives, where the caller has it already.
    """
    from nsclc_mtl import baselines
    from nsclc_mtl.config import build
    from nsclc_mtl.report.measures import curve_days

    wanted = settings["floors"]
    separate, stage = apart or apart_tables(trained, manifest, tasks, wanted)
    known = baselines.floor_tables(list(manifest.tables), [*separate, *slide_floors(manifest)])
    strange = [name for name in wanted or () if name not in known]
    if strange:
        raise UsageFault(f"floors: no floor '{strange[0]}' here; there are {', '.join(known) or 'none'}")
    named = settings.get("primary_floor") or EVERY  # the default may be lacking, where there is one table
    if named not in (EVERY, *known):
        raise UsageFault(f"primary_floor: no floor '{named}' here; there are {', '.join(known) or 'none'}")
    none = splits is None or wanted == []
    days = {}
    for name, task in tasks.items():
        if task.kind == "survival":
            said = predictions[(predictions["task"] == name) & (predictions["part"] == "test")]
            days[name] = list(curve_days(said.pivot_table(columns="output", values="value", aggfunc="first")))
    trained_folds = splits[splits["fold"].isin(predictions["fold"].unique())] if splits is not None else predictions[:0]
    return baselines.fit_floors(
        {} if none else manifest.tables,
        tasks,
        manifest.labels,
        trained_folds[["patient_id", "fold", "part"]],
        None if none else stage,
        int(settings["seed"]),
        horizons=days,
        only=wanted,
        apart={} if none else separate,
        repeated=manifest.repeated,
        prepare=without_site_effects(trained, manifest),
        model=build(settings["floor"]) if settings.get("floor") else None,
    )


def primary(settings: Mapping[str, Any], results: Mapping[str, TaskResult], manifest: Manifest) -> str:
    """Name of the floor that the verdict is about: the one that was named, `all tables` by default.

    Where there is one table only, that floor does not exist, and the one of the table takes its place; without a table
    the only floor there is. Which it is depends on what the cohort has, and on no result.
    """
    named = str(settings.get("primary_floor") or EVERY)
    there = {model.removeprefix("floor:") for result in results.values() for model in result.models("floor:")}
    if named != EVERY or named in there:
        return named
    tables = [name for name in manifest.tables if name in there] or sorted(there)
    return tables[0] if len(tables) == 1 else named


def without_site_effects(trained: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """What takes the site effects out of each table that the run harmonised, fitted on a fold's training patients."""
    from nsclc_mtl.bags.sites import fit_sites, wanted, without_sites
    from nsclc_mtl.commands.assemble import options

    def prepare(name: str, chosen: Mapping[str, Any]) -> Any:
        def of(table: pd.DataFrame, training: list[str]) -> pd.DataFrame:
            rows = table.loc[table.index.intersection(training)]
            return without_sites(manifest, table, fit_sites(manifest, name, rows, chosen))

        return of

    if "parts" not in trained:
        return {}
    every = options(trained, manifest)
    return {name: prepare(name, every[name]) for name in manifest.tables if wanted(name, every[name])}


def slide_floors(manifest: Manifest) -> dict[str, str]:
    """Floors on the mean tile feature of a patient: {floor: modality}."""
    if len(manifest.bags) == 1:
        return {SLIDES: next(iter(manifest.bags))}
    return {f"{SLIDES}, {name}": name for name in manifest.bags}


def slide_means(manifest: Manifest, modality: str) -> pd.DataFrame:
    """Mean feature of all tiles of each patient who has a tile, indexed by patient_id."""
    import numpy as np
    import pandas as pd

    from nsclc_mtl.bags.cache import BagCache

    means = {}
    for patient, paths in manifest.bags[modality].items():
        features, _ = BagCache(0)(paths)
        if len(features):
            means[patient] = features.mean(axis=0, dtype=np.float64)
    return pd.DataFrame.from_dict(means, orient="index").add_prefix("feature ")


def apart_tables(
    trained: Mapping[str, Any],
    manifest: Manifest,
    tasks: Mapping[str, TaskSpec],
    wanted: Sequence[str] | None = None,
) -> tuple[dict[str, pd.DataFrame], str | None]:
    """Tables that stand apart (stage, `cohort.stage_column`; tumour volume; mean slide feature; the single columns of
    `cohort.floors`), and the task that is the stage. Slides are read only where `wanted` names them or is None."""
    import pandas as pd

    from nsclc_mtl.cohort import barcodes
    from nsclc_mtl.commands.cohort import cohort_root
    from nsclc_mtl.tables import read

    apart: dict[str, pd.DataFrame] = {}
    stage = None
    cohort = trained["cohort"]
    declared = cohort.get("stage_column")
    if declared:
        columns = [declared["column"]] if isinstance(declared["column"], str) else list(declared["column"])
        root, id_column = cohort_root(trained), declared.get("id") or cohort["patients"].get("id", "patient_id")
        frame = read.read_indexed(root / declared["file"], id_column)[columns]
        style = declared.get("ids") or cohort["patients"].get("ids") or "text"
        frame.index = pd.Index(barcodes.patients(frame.index, style, f"'{declared['file']}'"))
        frame = frame.mask(frame.isin(read.MISSING)).dropna(how="all")
        if declared.get("order"):
            rank = {str(level): float(i) for i, level in enumerate(declared["order"])}
            frame = frame.assign(number=frame[columns[0]].map(rank))
        apart["stage"] = frame[frame.index.isin(manifest.patients.index)]
        stage = next((name for name, task in tasks.items() if set(columns) & set(task.columns)), None)
    volumes = []
    for name, table in manifest.tables.items():
        if manifest.modalities[name].kind == "radiomics":
            volume = [c for c in table.columns if c.endswith(("shape_MeshVolume", "shape_VoxelVolume"))][:1]
            if volume:
                volumes.append(table[volume])
    if volumes:  # of several scans the one that most patients have
        apart["tumour volume"] = max(volumes, key=len)
    for name, modality in slide_floors(manifest).items():
        if wanted is None or name in wanted:
            apart[name] = slide_means(manifest, modality)
    for name, told in (cohort.get("floors") or {}).items():
        modality, column = str(told["modality"]), str(told["column"])
        if modality not in manifest.tables:
            continue  # this run does not use it
        names = [str(c) for c in manifest.tables[modality].columns]
        if column not in names:
            near = ", ".join(difflib.get_close_matches(column, names, 3, 0.5)) or "none"
            raise UsageFault(f"cohort.floors.{name}: {modality} has no column '{column}'; near: {near}")
        apart[str(name)] = manifest.tables[modality][[column]]
    return apart, stage


def carry(
    settings: Mapping[str, Any],
    trained: Mapping[str, Any],
    there: tuple[Mapping[str, Any], Manifest],
    splits: pd.DataFrame,
    predictions: pd.DataFrame,
    tasks: Mapping[str, TaskSpec],
    run: Run,
) -> pd.DataFrame | None:
    """What the floors say of the patients of another cohort (`there`: its settings and manifest), as floors.csv.

    They are fitted on every patient of the training cohort and carried over as they are, with the training patients'
    rows that fix their thresholds.

    None, and one sentence for the user, where the tables of the training cohort cannot be opened.
    """
    from nsclc_mtl.commands.cohort import open_cohort

    read, theirs = there
    try:
        ours = open_cohort(trained)
        apart, stage = apart_tables(trained, ours, tasks, settings["floors"])
    except (Fault, OSError) as fault:
        run.say(f"note: no floors, because the training cohort is not at hand: {fault}")
        return None
    run.inputs += ours.inputs
    away, _ = apart_tables(read, theirs, tasks, settings["floors"])
    if "stage" not in apart and stage is not None and not theirs.labels[stage]["value"].notna().any():
        stage = None
    members = splits["patient_id"].unique()
    external = predictions["patient_id"].unique()
    labels = {name: _both(ours.labels[name], theirs.labels[name]) for name in tasks}
    again = ours.repeated.items()
    joint = replace(
        ours,
        tables={n: _both(table, theirs.tables[n]) for n, table in ours.tables.items() if n in theirs.tables},
        labels=labels,
        repeated={n: replace(r, table=r.table.rename(index=lambda p: OURS + str(p), level=0)) for n, r in again},
        patients=_both(ours.patients, theirs.patients),
    )
    parts = [(OURS + p, -1, "train") for p in members] + [(THEIRS + p, -1, "test") for p in external]
    made = fit_floors(
        settings,
        trained,
        joint,
        _frame(parts),
        predictions,
        tasks,
        apart=({n: _both(table, away[n]) for n, table in apart.items() if n in away}, stage),
    )
    absent = sorted(({*ours.tables} - {*theirs.tables}) | ({*apart} - {*away}))
    if absent:
        run.say(f"note: no floor of {', '.join(absent)}, which cohort={theirs.name} does not have")
    run.say(f"floors fitted on {len(members)} patients of the training cohort, {ours.name}")
    ids = made["patient_id"].str.removeprefix(THEIRS).str.removeprefix(OURS)
    return made.assign(patient_id=ids).reset_index(drop=True)


def held_out(
    settings: Mapping[str, Any],
    trained: Mapping[str, Any],
    ours: Manifest,
    splits: pd.DataFrame,
    predictions: pd.DataFrame,
    tasks: Mapping[str, TaskSpec],
    whom: Mapping[str, str],
) -> pd.DataFrame:
    """What the floors say of patients of the training who come again in other tables, as floors.csv.

    They are fitted on the training cohort (`ours`), fold by fold. whom: patient -> his id in the training. Test rows
    are of those who are judged, under their ids and with their outcomes of today.
    """
    import pandas as pd

    made = fit_floors(settings, trained, ours, splits, predictions, tasks)
    again = pd.DataFrame({"new": list(whom), "patient_id": [whom[p] for p in whom]})
    keys, outcome = ["patient_id", "task", "fold"], ["target", "event", "time_days"]
    now = predictions[predictions["part"] == "test"].drop_duplicates(keys)[[*keys, *outcome]]
    rows = made[made["part"] == "test"].drop(columns=outcome).merge(again, on="patient_id")
    rows = rows.assign(patient_id=rows["new"], fold=rows["fold"].astype(str)).drop(columns="new").merge(now, on=keys)
    return pd.concat([made[made["part"] != "test"], rows[list(made.columns)]], ignore_index=True)


def _frame(parts: list[tuple[str, int, str]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(parts, columns=["patient_id", "fold", "part"]).astype({"fold": str})


def _both(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """The rows of both cohorts under ids that tell them apart, in our columns and as our types."""
    import pandas as pd

    alike = theirs.reindex(columns=ours.columns)
    for column in ours.columns:
        if pd.api.types.is_numeric_dtype(ours[column]):
            alike[column] = pd.to_numeric(alike[column], errors="coerce").astype(float)
    frames = [ours.set_axis(OURS + ours.index.astype(str)), alike.set_axis(THEIRS + alike.index.astype(str))]
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1])
