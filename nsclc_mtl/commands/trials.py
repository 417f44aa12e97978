"""Trials of one fold: settings drawn by Optuna and scored on the fold's non-test patients, kept so that they go on."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands.space import Parameter, Value
from nsclc_mtl.records import DataFault, Fault, Manifest, Repeated, TryAgain

if TYPE_CHECKING:
    import pandas as pd
    from optuna.study import Study
    from optuna.trial import FrozenTrial

Score = Callable[[Mapping[str, Value], Path], Mapping[str, float]]
"""Main metric of every task that a setting reaches; the folder is for what it leaves on the way."""
FOLDER = "study"  # in the run folder


# ---------------------------------------------------------------------------------------------------------------------
# Who a trial sees
# ---------------------------------------------------------------------------------------------------------------------


def of_patients(manifest: Manifest, ids: Sequence[str]) -> Manifest:
    """The cohort as if it had these patients alone: nothing of the others can be reached through it."""
    keep = set(ids)

    def rows(table: pd.DataFrame) -> pd.DataFrame:
        return table[table.index.get_level_values(0).isin(keep)]

    def files(of: Mapping[str, Any]) -> dict[str, Any]:
        return {patient: paths for patient, paths in of.items() if patient in keep}

    slides = manifest.slides
    return replace(
        manifest,
        patients=rows(manifest.patients),
        labels={name: rows(table) for name, table in manifest.labels.items()},
        tables={name: rows(table) for name, table in manifest.tables.items()},
        bags={name: files(of) for name, of in manifest.bags.items()},
        repeated={name: Repeated(rows(again.table), again.lower) for name, again in manifest.repeated.items()},
        volumes={name: files(of) for name, of in manifest.volumes.items()},
        series={name: rows(table) for name, table in manifest.series.items()},
        slides=None if slides is None else slides[slides["patient_id"].isin(keep)],
        applicable={name: of[of.index.isin(keep)] for name, of in manifest.applicable.items()},
    )


def inner_splits(settings: Mapping[str, Any], manifest: Manifest, rows: pd.DataFrame, inner: int) -> pd.DataFrame:
    """Table `patient_id, fold, part` of a fold's inner folds, whose `test` part a setting is scored on.

    It holds the fold's training and validation patients: neither those it tests nor those it calibrates with. With
    `inner` = 0 the training part trains and the validation part is scored on. Patients who belong together, and with
    `folds.sites` those of a site, stay in one part. Raises DataFault where there are too few.
    """
    from nsclc_mtl.cohort import splits, twins
    from nsclc_mtl.commands.splitting import companions_of

    mine = rows[rows["part"].isin(["train", "validation"])]
    if not inner:
        if not (mine["part"] == "validation").any():
            raise DataFault("inner=0 scores on the validation part, which is empty: set folds.validation, or inner=3")
        return mine.reset_index(drop=True)
    ids = sorted(mine["patient_id"])
    narrow = of_patients(manifest, ids)
    together = [same.patients for same in companions_of(settings, narrow)]
    if settings["folds"].get("sites"):
        site = narrow.patients["site"].astype(str)
        together += [tuple(site.index[site == name]) for name in sorted(set(site))]
    unit = twins.components(ids, [[p for p in same if p in set(ids)] for same in together])
    return splits.k_fold(
        narrow.labels,
        ids,
        folds=inner,
        seed=int(settings["seed"]) * 1009 + int(rows["fold"].iloc[0]) + 1,  # another deal than that of the outer folds
        validation=float(settings["folds"]["validation"]),
        unit=unit,
    )


def scored(settings: Mapping[str, Any], manifest: Manifest, splits: pd.DataFrame, folder: Path) -> dict[str, float]:
    """Main metric of every task, over the inner folds `splits`, of models trained with these settings.

    Metrics are computed within the inner folds and averaged with the number of patients as weight; a task whose metric
    cannot be computed is left out. Raises DataFault where a prediction is no number.
    """
    import numpy as np
    import pandas as pd

    from nsclc_mtl.commands.members import train_members
    from nsclc_mtl.commands.outputs import long_table, predict
    from nsclc_mtl.commands.resume import begin

    settings = {**settings, "logger": {}, "checkpoint_s": 1e9, "audit": 0}  # nothing of a trial is gone on from
    tables = []
    for number, rows in splits.groupby("fold"):
        members, data = train_members(settings, manifest, rows, begin(folder / f"inner{number}", {}))
        held = list(rows.loc[rows["part"] == "test", "patient_id"]) or data.parts["validation"]
        tables.append(long_table(predict(members, manifest, held, data), manifest, int(str(number)), "test"))
    table = pd.concat(tables)
    if not np.isfinite(table["value"]).all():
        raise DataFault("the training diverged: a prediction is no number")
    for column in ("event", "time_days"):
        table[column] = pd.to_numeric(table[column].replace("", None))
    return main_metrics(table, manifest)


def main_metrics(predictions: pd.DataFrame, manifest: Manifest) -> dict[str, float]:
    """Task -> its main metric over the folds of a table of predictions; without those that cannot be computed."""
    from nsclc_mtl.commands.judging import evaluate_predictions
    from nsclc_mtl.report.evaluation import metric_rows

    results = evaluate_predictions(predictions, manifest.tasks, None, None, draws=0)
    rows = [row for row in metric_rows(results) if row["fold"] == "all"]
    mine = [row for row in rows if row["metric"] == results[row["task"]].primary and row["value"] is not None]
    return {row["task"]: row["value"] for row in mine}


def goal(scores: Mapping[str, float], objective: str) -> float:
    """What a trial is judged by: the mean over the tasks, or one task's. Raises DataFault where there is none."""
    told = scores if objective == "mean" else {k: v for k, v in scores.items() if k == objective}
    if not told:
        raise DataFault("no main metric can be computed on the inner folds: use fewer (inner), or another objective")
    return sum(told.values()) / len(told)


# ---------------------------------------------------------------------------------------------------------------------
# The study
# ---------------------------------------------------------------------------------------------------------------------


def _study(path: Path, made_from: Mapping[str, Any] | None = None) -> Study:
    """The study in a journal (JSON lines); begun anew where it was made from something else than `made_from`.

    A line that a kill left unfinished is taken away: it is of a trial that is done again. The run's lease keeps other
    processes out, so that a lock beside the journal is of a dead one.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(exist_ok=True)
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.exists():
        raw = path.read_bytes()
        if whole := raw[: raw.rfind(b"\n") + 1]:
            path.write_bytes(whole) if whole != raw else None
        else:
            path.unlink()

    def load() -> Study:
        storage = JournalStorage(JournalFileBackend(str(path)))
        return optuna.create_study(storage=storage, study_name=path.stem, direction="maximize", load_if_exists=True)

    study, told = load(), json.dumps(made_from, sort_keys=True)
    if made_from is None:
        return study
    if study.user_attrs.get("made_from", told) != told:
        path.unlink()
        study = load()
    if "made_from" not in study.user_attrs:
        study.set_user_attr("made_from", told)
    return study


def run_trials(
    path: Path,
    space: Sequence[Parameter],
    trials: int,
    score: Score,
    *,
    objective: str,
    seed: Sequence[int],
    startup: int,
    made_from: Mapping[str, Any],
) -> list[FrozenTrial]:
    """The trials of a study, in their order: those that its journal at `path` holds, and the others made now.

    Trial n is drawn by a tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011) with a generator of its own,
    seeded by (seed, n), that knows trials 0 to n-1; a trial enters the journal when it is finished. So a study that was
    killed goes on with the trials that it would have had. A setting that was drawn before keeps its score. A trial that
    fails is kept with its reason; full disks and signals end the study.
    """
    import numpy as np
    import optuna
    from optuna.trial import TrialState, create_trial

    asked = {p.key: p.distribution() for p in space}
    study = _study(path, made_from)
    for number in range(len(study.trials), trials):
        own = int(np.random.SeedSequence([*seed, number]).generate_state(1)[0])
        memory = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(n_startup_trials=startup, seed=own)
        )
        memory.add_trials(study.trials)
        params = memory.ask(asked).params
        began = time.monotonic()
        before = next((t for t in study.trials if t.params == params), None)
        if before is not None:
            kept, state, value = {**before.user_attrs, "as": before.number}, before.state, before.value
        else:
            kept, state, value = _try(score, params, path.with_suffix(""), objective)
        kept["seconds"] = round(time.monotonic() - began, 2)
        study.add_trial(
            create_trial(
                state=TrialState.FAIL if value is None else state,
                params=params,
                distributions=asked,
                value=value,
                user_attrs=kept,
            )
        )
    return list(study.trials[:trials])


def _try(score: Score, params: Mapping[str, Value], folder: Path, objective: str) -> tuple[dict[str, Any], Any, Any]:
    """What is kept of a trial, its state and its value; nothing that it wrote stays."""
    from optuna.trial import TrialState

    shutil.rmtree(folder, ignore_errors=True)  # of a trial that was killed
    folder.mkdir()
    try:
        scores = dict(score(params, folder))
        return {"scores": scores}, TrialState.COMPLETE, goal(scores, objective)
    except TryAgain:
        raise
    except Fault as fault:
        return {"reason": str(fault).splitlines()[0]}, TrialState.FAIL, None
    except OSError:
        raise  # a full disk would fail every trial that follows
    except Exception as wrong:  # its message may quote a patient's data
        return {"reason": f"{type(wrong).__name__} in training"}, TrialState.FAIL, None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def journal(path: Path) -> list[dict[str, Any]]:
    """The trials of a finished journal as rows: trial, state, value, scores, params, seconds, reason, as."""
    return [row_of(trial) for trial in _study(path).trials]


def row_of(trial: FrozenTrial) -> dict[str, Any]:
    """A trial in plain types."""
    own = trial.user_attrs
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value,
        "scores": own.get("scores", {}),
        "params": trial.params,
        "seconds": own.get("seconds"),
        "reason": own.get("reason", ""),
        "as": own.get("as"),
    }


def best_of(rows: Sequence[Mapping[str, Any]], fold: int) -> Mapping[str, Any]:
    """The row of the highest value, the first where several have it. Raises DataFault where every trial failed."""
    done = [row for row in rows if row["value"] is not None]
    if not done:
        why = rows[0]["reason"] if rows else "there was none"
        raise DataFault(f"fold {fold}: all {len(rows)} trials failed; the first: {why}")
    return max(done, key=lambda row: (row["value"], -row["trial"]))
