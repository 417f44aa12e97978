"""Federated against pooled and local training on phantom cohorts of three shifted sites, or on a real cohort.

    python tests/evidence/federated.py --seeds 0-9 --out federated.json
    python tests/evidence/federated.py --seeds 0-0 --cohort hancock --root PATH --sites 3

Every number comes from the code that `mtl federate simulate` runs. A metric is taken among the test patients of one
fold and one site, and averaged over folds and sites by patients, so that models of single sites are comparable with
models of all; `whole` is taken among all test patients of a fold. Intervals over seeds are Student t intervals of the
mean; each seed of the phantom is another cohort with its own folds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats


def study(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One cohort: task/way/measure -> value, of the federated, pooled and local models."""
    import torch

    from nsclc_mtl.commands import federate, federation
    from nsclc_mtl.commands.cohort import open_cohort, split
    from nsclc_mtl.commands.outputs import predict
    from nsclc_mtl.config import compose, plain
    from nsclc_mtl.federated.plan import Plan

    torch.set_num_threads(1)
    own = ["cohort.level=features", f"cohort.n={args.n}", f"cohort.seed={seed}", f"cohort.site={args.site}"]
    if args.cohort != "phantom":
        own = [f"cohort={args.cohort}", f"cohort.root={args.root}"]
        own = [f"experiment={args.cohort}", f"cohort.root={args.root}"] if args.experiment else own
    words = [*own, f"seed={seed}", f"paths.out={args.work}", "logger=none", *args.changes]
    settings = plain(compose("federate", words))
    settings = federate._plainly(settings)
    federation.refuse(settings)
    manifest = open_cohort(settings)
    splits = split(settings, manifest)
    plan = Plan.of(settings["federated"])
    sites = federate.sites_of(settings, manifest, splits, plan)
    manifest.patients = manifest.patients.assign(site=pd.Series({p: s for s, ids in sites.items() for p in ids}))
    told: list[pd.DataFrame] = []
    for fold, rows in splits.groupby("fold"):
        with tempfile.TemporaryDirectory() as folder:
            for way, of_site, learner, data in trained(
                settings, plan, manifest, splits, int(fold), sites, Path(folder)
            ):
                ids = [p for p in rows.loc[rows["part"] == "test", "patient_id"] if of_site is None or p in of_site]
                for task, said in predict([learner], manifest, ids, data).items():
                    score = said["risk"] if "risk" in said else said.to_numpy() @ np.arange(said.shape[1])
                    frame = (
                        manifest.labels[task].loc[ids].assign(score=np.asarray(score), task=task, way=way, fold=fold)
                    )
                    told.append(frame.assign(site=manifest.patients["site"]))
    return {"seed": seed, **measured(pd.concat(told), manifest.tasks)}


def trained(settings: Any, plan: Any, manifest: Any, splits: Any, fold: int, sites: Any, folder: Path) -> Any:
    """(way, patients it speaks of or None = all, learner, data) of a fold."""
    from nsclc_mtl.commands import federate, federation
    from nsclc_mtl.commands.members import quiet, train_members
    from nsclc_mtl.commands.resume import begin
    from nsclc_mtl.records import Fault

    with quiet():
        for way in settings["federated"]["against"] or ():
            for site, ids in ({"": None} if way == "centralised" else sites).items():
                rows = splits[(splits["fold"] == fold) & (True if ids is None else splits["patient_id"].isin(ids))]
                own = manifest if ids is None else federation.only(manifest, ids)
                (folder / f"{way}{site}").mkdir()
                try:
                    members, data = train_members(settings, own, rows, begin(folder / f"{way}{site}" / "fold", {}))
                except Fault as fault:
                    print(f"fold {fold}, {way} {site}: {fault}", flush=True)
                    continue
                yield way, None if ids is None else set(ids), members[0], data
        here = federate.Fold(settings, plan, manifest, splits, sites, fold)
        for site, begun in federate.federated(here, None)[1].items():
            yield "federated", set(sites[site]), begun.learner.eval(), begun.data


def measured(told: pd.DataFrame, tasks: Any) -> dict[str, float]:
    """Metrics within fold and site, and within fold, averaged by patients."""
    from nsclc_mtl.metrics.classification import ordinal_auc
    from nsclc_mtl.metrics.survival import c_index

    out = {}
    for (task, way), rows in told.groupby(["task", "way"]):
        for measure, by in (("within", ["fold", "site"]), ("whole", ["fold"])):
            if measure == "whole" and way == "local":
                continue  # scores of different models share no scale
            found = []
            for _, group in rows.groupby(by):
                known = group.dropna(subset=["time_days", "event"] if tasks[task].kind == "survival" else ["value"])
                score = known["score"].to_numpy()
                if not len(known):
                    continue
                if tasks[task].kind == "survival":
                    value = c_index(score, known["time_days"].to_numpy(), known["event"].to_numpy())
                else:
                    value = ordinal_auc(known["value"].to_numpy(), score)
                if value.known:
                    found.append((float(value), len(known)))
            out[f"{task}/{way}/{measure}"] = float(np.average([v for v, _ in found], weights=[n for _, n in found]))
    return out


def interval(values: list[float]) -> str:
    """Mean with its Student t interval over seeds."""
    x = np.array(values)
    if len(x) < 2:
        return f"{x.mean():+.3f}"
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return f"{x.mean():+.3f} ({x.mean() - half:+.3f} to {x.mean() + half:+.3f})"


def summary(rows: list[dict[str, Any]]) -> str:
    """The table: every task, measure and way, and the paired differences."""
    keys = [key for key in rows[0] if key != "seed" and all(key in row for row in rows)]
    lines = [f"{len(rows)} seeds"]
    for key in sorted(keys):
        lines.append(f"{key:34} {interval([row[key] for row in rows])}")
    for key in sorted(k for k in keys if "/federated/" in k):
        for other in ("centralised", "local"):
            beside = key.replace("federated", other)
            if beside in keys:
                lines.append(f"{key} minus {other}: {interval([row[key] - row[beside] for row in rows])}")
    return "\n".join(lines)


def main() -> None:
    """Runs the seeds one after the other, and keeps what is done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0-9")
    parser.add_argument("--n", type=int, default=600)
    parser.add_argument("--site", default="shift")
    parser.add_argument("--cohort", default="phantom")
    parser.add_argument("--root", default="")
    parser.add_argument("--experiment", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("federated.json"))
    parser.add_argument("--work", type=Path, default=Path("out"))
    parser.add_argument("changes", nargs="*")
    args = parser.parse_args()
    first, last = map(int, args.seeds.split("-"))
    rows: list[dict[str, Any]] = json.loads(args.out.read_text()) if args.out.is_file() else []
    for seed in range(first, last + 1):
        if seed not in [row["seed"] for row in rows]:
            rows.append(study(seed, args))
            args.out.write_text(json.dumps(rows, indent=1) + "\n")
            print(summary(rows), flush=True)


if __name__ == "__main__":
    main()
