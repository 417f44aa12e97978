"""`mtl predict`: trained run + patients -> predictions, what each rests on, and pictures of why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, Manifest, UsageFault

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from nsclc_mtl.commands.known import Known
    from nsclc_mtl.config import Run
    from nsclc_mtl.learner import Learner


@dataclass
class Predicted:
    """What `predict_cohort` found out, and what it used."""

    ids: list[str]
    table: pd.DataFrame  # rows of predictions.csv
    cautions: pd.DataFrame  # by patient: modalities, missing, caution, and set:<task> where the run has a calibration
    manifest: Manifest
    models: dict[int, Any]  # fold -> (members, what was fitted and the cache)
    tested: dict[str, int]  # patient of the training cohort -> the fold that held it out
    by: dict[str, list[int]]  # patient -> the folds that predict it
    trained_on: list[str]  # patients of the training cohort whom no fold at hand has not been trained on
    known: Known  # whom of the patients the training knew
    told: list[str]  # what was said of them, for the page
    read: dict[str, Any]  # settings that the cohort was read with
    folder: Path  # of the training run
    trust: pd.DataFrame  # rows of trust.csv
    far: dict[int, pd.DataFrame]  # fold -> `outside.judge` of the patients of elsewhere


def body(cfg: DictConfig, run: Run) -> None:
    """Writes `predictions.csv`, `patients.csv` (who had what, reasons for caution), weights and pictures."""
    from nsclc_mtl.commands import drift, locked, patient_pages, slide_maps, table_features
    from nsclc_mtl.commands.device import available
    from nsclc_mtl.config import plain

    settings = plain(cfg)
    locked.refuse(run.path)
    available(settings["device"])
    slide_maps.checked(settings["explain"])
    made = predict_cohort(settings, run)
    save(made, run.path)
    strangers_only = [p for p in made.ids if p not in made.tested and p not in set(made.trained_on)]
    if strangers_only:
        if len(strangers_only) < len(made.ids):
            run.say(f"inputs of the {len(strangers_only)} patients whom no fold held:")
        drift.told(made.models, made.manifest, strangers_only, made.far, run)
    if settings["lock"]:
        digest = locked.lock(run.path, made.models, run)
        run.say(f"predictions locked; deposit the sha256 of lock.json now, before outcomes exist: {digest}")
    run.done += made.ids
    run.say(
        f"{len(made.ids)} patients predicted; patients.csv names a reason for caution "
        f"for {int((made.cautions['caution'] != '').sum())} of them"
    )
    explained = settings["explain"]
    chosen = made.ids if explained["patients"] == "all" else made.ids[: int(explained["patients"])]
    if chosen:
        from nsclc_mtl.commands.explain import pictures

        first = {patient: folds[0] for patient, folds in made.by.items()}
        part = {p: "test" if p in made.tested else "train" if p in made.trained_on else "external" for p in chosen}
        pictures(chosen, made.models, first, made.manifest, made.read, explained, run, part)
    table_features.explain(made, explained, run)
    patient_pages.write(made, chosen, explained, run)


def save(made: Predicted, path: Path) -> None:
    """`predictions.csv`, `patients.csv`, the fusion's weights and the tasks (`cohort.json`) into a run folder."""
    from nsclc_mtl.commands import reasons, weights

    reasons.save(made.trust[made.trust["patient_id"].isin(["", *made.ids])], path / reasons.FILE)
    made.table.to_csv(path / "predictions.csv", index=False, lineterminator="\n", float_format="%.7g")
    made.cautions.to_csv(path / "patients.csv", lineterminator="\n")
    counted = [
        weights.table(members, made.manifest, [p for p in made.ids if fold in made.by[p]], data, fold)
        for fold, (members, data) in made.models.items()
    ]
    if any(map(len, counted)):
        import pandas as pd

        weights.save(pd.concat([rows for rows in counted if len(rows)]), path / weights.FILE)
    (path / "cohort.json").write_text((made.folder / "cohort.json").read_text())


def predict_cohort(settings: Mapping[str, Any], run: Run, strangers_only: bool = False) -> Predicted:
    """Predictions of every patient asked for.

    Patients of the training, whatever they are called here (`known.among`), are predicted by the fold that held them
    out; others by the mean of the probabilities and survival curves of all folds that were not trained on them. Who has
    no such fold gets a caution. With `strangers_only` patients of the training are left out, and said, unless nearly
    all are.
    """
    import pandas as pd

    from nsclc_mtl.bags.cache import BagCache
    from nsclc_mtl.commands import device, fold_files, known, reasons, training_parts
    from nsclc_mtl.commands.cohort import open_cohort
    from nsclc_mtl.commands.outputs import long_table
    from nsclc_mtl.commands.sites import strangers
    from nsclc_mtl.commands.trained import named_fold, predictors, trained_run
    from nsclc_mtl.commands.wanted import cohort_settings, narrowed, wanted_patients

    place, _ = device.lightning(settings["device"])
    trained, folder, folds = trained_run(settings)
    read = cohort_settings(settings, trained)
    manifest = open_cohort(read)
    run.inputs += manifest.inputs
    for note in manifest.notes:
        run.say(f"note: {note}")
    models = {}
    for name in folds:
        for file in sorted([*(folder / name).glob("model*.ckpt"), *(folder / name).glob("model*.safetensors")]):
            run.read(file)
        members, fitted, specs, modalities = fold_files.load_fold(trained, folder / name)
        members = [member.to(place) for member in members]
        models[int(name[4:])] = (members, SimpleNamespace(fitted=fitted, cache=BagCache()))
    if named_fold(settings["ckpt"]) is not None:
        counts = {fold: len(members) for fold, (members, _) in models.items()}
        run.say(f"note: ckpt names one fold, so it predicts: {predictors(settings['ckpt'], counts)}")
    manifest = narrowed(manifest, specs, modalities)
    ids = wanted_patients(settings, manifest)
    packed = not (folder / "splits.csv").is_file()
    everybody = list(dict.fromkeys([*ids, *wanted_patients({}, manifest)]))  # by all one tells who they are
    found = known.among(read, trained, manifest, everybody, folder)
    if found.own and packed:
        raise UsageFault(
            "these are the patients that the bundle was trained on, or most of them are, and it does not know which "
            "fold held out whom: give the run folder of the training as ckpt="
        )
    ids, told = known.told(found, ids, packed, strangers_only)
    for sentence in told:
        run.say(f"note: {sentence}")
    if not ids:
        raise DataFault(training_parts.NOBODY)
    parts = training_parts.of(found, ids, folder, list(models))
    ids, tested, by = parts.left(ids, bool(settings.get("patients")), run), parts.tested, parts.by
    for name, count, how in strangers(manifest, ids, models):
        run.say(f"note: {name}: {count} patients are of a site that training does not know: combat.unseen={how}")
    by = {p: by[p] for p in ids}
    trained_on = [p for p in ids if parts.word[p] == training_parts.TRAINED_ON]
    if trained_on and not packed:
        run.say(f"note: {len(trained_on)} patients were trained on by every fold: see patients.csv")
    cautions = looked_at(manifest, by, models, bool(settings["allow_unseen_modalities"]))
    cautions = training_parts.noted(cautions, parts, packed)
    asked = {**trained, "trust": {**(trained.get("trust") or {}), **_said(settings.get("trust"))}}
    outputs, trust, far = combine(models, manifest, by, tested, asked)
    cautions = reasons.joined(cautions, trust, manifest)
    table = pd.concat([long_table(wide, manifest, fold, "test") for fold, wide in outputs.items()])
    return Predicted(
        ids, table, cautions, manifest, models, tested, by, trained_on, found, told, read, folder, trust, far
    )


def _said(words: Mapping[str, Any] | None) -> dict[str, Any]:
    """The words that are not null."""
    return {key: value for key, value in (words or {}).items() if value is not None}


def looked_at(
    manifest: Manifest, by: Mapping[str, Sequence[int]], models: Mapping[int, Any], allow: bool
) -> pd.DataFrame:
    """Per patient: modalities there and missing, reasons for caution.

    by: patient -> the folds that predict. Raises DataFault on a combination of modalities that no training patient of
    any fold had, unless they are allowed. Modality dropout does not count: it shows some parts of what a patient has
    every epoch and others hardly ever.
    """
    import pandas as pd

    names = list(next(iter(models.values()))[1].fitted.dims())
    trained = {fold: {frozenset(p) for p in data.fitted.patterns} for fold, (_, data) in models.items()}
    holders = {name: set(manifest.who(name)) for name in names}
    rows, strange = [], []
    for patient, folds in by.items():
        have = frozenset(n for n in names if patient in holders[n])
        if not any(have in seen for seen in trained.values()):
            strange.append((patient, have))
        missing = [n for n in names if n not in have]
        reasons = [f"no {n}" for n in missing]
        without = sum(have not in trained[fold] for fold in folds)
        if without:
            by_some = "" if without == len(folds) else f" by {without} of {len(folds)} folds"
            reasons.append(f"combination of modalities never trained{by_some}")
        rows.append(
            {
                "patient_id": patient,
                "modalities": " ".join(sorted(have)),
                "missing": " ".join(missing),
                "caution": "; ".join(reasons),
            }
        )
    if strange and not allow:
        patient, have = strange[0]
        alike = f"; {len(strange)} patients in all have such a combination" if len(strange) > 1 else ""
        raise DataFault(
            f"patient {patient} has {', '.join(sorted(have))} and nothing else, which no training patient had{alike}; "
            "set allow_unseen_modalities=true to predict all the same"
        )
    return pd.DataFrame(rows).set_index("patient_id")


def combine(
    models: Mapping[int, tuple[list[Learner], Any]],
    manifest: Manifest,
    by: Mapping[str, Sequence[int]],
    tested: Mapping[str, int],
    settings: Mapping[str, Any],
) -> tuple[dict[int, dict[str, pd.DataFrame]], pd.DataFrame, dict[int, pd.DataFrame]]:
    """Outputs per fold, the rows of `trust.csv`, and by fold how far out the patients lie whom no fold held out.

    Own patients are predicted by the fold that held them out; the others by the mean of theirs, as fold -1.
    """
    import pandas as pd

    from nsclc_mtl.commands import reasons

    asked, most = reasons.asked(settings), reasons.limit(settings)
    out, told = {}, []
    for fold, (members, data) in models.items():
        here = [p for p in by if tested.get(p) == fold]
        if here:
            seen = reasons.look(members, manifest, here, data, **asked)
            out[fold] = seen.outputs
            told.append(reasons.rows([seen], manifest, fold, most))
    means: list[dict[str, Any]] = []
    far: dict[int, list[pd.DataFrame]] = {}
    for folds in dict.fromkeys(tuple(by[p]) for p in by if p not in tested):
        alike = [p for p in by if p not in tested and tuple(by[p]) == folds]
        each = [reasons.look(models[fold][0], manifest, alike, models[fold][1], **asked) for fold in folds]
        told.append(reasons.rows(each, manifest, -1, most))
        for fold, one in zip(folds, each, strict=True):
            far.setdefault(fold, []).append(one.outside)
        means.append({t: sum(e.outputs[t] for e in each) / len(each) for t in each[0].outputs})
    if means:
        out[-1] = {task: pd.concat([mean[task] for mean in means]) for task in means[0]}
    return out, pd.concat(told, ignore_index=True), {fold: pd.concat(parts) for fold, parts in far.items()}
