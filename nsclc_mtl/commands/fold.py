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
from nsclc_mtl.records import Manifest, TaskSpec, event_column

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.bags.datamodule import FoldData, Share
    from nsclc_mtl.commands.resume import Progress
    from nsclc_mtl.learner import Learner


def train_fold(settings: Mapping[str, Any], fold: int, path: Path) -> None:
    """Trains one fold of the run at `path`: `fold<k>/` with fitted.json, model<m>.ckpt, log and predictions.csv.

    Goes on where an earlier start left it. Raises TryAgain where the folder cannot be written.
    """
    import pandas as pd

    splits = pd.read_csv(path / "splits.csv", dtype={"patient_id": str}, keep_default_na=False)
    with _threads(settings["folds"]["threads"], splits["fold"].nunique() * ranks.processes(settings)):
        _train_fold(settings, splits[splits["fold"] == fold], path / f"fold{fold}")


@contextmanager
def _threads(wanted: int | None, folds: int) -> Iterator[None]:
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


def _train_fold(settings: Mapping[str, Any], rows: pd.DataFrame, folder: Path) -> None:
    import pandas as pd

    from nsclc_mtl.commands import assemble, checkpoint, confidence, resume, sealed, weights
    from nsclc_mtl.commands.cohort import open_cohort

    fold, manifest = int(rows["fold"].iloc[0]), open_cohort(settings)
    made_from = resume.account(settings, manifest, rows)
    progress = resume.begin(folder, made_from)
    with ranks.together(settings, rows, progress) as share:
        members, data = train_members(settings, manifest, rows, progress, share)
    if set_aside := data.parts.get("calibration"):
        data.fitted.trust = confidence.fit(
            means(members, manifest, set_aside, data), manifest, float(settings["trust"]["miss"]), populations(members)
        )
    assemble.save_fitted(folder, data.fitted, manifest.tasks, assemble.options(settings, manifest))
    sealed.seal(folder)
    held = {"test": list(rows.loc[rows["part"] == "test", "patient_id"])}
    held.update({str(part): ids for part, ids in data.parts.items()})
    predicted = [
        long_table(predict(members, manifest, ids, data), manifest, fold, part) for part, ids in held.items() if ids
    ]
    frame = pd.concat(predicted)
    # of the training part only the risk is kept: what cut-offs are fitted on
    frame = frame[(frame["part"] != "train") | (frame["output"] == "risk")]
    with sealed.written(folder / "predictions.csv") as aside:
        frame.to_csv(aside, index=False, lineterminator="\n", float_format="%.7g")
    counted = weights.table(members, manifest, held["test"], data, fold)
    if len(counted):
        with sealed.written(folder / weights.FILE) as aside:
            weights.save(counted, aside)
    if settings["audit"]:
        table = spoiled(members, manifest, held["test"], data, fold, settings)
        with sealed.written(folder / "audit.parquet") as aside:
            table.to_parquet(aside, index=False)
    digests = {f"model{n}.ckpt": checkpoint.weights_sha256(member.state_dict()) for n, member in enumerate(members)}
    resume.finish(folder, made_from, digests)


def train_members(
    settings: Mapping[str, Any], manifest: Manifest, rows: pd.DataFrame, progress: Progress, share: Share | None = None
) -> tuple[list[Learner], FoldData]:
    """The trained members of a fold's ensemble (same data, other seeds) and the data they were trained on.

    Of several processes that train the fold, each does all of this on its share; rank 0 alone writes.
    """
    import pytorch_lightning as pl

    from nsclc_mtl.bags.cache import BagCache
    from nsclc_mtl.bags.datamodule import FoldData, Share
    from nsclc_mtl.commands import assemble, checkpoint, skip

    fold, seed = int(rows["fold"].iloc[0]), int(settings["seed"])
    chosen = assemble.options(settings, manifest)
    most = min((c["max_tiles"] for c in chosen.values() if c.get("max_tiles")), default=None)
    share = share or Share()
    data = FoldData(
        manifest,
        rows,
        cache=BagCache(int(float(settings["bag_cache_mb"]) * 1e6)),
        options=chosen,
        batch_size=settings["optim"]["batch_size"],
        max_tiles=most,
        seed=seed,
        exact=assemble.whole_passes(settings),
        share=share,
        balanced_by=assemble.balanced_by(settings),
    )
    data.fitted.tasks = assemble.fit_tasks(settings, manifest, data.parts["train"], data.groups)
    line = skip.fit(settings, manifest, data)
    members = []
    for member in range(int(settings["members"])):
        path = progress.folder / f"model{member}.ckpt"
        with _quiet():
            pl.seed_everything(seed * 10_007 + fold * 101 + member, verbose=False)
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
        _baselines(learner, manifest, data)
        trainer.save_checkpoint(path)  # all processes come together here
        if share.rank:
            progress.point = None
        else:
            progress.trained(path)
        members.append(learner)
    return members, data


def _trainer(settings: Mapping[str, Any], progress: Progress, member: int, share: Share, batches: int) -> Any:
    from nsclc_mtl.commands import checkpoint, device
    from nsclc_mtl.config import build
    from nsclc_mtl.training.ranks import Known, OwnDraws, data_parallel

    folder, point, chosen = progress.folder / f"log{member}", progress.point, settings["trainer"]
    loggers = [] if share.rank else checkpoint.loggers(settings, folder, point)
    callbacks = [build(node) for node in (settings.get("callbacks") or {}).values()]
    accelerator, devices = device.lightning(settings["device"])
    steps = max(1, math.ceil(batches / (chosen.get("accumulate_grad_batches") or 1)))  # of the optimiser, an epoch
    several: dict[str, Any] = {"devices": devices}
    if share.of > 1:
        several = data_parallel(share, ranks.backend(settings, share.of))
        callbacks.append(OwnDraws())
    return build(
        {
            **{key: value for key, value in chosen.items() if key not in ("strategy", "devices")},
            "max_epochs": max(chosen["max_epochs"], math.ceil(settings["optim"]["min_steps"] / steps)),
        },
        accelerator=accelerator,
        precision=settings["precision"],
        logger=loggers or False,
        callbacks=[checkpoint.Resumable(progress, member, settings["checkpoint_s"]), *callbacks],
        # the processes are ours also where there is one: Lightning would look for others in the variables of SLURM
        plugins=[*(chosen.get("plugins") or []), checkpoint.WholeFiles(), Known(share)],
        default_root_dir=str(folder),
        **several,
    )


def _baselines(learner: Learner, manifest: Manifest, data: FoldData) -> None:
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


def predict(members: Sequence[Learner], manifest: Manifest, ids: Sequence[str], data: Any) -> dict[str, pd.DataFrame]:
    """Outputs of each task: a frame by patient_id with columns `p:..`, `risk`, `surv:..`, `value`.

    They are the `means`, at the fold's temperature where it has one, and at the prevalence of the population that a
    task states.
    """
    from nsclc_mtl.commands import confidence

    outputs = means(members, manifest, ids, data)
    return confidence.scaled(outputs, manifest, data.fitted.trust, populations(members))


def populations(members: Sequence[Learner]) -> dict[str, Any]:
    """Task -> log ratio of the classes' shares in the stated population to those in training, where one is stated."""
    each = {name: getattr(task, "population", None) for name, task in members[0].each_task()}
    return {name: ratio for name, ratio in each.items() if ratio is not None}


def means(members: Sequence[Learner], manifest: Manifest, ids: Sequence[str], data: Any) -> dict[str, pd.DataFrame]:
    """Mean over the members of each output, a frame a task by patient_id.

    `data` has the `fitted` and the `cache` to read with. It is done where the members are. Survival curves and
    probabilities are averaged as such.
    """
    import numpy as np
    import pandas as pd
    import torch

    from nsclc_mtl.bags.datamodule import loader, moved

    sums: dict[str, dict[str, list[np.ndarray]]] = {}
    with torch.no_grad():
        for batch in loader(manifest, ids, data.fitted, data.cache):
            batch = moved(batch, members[0].device)
            made = [member.predict_step(batch, 0) for member in members]
            for task in made[0]:
                for output in made[0][task]:
                    mean = torch.stack([m[task][output] for m in made]).mean(0)
                    sums.setdefault(task, {}).setdefault(output, []).append(mean.cpu().numpy())
    return {
        task: pd.DataFrame({o: np.concatenate(v) for o, v in of.items()}, index=pd.Index(list(ids), name="patient_id"))
        for task, of in sums.items()
    }


def spoiled(
    members: Sequence[Learner],
    manifest: Manifest,
    ids: Sequence[str],
    data: Any,
    fold: int,
    settings: Mapping[str, Any],
) -> pd.DataFrame:
    """Scores of the test part with each modality permuted or dropped: what the modality audit is made of."""
    import numpy as np
    import pandas as pd

    from nsclc_mtl.bags.datamodule import batches, loader, moved
    from nsclc_mtl.explain import influence

    whole = loader(manifest, ids, data.fitted, data.cache, batch_size=len(ids), most_bytes=math.inf)
    (batch,) = batches(whole)
    batch = moved(batch, members[0].device)
    each = [influence.audit(member, batch, int(settings["audit"]), int(settings["seed"]) + fold) for member in members]
    tables = []
    for (modality, mode, repeat), scores in each[0].items():
        for task in scores:
            mean = np.mean([member[modality, mode, repeat][task] for member in each], axis=0)
            classes = manifest.tasks[task].classes if mean.ndim == 2 else ("",)
            for output, value in zip(classes, mean.reshape(len(ids), -1).T, strict=True):
                table = pd.DataFrame({"patient_id": list(ids), "fold": fold, "output": output, "value": value})
                tables.append(table.assign(task=task, modality=modality, mode=mode, repeat=repeat))
    return pd.concat(tables)


def long_table(outputs: Mapping[str, pd.DataFrame], manifest: Manifest, fold: int, part: str) -> pd.DataFrame:
    """Rows of `predictions.csv`: patient_id, task, fold, part, output, value, target, event, time_days."""
    import pandas as pd

    tables = []
    for task, wide in outputs.items():
        rows = wide.reset_index().melt("patient_id", var_name="output", value_name="said")
        rows = rows.rename(columns={"said": "value"})  # an output may have that name
        rows.insert(1, "task", task)
        rows.insert(2, "fold", fold)
        rows.insert(3, "part", part)
        tables.append(rows.join(truth_of(manifest, manifest.tasks[task], wide.index), on="patient_id"))
    return pd.concat(tables)


def truth_of(manifest: Manifest, spec: TaskSpec, ids: Any) -> pd.DataFrame:
    """Columns target, event, time_days by patient; blank where the label is not known."""
    import pandas as pd

    known = manifest.labels[spec.name].reindex(ids)
    if spec.kind == "survival":
        event = known[event_column(known)].map(lambda e: "" if pd.isna(e) else str(int(e)))
        days = known["time_days"].map(lambda t: "" if pd.isna(t) else f"{t:g}")
        return pd.DataFrame({"target": "", "event": event, "time_days": days}, index=known.index)
    word = (lambda v: f"{v:.10g}") if spec.kind == "regression" else (lambda v: spec.classes[int(v)])
    target = known["value"].map(lambda v: "" if pd.isna(v) else word(v))
    return pd.DataFrame({"target": target, "event": "", "time_days": ""}, index=known.index)


class _quiet:
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
        ):
            warnings.filterwarnings("ignore", message=f".*{message}.*")
        for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def __exit__(self, *wrong: Any) -> None:
        self.caught.__exit__(*wrong)
