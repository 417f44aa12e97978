"""Calibration slopes of the learner on the phantom, before and after the recalibration that a run does by itself.

    python tests/evidence/slopes.py --seeds 0-4 --out slopes.json     # about three minutes a seed on a core of its own
    python tests/evidence/slopes.py --seeds 20-29 trust.crossfit=8

Every number comes from the code that `mtl train` runs, with the configuration that `mtl train model=moe_mil` composes:
400 patients, five folds, probabilities of all test patients together. `as learned` is what the network says, `levels`
what trust.crossfit=0 makes of it, `recalibrated` what the run predicts. Intervals are Student's t over seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from features_level import interval, seeds

WAYS = ("as learned", "levels", "recalibrated")
YEARS = (1, 3, 5)


def cohort(seed: int, out: str, changes: list[str]) -> dict[str, float]:
    """Each number of one cohort, by `way: task: what`."""
    import torch

    from nsclc_mtl.commands import confidence, recalibrate
    from nsclc_mtl.commands.cohort import open_cohort, split
    from nsclc_mtl.commands.fold import fit_trust
    from nsclc_mtl.commands.members import train_members
    from nsclc_mtl.commands.outputs import means
    from nsclc_mtl.commands.resume import begin
    from nsclc_mtl.config import compose, plain

    torch.set_num_threads(1)
    overrides = ["model=moe_mil", "cohort.level=features", "cohort.n=400", f"cohort.seed={seed}", f"seed={seed}"]
    settings = plain(compose("train", [*overrides, "logger=none", f"paths.out={out}", *changes]))
    manifest = open_cohort(settings)
    said: dict[str, dict[str, list[pd.DataFrame]]] = {way: {} for way in WAYS}
    found: dict[str, list[float]] = {}
    for _, rows in split(settings, manifest).groupby("fold"):
        with tempfile.TemporaryDirectory() as folder:
            members, data = train_members(settings, manifest, rows, begin(Path(folder), {}))
        slopes = recalibrate.slopes(settings, manifest, rows, data)
        for task, value in slopes.items():
            found.setdefault(f"recalibrated: {task}: fitted slope", []).append(value)
        fit_trust(settings, members, manifest, data, slopes=slopes)
        learned = means(members, manifest, list(rows.loc[rows["part"] == "test", "patient_id"]), data)
        plainly = recalibrate.levels(means(members, manifest, data.parts["train"], data), manifest, {})
        each = {
            "as learned": learned,
            "levels": confidence.scaled(learned, manifest, plainly),
            "recalibrated": confidence.scaled(learned, manifest, data.fitted.trust),
        }
        for way, outputs in each.items():
            for task, wide in outputs.items():
                said[way].setdefault(task, []).append(wide)
    made = {name: float(np.mean(values)) for name, values in found.items()}
    for way, outputs in said.items():
        for task, tables in outputs.items():
            made |= {f"{way}: {task}: {what}": v for what, v in numbers(manifest, task, tables)}
    return made


def numbers(manifest: Any, task: str, folds: list[pd.DataFrame]) -> Iterator[tuple[str, float]]:
    """Slope and level of each probability of a task, its log loss and Brier score, and its order within folds."""
    from nsclc_mtl.commands.confidence import curves
    from nsclc_mtl.metrics.calibration import assess
    from nsclc_mtl.metrics.classification import ordinal_auc
    from nsclc_mtl.metrics.survival_calibration import assess_at
    from nsclc_mtl.trust.survival_calibration import cumulative_hazard

    wide, spec = pd.concat(folds), manifest.tasks[task]
    label = manifest.labels[task].loc[wide.index].dropna()
    wide = wide.loc[label.index]
    if spec.kind == "survival":
        days, curve = curves(wide)
        for years in YEARS:
            risk = 1 - np.exp(-cumulative_hazard(curve, days, np.full(len(wide), years * 365.25)))
            values = assess_at(risk, label["time_days"], label["event"], years * 365.25).values
            yield f"slope at {years} y", float(values["slope"])
        return
    proba, value = wide.to_numpy(float), label["value"].to_numpy(int)
    for k in range(proba.shape[1] - 1):
        values = assess(value > k, proba[:, k + 1 :].sum(axis=1)).values
        name = f" above {spec.classes[k]}" if proba.shape[1] > 2 else ""
        yield f"slope{name}", float(values["slope"])
        yield f"in the large{name}", float(values["in_the_large"])
    yield "log loss", float(-np.log(np.maximum(proba[np.arange(len(value)), value], 1e-12)).mean())
    yield "Brier score", float(((proba - np.eye(proba.shape[1])[value]) ** 2).sum(axis=1).mean())
    order = []
    for fold in folds:
        ids = fold.index.intersection(label.index)
        score = fold.loc[ids].to_numpy(float) @ np.arange(proba.shape[1])
        order.append((float(ordinal_auc(label.loc[ids, "value"].to_numpy(), score)), len(ids)))
    yield "AUC", float(np.average([a for a, _ in order], weights=[n for _, n in order]))


def main() -> None:
    """Runs the seeds, and prints and saves what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--out", default="slopes.json")
    parser.add_argument("--work", default="out")
    parser.add_argument("changes", nargs="*", help="overrides of `mtl train`, for example trust.crossfit=8")
    chosen = parser.parse_args()
    results = []
    for seed in seeds(chosen.seeds):
        results.append({"seed": seed, **cohort(seed, chosen.work, chosen.changes)})
        Path(chosen.out).write_text(json.dumps(results))
        print(f"seed {seed} is done", flush=True)
    tell(results)


def tell(results: list[dict[str, Any]]) -> None:
    """Prints a line a number: its mean over the seeds with the interval, each way."""
    names = list(dict.fromkeys(name.split(": ", 1)[1] for one in results for name in one if name != "seed"))
    for name in names:
        words = []
        for way in WAYS:
            values = [one[f"{way}: {name}"] for one in results if f"{way}: {name}" in one]
            if values:
                mean, low, high = interval(values)
                words.append(f"{way} {mean:.3f} ({low:.3f} to {high:.3f})")
        print(f"{name:<32} {'   '.join(words)}")


if __name__ == "__main__":
    main()
