"""The members of a fold's ensemble: its data as the configuration asks for them, and one fit after the other."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands.outputs import predict
from nsclc_mtl.records import Manifest

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.bags.cache import BagCache
    from nsclc_mtl.bags.datamodule import FoldData, Share
    from nsclc_mtl.bags.fitted import Fitted
    from nsclc_mtl.commands.resume import Progress
    from nsclc_mtl.learner import Learner


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
        max_tiles={name: c.get("max_tiles") for name, c in chosen.items()},
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
        several = data_parallel(share, device.backend(settings["device"], share.of))
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
