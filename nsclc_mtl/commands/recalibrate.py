"""How high and how spread a fold's probabilities should be, told by its training patients."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, Manifest

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.bags.datamodule import FoldData

FEWEST = 100  # labelled training patients from which a slope is asked for: of fewer it would be noise


def slopes(settings: Mapping[str, Any], manifest: Manifest, rows: pd.DataFrame, data: FoldData) -> dict[str, float]:
    """Task with classes -> slope of its log odds (`trust.recalibration`), of the fold whose parts are `rows`.

    The training patients are dealt into `trust.crossfit` parts, those who belong together into one; for each part the
    members are trained without it, with the fold's settings, and predict it. Validation patients stay what they are,
    the test and calibration patients take no part. Batches are smaller by the share of the patients who are left out,
    so that every model takes as many steps as the fold's and sees each patient as often: how far probabilities spread
    depends on both. Empty where crossfit is 0, where no task has `FEWEST` labelled training patients, and, with a line
    in the log, where a model cannot be trained without a part.
    """
    parts, train = int(settings["trust"].get("crossfit") or 0), list(data.parts["train"])
    tasks = [
        name
        for name, spec in manifest.tasks.items()
        if spec.classes and len(manifest.labels[name].loc[train].dropna()) >= FEWEST
    ]
    if not parts or not tasks:
        return {}
    from nsclc_mtl.trust import recalibration

    seen: dict[str, list[pd.DataFrame]] = {task: [] for task in tasks}
    fold = int(rows["fold"].iloc[0])
    try:
        for held in _dealt(settings, manifest, train, parts, fold):
            for task, wide in _without(settings, manifest, rows, held, data, parts).items():
                if task in seen:
                    seen[task].append(wide)
    except DataFault as fault:
        logging.getLogger(__name__).warning(
            f"fold {fold}: the slopes of the probabilities stay as learned, because a part of the training patients "
            f"cannot be left out ({fault})"
        )
        return {}
    import pandas as pd

    found = {}
    for task, tables in seen.items():
        proba, label = _known(pd.concat(tables), manifest, task)
        found[task] = recalibration.slope(proba, label, manifest.tasks[task].kind == "ordinal", share=1 - 1 / parts)
    return found


def levels(
    outputs: Mapping[str, pd.DataFrame], manifest: Manifest, slopes: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """Task with classes -> {recalibration: slope, centre and shift of its log odds, and whether the slope was fitted}.

    `outputs`: of the training patients, whose shares of the classes are the levels. `slopes`: task -> slope, where
    patients unseen have told one; else it is 1.
    """
    from nsclc_mtl.trust import recalibration

    found = {}
    for task, wide in outputs.items():
        spec = manifest.tasks[task]
        proba, label = _known(wide, manifest, task) if spec.classes else ((), ())
        if len(label):
            made = recalibration.levels(proba, label, slopes.get(task, 1.0), spec.kind == "ordinal")
            found[task] = {"recalibration": {**made, "fitted": task in slopes}}
    return found


def _known(wide: pd.DataFrame, manifest: Manifest, task: str) -> tuple[Any, Any]:
    """Probabilities [n, class] and class numbers [n] of the patients whose label is known."""
    known = manifest.labels[task].loc[wide.index, "value"].dropna()
    columns = [f"p:{name}" for name in manifest.tasks[task].classes]
    return wide.loc[known.index, columns].to_numpy(float), known.to_numpy(int)


def _dealt(
    settings: Mapping[str, Any], manifest: Manifest, train: Sequence[str], parts: int, fold: int
) -> list[list[str]]:
    """The training patients in so many parts, stratified by all tasks."""
    from nsclc_mtl.cohort import splits, twins
    from nsclc_mtl.commands.splitting import companions_of

    mine = set(train)
    together = [[p for p in same.patients if p in mine] for same in companions_of(settings, manifest)]
    unit = twins.components(list(train), together)
    seed = int(settings["seed"]) * 1009 + fold + 500_009  # another deal than those of the folds and of a study
    table = splits.k_fold(manifest.labels, list(train), folds=parts, seed=seed, validation=0.0, unit=unit)
    tested = table[table["part"] == "test"]
    return [list(part["patient_id"]) for _, part in tested.groupby("fold")]


def _without(
    settings: Mapping[str, Any],
    manifest: Manifest,
    rows: pd.DataFrame,
    held: Sequence[str],
    data: FoldData,
    parts: int,
) -> dict[str, pd.DataFrame]:
    """What members that were trained without some patients say of them."""
    from nsclc_mtl.commands.members import train_members
    from nsclc_mtl.commands.outputs import means
    from nsclc_mtl.commands.resume import begin

    batch = max(1, round(int(settings["optim"]["batch_size"]) * (1 - 1 / parts)))
    settings = {
        **settings,
        "logger": {},
        "checkpoint_s": 1e9,  # nothing of it is gone on from
        "optim": {**settings["optim"], "batch_size": batch},
    }
    left = rows.assign(part=rows["part"].where(~rows["patient_id"].isin(set(held)), "test"))
    with TemporaryDirectory(prefix="mtl-crossfit-") as folder:
        members, own = train_members(settings, manifest, left, begin(Path(folder) / "fold", {}), cache=data.cache)
    return means(members, manifest, held, own)
