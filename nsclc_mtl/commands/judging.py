"""Predictions -> what is known of each model: metrics, the page with its figures and tables, the card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, Manifest, TaskSpec

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.commands.censoring import FollowUp
    from nsclc_mtl.config import Run
    from nsclc_mtl.report.evaluation import TaskResult


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
    follow_up: FollowUp | None = None,
    thresholds: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, TaskResult]:
    """Everything that is known of the models in a table of predictions (column `model`; absent: the learner's).

    The manifest's labels and the splits give the censoring weights (training patients of each fold), or, of patients
    from elsewhere, what the folds keep (`follow_up`); without either survival tasks have no Uno's C, no AUC at a time
    and no Brier score. Binary tasks are cut at the `thresholds` (task -> fold) of the learner, where its training
    patients are not in the table.
    """
    from nsclc_mtl.report import evaluation

    training: dict[str, dict[str, pd.DataFrame]] = follow_up.outcomes() if follow_up else {}
    if manifest is not None and splits is not None:
        for name, task in tasks.items():
            if task.kind == "survival" and name in manifest.labels:
                label = manifest.labels[name]
                training[name] = {
                    str(fold): label[label.index.isin(rows.loc[rows["part"] != "test", "patient_id"])]
                    for fold, rows in splits.groupby("fold")
                }
    return evaluation.judge(
        predictions, tasks, training, draws, seed, follow_up.reason if follow_up else "", thresholds
    )


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
    judged: str = "",
    audit: Sequence[Mapping[str, Any]] | None = None,
) -> list[str]:
    """`metrics.json`, `report.html` with its figures and tables, `card.md`; the main table onto the terminal.

    Gives the tasks that were judged: those of which no outcome is known are left out, which page and terminal say.
    Raises DataFault where none is left.

    outside: what `Evidence` holds of another cohort (drift, cut-offs, the training cohort, the lock); None of the own
    one. told: what the page has to say of who is judged. judged: which folds predicted, where these are not all of the
    run's, each its test part. audit: in that case, rows as of audit.json of the test patients of these folds. The
    evaluation is counted with the model (`evaluations.jsonl`).
    """
    from nsclc_mtl import __version__
    from nsclc_mtl.commands import evaluations, floors, reasons
    from nsclc_mtl.report import card, evaluation, page, section, terminal
    from nsclc_mtl.report.sections import SECTIONS

    known = {name: result for name, result in results.items() if any(fold.patients for fold in result.folds)}
    if not known:
        raise DataFault(f"no outcome is known of any predicted patient ({', '.join(results)}): nothing can be judged")
    unjudged = [f"{name}: nobody's outcome is known, so it is not judged" for name in results if name not in known]
    results = known
    for sentence in unjudged:
        run.say(f"note: {sentence}")
    said = (folder if outside is None else run.path) / reasons.FILE  # of these patients, not of those of the training
    trust = reasons.read(said) if said.is_file() else None
    if trust is not None:  # of a run of which one fold is judged: the others' are not
        trust = trust[trust["fold"].isin(set(predictions["fold"].astype(str)))]
    settings = {**settings, "primary_floor": floors.primary(settings, results, manifest)}
    primary = f"floor:{settings['primary_floor']}"
    evidence = section.Evidence(
        results, predictions, manifest, splits, settings, trained, folder,
        trust=trust, told=told, audit=audit, **(outside or {}),
    )  # fmt: skip
    patients = predictions.loc[predictions["part"] == "test", "patient_id"].nunique()
    counted = evaluations.count(evaluations.place(folder, settings), manifest, patients, list(results), run)
    story = page.Story(
        title=f"{manifest.name}: one model for {', '.join(results)}",
        meta=[
            *_meta(manifest, splits, trained, folder, judged),
            *([("Locked", evidence.locked)] if evidence.locked else []),
            ("Test set", str(counted)),
        ],
        primary_floor=primary,
        notes=[*unjudged, *manifest.notes],
        images=[(Path(image), Path(image).stem) for image in settings["images"] or ()],
    )
    made = page.render(evidence, story, SECTIONS)
    rows = evaluation.metric_rows(results) + made.rows
    (run.path / "metrics.json").write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    section.save(made.sections, made.figures, run.path)
    (run.path / "report.html").write_text(made.html, encoding="utf-8")
    (run.path / "card.md").write_text(card.render(evidence, __version__, settings["license"]), encoding="utf-8")
    run.show(terminal.table(results, primary, splits, boxed=run.console.is_terminal))
    run.say(f"{folder.resolve().name}: {counted}")
    run.say(f"report: {run.path / 'report.html'}")
    return list(results)


def _meta(
    manifest: Manifest, splits: pd.DataFrame | None, trained: Mapping[str, Any], folder: Path, judged: str
) -> list[tuple[str, str]]:
    """What the head of the page says of the run."""
    from datetime import UTC, datetime

    from nsclc_mtl.report.fold import dealt_rows

    version, commit = _made_by(folder)
    return [
        ("Cohort", manifest.name),
        ("Run", folder.resolve().name),
        ("Folds", judged or (dealt_rows(splits) if splits is not None else "external patients")),
        ("Modalities", ", ".join(manifest.modalities)),
        ("Seed", str(trained.get("seed", ""))),
        ("Version", version),
        ("Commit", commit),
        ("Evaluated", f"{datetime.now(UTC):%d %B %Y}"),
    ]


def _made_by(folder: Path) -> tuple[str, str]:
    """Version and commit of the program that trained the run, or that made the bundle of it."""
    from nsclc_mtl.commands import bundled

    if bundled.at(folder):
        content = bundled.opened(folder)
        version, commit = content.get("version"), content.get("git_commit")
    else:
        file = folder / "run.json"
        account = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        version, commit = (account.get("versions") or {}).get("nsclc-mtl"), account.get("git_commit")
    return str(version or "not recorded"), str(commit)[:10] if commit else "not recorded"
