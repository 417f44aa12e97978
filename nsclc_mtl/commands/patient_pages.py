"""The pages of the explained patients: `patients/<id>/page.html`, from what `mtl predict` has made and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands.outputs import patient_folder
from nsclc_mtl.records import Fault, Manifest, TaskSpec

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.commands.predict import Predicted
    from nsclc_mtl.config import Run
    from nsclc_mtl.explain.tile_scores import Scale
    from nsclc_mtl.report.held_out import HeldOut


def write(made: Predicted, chosen: Sequence[str], options: Mapping[str, Any], run: Run) -> None:
    """A page for each of these patients; none where `options["pages"]` is false."""
    if not options["pages"] or not chosen:
        return
    from nsclc_mtl.config.machine import versions
    from nsclc_mtl.report import patient_page

    used = versions()
    program = ", ".join(f"{name} {used[name]}" for name in ("nsclc-mtl", "torch") if name in used)
    spread = _table(run.path / "explanations" / "heterogeneity.csv")
    seen = of_held_out(made.folder, made.manifest.tasks)
    for patient in run.track(list(chosen), "pages"):
        folder = patient_folder(run.path, patient)
        folder.mkdir(parents=True, exist_ok=True)
        of = of_patient(made, patient, folder, spread, run.path.name, program, seen, options["scale"])
        page = patient_page.render(of)
        (folder / "page.html").write_text(page, encoding="utf-8")
    run.say(f"{len(chosen)} pages: patients/ID/page.html")


def of_held_out(folder: Path, tasks: Mapping[str, TaskSpec]) -> dict[str, HeldOut]:
    """Task -> how the models of a run or bundle do on the patients whom their folds held out; empty where neither says.

    Raises IntegrityFault where a bundle is not what was written.
    """
    from nsclc_mtl.commands import bundled, trained
    from nsclc_mtl.report import held_out

    if bundled.at(folder):
        return {task: found for task, found in bundled.held_out(folder).items() if task in tasks}
    file = folder / "predictions.csv"  # a training that goes on still has none
    return held_out.held_out(trained.read_table(file), tasks) if file.is_file() else {}


def calibrated(spec: TaskSpec, trust: Sequence[Mapping[str, Any]]) -> str | None:
    """By what a task's probabilities are calibrated in the folds that predict; "" where they are not in all of them.

    trust: what each fold has fitted of the task (`confidence.fit`). None of a task that predicts a number.

    >>> calibrated(TaskSpec("relapse", "binary", ("no", "yes")), [{"temperature": 1.5, "n": 30}])
    'a temperature, fitted on 30 patients who were set aside'
    """
    if spec.kind == "regression":
        return None
    if all((of.get("recalibration") or {}).get("fitted") for of in trust):
        return "a slope, fitted on training patients as models that were trained without them predict them"
    what = "shift" if spec.kind == "survival" else "temperature"
    if not trust or not all(what in of for of in trust):
        return ""
    word = "level and slope of the curves at the horizon" if spec.kind == "survival" else "a temperature"
    least, most = min(of["n"] for of in trust), max(of["n"] for of in trust)
    count = f"{least} to {most}" if least != most else f"{most}"
    each = " in each fold" if len(trust) > 1 else ""
    return f"{word}, fitted on {count} patients who were set aside{each}"


def of_patient(
    made: Predicted, patient: str, folder: Path, spread: pd.DataFrame | None, run_name: str, program: str,
    seen: Mapping[str, HeldOut], scale: Scale = "percentile",
) -> Any:  # fmt: skip
    """What the page of one patient shows, as `patient_page.Patient`. spread: rows of heterogeneity.csv. seen: task ->
    how the models do on the patients who were held out. scale: of the maps' colours."""
    from nsclc_mtl.report import patient_page
    from nsclc_mtl.report.words import slug

    manifest, row = made.manifest, made.cautions.loc[patient]
    said = made.table[made.table["patient_id"] == patient]
    own = made.trust[made.trust["patient_id"] == patient]
    whose = made.trust["fold"].astype(str).isin(own["fold"].astype(str)) & (made.trust["patient_id"] == "")
    bars = {task: folder / f"features-{slug(task)}.svg" for task in manifest.tasks}
    meta = [
        ("trained run", made.folder.name),
        ("this run", run_name),
        ("predicted by", _folds(made, patient)),
        ("program", program),
        *_backbones(manifest, patient),
    ]
    return patient_page.Patient(
        patient_id=patient,
        cohort=manifest.name,
        tasks=manifest.tasks,
        said=said,
        trust=made.trust[whose | (made.trust["patient_id"] == patient)],
        meta=meta,
        reasons=[reason for reason in str(row["caution"]).split("; ") if reason],
        present=str(row["modalities"]).split(),
        missing=str(row["missing"]).split(),
        bars={task: path for task, path in bars.items() if path.is_file()},
        pictures=[(path, _caption(path.stem, scale)) for path in sorted(folder.glob("*.png"), key=lambda p: p.stem)],
        heterogeneity=None if spread is None else spread[spread["patient_id"] == patient],
        held_out=seen,
        calibrated={
            task: how
            for task, spec in manifest.tasks.items()
            if (how := calibrated(spec, [made.models[fold][1].fitted.trust.get(task, {}) for fold in made.by[patient]]))
            is not None
        },
    )


def _folds(made: Predicted, patient: str) -> str:
    folds = made.by[patient]
    if patient in made.tested:
        return f"fold {folds[0]}, which held the patient out"
    told = f"fold {folds[0]}" if len(folds) == 1 else f"the mean of folds {', '.join(map(str, folds))}"
    return told + (", trained on this patient" if patient in made.trained_on else "")


def _backbones(manifest: Manifest, patient: str) -> list[tuple[str, str]]:
    """Backbone and scale of the patient's slide features, where their files say so."""
    from nsclc_mtl.features import store

    out = []
    for name, paths in manifest.bags.items():
        if not (own := paths.get(patient)):
            continue
        try:
            attrs = store.read(Path(own[0])).attrs
        except Fault:  # without the scale that slides.csv gives; prediction itself has read it
            continue
        words = [str(attrs["backbone"])] if attrs.get("backbone") else []
        words += [f"level 0 at {float(attrs['mpp']):.3g} um/px"] if attrs.get("mpp") else []
        words += [f"tiles of {float(attrs['tile_um']):.4g} um"] if attrs.get("tile_um") else []
        if words:
            out.append((name, ", ".join(words)))
    return out


def _caption(stem: str, scale: Scale) -> str:
    """What a picture shows and what its colours say, from its name.

    >>> _caption("P1-S1-attention-tiles", "raw")
    'P1-S1: attention, highest and lowest tiles, with the raw score and its percentile within the slide.'
    """
    from nsclc_mtl.commands.explain import SIGNED
    from nsclc_mtl.explain.attention import SAYS
    from nsclc_mtl.explain.tile_scores import SCALES, words_of

    for sign, method in (("gradcam", "Grad-CAM"), ("occlusion", "occlusion")):
        before, found, task = stem.rpartition(f"-{sign}-")
        if found:
            return f"{before}: {method} on {task}. {_sentence(SIGNED[method])}"
    whole = stem.removesuffix("-tiles")
    before, found, task = whole.rpartition("-influence-")
    kind = "influence" if found else "attention"
    if not found:
        before, found, task = whole.rpartition("-attention")
    if not found:
        return stem
    name = f"{before}: {words_of(f'{kind}:{task}' if task else kind)}"
    if whole != stem:
        return f"{name}, highest and lowest tiles, with the raw score and its percentile within the slide."
    return f"{name}. {_sentence(SAYS[kind])} Colours, dark blue lowest and yellow highest: {SCALES[scale]}."


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _table(path: Path) -> pd.DataFrame | None:
    import pandas as pd

    if not path.is_file():
        return None
    return pd.read_csv(path, dtype={"patient_id": str, "slide_id": str}, keep_default_na=False)
