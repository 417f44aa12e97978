"""`mtl evaluate`: saved predictions -> metrics with intervals, the floor on the same folds, one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, Fault, Manifest, TaskSpec, UsageFault

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run
    from nsclc_mtl.report.evaluation import TaskResult

NEEDED = ("predictions.csv", "config.yaml", "cohort.json")


def body(cfg: DictConfig, run: Run) -> None:
    """Writes `metrics.json`, `floors.csv` and `report.html` for the run that `ckpt` names, and prints the table."""
    import yaml
    from threadpoolctl import threadpool_limits

    from nsclc_mtl.commands import bundled
    from nsclc_mtl.commands.cohort import open_cohort
    from nsclc_mtl.commands.floors import fit_floors
    from nsclc_mtl.config import plain
    from nsclc_mtl.report.subgroup import asked_for

    settings = plain(cfg)
    packed = bundled.at(settings["ckpt"])
    if packed and (settings["predictions"] or settings["cohort"]["root"] or "modalities" in settings["cohort"]):
        run.read(packed / bundled.MANIFEST)
        elsewhere(settings, {}, packed, run)
        return
    folder = trained_run(settings["ckpt"])
    absent = [str(image) for image in settings["images"] or () if not Path(image).is_file()]
    if absent:
        raise UsageFault(f"images: no file '{absent[0]}'")
    same_run(settings["explained"], folder)
    for name in (*NEEDED, "splits.csv"):
        if (folder / name).is_file():
            run.read(folder / name)
    trained = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    if "modalities" in settings["cohort"] or settings["predictions"]:
        elsewhere(settings, trained, folder, run)
        return
    if settings["cohort"]["root"]:
        trained["cohort"]["root"] = settings["cohort"]["root"]
    manifest = open_cohort(trained)
    splits = read_table(folder / "splits.csv") if (folder / "splits.csv").is_file() else None
    asked_for(manifest, settings["subgroups"])
    predictions = read_table(folder / "predictions.csv")
    tasks = tasks_of(folder / "cohort.json", manifest)
    run.say(f"{manifest.name}: {predictions['patient_id'].nunique()} patients, tasks {', '.join(tasks)}")
    # thousands of fits of a hundred columns each: threads of the linear algebra would only wait for each other
    with threadpool_limits(1):
        floors = fit_floors(settings, trained, manifest, splits, predictions, tasks)
    floors.to_csv(run.path / "floors.csv", index=False, lineterminator="\n", float_format="%.7g")
    results = evaluate_predictions(
        with_others(predictions, floors, oracle_rows(trained, predictions, tasks)),
        tasks,
        manifest,
        splits,
        draws=int(settings["bootstrap"]),
        seed=int(settings["seed"]),
    )
    write(results, predictions, manifest, splits, settings, trained, folder, run)
    run.done += list(results)


def elsewhere(settings: Mapping[str, Any], trained: Mapping[str, Any], folder: Path, run: Run) -> None:
    """Evaluates the run or bundle on another cohort: the mean of its folds, with everything fitted as training left it.

    Of predictions that were locked (`predictions=`) only the outcomes are new. The floors are fitted on the training
    cohort, where it can still be opened; a bundle (no `trained` settings) does not hold it.
    """
    from threadpoolctl import threadpool_limits

    from nsclc_mtl.commands import cutoffs, drift, locked
    from nsclc_mtl.commands.floors import carry, fit_floors
    from nsclc_mtl.commands.predict import predict_cohort, save
    from nsclc_mtl.commands.predict import trained_run as opened
    from nsclc_mtl.report.subgroup import asked_for

    moved, told, tested = None, list[str](), dict[str, int]()
    if settings["predictions"]:
        config, _, folds = opened(settings)
        later = locked.joined(settings, config, folder, run)
        manifest, read, told = later.manifest, later.read, later.told
        predictions, tasks = later.predictions, later.tasks
    else:
        made = predict_cohort({**settings, "patients": None}, run)
        if made.trained_on:
            run.say("note: they are left out: who was trained on says nothing about the model")
            made.ids = [p for p in made.ids if p not in set(made.trained_on)]
            made.table = made.table[made.table["patient_id"].isin(made.ids)]
        save(made, run.path)
        manifest, read, tested, folds = made.manifest, made.read, made.tested, [f"fold{k}" for k in made.models]
        predictions = read_table(run.path / "predictions.csv")
        tasks = tasks_of(folder / "cohort.json", manifest)
        if not tested:
            moved = drift.told(made.models, manifest, made.ids, run)
    asked_for(manifest, settings["subgroups"])
    count = predictions["patient_id"].nunique()
    run.say(f"{manifest.name}: {count} patients that the model never saw, tasks {', '.join(tasks)}")
    floors = None
    if not trained:
        if settings["floors"] != []:
            run.say(
                "note: no floors: they are fitted on training patients, whom a bundle does not hold (ckpt=RUN has them)"
            )
    else:
        splits = read_table(folder / "splits.csv")
        with threadpool_limits(1):
            if tested:  # the training cohort by another name
                floors = fit_floors(settings, read, manifest, splits, predictions, tasks)
            elif settings["floors"] != []:
                floors = carry(settings, trained, (read, manifest), splits, predictions, tasks, run)
    if floors is not None:
        floors.to_csv(run.path / "floors.csv", index=False, lineterminator="\n", float_format="%.7g")
    results = evaluate_predictions(
        with_others(predictions, floors, oracle_rows(read, predictions, tasks)),
        tasks,
        manifest,
        None,
        draws=int(settings["bootstrap"]),
        seed=int(settings["seed"]),
    )
    outside: dict[str, Any] = {"drift": moved}
    if not trained or Path(settings["ckpt"]).resolve() != folder.resolve():  # else the run's own predictions have them
        outside["cutoffs"] = cutoffs.of_model(folder, [int(name.removeprefix("fold")) for name in folds])
    if trained and not tested:
        outside["training"] = training_cohort(trained, splits, run)
    write(results, predictions, manifest, None, settings, read, folder, run, outside=outside, told=told)
    run.done += list(results)


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


def trained_run(ckpt: Any) -> Path:
    """The run folder that `ckpt` names, itself or by one of its checkpoints. Raises UsageFault where it is none."""
    from nsclc_mtl.commands import bundled

    path = Path(str(ckpt))
    if bundled.at(path):
        raise UsageFault(
            f"ckpt='{ckpt}' is a bundle, which holds no predictions of the patients that it was trained on: name "
            "others with cohort=NAME, or give the run folder of the training"
        )
    folder = path if path.is_dir() else next((p for p in path.parents if (p / "splits.csv").is_file()), path)
    if not path.exists():
        raise UsageFault(f"ckpt='{ckpt}' does not exist: give the run folder that `mtl train` printed")
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise UsageFault(f"ckpt='{ckpt}' has no {missing[0]}: give the folder of a finished `mtl train`")
    return folder


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


def read_table(path: Path) -> pd.DataFrame:
    """predictions.csv, floors.csv or splits.csv, ids and folds as text. Raises DataFault where it is none of them."""
    import pandas as pd

    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    absent = {"patient_id", "fold", "part"} - set(frame.columns)
    if absent:
        raise DataFault(f"'{path.name}' has no column '{sorted(absent)[0]}': it is not a table of this program")
    for column in ("value", "event", "time_days"):
        if column in frame:
            try:
                frame[column] = pd.to_numeric(frame[column].replace("", None))
            except ValueError as error:
                raise DataFault(f"'{path.name}', column '{column}': {error}; write the predictions again") from error
    return frame


def tasks_of(path: Path, manifest: Manifest) -> dict[str, TaskSpec]:
    """The tasks that were trained: kind and class order from `cohort.json`, columns from the cohort."""
    trained = json.loads(path.read_text(encoding="utf-8"))["tasks"]
    return {
        name: TaskSpec(
            name,
            said["kind"],
            tuple(said.get("classes") or ()),
            manifest.tasks[name].columns if name in manifest.tasks else (),
            said.get("endpoint") or "",
            float(said.get("landmark_days") or 0.0),
            tuple(said.get("causes") or ()),
            said.get("unit") or "",
        )
        for name, said in trained.items()
    }


def oracle_rows(
    trained: Mapping[str, Any], predictions: pd.DataFrame, tasks: Mapping[str, TaskSpec]
) -> pd.DataFrame | None:
    """The phantom's ceilings as rows like predictions.csv (output `score`), None for any other cohort."""
    import pandas as pd

    from nsclc_mtl.commands.cohort import cohort_root

    path = cohort_root(trained) / "truth" / "oracle.json"
    if "level" not in trained["cohort"] or not path.is_file():
        return None
    scores = json.loads(path.read_text(encoding="utf-8"))["scores"]
    ours = predictions[predictions["part"] == "test"].drop_duplicates(["task", "fold", "patient_id"])
    frames = []
    for ceiling in ("latent", "attainable", "additive"):
        for name in tasks:
            score = scores.get(ceiling, {}).get(name)
            if score is not None:
                own = ours[ours["task"] == name]
                value = own["patient_id"].map(score).astype(float)
                frames.append(own.assign(model=f"oracle:{ceiling}", output="score", value=value))
    return pd.concat(frames, ignore_index=True) if frames else None


def with_others(predictions: pd.DataFrame, *others: pd.DataFrame | None) -> pd.DataFrame:
    """Predictions of the learner and of the others in one table, told apart by `model`; folds as text."""
    import pandas as pd

    frames = [predictions.assign(model="learner"), *(o for o in others if o is not None and len(o))]
    whole = pd.concat(frames, ignore_index=True)
    return whole.assign(fold=whole["fold"].astype(str))


def evaluate_predictions(
    predictions: pd.DataFrame,
    tasks: Mapping[str, TaskSpec],
    manifest: Manifest | None,
    splits: pd.DataFrame | None,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, TaskResult]:
    """Everything that is known of the models in a table of predictions (column `model`; absent: the learner's).

    The manifest's labels and the splits give the censoring weights (training patients of each fold); without them
    survival tasks have no Brier score and no AUC at a time.
    """
    from nsclc_mtl.report import evaluation

    training: dict[str, dict[str, pd.DataFrame]] = {}
    if manifest is not None and splits is not None:
        for name, task in tasks.items():
            if task.kind == "survival" and name in manifest.labels:
                label = manifest.labels[name]
                training[name] = {
                    str(fold): label[label.index.isin(rows.loc[rows["part"] != "test", "patient_id"])]
                    for fold, rows in splits.groupby("fold")
                }
    return evaluation.judge(predictions, tasks, training, draws, seed)


def write(
    results: Mapping[str, TaskResult],
    predictions: pd.DataFrame,
    manifest: Manifest,
    splits: pd.DataFrame | None,
    settings: Mapping[str, Any],
    trained: Mapping[str, Any],
    folder: Path,
    run: Run,
    outside: Mapping[str, Any] | None = None,
    told: Sequence[str] = (),
) -> None:
    """`metrics.json`, `report.html` with its figures and tables, `card.md`; the main table onto the terminal.

    outside: what `Evidence` holds of another cohort (drift, cut-offs, the training cohort). told: further notes for the
    page. The evaluation is counted with the model (`evaluations.jsonl`).
    """
    from nsclc_mtl import __version__
    from nsclc_mtl.commands import evaluations, reasons
    from nsclc_mtl.report import card, evaluation, page, section, terminal
    from nsclc_mtl.report.sections import SECTIONS

    said = next((t for f in (run.path, folder) if (t := f / reasons.FILE).is_file()), None)
    evidence = section.Evidence(
        results, predictions, manifest, splits, settings, trained, folder,
        trust=None if said is None else reasons.read(said), **(outside or {}),
    )  # fmt: skip
    patients = predictions.loc[predictions["part"] == "test", "patient_id"].nunique()
    counted = evaluations.count(evaluations.place(folder, settings), manifest, patients, list(results), run)
    primary = f"floor:{settings['primary_floor']}"
    story = page.Story(
        title=f"{manifest.name}: one model for {', '.join(results)}",
        meta=[*_meta(manifest, splits, trained, folder), ("Test set", str(counted))],
        primary_floor=primary,
        notes=[*told, *manifest.notes],
        images=[(Path(image), Path(image).stem) for image in settings["images"] or ()],
    )
    made = page.render(evidence, story, SECTIONS)
    rows = evaluation.metric_rows(results) + made.rows
    (run.path / "metrics.json").write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    section.save(made.sections, made.figures, run.path)
    (run.path / "report.html").write_text(made.html, encoding="utf-8")
    (run.path / "card.md").write_text(card.render(evidence, __version__, settings["license"]), encoding="utf-8")
    run.show(terminal.table(results, primary, boxed=run.console.is_terminal))
    run.say(f"{folder.resolve().name}: {counted}")
    run.say(f"report: {run.path / 'report.html'}")


def _meta(
    manifest: Manifest, splits: pd.DataFrame | None, trained: Mapping[str, Any], folder: Path
) -> list[tuple[str, str]]:
    """What the head of the page says of the run."""
    from datetime import UTC, datetime

    account = json.loads((folder / "run.json").read_text("utf-8")) if (folder / "run.json").is_file() else {}
    return [
        ("Cohort", manifest.name),
        ("Run", folder.resolve().name),
        ("Folds", str(splits["fold"].nunique()) if splits is not None else "external patients"),
        ("Modalities", ", ".join(manifest.modalities)),
        ("Seed", str(trained.get("seed", ""))),
        ("Version", str((account.get("versions") or {}).get("nsclc-mtl", ""))),
        ("Commit", str(account.get("git_commit") or "")[:10]),
        ("Evaluated", f"{datetime.now(UTC):%d %B %Y}"),
    ]
