"""One fold: fit what is fitted on its training patients, train the members, predict the parts that were held out."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import ranks
from nsclc_mtl.commands.outputs import long_table, means, populations, predict, spoiled
from nsclc_mtl.records import Manifest

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.bags.cache import BagCache
    from nsclc_mtl.bags.datamodule import FoldData, Share
    from nsclc_mtl.bags.fitted import Fitted
    from nsclc_mtl.commands.resume import Progress
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
    from nsclc_mtl.commands import assemble, censoring, checkpoint, reasons, sealed, weights

    fold = int(rows["fold"].iloc[0])
    fit_trust(settings, members, manifest, data, bool(own), slopes or {}, levels)
    data.fitted.reference = described.reference(manifest, data.parts["train"], data.fitted, data.cache)
    data.fitted.follow_up = censoring.kept(manifest, list(rows.loc[rows["part"] != "test", "patient_id"]))
    assemble.save_fitted(folder, data.fitted, manifest.tasks, assemble.options(settings, manifest))
    if own:
        assemble.save_own(folder, own)
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


def train_members(
    settings: Mapping[str, Any],
    manifest: Manifest,
    rows: pd.DataFrame,
    progress: Progress,
    share: Share | None = None,
    cache: BagCache | None = None,
) -> tuple[list[Learner], FoldData]:
    """The trained members of a fold's ensemble (same data, other seeds) and the data they were trained on.

    `cache` holds tiles that were read before; None: an empty one. Of several processes that train the fold, each does
    all of this on its share; rank 0 alone writes.
    """
    import pytorch_lightning as pl

    from nsclc_mtl.bags.cache import BagCache
    from nsclc_mtl.bags.datamodule import Share
    from nsclc_mtl.commands import assemble, checkpoint, skip

    fold, seed = int(rows["fold"].iloc[0]), int(settings["seed"])
    chosen = assemble.options(settings, manifest)
    share = share or Share()
    room = cache or BagCache(int(float(settings["bag_cache_mb"]) * 1e6))
    data = fold_data(settings, manifest, rows, room, share)
    data.fitted.tasks = assemble.fit_tasks(settings, manifest, data.parts["train"], data.groups)
    line = skip.fit(settings, manifest, data)
    members = []
    for member in range(int(settings["members"])):
        path = progress.folder / f"model{member}.ckpt"
        with quiet():
            pl.seed_everything(first_seed(settings, fold) + member, verbose=False)
            data.seed, data.epoch = seed + member, 0
            learner = assemble.learner(settings, manifest.tasks, chosen, data.fitted)
            if learner.skip is not None:
                learner.skip.load(line)
            if path.name in progress.members:  # trained by an earlier start
                learner.load_state_dict(checkpoint.read(path)["state_dict"])
                members.append(learner.eval())
                continue
            trainer = _trainer(settings, progress, member, share, batches=len(data.train_dataloader()))
            trainer.fit(learner, datamodule=data, ckpt_path=progress.point, weights_only=True)
        learner.eval()
        baselines(learner, manifest, data)
        trainer.save_checkpoint(path)  # all processes come together here
        if share.rank:
            progress.point = None
        else:
            progress.trained(path)
        members.append(learner)
    return members, data


def fold_data(
    settings: Mapping[str, Any],
    manifest: Manifest,
    rows: pd.DataFrame,
    cache: BagCache,
    share: Share,
    fitted: Fitted | None = None,
    kind: type[FoldData] | None = None,
) -> FoldData:
    """The loaders of a fold as the configuration asks for them; `fitted` is what was fitted elsewhere, if it was.

    `kind` is the class of them where it is not FoldData itself.
    """
    from nsclc_mtl.bags.datamodule import FoldData
    from nsclc_mtl.commands import assemble

    chosen = assemble.options(settings, manifest)
    return (kind or FoldData)(
        manifest,
        rows,
        cache=cache,
        options=chosen,
        batch_size=settings["optim"]["batch_size"],
        max_tiles=min((c["max_tiles"] for c in chosen.values() if c.get("max_tiles")), default=None),
        seed=int(settings["seed"]),
        exact=assemble.whole_passes(settings),
        share=share,
        balanced_by=assemble.balanced_by(settings),
        fitted=fitted,
    )


def _trainer(settings: Mapping[str, Any], progress: Progress, member: int, share: Share, batches: int) -> Any:
    from nsclc_mtl.commands import checkpoint, device
    from nsclc_mtl.config import build
    from nsclc_mtl.training.ranks import Known, OwnDraws, data_parallel

    folder, point, chosen = progress.folder / f"log{member}", progress.point, settings["trainer"]
    loggers = [] if share.rank else checkpoint.loggers(settings, folder, point)
    callbacks = [build(node) for node in (settings.get("callbacks") or {}).values()]
    accelerator, devices = device.lightning(settings["device"])
    several: dict[str, Any] = {"devices": devices}
    if share.of > 1:
        several = data_parallel(share, ranks.backend(settings, share.of))
        callbacks.append(OwnDraws())
    return build(
        {
            **{key: value for key, value in chosen.items() if key not in ("strategy", "devices")},
            "max_epochs": epochs(settings, batches)[0],
        },
        accelerator=accelerator,
        precision=precision(settings),
        logger=loggers or False,
        callbacks=[checkpoint.Resumable(progress, member, settings["checkpoint_s"]), *callbacks],
        # the processes are ours also where there is one: Lightning would look for others in the variables of SLURM
        plugins=[*(chosen.get("plugins") or []), checkpoint.WholeFiles(), Known(share)],
        default_root_dir=str(folder),
        **several,
    )


def first_seed(settings: Mapping[str, Any], fold: int) -> int:
    """The seed of a fold's first member; those of the others follow it."""
    return int(settings["seed"]) * 10_007 + fold * 101


def epochs(settings: Mapping[str, Any], batches: int) -> tuple[int, int]:
    """How many epochs of so many batches a fit takes, and how many steps of the optimiser these are."""
    each = max(1, math.ceil(batches / (settings["trainer"].get("accumulate_grad_batches") or 1)))
    wanted = max(settings["trainer"]["max_epochs"], math.ceil(settings["optim"]["min_steps"] / each))
    return wanted, wanted * each


def precision(settings: Mapping[str, Any]) -> str:
    """Lightning's word for the precision."""
    return "bf16-mixed" if settings["precision"] == "bf16" else str(settings["precision"])


def baselines(learner: Learner, manifest: Manifest, data: FoldData) -> None:
    """Breslow's baseline of the Cox tasks, from the training patients, once the scores are final.

    Where patients were drawn by class or event, the baselines of the other survival tasks are fitted again, too.
    """
    from nsclc_mtl.tasks.cox import Cox

    if data.groups is not None:
        _recalibrated(learner, manifest, data)
    cox = {name: task for name, task in learner.tasks.items() if isinstance(task, Cox)}
    if not cox:
        return
    scores = predict([learner], manifest, data.parts["train"], data)
    for name, task in cox.items():
        known = manifest.labels[name].loc[data.parts["train"]].dropna()
        risk = scores[name].loc[known.index, "risk"].to_numpy()
        task.set_baseline(risk, known["time_days"].to_numpy(), known["event"].to_numpy())


def _recalibrated(learner: Learner, manifest: Manifest, data: FoldData) -> None:
    """The survival tasks' baselines, from the raw outputs of the training patients."""
    import torch

    from nsclc_mtl.bags.datamodule import loader, moved

    survival = {name: task for name, task in learner.each_task() if task.spec.kind == "survival"}
    train = data.parts["train"]
    raws: dict[str, list[torch.Tensor]] = {name: [] for name in survival}
    with torch.no_grad():
        for batch in loader(manifest, train, data.fitted, data.cache) if survival else ():
            out, _ = learner(moved(batch, learner.device))
            for name, made in raws.items():
                made.append(out[name].cpu())
    for name, task in survival.items():
        label = manifest.labels[name].loc[train]
        known = label.notna().all(axis=1).to_numpy()
        raw, told = torch.cat(raws[name])[torch.tensor(known)], label[known]
        task.recalibrate(raw, told["time_days"].to_numpy(float), told["event"].to_numpy(float))


class quiet:
    """Lightning's advice on workers and devices is not for the users of `mtl`."""

    def __enter__(self) -> None:
        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        for message in (
            "does not have many workers",
            "GPU available but not used",
            "Experiment logs directory",
            "It is recommended to use `self.log",  # what is logged is the same in all processes, or was summed
            "`isinstance\\(treespec",
            "treespec, LeafSpec",
            "The `srun` command is available",  # folds are processes of our own
        ):
            warnings.filterwarnings("ignore", message=f".*{message}.*")
        for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def __exit__(self, *wrong: Any) -> None:
        self.caught.__exit__(*wrong)
