"""Which cohort to read for a trained model, what of it the model takes, and whom of it to predict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nsclc_mtl.records import DataFault, Manifest, UsageFault


def cohort_settings(settings: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """What to read: the training cohort, or another one with the features that this model was trained on."""
    given = settings.get("cohort") or {}
    if "derived" in trained and not ("modalities" in given or given.get("root")):
        raise UsageFault(
            "a bundle holds no patients: name them with cohort=NAME, or cohort.root=FOLDER of tables alike"
        )
    if "modalities" in given:  # another cohort, declared by name
        cohort = dict(given)
    else:
        cohort = {**trained["cohort"], **({"root": given["root"]} if given.get("root") else {})}
    return {**trained, "paths": settings["paths"], "cohort": cohort, "tasks": None, "modalities": None}


def narrowed(manifest: Manifest, specs: Mapping[str, Any], modalities: Mapping[str, Any]) -> Manifest:
    """The manifest with the tasks and modalities of the model alone. Raises DataFault where none of them is there."""
    import numpy as np
    import pandas as pd

    blank = {"survival": ["event", "time_days"]}
    for name, spec in specs.items():
        if name not in manifest.labels:  # a cohort without this outcome: unknown for everybody
            columns = blank.get(spec.kind, ["value"])
            manifest.labels[name] = pd.DataFrame(np.nan, index=manifest.patients.index, columns=columns)
        elif manifest.tasks[name].causes != spec.causes:
            raise DataFault(
                f"cohort={manifest.name}: task '{name}' has the causes {list(manifest.tasks[name].causes)} here, the "
                f"model's has {list(spec.causes)}; declare it alike, or under another name"
            )
        elif (manifest.tasks[name].kind, manifest.tasks[name].classes) != (spec.kind, spec.classes):
            raise DataFault(
                f"cohort={manifest.name}: task '{name}' is {manifest.tasks[name].kind} "
                f"{list(manifest.tasks[name].classes)} here, the model's is {spec.kind} {list(spec.classes)}; "
                "declare it alike, or under another name"
            )
    manifest.labels = {name: manifest.labels[name] for name in specs}
    manifest.tasks = dict(specs)
    for sources in (manifest.tables, manifest.bags, manifest.volumes, manifest.series):
        for name in [n for n in sources if n not in modalities]:
            del sources[name]
    manifest.modalities = {n: m for n, m in manifest.modalities.items() if n in modalities}
    if not manifest.modalities:
        raise DataFault(f"cohort={manifest.name} has none of the model's modalities: {', '.join(modalities)}")
    return manifest


def wanted_patients(settings: Mapping[str, Any], manifest: Manifest) -> list[str]:
    """Patients to predict: those asked for, or everybody with at least one modality of the model."""
    have = {patient for patients in manifest.holders().values() for patient in patients}
    asked = settings.get("patients")
    ids = [str(p) for p in asked] if asked else [p for p in manifest.ids if p in have]
    strange = [p for p in ids if p not in manifest.patients.index]
    if strange:
        raise UsageFault(f"patients: no patient '{strange[0]}' in cohort={manifest.name}")
    bare = [p for p in ids if p not in have]
    if bare:
        raise DataFault(f"patient {bare[0]} has none of the model's modalities ({', '.join(manifest.modalities)})")
    return ids
