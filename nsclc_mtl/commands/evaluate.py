"""`mtl evaluate`: saved predictions -> metrics with intervals, the floor on the same folds, one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import UsageFault

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run


def body(cfg: DictConfig, run: Run) -> None:
    """Writes `metrics.json`, `floors.csv` and `report.html` for the run that `ckpt` names, and prints the table."""
    import yaml
    from threadpoolctl import threadpool_limits

    from nsclc_mtl.commands import bundled, elsewhere
    from nsclc_mtl.commands.cohort import open_cohort
    from nsclc_mtl.commands.floors import fit_floors
    from nsclc_mtl.commands.judging import evaluate_predictions, oracle_rows, with_others, write
    from nsclc_mtl.commands.train import audited
    from nsclc_mtl.commands.trained import NEEDED, as_written, named_fold, predictors, read_table, run_folder, tasks_of
    from nsclc_mtl.config import plain
    from nsclc_mtl.report.subgroup import asked_for

    settings = plain(cfg)
    packed = bundled.at(settings["ckpt"])
    if packed and (settings["predictions"] or settings["cohort"]["root"] or "modalities" in settings["cohort"]):
        run.read(packed / bundled.MANIFEST)
        elsewhere.evaluate(settings, {}, packed, run)
        return
    folder = run_folder(settings["ckpt"])
    absent = [str(image) for image in settings["images"] or () if not Path(image).is_file()]
    if absent:
        raise UsageFault(f"images: no file '{absent[0]}'")
    same_run(settings["explained"], folder)
    for name in (*NEEDED, "splits.csv"):
        if (folder / name).is_file():
            run.read(folder / name)
    trained = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    if "modalities" in settings["cohort"] or settings["predictions"]:
        elsewhere.evaluate(settings, trained, folder, run)
        return
    if settings["cohort"]["root"]:
        trained["cohort"]["root"] = settings["cohort"]["root"]
    manifest = open_cohort(trained)
    splits = read_table(folder / "splits.csv") if (folder / "splits.csv").is_file() else None
    asked_for(manifest, settings["subgroups"])
    predictions = read_table(folder / "predictions.csv")
    told, judged, audit = list[str](), "", None
    if (fold := named_fold(settings["ckpt"])) is not None:
        predictions, splits = of_fold(predictions, fold), None if splits is None else of_fold(splits, fold)
        if predictions.empty:
            raise UsageFault(f"ckpt='{settings['ckpt']}': the run holds no predictions of fold {fold}")
        members = len(list((folder / f"fold{fold}").glob("model*.ckpt")))
        judged = predictors(settings["ckpt"], {fold: members})
        told = [f"ckpt names one fold, so only the patients whom fold {fold} tests are judged ({judged})"]
        if (folder / f"fold{fold}" / "audit.parquet").is_file():
            _, audit = audited(manifest, folder, [f"fold{fold}"], trained)
        elif (folder / "audit.json").is_file():
            audit = []  # that of all folds is not what this fold's patients show
            told.append(f"the audit of the modalities is left out: fold {fold} keeps none of its own")
        for sentence in told:
            run.say(f"note: {sentence}")
    tasks = tasks_of(folder / "cohort.json", manifest)
    run.say(f"{manifest.name}: {predictions['patient_id'].nunique()} patients, tasks {', '.join(tasks)}")
    # thousands of fits of a hundred columns each: threads of the linear algebra would only wait for each other
    with threadpool_limits(1):
        floors = fit_floors(settings, trained, manifest, splits, predictions, tasks)
    floors = as_written(floors, run.path / "floors.csv")
    results = evaluate_predictions(
        with_others(predictions, floors, oracle_rows(trained, predictions, tasks)),
        tasks,
        manifest,
        splits,
        draws=int(settings["bootstrap"]),
        seed=int(settings["seed"]),
    )
    run.done += write(
        results, predictions, manifest, splits, settings, trained, folder, run, told=told, judged=judged, audit=audit
    )


def of_fold(table: pd.DataFrame, fold: int) -> pd.DataFrame:
    """The rows of one fold in predictions.csv or splits.csv."""
    return table[table["fold"] == str(fold)]


def same_run(explained: Any, folder: Path) -> None:
    """Raises UsageFault where `explained` is no run of `mtl predict` that explained slides by the run in `folder`."""
    if not explained:
        return
    from nsclc_mtl.report.sections.maps import explained_run

    told = explained_run(Path(str(explained)))
    if told is None:
        raise UsageFault(
            f"explained='{explained}' has no explanations/: give a run of `mtl predict explain.patients=all`"
        )
    ckpt = Path(str(told.get("ckpt"))).resolve()
    if folder.resolve() not in (ckpt, *ckpt.parents):
        raise UsageFault(
            f"explained='{explained}' explains the run '{ckpt.name}', not '{folder.name}': explain this one"
        )
