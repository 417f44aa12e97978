"""`mtl train`: cohort -> cross-validated multitask model and its test-part predictions."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import fold_jobs, items, known, ranks
from nsclc_mtl.commands.device import available
from nsclc_mtl.commands.sealed import written
from nsclc_mtl.records import Manifest, TryAgain, UsageFault

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run

NEXT = "next: mtl evaluate ckpt={}"


def body(cfg: DictConfig, run: Run) -> None:
    """Splits the cohort, trains every fold (or the one asked for) and writes `predictions.csv`."""
    from nsclc_mtl.commands.fold import train_fold
    from nsclc_mtl.config import plain

    settings = plain(cfg)
    manifest, splits, folds = opened(settings, run)
    kept = keep(settings, manifest, splits, run)
    left = [fold for fold in folds if fold not in kept]
    if fold_jobs.only_handed_over(settings, left, run, train_fold):
        return
    for fold, seconds in train_folds(settings, left, run):
        run.done.append(f"fold{fold}")
        run.say(f"fold {fold} trained" + (f" in {seconds:.0f} s" if seconds is not None else ""))
        if seconds is not None and not run.resumed:  # what went on took a part of its time before
            items.write(run.path, [items.Item(f"fold{fold}", round(seconds, 3))])
    closed(settings, manifest, run)
    run.say(NEXT.format(os.path.relpath(run.path)))


def opened(settings: dict[str, Any], run: Run) -> tuple[Manifest, pd.DataFrame, list[int]]:
    """The cohort, its split and the folds to train; the split and `cohort.json` are written into the run folder."""
    from nsclc_mtl.commands import fold_workers, splitting
    from nsclc_mtl.commands.assemble import lines, one_cause, options, sound
    from nsclc_mtl.commands.cohort import open_cohort
    from nsclc_mtl.commands.sites import adapted_sites, unknown_sites
    from nsclc_mtl.report.fold import dealt_rows

    here = not fold_jobs.elsewhere(settings)
    if here:
        available(settings["device"])
    if ranks.processes(settings) > 1:  # before torch is there: else it tells every fold that tasks may lack labels
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    manifest = open_cohort(settings)
    if here:
        settings["folds"]["workers"] = fold_workers.workers(settings, manifest, run)
    made = splitting.split(settings, manifest)
    splitting.sound(settings, manifest, made)
    sound(settings, manifest.tasks)
    lines(settings, manifest)
    splits = made.table
    run.inputs += manifest.inputs + [of for of in made.source.manifest.inputs if of not in manifest.inputs]
    notes = manifest.notes + one_cause(settings, manifest) + adapted_sites(settings, manifest, splits)
    for note in notes + unknown_sites(manifest, splits, options(settings, manifest)):
        run.say(f"note: {note}")
    run.say(
        f"{manifest.name}: {splits['patient_id'].nunique()} patients, modalities {', '.join(manifest.modalities)}, "
        f"tasks {', '.join(manifest.tasks)}, {dealt_rows(splits)}"
    )
    if not (splits["part"] == "calibration").any() and not settings["trust"].get("validation"):
        run.say(
            "note: no patients are set aside for calibration (folds.calibration=0): no temperatures, prediction sets "
            "and survival bounds; how far members differ and who is unlike the training patients is told all the same"
        )
    folds = sorted(splits["fold"].unique()) if settings["fold"] == "all" else [settings["fold"]]
    if not set(folds) <= set(splits["fold"]):
        raise UsageFault(f"fold={settings['fold']} is none of {sorted(map(int, splits['fold'].unique()))}; or fold=all")
    with written(run.path / "splits.csv") as aside:
        splits.to_csv(aside, index=False)
    with written(run.path / "splits.json") as aside:
        aside.write_text(json.dumps(splitting.record(settings, manifest, made), indent=1) + "\n", encoding="utf-8")
    describe(manifest, run.path, set(splits["patient_id"]))
    return manifest, splits, [int(fold) for fold in folds]


def closed(settings: Mapping[str, Any], manifest: Manifest, run: Run) -> None:
    """Predictions of the folds that are done in one table, their metrics and the audit; what patients are known by."""
    run.done.sort(key=lambda item: int(item[4:]))
    known.keep(manifest, run.path)
    gather(run.path, run.done)
    measure(manifest, run)
    if settings["audit"]:
        audit(manifest, run.path, run.done, settings)


def keep(settings: Mapping[str, Any], manifest: Manifest, splits: pd.DataFrame, run: Run) -> set[int]:
    """The folds that an earlier start of the run has finished. Those that can go on stay as they are.

    What it left of the others is removed, and said.
    """
    from nsclc_mtl.commands.resume import account, begun, tidy, unfinished

    kept, at_work = set(), fold_jobs.at_work(settings, run.path)
    for folder in sorted(run.path.glob("fold*"), key=lambda path: int(path.name[4:])):
        fold = int(folder.name[4:])
        if fold in at_work:
            continue
        made_from, again = (
            account(settings, manifest, splits[splits["fold"] == fold]),
            settings["fold"] in ("all", fold),
        )
        why = unfinished(folder, made_from)
        if not why:
            tidy(folder)
            run.say(f"fold {fold} is finished and kept")
            run.done.append(folder.name)
            kept.add(fold)
            continue
        found = begun(folder, made_from)
        if not isinstance(found, str):
            after = f"after epoch {found.epoch}" if found.epoch else "with what is trained"
            of = f" of member {found.member}" if settings["members"] > 1 else ""
            run.say(f"fold {fold} {f'goes on {after}{of}' if again else 'is unfinished and left as it is'}")
        else:
            run.say(f"fold {fold} is {'trained again' if again else 'removed'}: {found or why}")
            _remove(folder)
    return kept


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as wrong:
        raise TryAgain(
            f"'{folder.name}' cannot be removed ({wrong.strerror}): let it be written to, then repeat the command "
            f"with name={folder.parent.name} --resume"
        ) from None


def train_folds(
    settings: dict[str, Any],
    folds: list[int],
    run: Run,
    work: Callable[[Mapping[str, Any], int, Path], None] | None = None,
) -> Iterator[tuple[int, float | None]]:
    """Every fold with the seconds it took, once it is done (None: not known of a job).

    Each is a job of its own or in a process of the pool (workers=0: one after the other in this one).

    `work` is what is done for a fold, called with the settings, its number and the run folder; None = it is trained.
    """
    from nsclc_mtl.commands.fold import train_fold

    work = work or train_fold
    if fold_jobs.engine(settings) is not None:
        yield from fold_jobs.train(settings, folds, run, work)
        return
    workers = min(int(settings["folds"]["workers"]), len(folds))
    if workers <= 1:
        for fold in run.track(folds, "folds"):
            yield fold, _timed(work, settings, fold, run.path)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    from nsclc_mtl.commands.pool import begin, end_processes

    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # fork after torch has started its threads can hang
    with ProcessPoolExecutor(workers, mp_context=context, initializer=begin) as pool:
        jobs = {pool.submit(_timed, work, settings, fold, run.path): fold for fold in folds}
        lost = []
        try:
            for job in run.track(as_completed(jobs), "folds", total=len(jobs)):
                if isinstance(job.exception(), BrokenProcessPool):  # one process gone takes the pool with it
                    lost.append(jobs[job])
                else:
                    yield jobs[job], job.result()
        except BaseException:  # a signal, a fault: the other folds are not waited for
            pool.shutdown(wait=False, cancel_futures=True)
            end_processes(before)
            raise
    if lost:
        told = f"fold{'s' * (len(lost) > 1)} {', '.join(map(str, sorted(lost)))}"
        raise TryAgain(
            f"a process was killed while it trained (was the memory full?), so that {told} did not finish; the others "
            f"are kept: repeat the command with name={run.path.name} --resume, and folds.workers=1 to need less memory"
        )


def _timed(work: Any, *args: Any) -> float:
    began = time.monotonic()
    work(*args)
    return time.monotonic() - began


def describe(manifest: Manifest, folder: Path, among: Container[str] | None = None) -> None:
    """`cohort.json`: tasks with their classes, modalities, and the counts that a reader asks for first.

    Counted are the patients `among` whom the folds are; None = all.
    """
    ids = [patient for patient in manifest.ids if among is None or patient in among]
    labels = {name: of.loc[ids] for name, of in manifest.labels.items()}
    tasks: Mapping[str, Any] = {
        name: {
            "kind": spec.kind,
            "classes": list(spec.classes),
            "endpoint": spec.endpoint,
            "landmark_days": spec.landmark_days,
            "causes": list(spec.causes),
            "unit": spec.unit,
            "known": int(labels[name].notna().all(axis=1).sum()),
            "events": int(labels[name]["event"].sum()) if spec.kind == "survival" else None,
            "not_applicable": int((~manifest.applicable[name].loc[ids]).sum()) if name in manifest.applicable else 0,
        }
        for name, spec in manifest.tasks.items()
    }
    modalities = {
        name: {
            "kind": spec.kind,
            "patients": len(set(ids).intersection(manifest.who(name))),
        }
        for name, spec in manifest.modalities.items()
    }
    text = {
        "name": manifest.name,
        "patients": len(ids),
        "tasks": tasks,
        "modalities": modalities,
        "notes": manifest.notes,
    }
    with written(folder / "cohort.json") as aside:
        aside.write_text(json.dumps(text, indent=1) + "\n")


def gather(folder: Path, folds: Sequence[str]) -> None:
    """`predictions.csv` and `trust.csv` of the run from those of its folds, and `fusion_weights.csv` where the fusion
    has weights."""
    import pandas as pd

    from nsclc_mtl.commands import reasons, weights

    for name in ("predictions.csv", reasons.FILE, weights.FILE):
        parts = [path for fold in folds if (path := folder / fold / name).is_file() or name == "predictions.csv"]
        if parts:
            frame = pd.concat([pd.read_csv(path, dtype=str, keep_default_na=False) for path in parts])
            with written(folder / name) as aside:
                frame.to_csv(aside, index=False, lineterminator="\n")


def measure(manifest: Manifest, run: Run) -> None:
    """`metrics.json`: the main metric of every task on the test parts, within the folds and over them; and says it.

    Without intervals, which are the business of `mtl evaluate`.
    """
    from nsclc_mtl.commands.judging import evaluate_predictions
    from nsclc_mtl.commands.trained import read_table
    from nsclc_mtl.report.evaluation import metric_rows

    results = evaluate_predictions(read_table(run.path / "predictions.csv"), manifest.tasks, None, None, draws=0)
    rows = [row for row in metric_rows(results) if row["metric"] == results[row["task"]].primary]
    with written(run.path / "metrics.json") as aside:
        aside.write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    whole = [row for row in rows if row["fold"] == "all"]
    told = [f"{row['value']:.3f}" if row["value"] is not None else f"- ({row['reason']})" for row in whole]
    run.say("test: " + ", ".join(f"{r['task']} {r['metric']} {t}" for r, t in zip(whole, told, strict=True)))


def audited(
    manifest: Manifest, folder: Path, folds: Sequence[str], settings: Mapping[str, Any], draws: int = 500
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """The spoiled scores of the test patients of these folds, and what each task loses without each modality there."""
    import pandas as pd

    from nsclc_mtl.explain.audit import summarise

    spoiled = pd.concat([pd.read_parquet(folder / fold / "audit.parquet") for fold in folds])
    seed, most = int(settings["seed"]), int(settings["shapley"])
    return spoiled, summarise(spoiled, manifest.tasks, manifest.labels, draws, seed, most)


def audit(
    manifest: Manifest, folder: Path, folds: Sequence[str], settings: Mapping[str, Any], draws: int = 500
) -> None:
    """`audit.json`: what each task loses without each modality, from the spoiled scores of all folds.

    `shapley.csv`: what each modality adds to the scores of the test patients, where that was taken.
    """
    from nsclc_mtl.explain.audit import by_patient

    spoiled, rows = audited(manifest, folder, folds, settings, draws)
    with written(folder / "audit.json") as aside:
        aside.write_text(json.dumps(rows, indent=1) + "\n")
    table = by_patient(spoiled, manifest.tasks)
    if len(table):
        with written(folder / "shapley.csv") as aside:
            table.to_csv(aside, index=False, lineterminator="\n", float_format="%.6g")
