"""What a run left and where its cohort lies, as the board that the pages show."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, Fault, Manifest, UsageFault

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.records import TaskSpec
    from nsclc_mtl.viewer.board import Board, Said, ScanFile, SlideFile

FEATURES = {".h5", ".hdf5", ".npz", ".pt", ".pth"}  # slides.csv may name features of tiles, which nobody can look at


def board(settings: Mapping[str, Any]) -> Board:
    """The board of the run that `settings["run"]` names. Raises UsageFault where it is no run with predictions."""
    from nsclc_mtl.commands.cohort import open_cohort
    from nsclc_mtl.commands.outputs import patient_folder
    from nsclc_mtl.commands.trained import tasks_of, trained_run
    from nsclc_mtl.commands.wanted import cohort_settings
    from nsclc_mtl.viewer.board import Board

    run, training = folders(settings["run"])
    trained, _, _ = trained_run({"ckpt": training})
    told = _config(run)
    given = settings["cohort"] if "modalities" in settings["cohort"] or settings["cohort"].get("root") else None
    paths = told.get("paths") or trained.get("paths") or settings["paths"]
    read = cohort_settings({"cohort": given or told.get("cohort") or {}, "paths": paths}, trained)
    # pages need no features: a run can be looked at after they were deleted, or made anew by other code
    every = {name: {**spec, "optional": True} for name, spec in read["cohort"]["modalities"].items()}
    manifest = open_cohort({**read, "cohort": {**read["cohort"], "modalities": every}})
    tasks = tasks_of(run / "cohort.json", manifest)
    models = [said(run, training, tasks)]
    if settings["against"]:
        models.append(said(*folders(settings["against"]), tasks))
    shown = [p for p in dict.fromkeys(models[0].predictions["patient_id"]) if p in manifest.patients.index]
    strange = models[0].predictions["patient_id"].nunique() - len(shown)
    if not shown:
        raise DataFault(f"no patient of '{run.name}' is in cohort={manifest.name}: name the right one with cohort=NAME")
    outcomes = [column for spec in manifest.tasks.values() for column in spec.columns]  # shown with their tasks
    if strange:
        manifest.notes.append(f"{strange} patients of the run are not in the cohort, and are not shown")
    return Board(
        cohort=manifest.name,
        tasks=tasks,
        modalities=list(json.loads((run / "cohort.json").read_text("utf-8"))["modalities"]),
        covariates=manifest.patients.loc[shown].drop(columns=outcomes, errors="ignore"),
        models=models,
        slides=slides(manifest, read, run, set(shown)),
        scans=scans(read, run, set(shown)),
        folder=lambda patient: patient_folder(run, patient),
        reviews=run / "reviews.jsonl",
        report=evaluation(settings, run, training),
    )


def folders(word: Any) -> tuple[Path, Path]:
    """The run folder with predictions that a word names, and the training behind it."""
    run = Path(str(word))
    if not run.is_dir():
        raise UsageFault(f"run='{word}' does not exist: give the folder that `mtl predict` or `mtl train` printed")
    if (run / "metrics.json").is_file() and not (run / "predictions.csv").is_file() and "ckpt" in _config(run):
        run = _training(run)  # an evaluation of a run's own patients
    if not (run / "predictions.csv").is_file() or not (run / "cohort.json").is_file():
        raise UsageFault(f"run='{word}' has no predictions: give the folder of a finished `mtl predict`")
    if (run / "splits.csv").is_file():
        return run, run
    return run, _training(run)


def _training(run: Path) -> Path:
    """The training (or bundle) that a run names; where `runs/` has moved, the one of that name beside the run."""
    from nsclc_mtl.commands.trained import trained_run

    named = Path(str(_config(run).get("ckpt") or ""))
    if not named.exists():
        runs = run.resolve().parent.parent
        ends = (runs.joinpath(*named.parts[k:]) for k in range(len(named.parts) - 1) if named.parts[k] != named.anchor)
        named = next((end for end in ends if end.exists()), named)
    return trained_run({"ckpt": named})[1]


def said(run: Path, training: Path, tasks: Mapping[str, TaskSpec]) -> Said:
    """What a run says of these tasks, and the tables beside it."""
    import pandas as pd

    from nsclc_mtl.commands import cutoffs
    from nsclc_mtl.viewer.board import Said

    predictions = _predictions(run / "predictions.csv")
    ids = set(predictions["patient_id"])
    past = training / "predictions.csv"  # a bundle has none, for it holds no patients
    before = predictions if training == run else _predictions(past) if past.is_file() else None
    audits = [pd.read_parquet(path) for path in sorted(training.glob("fold*/audit.parquet"))]
    cautions = _table(run / "patients.csv")
    trust = _table(run / "trust.csv")
    return Said(
        name=run.resolve().name,
        predictions=predictions[predictions["part"] == "test"],
        trust=trust if trust is not None else pd.DataFrame(columns=["patient_id", "fold", "task", "what", "value"]),
        patients=None if cautions is None else cautions.set_index("patient_id"),
        shapley=_of(_numbers(_table(training / "shapley.csv"), "value", "base", "score"), ids),
        audit=_of(pd.concat(audits) if audits else None, ids),
        weights=_of(_numbers(_table(run / "fusion_weights.csv"), "weight"), ids),
        features=_numbers(_table(run / "features.csv"), "mean_abs", "mean", "n"),
        reference=None if before is None else before[before["part"] == "test"],
        cutoffs={} if before is None else cutoffs.of_training(before),
        of_model=of_model(run, training, tasks),
        provenance=provenance(run, training),
    )


def of_model(run: Path, training: Path, tasks: Mapping[str, TaskSpec]) -> Callable[[str, str], list[str]]:
    """What holds of a task for every patient whom a fold predicted, in the sentences of the pages of `mtl predict`.

    The fold is that of predictions.csv: -1 is the mean of those that predict, of one where `ckpt` names it.
    """
    from nsclc_mtl.commands import fold_files
    from nsclc_mtl.commands.patient_pages import calibrated, of_held_out
    from nsclc_mtl.commands.trained import named_fold
    from nsclc_mtl.report import held_out

    trust = {
        int(at.name[4:]): fold_files.fitted_state(at).get("trust") or {}
        for at in sorted(training.glob("fold*"), key=lambda at: int(at.name[4:]))
    }
    alone = named_fold(_config(run).get("ckpt") or training)
    seen = of_held_out(training, tasks)

    @cache
    def told(task: str, fold: str) -> list[str]:
        several = list(trust) if alone is None else [alone]
        folds = several if int(fold) < 0 else [int(fold)]
        how = calibrated(tasks[task], [trust[k].get(task, {}) for k in folds])
        return held_out.of_model(how, seen.get(task))

    return told


def provenance(run: Path, training: Path) -> list[tuple[str, str]]:
    """What made the predictions: runs, hashes, versions."""
    account = json.loads((run / "run.json").read_text("utf-8")) if (run / "run.json").is_file() else {}
    before = json.loads((training / "run.json").read_text("utf-8")) if (training / "run.json").is_file() else {}
    used, made = account.get("versions") or {}, _config(training)
    backbone = str((made.get("backbone") or {}).get("name") or "")
    tile_um = (made.get("slides") or {}).get("tile_um")
    rows = [
        ("trained run", training.resolve().name),
        ("this run", run.resolve().name),
        ("configuration", str(before.get("config_hash") or "")[:16]),
        ("commit", str(before.get("git_commit") or "")[:10]),
        ("backbone", f"{backbone}, tiles of {tile_um:g} um" if backbone and tile_um else backbone),
        ("program", ", ".join(f"{name} {used[name]}" for name in ("nsclc-mtl", "torch") if name in used)),
    ]
    rows += [(Path(i["path"]).name, f"sha256 {i['sha256'][:16]}") for i in account.get("inputs") or ()]
    return [(name, value) for name, value in rows if value]


def slides(manifest: Manifest, read: Mapping[str, Any], run: Path, shown: set[str]) -> list[SlideFile]:
    """The slides of these patients that are at hand."""
    from nsclc_mtl.commands.cohort import cohort_root
    from nsclc_mtl.commands.outputs import patient_folder
    from nsclc_mtl.viewer.board import SlideFile

    found: list[SlideFile] = []
    if manifest.slides is None:
        return found
    root, out = cohort_root(read), Path(read["paths"]["out"])
    for slide_id, row in manifest.slides.iterrows():
        patient, path = str(row["patient_id"]), root / str(row["path"])
        if patient not in shown or not path.is_file() or path.suffix.lower() in FEATURES:
            continue
        folder = patient_folder(run, patient)
        scores, tiles = folder / f"{slide_id}-tiles.csv", folder / f"{slide_id}-tiles.geojson"
        contours = sorted((out / "tiles").glob(f"*/{slide_id}.geojson"))
        mpp = row.get("mpp")
        found.append(
            SlideFile(
                str(slide_id),
                patient,
                path,
                float(str(mpp)) if mpp else None,
                scores if scores.is_file() else None,
                contours[0] if contours else None,
                tiles if tiles.is_file() else None,
            )
        )
    return found


def scans(read: Mapping[str, Any], run: Path, shown: set[str]) -> list[ScanFile]:
    """The scans of these patients that are at hand, with the maps that `mtl predict` drew over them."""
    from nsclc_mtl.cohort import scan_files
    from nsclc_mtl.cohort.folder import Absent
    from nsclc_mtl.commands.cohort import cohort_root
    from nsclc_mtl.commands.outputs import patient_folder
    from nsclc_mtl.viewer.board import ScanFile

    root = cohort_root(read)
    try:
        table = scan_files.table(root, read["cohort"], sorted(shown))
    except (Absent, Fault):
        return []
    found = []
    for row in table.to_dict("records"):
        patient, image = str(row["patient_id"]), root / str(row["image"])
        if patient not in shown or not image.exists():
            continue
        scan, mask = str(row["scan_id"]), str(row.get("mask") or "")
        maps = {}
        for path in sorted(patient_folder(run, patient).glob(f"{scan}-*.nii.gz")):
            method, _, task = path.name.removesuffix(".nii.gz").removeprefix(f"{scan}-").partition("-")
            if method in ("gradcam", "occlusion"):
                maps[method, task] = path
        drawn = root / mask
        found.append(
            ScanFile(scan, patient, str(row["modality"]), image, drawn if mask and drawn.exists() else None, maps)
        )
    return found


def evaluation(settings: Mapping[str, Any], run: Path, training: Path) -> Path | None:
    """The evaluation to show: the one that is named, else the newest of this training and of the run's cohort."""
    if settings["evaluation"]:
        folder = Path(str(settings["evaluation"]))
        if not (folder / "metrics.json").is_file():
            raise UsageFault(f"evaluation='{folder}' is no folder of `mtl evaluate`")
        return folder
    runs = sorted(Path(settings["paths"]["runs"]).glob("evaluate/*/metrics.json"), key=lambda p: p.stat().st_mtime)
    cohort = _declared(_config(run)) if run != training else ""
    told = [(p.parent, _config(p.parent)) for p in runs]
    ours = [folder for folder, cfg in told if _same(cfg.get("ckpt"), training) and _declared(cfg) == cohort]
    return ours[-1] if ours else None


def _declared(cfg: Mapping[str, Any]) -> str:
    """Name of the cohort that a run declares beside that of its training; '' where it is the same one."""
    cohort = cfg.get("cohort") or {}
    return str(cohort.get("name") or "cohort") if "modalities" in cohort else ""


def _same(ckpt: Any, training: Path) -> bool:
    path = Path(str(ckpt)).resolve()
    return training.resolve() in (path, *path.parents)


def _config(run: Path) -> dict[str, Any]:
    import yaml

    file = run / "config.yaml"
    if not file.is_file():
        return {}
    try:
        return dict(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValueError, TypeError) as wrong:
        raise DataFault(f"{file} is no configuration of a run: make the run again") from wrong


def _predictions(path: Path) -> pd.DataFrame:
    from nsclc_mtl.commands.trained import read_table

    try:
        return read_table(path)
    except ValueError as wrong:  # pandas' own: no UTF-8, lines of different lengths, no columns
        raise DataFault(f"{path} is no table of predictions: write the predictions again") from wrong


def _table(path: Path) -> pd.DataFrame | None:
    """A CSV of a run as text; None where there is none."""
    import pandas as pd

    return pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else None


def _numbers(table: pd.DataFrame | None, *columns: str) -> pd.DataFrame | None:
    import pandas as pd

    if table is not None:
        for column in columns:
            table[column] = pd.to_numeric(table[column].replace("", None))
    return table


def _of(table: pd.DataFrame | None, ids: set[str]) -> pd.DataFrame | None:
    return None if table is None else table[table["patient_id"].isin(ids)]
