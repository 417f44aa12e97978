"""One fold: fit what is fitted on its training patients, train the members, predict the parts that were held out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import ranks
from nsclc_mtl.commands.members import train_members
from nsclc_mtl.commands.outputs import long_table, means, populations, predict, spoiled
from nsclc_mtl.records import Manifest

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.bags.datamodule import FoldData
    from nsclc_mtl.learner import Learner


def train_fold(settings: Mapping[str, Any], fold: int, path: Path, own: Mapping[str, Any] | None = None) -> None:
    """Trains one fold of the run at `path`: `fold<k>/` with fitted.json, model<m>.ckpt, log and predictions.csv.

    `own` are the sections of the settings that are the fold's and not the run's, kept in `settings.yaml`. Goes on where
    an earlier start left it. Raises TryAgain where the folder cannot be written.
    """
    import pandas as pd

    splits = pd.read_csv(path / "splits.csv", dtype={"patient_id": str}, keep_default_na=False)
    with threads(settings["folds"]["threads"], splits["fold"].nunique() * ranks.processes(settings)):
        _train_fold(settings, splits[splits["fold"] == fold], path / f"fold{fold}", own or {})


@contextmanager
def threads(wanted: int | None, folds: int) -> Iterator[None]:
    """So many threads, whatever number of folds is trained at a time: another number adds up in another order.

    `folds` counts the processes of each fold too.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted or max(1, before // folds))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train_fold(settings: Mapping[str, Any], rows: pd.DataFrame, folder: Path, own: Mapping[str, Any]) -> None:
    from nsclc_mtl.commands import recalibrate, resume
    from nsclc_mtl.commands.cohort import open_cohort

    manifest = open_cohort(settings)
    made_from = resume.account(settings, manifest, rows)
    progress = resume.begin(folder, made_from)
    with ranks.together(settings, rows, progress) as share:
        members, data = train_members(settings, manifest, rows, progress, share)
    slopes = recalibrate.slopes(settings, manifest, rows, data)
    digests = conclude(settings, manifest, rows, folder, members, data, own, slopes)
    resume.finish(folder, made_from, digests)


def conclude(
    settings: Mapping[str, Any],
    manifest: Manifest,
    rows: pd.DataFrame,
    folder: Path,
    members: Sequence[Learner],
    data: FoldData,
    own: Mapping[str, Any],
    slopes: Mapping[str, float] | None = None,
    levels: bool = True,
) -> dict[str, str]:
    """Writes what a fold's trained members are used with, and what they say of all its parts; the weights' digests.

    `rows` are the fold's rows of `splits.csv`. Trust is fitted here, on patients who do not test the fold; `slopes` are
    those of `recalibrate.slopes`, and `levels` as `fit_trust` has it.
    """
    import pandas as pd

    from nsclc_mtl.bags import described
    from nsclc_mtl.commands import assemble, censoring, checkpoint, fold_files, reasons, sealed, weights

    fold = int(rows["fold"].iloc[0])
    fit_trust(settings, members, manifest, data, bool(own), slopes or {}, levels)
    data.fitted.reference = described.reference(manifest, data.parts["train"], data.fitted, data.cache)
    data.fitted.follow_up = censoring.kept(manifest, list(rows.loc[rows["part"] != "test", "patient_id"]))
    fold_files.save_fitted(folder, data.fitted, manifest.tasks, assemble.options(settings, manifest))
    if own:
        fold_files.save_own(folder, own)
    sealed.seal(folder)
    held = {"test": list(rows.loc[rows["part"] == "test", "patient_id"])}
    held.update({str(part): ids for part, ids in data.parts.items()})
    seen = reasons.look(members, manifest, held["test"], data, **reasons.asked(settings))
    said = {part: predict(members, manifest, ids, data) for part, ids in held.items() if ids and part != "test"}
    frame = pd.concat(
        [long_table(outputs, manifest, fold, part) for part, outputs in {"test": seen.outputs, **said}.items()]
    )
    # of the training part no survival curves are kept; the rest is what cut-offs are fitted on
    frame = frame[(frame["part"] != "train") | ~frame["output"].str.startswith("surv:")]
    with sealed.written(folder / "predictions.csv") as aside:
        frame.to_csv(aside, index=False, lineterminator="\n", float_format="%.7g")
    with sealed.written(folder / reasons.FILE) as aside:
        reasons.save(reasons.rows([seen], manifest, fold, reasons.limit(settings)), aside)
    counted = weights.table(members, manifest, held["test"], data, fold)
    if len(counted):
        with sealed.written(folder / weights.FILE) as aside:
            weights.save(counted, aside)
    if settings["audit"]:
        table = spoiled(members, manifest, held["test"], data, fold, settings)
        with sealed.written(folder / "audit.parquet") as aside:
            table.to_parquet(aside, index=False)
    return {f"model{n}.ckpt": checkpoint.weights_sha256(member.state_dict()) for n, member in enumerate(members)}


def fit_trust(
    settings: Mapping[str, Any],
    members: Sequence[Learner],
    manifest: Manifest,
    data: FoldData,
    tuned: bool = False,
    slopes: Mapping[str, float] | None = None,
    levels: bool = True,
) -> None:
    """What tells how far the fold's predictions may be relied on, into `data.fitted`: from patients who do not test it.

    The levels of class probabilities come from the training patients, their `slopes` from `recalibrate.slopes`; they
    are 1 for tasks without; with `levels` False probabilities stay as learned. Temperatures, curves, sets and bounds
    come from the calibration part; where there is none, only what needs no outcome of patients unseen: the horizons,
    and how far out patients lie.
    """
    from nsclc_mtl.commands import confidence, outside, recalibrate

    asked, parts = settings["trust"], {str(part): ids for part, ids in data.parts.items()}
    train = parts["train"]
    horizon = float(asked.get("horizon_days") or confidence.HORIZON_DAYS)
    fitted: dict[str, dict[str, Any]] = confidence.followed(manifest, train, horizon)
    if levels:
        fitted |= recalibrate.levels(means(members, manifest, train, data), manifest, slopes or {})
    if teachers := confidence.who_calibrates(settings, parts, tuned):
        taught = confidence.fit(
            confidence.scaled(means(members, manifest, teachers, data), manifest, fitted),
            manifest,
            float(asked["miss"]),
            populations(members),
            mondrian=str(asked.get("mondrian") or "none"),
            train=train,
            horizon=horizon,
            sloped=tuple(slopes or ()),
        )
        for task, own in taught.items():
            fitted[task] = {**fitted.get(task, {}), **own}
    data.fitted.trust = fitted
    rate = float(outside.RATE if asked.get("outside") is None else asked["outside"])
    data.fitted.outside = outside.fit(members[0], manifest, parts, data, rate)
