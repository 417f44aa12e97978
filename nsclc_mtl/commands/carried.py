"""Floors for another cohort: fitted on every patient of the training cohort, carried over as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import Fault, Manifest, TaskSpec

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.config import Run

OURS, THEIRS = "trained/", "new/"  # two cohorts may count their patients alike


def floors(
    settings: Mapping[str, Any],
    trained: Mapping[str, Any],
    there: tuple[Mapping[str, Any], Manifest],
    splits: pd.DataFrame,
    predictions: pd.DataFrame,
    tasks: Mapping[str, TaskSpec],
    run: Run,
) -> pd.DataFrame | None:
    """What the floors say of the patients of another cohort (`there`: its settings and manifest), as floors.csv.

    None, and one sentence for the user, where the tables of the training cohort cannot be opened.
    """
    from nsclc_mtl.commands.cohort import open_cohort
    from nsclc_mtl.commands.evaluate import apart_tables, fit_floors

    read, theirs = there
    try:
        ours = open_cohort(trained)
        apart, stage = apart_tables(trained, ours, tasks)
    except (Fault, OSError) as fault:
        run.say(f"note: no floors, because the training cohort is not at hand: {fault}")
        return None
    run.inputs += ours.inputs
    away, _ = apart_tables(read, theirs, tasks)
    if "stage" not in apart and stage is not None and not theirs.labels[stage]["value"].notna().any():
        stage = None
    members = splits["patient_id"].unique()
    external = predictions["patient_id"].unique()
    labels = {name: _both(ours.labels[name], theirs.labels[name]) for name in tasks}
    joint = replace(
        ours,
        tables={n: _both(table, theirs.tables[n]) for n, table in ours.tables.items() if n in theirs.tables},
        labels=labels,
        patients=_both(ours.patients[[]], theirs.patients[[]]),
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
    return made.assign(patient_id=made["patient_id"].str.removeprefix(THEIRS))


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
