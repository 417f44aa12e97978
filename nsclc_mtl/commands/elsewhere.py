"""A trained model on patients of another study, or on predictions that were locked before their outcomes existed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, Fault, Manifest

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.config import Run


def evaluate(settings: Mapping[str, Any], trained: Mapping[str, Any], folder: Path, run: Run) -> None:
    """Evaluates the run or bundle on another cohort: the mean of its folds, or the one that `ckpt` names, with
    everything fitted as training left it.

    Of predictions that were locked (`predictions=`) only the outcomes are new, and survival counts from the follow-up
    that was known then (`late_entry`). The floors are fitted on the training cohort, where it can still be opened; a
    bundle (no `trained` settings) does not hold it. Censoring is weighed as it was among the training patients: see
    `censoring.FollowUp`.
    """
    from threadpoolctl import threadpool_limits

    from nsclc_mtl.commands import censoring, cutoffs, drift, late_entry, locked, training_parts
    from nsclc_mtl.commands.floors import carry, fit_floors, held_out
    from nsclc_mtl.commands.judging import evaluate_predictions, oracle_rows, with_others, write
    from nsclc_mtl.commands.known import Known
    from nsclc_mtl.commands.predict import predict_cohort, save
    from nsclc_mtl.commands.trained import as_written, predictors, read_table, tasks_of, trained_run
    from nsclc_mtl.report.subgroup import asked_for

    moved, away, later, told, tested, known = None, None, None, list[str](), dict[str, int](), Known()
    if settings["predictions"]:
        config, _, folds = trained_run(settings)
        later = locked.joined(settings, config, folder, run)
        manifest, read, told = later.manifest, later.read, later.told
        predictions, tasks = later.predictions, later.tasks
        moved, away = (drift.read(run.path / name) for name in (drift.FILE, drift.OUTSIDE))
    else:
        made = predict_cohort({**settings, "patients": None}, run, strangers_only=True)
        told, known = list(made.told), made.known
        if made.trained_on:
            run.say("note: they are left out: who was trained on says nothing about the model")
            told.append(
                f"{len(made.trained_on)} of {len(made.ids)} patients were trained on by every fold; they are left out"
            )
            made.ids = [p for p in made.ids if p not in set(made.trained_on)]
            made.table = made.table[made.table["patient_id"].isin(made.ids)]
            if not made.ids:
                raise DataFault(training_parts.NOBODY)
        save(made, run.path)
        manifest, read, tested, folds = made.manifest, made.read, made.tested, [f"fold{k}" for k in made.models]
        predictions = read_table(run.path / "predictions.csv")
        tasks = tasks_of(folder / "cohort.json", manifest)
        if not tested:
            moved, away = drift.told(made.models, manifest, made.ids, made.far, run)
    asked_for(manifest, settings["subgroups"])
    count = predictions["patient_id"].nunique()
    numbers = [int(name.removeprefix("fold")) for name in folds]
    members = {k: len(list((folder / f"fold{k}").glob("model*.*"))) for k in numbers}
    by = predictors(settings["ckpt"], members)
    if tested:
        free = count - len(tested.keys() & set(predictions["patient_id"]))
        by = "each by the fold that held the patient out"
        by += f", {free} of no test part by the folds that were not trained on them" * bool(free)
    whose = f"judged {by}" if tested else f"that the model never saw, predicted by {'the ' * (len(numbers) > 1)}{by}"
    run.say(f"{manifest.name}: {count} patients {whose}, tasks {', '.join(tasks)}")
    floors, splits, ours = None, None, None
    if not trained:
        if settings["floors"] != []:
            run.say(
                "note: no floors: they are fitted on training patients, whom a bundle does not hold (ckpt=RUN has them)"
            )
    else:
        splits = read_table(folder / "splits.csv")
        ours = manifest if tested and known.plain else training_cohort(trained, splits, run)
        with threadpool_limits(1):
            if tested and known.plain:  # the training cohort by another name
                floors = fit_floors(settings, read, manifest, splits, predictions, tasks)
            elif tested and ours is not None:  # its patients, in other tables
                floors = held_out(settings, trained, ours, splits, predictions, tasks, known.whom)
            elif tested:
                run.say("note: no floors: they are fitted on the training cohort, fold by fold")
            elif settings["floors"] != []:
                floors = carry(settings, trained, (read, manifest), splits, predictions, tasks, run)
    if later is not None:  # the floors wrote the curves of the learner's days
        predictions = as_written(later.since(predictions), run.path / "predictions.csv")
        floors = None if floors is None else later.since(floors)
    if floors is not None:
        floors = as_written(floors, run.path / "floors.csv")
    follow_up = censoring.of_training(folder, folds, tasks, ours, splits)
    if later is not None:
        follow_up = follow_up.without(later.late, late_entry.UNWEIGHED)
    if follow_up.reason:
        run.say(f"note: no Uno's C, AUC at a time and Brier score of survival: {follow_up.reason}")
    results = evaluate_predictions(
        with_others(predictions, floors, oracle_rows(read, predictions, tasks)),
        tasks,
        manifest,
        None,
        draws=int(settings["bootstrap"]),
        seed=int(settings["seed"]),
        follow_up=follow_up,
        thresholds=cutoffs.thresholds_of_model(folder, numbers, tasks),
    )
    outside: dict[str, Any] = {"drift": moved, "outside": away}
    if later is not None:
        outside |= {"locked": later.time, "late": {n: late_entry.sentence(found) for n, found in later.late.items()}}
    if not trained or Path(settings["ckpt"]).resolve() != folder.resolve():  # else the run's own predictions have them
        outside["cutoffs"] = cutoffs.of_model(folder, numbers)
    if not tested:
        outside |= {"training": ours, "mean_of": tuple(numbers)}
    judged = by if tested else f"external patients: {by}"
    run.done += write(
        results, predictions, manifest, None, settings, read, folder, run, outside=outside, told=told, judged=judged
    )


def training_cohort(trained: Mapping[str, Any], splits: pd.DataFrame, run: Run) -> Manifest | None:
    """The cohort that the run was trained on, its patients of the folds alone; None, and a note, where it is gone."""
    from dataclasses import replace

    from nsclc_mtl.commands.cohort import open_cohort

    try:
        ours = open_cohort(trained)
    except (Fault, OSError) as fault:
        run.say(f"note: the training cohort is not at hand, so it does not stand beside: {fault}")
        return None
    return replace(ours, patients=ours.patients[ours.patients.index.isin(splits["patient_id"])])
