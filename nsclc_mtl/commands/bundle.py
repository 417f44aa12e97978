"""`mtl bundle`: a trained run -> a folder of weights and JSON that predicts like it, for others to use."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, TryAgain, UsageFault

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run

# Sections of the configuration that rebuild the model and read a cohort for it. Paths, logs and the run itself stay.
KEPT = (
    "seed", "precision", "members", "tasks", "modalities", "cox", "trust", "cohort", "slides", "segmenter", "backbone",
    "stain", "slide_encoder", "scans", "scan_presets", "deep", "parts", "fusion", "skip", "adaptation", "balance",
    "optim",
)  # fmt: skip


def body(cfg: DictConfig, run: Run) -> None:
    """Writes the bundle of the run that `ckpt` names, whole or not at all. Raises UsageFault where it is there."""
    from nsclc_mtl.commands import bundled
    from nsclc_mtl.config import plain
    from nsclc_mtl.features.store import fsync

    settings = plain(cfg)
    if bundled.at(settings["ckpt"]):
        raise UsageFault(f"ckpt='{settings['ckpt']}' is a bundle already: copy it as it is")
    out = Path(settings["out"]) if settings["out"] else run.path / "bundle"
    if os.path.lexists(out):
        raise UsageFault(f"out='{out}' exists: a bundle is never written over another; give another folder")
    aside = out.with_name(f"{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        folds = fill(aside, settings, run)
        _synced(aside)
        bundled.opened(aside)  # what was written reads back, by the rules of the reader
        os.rename(aside, out)  # onto a folder that another process has made meanwhile it fails
        fsync(out.parent)
    except OSError as error:
        if error.errno in (17, 39):  # EEXIST, ENOTEMPTY
            raise UsageFault(f"out='{out}' exists: a bundle is never written over another") from error
        raise TryAgain(f"the bundle cannot be written to '{out}': {error.strerror}; make room and repeat") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    run.done += folds
    run.say(f"bundle: {out} ({len(folds)} folds, {sum(f.stat().st_size for f in out.rglob('*')) / 1e6:.1f} MB)")
    run.say(f"sha256 of its manifest: {bundled.sha256(out)}; tell it to whom you give the bundle")
    run.say(f"next: mtl evaluate ckpt={out} cohort=OTHER, or mtl predict ckpt={out} cohort=OTHER")


def fill(folder: Path, settings: Mapping[str, Any], run: Run) -> list[str]:
    """Writes every file of the bundle into `folder`, and gives the folds. Raises what reading the run raises."""
    from safetensors.torch import save_file

    from nsclc_mtl import __version__
    from nsclc_mtl.commands import bundled, checkpoint, cutoffs, fold_files, known
    from nsclc_mtl.commands.cohort import derived
    from nsclc_mtl.commands.trained import read_table, trained_run
    from nsclc_mtl.report.held_out import held_out
    from nsclc_mtl.tables.read import sha256

    trained, source, folds = trained_run(settings)
    for name in ("predictions.csv", "cohort.json", "run.json"):
        if not (source / name).is_file():
            raise UsageFault(f"ckpt='{settings['ckpt']}' has no {name}: give the folder of a finished `mtl train`")
    described: dict[str, Any] = {}
    for name in folds:
        members, fitted, specs, _ = fold_files.load_fold(trained, source / name)  # unbroken, and it can be rebuilt
        (folder / name).mkdir()
        shutil.copyfile(source / name / "fitted.json", folder / name / "fitted.json")
        if not settings["follow_up"]:
            state = json.loads((folder / name / "fitted.json").read_text(encoding="utf-8"))
            state["fitted"]["follow_up"] = {}
            (folder / name / "fitted.json").write_text(json.dumps(state) + "\n", encoding="utf-8")
        digests = {}
        for number, member in enumerate(members):
            # tensors that share memory are refused by the format, hence copies
            state = {key: value.detach().clone().contiguous() for key, value in member.state_dict().items()}
            save_file(state, folder / name / f"model{number}.safetensors")
            (folder / name / f"model{number}.safetensors").chmod(0o644)  # the library writes for its user alone
            digests[f"model{number}"] = checkpoint.weights_sha256(state)
        own = fold_files.settings_of({}, source / name)
        described[name.removeprefix("fold")] = {
            "weights": digests, "dims": fitted.dims(), "settings": shared(own, ())
        }  # fmt: skip
        follow_up = bool(fitted.follow_up) and bool(settings["follow_up"])
    cohort = json.loads((source / "cohort.json").read_text("utf-8"))
    predictions = read_table(source / "predictions.csv")
    content = {
        "schema": bundled.SCHEMA,
        "version": __version__,
        "git_commit": json.loads((source / "run.json").read_text("utf-8")).get("git_commit"),
        "run": source.resolve().name,
        "tasks": {name: {"kind": spec.kind, "classes": list(spec.classes)} for name, spec in specs.items()},
        "folds": described,
        "cutoffs": cutoffs.of_training(predictions),
        "thresholds": cutoffs.thresholds_of_training(predictions, specs),
        "held_out": {task: found.state() for task, found in held_out(predictions, specs).items()},
        "patients_sha256": _patients_tables(trained, source),
        "marks": known.packed(kept) if settings["marks"] and (kept := known.of_run(source)) else None,
        "derived": derived(trained),
        # where the patients lie is nobody else's concern
        "config": shared(
            {k: trained[k] for k in KEPT if k in trained} | {"cohort": {**trained["cohort"], "root": None}},
            _places(trained),
        ),
    }
    _json(folder / bundled.MODEL, content)
    _json(folder / bundled.COHORT, {**cohort, "notes": []})  # notes may speak of single patients
    (folder / bundled.CARD).write_text(card(content, cohort, source, follow_up), encoding="utf-8")
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    (folder / bundled.MANIFEST).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in files))
    run.read(source / "cohort.json")
    return list(folds)


def shared(content: Any, places: Sequence[str]) -> Any:
    """Settings without what speaks of this machine: of an absolute path, or one in `places`, the name alone."""
    if isinstance(content, Mapping):
        return {str(key): shared(value, places) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [shared(value, places) for value in content]
    if isinstance(content, str) and (os.path.isabs(content) or any(content.startswith(f"{p}/") for p in places)):
        return Path(content).name
    return content


def _places(trained: Mapping[str, Any]) -> list[str]:
    own = [trained["cohort"].get("root"), *(trained.get("paths") or {}).values()]
    return [str(place) for place in own if place]


def _patients_tables(trained: Mapping[str, Any], source: Path) -> list[str]:
    """SHA-256 of the training cohort's table of patients: by it a bundle knows the patients that it was trained on."""
    told = json.loads((source / "run.json").read_text("utf-8"))["inputs"]
    name = Path(trained["cohort"]["patients"]["file"]).name
    return sorted({i["sha256"] for i in told if Path(i["path"]).name == name})


def card(content: Mapping[str, Any], cohort: Mapping[str, Any], source: Path, follow_up: bool) -> str:
    """`card.md`: what the model was trained on and how it did on patients that its folds held out."""
    from nsclc_mtl.report.words import metric_word

    file = source / "metrics.json"
    rows = json.loads(file.read_text("utf-8")) if file.is_file() else []
    lines = [
        "---", "library_name: nsclc-mtl", "tags: [oncology, multimodal, multitask]", "---", "",
        f"# {cohort['name']}: one model for {', '.join(content['tasks'])}", "",
        "**Research use only. Not for diagnosis or treatment.** Predictions are prognostic, not predictive of the",
        "effect of a treatment.", "",
        f"Trained on {cohort['patients']} patients in {len(content['folds'])} folds, nsclc-mtl {content['version']}.",
        "",
        "| modality | kind | patients |", "|---|---|---|",
        *(f"| {name} | {m['kind']} | {m['patients']} |" for name, m in cohort["modalities"].items()), "",
        "| task | kind | classes | labelled patients | events |", "|---|---|---|---|---|",
        *(
            f"| {name} | {t['kind']} | {', '.join(t['classes'])} | {t['known']} | "
            f"{'' if t['events'] is None else t['events']} |"
            for name, t in cohort["tasks"].items()
        ), "",
        "Within-fold means on patients that were held out; `mtl evaluate` on your own patients gives intervals:",
        "", "| task | metric | value |", "|---|---|---|",
        *(
            f"| {r['task']} | {metric_word(r['metric'])} | {r['value']:.3f} |"
            for r in rows
            if r["fold"] == "all" and r.get("model", "learner") == "learner" and r["value"] is not None
        ), "",
        "Holds weights (safetensors) and JSON, no row of a patient: fitted scalers, categories and summaries (deciles)",
        "of the training patients, the names of the training sites, and the SHA-256 of their table of patients.",
        *(["Digests of the training patients' inputs, by which they are known again."] if content["marks"] else []),
        *(
            ["Counts by day of who had the event or was last seen, as a Kaplan-Meier curve shows them, without ids."]
            if follow_up
            else []
        ),
        "Check it with `sha256sum -c manifest.sha256`.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _json(path: Path, content: Any) -> None:
    try:
        text = json.dumps(content, indent=1, allow_nan=False, sort_keys=False)
    except (TypeError, ValueError) as error:
        raise DataFault(f"{path.name}: {error}; the run's settings hold more than plain values") from error
    path.write_text(text + "\n", encoding="utf-8")


def _synced(folder: Path) -> None:
    from nsclc_mtl.features.store import fsync

    for path in (*folder.rglob("*"), folder):
        fsync(path)
