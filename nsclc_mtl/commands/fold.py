"""One fold: fit what is fitted on its training patients, train the members, predict the parts that were held out."""

from __future__ import annotations

import logging
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import Manifest, TaskSpec, event_column

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.bags.datamodule import FoldData
    from nsclc_mtl.commands.resume import Progress
    from nsclc_mtl.learner import Learner


def train_fold(settings: Mapping[str, Any], fold: int, path: Path, own: Mapping[str, Any] | None = None) -> None:
    """Trains one fold of the run at `path`: `fold<k>/` with fitted.json, model<m>.ckpt, log and predictions.csv.

    `own` are the sections of the settings that are the fold's and not the run's, kept in `settings.yaml`. Goes on where
    an earlier start left it. Raises TryAgain where the folder cannot be written.
    """
    import pandas as pd

    splits = pd.read_csv(path / "splits.csv", dtype={"patient_id": str}, keep_default_na=False)
    with threads(settings["folds"]["threads"], splits["fold"].nunique()):
        _train_fold(settings, splits[splits["fold"] == fold], path / f"fold{fold}", own or {})


@contextmanager
def threads(wanted: int | None, folds: int) -> Iterator[None]:
    """So many threads, whatever number of folds is trained at a time: another number adds up in another order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted or max(1, before // folds))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train_fold(settings: Mapping[str, Any], rows: pd.DataFrame, folder: Path, own: Mapping[str, Any]) -> None:
    import pandas as pd

    from nsclc_mtl.commands import assemble, confidence, resume, sealed, weights
    from nsclc_mtl.commands.cohort import open_cohort

    fold, manifest = int(rows["fold"].iloc[0]), open_cohort(settings)
    made_from = resume.account(settings, manifest, rows)
    members, data = train_members(settings, manifest, rows, resume.begin(folder, made_from))
    if set_aside := data.parts.get("calibration"):
        data.fitted.trust = confidence.fit(
            predict(members, manifest, set_aside, data), manifest, float(settings["trust"]["miss"])
        )
    assemble.save_fitted(folder, data.fitted, manifest.tasks, assemble.options(settings, manifest))
    if own:
        assemble.save_own(folder, own)
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
    resume.finish(folder, made_from)


def train_members(
    settings: Mapping[str, Any], manifest: Manifest, rows: pd.DataFrame, progress: Progress
) -> tuple[list[Learner], FoldData]:
    """The trained members of a fold's ensemble (same data, other seeds) and the data they were trained on."""
    import pytorch_lightning as pl

    from nsclc_mtl.bags.datamodule import FoldData
    from nsclc_mtl.commands import assemble, checkpoint, skip

    fold, seed = int(rows["fold"].iloc[0]), int(settings["seed"])
    chosen = assemble.options(settings, manifest)
    most = min((c["max_tiles"] for c in chosen.values() if c.get("max_tiles")), default=None)
    data = FoldData(
        manifest,
        rows,
        options=chosen,
        batch_size=settings["optim"]["batch_size"],
        max_tiles=most,
        seed=seed,
        exact=assemble.whole_passes(settings),
    )
    data.fitted.tasks = assemble.fit_tasks(settings, manifest, data.parts["train"])
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
            trainer = _trainer(settings, progress, member, steps_an_epoch=len(data.train_dataloader()))
            trainer.fit(learner, datamodule=data, ckpt_path=progress.point, weights_only=True)
        learner.eval()
        _baselines(learner, manifest, data)
        trainer.save_checkpoint(path)
        progress.trained(path)
        members.append(learner)
    return members, data


def _trainer(settings: Mapping[str, Any], progress: Progress, member: int, steps_an_epoch: int) -> Any:
    from nsclc_mtl.commands import checkpoint, device
    from nsclc_mtl.config import build

    folder, point = progress.folder / f"log{member}", progress.point
    if point is None:
        shutil.rmtree(folder, ignore_errors=True)  # of a start that was killed in its first epoch
    nodes = list((settings.get("logger") or {}).values())
    versions = checkpoint.log_versions(point) or [None] * len(nodes)
    loggers = [
        build(node, save_dir=str(folder), name="", **({} if version is None else {"version": version}))
        for node, version in zip(nodes, versions, strict=True)
    ]
    callbacks = [build(node) for node in (settings.get("callbacks") or {}).values()]
    accelerator, devices = device.lightning(settings["device"])
    epochs = max(settings["trainer"]["max_epochs"], math.ceil(settings["optim"]["min_steps"] / steps_an_epoch))
    return build(
        {**settings["trainer"], "max_epochs": epochs},
        accelerator=accelerator,
        devices=devices,
        precision=settings["precision"],
        logger=loggers or False,
        callbacks=[checkpoint.Resumable(progress, member, settings["checkpoint_s"]), *callbacks],
        plugins=[*(settings["trainer"].get("plugins") or []), checkpoint.WholeFiles()],
        default_root_dir=str(folder),
    )


def _baselines(learner: Learner, manifest: Manifest, data: FoldData) -> None:
    """Breslow's baseline of the Cox tasks, from the training patients, once the scores are final."""
    from nsclc_mtl.tasks.cox import Cox

    cox = {name: task for name, task in learner.tasks.items() if isinstance(task, Cox)}
    if not cox:
        return
    scores = predict([learner], manifest, data.parts["train"], data)
    for name, task in cox.items():
        known = manifest.labels[name].loc[data.parts["train"]].dropna()
        risk = scores[name].loc[known.index, "risk"].to_numpy()
        task.set_baseline(risk, known["time_days"].to_numpy(), known["event"].to_numpy())


def predict(members: Sequence[Learner], manifest: Manifest, ids: Sequence[str], data: Any) -> dict[str, pd.DataFrame]:
    """Outputs of each task, mean over the members: a frame by patient_id with columns `p:..`, `risk`, `surv:..`.

    `data` has the `fitted` and the `cache` to read with. It is done where the members are. Survival curves and
    probabilities are averaged as such; the fold's temperature is applied where it has one.
    """
    import numpy as np
    import pandas as pd
    import torch

    from nsclc_mtl.bags.datamodule import loader, moved
    from nsclc_mtl.commands import confidence

    sums: dict[str, dict[str, list[np.ndarray]]] = {}
    with torch.no_grad():
        for batch in loader(manifest, ids, data.fitted, data.cache):
            batch = moved(batch, members[0].device)
            made = [member.predict_step(batch, 0) for member in members]
            for task in made[0]:
                for output in made[0][task]:
                    mean = torch.stack([m[task][output] for m in made]).mean(0)
                    sums.setdefault(task, {}).setdefault(output, []).append(mean.cpu().numpy())
    outputs = {
        task: pd.DataFrame({o: np.concatenate(v) for o, v in of.items()}, index=pd.Index(list(ids), name="patient_id"))
        for task, of in sums.items()
    }
    return confidence.scaled(outputs, manifest, data.fitted.trust)


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

    (batch,) = batches(loader(manifest, ids, data.fitted, data.cache, batch_size=len(ids)))
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
        rows = wide.reset_index().melt("patient_id", var_name="output", value_name="value")
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
    target = known["value"].map(lambda v: "" if pd.isna(v) else spec.classes[int(v)])
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
            "`isinstance\\(treespec",
            "treespec, LeafSpec",
        ):
            warnings.filterwarnings("ignore", message=f".*{message}.*")
        for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def __exit__(self, *wrong: Any) -> None:
        self.caught.__exit__(*wrong)
