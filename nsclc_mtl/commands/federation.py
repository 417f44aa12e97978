"""What a configuration makes of a federation: the parts of a site, what is declared beforehand, and who is where."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands.sealed import written
from nsclc_mtl.records import Manifest, TaskSpec, UsageFault

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pytorch_lightning as pl

    from nsclc_mtl.bags.cache import BagCache
    from nsclc_mtl.bags.datamodule import FoldData
    from nsclc_mtl.bags.fitted import Fitted
    from nsclc_mtl.federated.fitting import Declared
    from nsclc_mtl.federated.plan import Privacy
    from nsclc_mtl.federated.rounds import Trained
    from nsclc_mtl.learner import Learner


@dataclass(frozen=True)
class Configured:
    """The parts of a site, made as the configuration says; `folder` is the site's own run folder, None = it has none.

    `specs` and `options` are those of all sites together: a site may lack a modality.
    """

    settings: Mapping[str, Any]
    declared: Declared
    folder: Path | None
    privacy: Privacy | None = None

    def learner(self, fitted: Fitted) -> Learner:
        """An untrained learner of the shared parts; one that promises privacy where the plan does."""
        made = untrained(self.settings, self.declared, fitted)
        if self.privacy is None:
            return made
        from nsclc_mtl.federated.privacy import PrivateLearner

        return PrivateLearner.of(made, self.privacy)

    def data(self, manifest: Manifest, rows: pd.DataFrame, cache: BagCache, fitted: Fitted) -> FoldData:
        """The loaders of a fold of the site."""
        from nsclc_mtl.bags.datamodule import Share
        from nsclc_mtl.commands.members import fold_data
        from nsclc_mtl.federated.privacy import PrivateData

        kind = None if self.privacy is None else PrivateData
        return fold_data(self.settings, manifest, rows, cache, Share(), fitted, kind)

    def trainer(self, epochs: int, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
        """Lightning's Trainer for the epochs of a round: it validates, logs and keeps nothing."""
        from nsclc_mtl.bags.datamodule import Share
        from nsclc_mtl.commands import device, members
        from nsclc_mtl.config import build
        from nsclc_mtl.training.ranks import Known

        accelerator, devices = device.lightning(self.settings["device"])
        chosen = {k: v for k, v in self.settings["trainer"].items() if k not in ("strategy", "devices", "plugins")}
        return build(
            {**chosen, "max_epochs": epochs, "limit_val_batches": 0},
            accelerator=accelerator,
            devices=devices,
            precision=members.precision(self.settings),
            logger=False,
            callbacks=list(callbacks),
            plugins=[*(self.settings["trainer"].get("plugins") or []), Known(Share())],
        )

    def judged(
        self, manifest: Manifest, rows: pd.DataFrame, part: str, learner: Learner, data: FoldData
    ) -> dict[str, Any]:
        """The main metric of every task on a part of the patients: task -> metric, value, n, n_events."""
        from nsclc_mtl.commands.judging import evaluate_predictions
        from nsclc_mtl.commands.outputs import long_table, predict
        from nsclc_mtl.commands.trained import numbers
        from nsclc_mtl.report.evaluation import metric_rows

        ids = list(rows.loc[rows["part"] == part, "patient_id"])
        if not ids:
            return {}
        fold = int(rows["fold"].iloc[0])
        table = long_table(predict([learner], manifest, ids, data), manifest, fold, "test")
        table = numbers(table, "predictions")
        results = evaluate_predictions(table, manifest.tasks, None, None, draws=0)
        kept = ("metric", "value", "n", "n_events")
        return {
            row["task"]: {word: row[word] for word in kept}
            for row in metric_rows(results)
            if row["fold"] == "all" and row["metric"] == results[row["task"]].primary
        }

    def conclude(self, manifest: Manifest, rows: pd.DataFrame, learner: Learner, data: FoldData) -> None:
        """Writes `fold<k>/` of the site's run folder."""
        if self.folder is not None:
            conclude(self.settings, manifest, rows, learner, data, self.folder)


def conclude(
    settings: Mapping[str, Any], manifest: Manifest, rows: pd.DataFrame, learner: Learner, data: FoldData, run: Path
) -> None:
    """`fold<k>/` of a run folder, as `mtl train` leaves it, of a learner that was trained elsewhere.

    Trust is fitted on the calibration part of these patients, Cox's baseline on their training part. Probabilities stay
    as learned: levels of one site's patients would make another model of the common one.
    """
    from nsclc_mtl.commands import fold, members, resume

    folder = run / f"fold{int(rows['fold'].iloc[0])}"
    folder.mkdir(parents=True, exist_ok=True)
    members.baselines(learner.eval(), manifest, data)
    save(learner, folder)
    made_from = resume.account(settings, manifest, rows)
    digests = fold.conclude(settings, manifest, rows, folder, [learner], data, {}, levels=False)
    resume.finish(folder, made_from, digests)


def save(learner: Learner, folder: Path) -> None:
    """`model0.ckpt` of a fold: the weights of a learner that no trainer of this process has at hand."""
    import io

    import torch

    from nsclc_mtl.commands import checkpoint

    whole = io.BytesIO()
    torch.save({"state_dict": learner.state_dict()}, whole)
    checkpoint.write(whole.getvalue(), folder / "model0.ckpt")


def untrained(settings: Mapping[str, Any], declared: Declared, fitted: Fitted) -> Learner:
    """The untrained learner of what was fitted; random numbers are those of whoever calls."""
    from nsclc_mtl.commands import assemble

    have = {name: options for name, options in declared.options.items() if name in fitted.dims()}
    return assemble.learner(settings, declared.tasks, have, fitted)


def seeded(settings: Mapping[str, Any], declared: Declared, fold: int) -> Callable[[Fitted], Learner]:
    """What makes the untrained learner of a fold, with the numbers that `mtl train` begins with."""
    import pytorch_lightning as pl

    from nsclc_mtl.commands.members import first_seed

    def learner(fitted: Fitted) -> Learner:
        pl.seed_everything(first_seed(settings, fold), verbose=False)
        return untrained(settings, declared, fitted)

    return learner


def record(made: Trained, path: Path) -> None:
    """`fold<k>.json`: patients and metrics by site, what was said, and what became of every round."""
    told = {"patients": made.patients, "metrics": made.metrics, "said": made.said}
    told |= {"rounds": [asdict(of) for of in made.rounds]}
    with written(path) as aside:
        aside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def declared(settings: Mapping[str, Any], manifest: Manifest) -> Declared:
    """What is known before any site is asked, from the manifest of anybody who knows the declaration."""
    from nsclc_mtl.commands import assemble
    from nsclc_mtl.federated.fitting import Declared

    return Declared(manifest.tasks, manifest.modalities, assemble.options(settings, manifest))


def fits(settings: Mapping[str, Any]) -> Any:
    """What a task fits on labels, as the configuration says."""
    from nsclc_mtl.commands import assemble

    def fit_task(spec: TaskSpec, value: np.ndarray, event: np.ndarray) -> dict[str, Any]:
        return assemble.fit_task(settings, spec, value, event)

    return fit_task


def steps(settings: Mapping[str, Any]) -> Any:
    """Epochs and optimiser steps that training on so many patients takes."""
    from nsclc_mtl.commands import members

    size = int(settings["optim"]["batch_size"])

    def count(patients: int) -> tuple[int, int]:
        ragged = patients % size == 1 and patients > 1
        return members.epochs(settings, max(1, math.ceil(patients / size) - ragged))

    return count


def only(manifest: Manifest, ids: Sequence[str]) -> Manifest:
    """The manifest of some of its patients, with their rows, files and labels alone."""
    wanted = set(ids)

    def rows(table: pd.DataFrame) -> pd.DataFrame:
        patients = table.index.get_level_values(0)
        return table[patients.isin(wanted)]

    def files(of: Mapping[str, Any]) -> dict[str, Any]:
        return {patient: paths for patient, paths in of.items() if patient in wanted}

    slides = manifest.slides
    made = replace(
        manifest,
        patients=manifest.patients.loc[manifest.patients.index.isin(wanted)],
        labels={task: labels[labels.index.isin(wanted)] for task, labels in manifest.labels.items()},
        tables={name: rows(table) for name, table in manifest.tables.items()},
        bags={name: files(of) for name, of in manifest.bags.items()},
        volumes={name: files(of) for name, of in manifest.volumes.items()},
        series={name: rows(visits) for name, visits in manifest.series.items()},
        slides=None if slides is None else slides[slides["patient_id"].isin(wanted)],
        applicable={task: who[who.index.isin(wanted)] for task, who in manifest.applicable.items()},
        notes=[],
        unmatched={},
    )
    for kept in (made.tables, made.bags, made.volumes, made.series):
        for name in [name for name, of in kept.items() if not len(of)]:
            del kept[name]
    return made


def refuse(settings: Mapping[str, Any]) -> None:
    """Raises UsageFault where the configuration asks for what needs all patients in one place."""
    from nsclc_mtl.commands import assemble, ranks

    wrong = [
        (bool(settings.get("skip")), "skip: a line fitted on all patients", "skip=none"),
        (bool(settings.get("adaptation")), "adaptation: it compares patients of several sites", "adaptation=none"),
        (bool(settings.get("callbacks")), "callbacks of a whole fit", "callbacks=none"),
        (int(settings["members"]) != 1, "members: one model is trained", "members=1"),
        (assemble.whole_passes(settings), "cox.mode=exact: a risk set of all patients", "survival=hazard"),
        (assemble.balanced_by(settings) is not None, "optim.sampler=balanced", "optim.sampler=shuffled"),
        (ranks.processes(settings) > 1, "several processes a fold", "trainer=default"),
    ]
    for asked, what, instead in wrong:
        if asked:
            raise UsageFault(f"sites are not trained together with {what}; set {instead}")
