"""The features-level phantom, measured: shares of the attainable margin, fusion, null modality, maps, permuted labels.

    python tests/evidence/features_level.py --out evidence.json            # all parts, about half an hour on two cores
    python tests/evidence/features_level.py --parts share,attention --seeds 0-1

A model of one modality has the folds of the whole one, and the two are compared on the test patients who have the
modality.
Every number comes from the code that `mtl train` runs, with the configuration that `mtl train model=moe_mil` composes.
Intervals over seeds are Student t intervals of the mean; each seed is another cohort with its own folds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

TASKS = ("grade", "stage", "response", "survival")
ALONE = ("wsi", "radiomics", "rna", "proteomics", "clinical")


def job(words: tuple[str, int, int, str], out: str, changes: list[str]) -> dict[str, Any]:
    """One cohort, cross-validated: (kind, n, seed, modality). Values are patient-weighted means over folds."""
    import torch

    from nsclc_mtl.commands.cohort import open_cohort, phantom_root, split
    from nsclc_mtl.commands.members import train_members
    from nsclc_mtl.commands.outputs import predict, spoiled
    from nsclc_mtl.commands.resume import begin
    from nsclc_mtl.config import compose, plain
    from nsclc_mtl.explain.audit import summarise

    torch.set_num_threads(1)
    kind, n, seed, modality = words
    model = [] if any(change.startswith("model=") for change in changes) else ["model=moe_mil"]
    overrides = [*model, "cohort.level=features", f"cohort.n={n}", f"cohort.seed={seed}", f"seed={seed}"]
    overrides += ["logger=none", f"paths.out={out}", *changes]
    settings = plain(compose("train", [*overrides, *([f"modalities=[{modality}]"] if modality else [])]))
    root = phantom_root(settings["cohort"], settings["paths"])
    manifest = open_cohort(settings)
    scores = json.loads((root / "truth" / "oracle.json").read_text())["scores"]
    if kind == "permuted":
        order = np.random.default_rng(seed).permutation(len(manifest.ids))
        manifest.labels = {t: pd.DataFrame(f.to_numpy()[order], f.index, f.columns) for t, f in manifest.labels.items()}
    splits = split(settings, manifest)
    values: dict[tuple[str, str], list[tuple[float, int]]] = {}
    looked: list[dict[str, float]] = []
    audits: list[pd.DataFrame] = []
    for fold, rows in splits.groupby("fold"):
        with tempfile.TemporaryDirectory() as folder:
            members, data = train_members(settings, manifest, rows, begin(Path(folder), {}))
        ids = list(rows.loc[rows["part"] == "test", "patient_id"])
        said = predict(members, manifest, ids, data)
        for task in TASKS:
            known = manifest.labels[task].loc[ids].dropna()
            models = {"model": _score(said[task].loc[known.index])}
            models |= {c: np.array([scores[c][task][p] for p in known.index]) for c in ("attainable", "additive")}
            for name, score in models.items():
                values.setdefault((task, name), []).append((_metric(task, known, score), len(known)))
            for other in manifest.modalities:  # on the patients whom a model of this modality alone is tested on
                here = known.index.isin(manifest.who(other))
                found_there = (_metric(task, known[here], models["model"][here]), int(here.sum()))
                values.setdefault((task, f"model@{other}"), []).append(found_there)
        if kind == "share" and n <= 400:
            looked += [_maps(members[0], manifest, data, patient, root) for patient in ids]
        if kind in ("share", "fusion"):  # for the latter modalities are dropped, not permuted
            repeats = 10 if kind == "share" else 0
            audits.append(spoiled(members, manifest, ids, data, int(fold), {**settings, "audit": repeats}))
    found: dict[str, Any] = {"kind": kind, "n": n, "seed": seed, "modality": modality}
    for (task, name), pairs in values.items():
        found[f"{task}/{name}"] = float(np.average([v for v, _ in pairs], weights=[w for _, w in pairs]))
    if looked:
        found["maps"] = {key: float(np.mean([slide[key] for slide in looked])) for key in looked[0]}
    if audits:
        found["audit"] = summarise(pd.concat(audits), manifest.tasks, manifest.labels, 300, seed)
    return found


def _score(said: pd.DataFrame) -> np.ndarray:
    if "risk" in said:
        return said["risk"].to_numpy()
    return said.to_numpy() @ np.arange(said.shape[1])


def _metric(task: str, known: pd.DataFrame, score: np.ndarray) -> float:
    from nsclc_mtl.metrics.classification import ordinal_auc
    from nsclc_mtl.metrics.survival import c_index

    if task == "survival":
        return float(c_index(score, known["time_days"].to_numpy(), known["event"].to_numpy()))
    return float(ordinal_auc(known["value"].to_numpy(), score))


def _maps(learner: Any, manifest: Any, data: Any, patient: str, root: Path) -> dict[str, float]:
    """AUC of attention, of attention x gradient per task, and of the best single feature, against tumour truth."""
    from nsclc_mtl.bags.datamodule import batches, loader
    from nsclc_mtl.explain import influence
    from nsclc_mtl.features import store
    from nsclc_mtl.metrics.classification import auc

    (batch,) = batches(loader(manifest, [patient], data.fitted, data.cache))
    attention, moved = influence.tiles(learner, batch, "wsi")
    rows: list[dict[str, Any]] = []
    begin = 0
    for path in manifest.bags["wsi"][patient]:
        slide = store.read(Path(path))
        here = slice(begin, begin + len(slide))
        begin += len(slide)
        middle = slide.coords + slide.attrs["patch_size_level0"] / 2
        truth = inside(root / "truth" / "tumour" / f"{Path(path).stem}.geojson", middle)
        each = [float(auc(truth, slide.features[:, j].astype(float))) for j in range(slide.features.shape[1])]
        row = {"attention": float(auc(truth, attention[here]))}
        row |= {f"attention x gradient, {task}": float(auc(truth, m[here])) for task, m in moved.items()}
        rows.append({**row, **{f"feature {j}": a for j, a in enumerate(each)}})
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def inside(path: Path, points: np.ndarray) -> np.ndarray:
    """Which points [n, 2] (x, y, level-0 pixels) lie in a region of a GeoJSON file, bool [n]."""
    from skimage.measure import points_in_poly

    from nsclc_mtl.slides import geojson

    found = np.zeros(len(points), bool)
    for _, rings in geojson.read(path):
        for number, ring in enumerate(rings):
            within = points_in_poly(points, np.asarray(ring, float))
            found = found & ~within if number else found | within
    return found


def interval(values: Iterable[float]) -> tuple[float, float, float]:
    """Mean with its 95 % Student t interval."""
    x = np.array(list(values), float)
    if len(x) < 2:
        return float(x.mean()), float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)


def tell(results: list[dict[str, Any]]) -> None:
    """Prints what was found, one line a claim."""

    def pick(kind: str, n: int, modality: str = "") -> list[dict[str, Any]]:
        return [r for r in results if (r["kind"], r["n"], r["modality"]) == (kind, n, modality)]

    def line(what: str, values: Iterable[float]) -> None:
        mean, lo, hi = interval(values)
        print(f"{what:<78} {mean:+.3f} ({lo:+.3f} to {hi:+.3f})")

    sizes = sorted({r["n"] for r in results})
    for n in sizes:
        rows = pick("share", n)
        for task in TASKS if rows else ():
            top = [r[f"{task}/attainable"] for r in rows]
            line(f"n={n} {task}: model", [r[f"{task}/model"] for r in rows])
            line(
                f"n={n} {task}: share of the attainable margin",
                [(r[f"{task}/model"] - 0.5) / (t - 0.5) for r, t in zip(rows, top, strict=True)],
            )
        if rows:
            gaps = np.mean(
                [
                    [r["response/model"] - r["response/additive"], r["response/attainable"] - r["response/additive"]]
                    for r in rows
                ],
                axis=0,
            )
            line(
                f"n={n} response: model minus additive ceiling",
                [r["response/model"] - r["response/additive"] for r in rows],
            )
            print(f"n={n} response: fusion share (ratio of means over seeds) {gaps[0] / gaps[1]:+.3f} of {gaps[1]:.3f}")
        for task in ("response", "survival") if rows else ():
            alone = {m: {r["seed"]: r[f"{task}/model@{m}"] for r in pick("alone", n, m)} for m in ALONE}
            alone = {m: v for m, v in alone.items() if v}
            best = max(alone, key=lambda m: np.mean(list(alone[m].values())), default="")
            for m, theirs in alone.items():
                named = f"n={n} {task}: model minus {m} alone" + (", the best" if m == best else "")
                line(named, [r[f"{task}/model@{m}"] - theirs[r["seed"]] for r in rows])
        for modality in ("proteomics", *[m for m in ALONE if m != "proteomics"]) if rows else ():
            for task in TASKS:
                losses = [
                    a["loss"]
                    for r in rows
                    for a in r["audit"]
                    if (a["task"], a["modality"], a["mode"]) == (task, modality, "permute")
                ]
                line(f"n={n} {task}: loss when {modality} is permuted", losses)
        maps = [r["maps"] for r in rows if "maps" in r]
        if maps:
            features = {k: np.mean([m[k] for m in maps]) for k in maps[0] if k.startswith("feature ")}
            best = max(features, key=lambda k: max(features[k], 1 - features[k]))
            for key in (k for k in maps[0] if not k.startswith("feature ")):
                line(f"n={n} tumour tiles, per-slide AUC: {key}", [m[key] for m in maps])
            line(f"n={n} tumour tiles, per-slide AUC: best single {best}", [max(m[best], 1 - m[best]) for m in maps])
        for task in TASKS if pick("permuted", n) else ():
            line(f"n={n} {task}: labels permuted", [r[f"{task}/model"] for r in pick("permuted", n)])
        if pick("permuted", n):
            line(
                f"n={n} all tasks: labels permuted",
                [np.mean([r[f"{t}/model"] for t in TASKS]) for r in pick("permuted", n)],
            )


def seeds(text: str) -> list[int]:
    """0-4 -> [0, 1, 2, 3, 4]."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main() -> None:
    """Runs the parts asked for and prints and saves what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="share,large,alone,permuted")
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--permuted", default="0-19")
    parser.add_argument("--out", default="evidence.json")
    parser.add_argument("--work", default="out")
    parser.add_argument("--alone", default=",".join(ALONE), help="modalities that the part `alone` trains a model of")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("changes", nargs="*", help="overrides of `mtl train`, for example members=3")
    chosen = parser.parse_args()
    parts = chosen.parts.split(",")
    work: list[tuple[str, int, int, str]] = []
    for seed in seeds(chosen.seeds):
        work += [("share", 400, seed, "")] if "share" in parts else []
        work += [("share", 2000, seed, "")] if "large" in parts else []
        work += [("alone", 400, seed, m) for m in chosen.alone.split(",")] if "alone" in parts else []
        work += [("alone", 2000, seed, m) for m in ("wsi", "rna")] if "alone" in parts and "large" in parts else []
    work += [("permuted", 400, seed, "") for seed in seeds(chosen.permuted)] if "permuted" in parts else []
    results = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(chosen.workers, mp_context=context) as pool:
        for found in pool.map(job, work, [chosen.work] * len(work), [chosen.changes] * len(work)):
            results.append(found)
            Path(chosen.out).write_text(json.dumps(results))
            print(
                f"{len(results)}/{len(work)}: {found['kind']} n={found['n']} seed={found['seed']} {found['modality']}",
                flush=True,
            )
    tell(results)


if __name__ == "__main__":
    main()
