"""Trust on the features-level phantom: coverage of sets and survival bounds, calibration, and who is called unlike.

    python tests/evidence/trust.py --out trust.json                 # 20 seeds, about a quarter of an hour on two cores
    python tests/evidence/trust.py --parts outside --seeds 0-4
    python tests/evidence/trust.py --tell trust.json                # the tables of what was found before

coverage: 600 patients, one fold: 300 are tested, 90 calibrate. Sets and bounds are to miss a tenth. The coverage of
each seed stands beside its beta-binomial band (.95, n = labelled calibration and test patients); bounds are judged by
inverse probability of censoring, as in practice, and by the truth: the phantom's law of the time of death given the
latents gives the probability that a patient outlives his bound. Under censoring the bounds have no exact band: theirs
is the one that they would have without it.
outside: 400 patients of three sites with looks of their own (`site=shift`). Once the sites are mixed over the parts
(known: the flag is to fire for a twentieth at most), once site C is seen in the test part alone (unseen).
Every number comes from the code that `mtl train` runs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from features_level import interval, seeds
from scipy import stats

MISS, RATE = 0.1, 0.05


def trained(words: list[str], seed: int, out: str) -> tuple[Any, Any, Any, list[str]]:
    """Members, manifest, data and test patients of fold 0."""
    import torch

    from nsclc_mtl.commands.cohort import open_cohort, split
    from nsclc_mtl.commands.fold import fit_trust
    from nsclc_mtl.commands.members import train_members
    from nsclc_mtl.commands.resume import begin
    from nsclc_mtl.config import compose, plain

    torch.set_num_threads(1)
    common = ["model=moe_mil", "cohort.level=features", f"cohort.seed={seed}", f"seed={seed}", "logger=none"]
    settings = plain(compose("train", [*common, f"paths.out={out}", *words]))
    manifest = open_cohort(settings)
    splits = split(settings, manifest)
    rows = splits[splits["fold"] == splits["fold"].min()]
    with tempfile.TemporaryDirectory() as folder:
        members, data = train_members(settings, manifest, rows, begin(Path(folder), {}))
    fit_trust(settings, members, manifest, data)
    return members, manifest, data, list(rows.loc[rows["part"] == "test", "patient_id"])


def coverage(seed: int, out: str) -> list[dict[str, Any]]:
    """A row a task: coverage of its sets or bounds among test patients, with its band."""
    from nsclc_mtl.commands import reasons
    from nsclc_mtl.metrics.survival import censoring_curve
    from nsclc_mtl.phantom import truth
    from nsclc_mtl.trust.conformal import coverage_band
    from nsclc_mtl.trust.survival_bounds import covered
    from nsclc_mtl.trust.survival_calibration import cumulative_hazard

    words = ["cohort.n=600", "folds.n=2", "folds.calibration=0.3", f"trust.miss={MISS}"]
    members, manifest, data, ids = trained(words, seed, out)
    seen = reasons.look(members, manifest, ids, data)
    told = reasons.rows([seen], manifest, 0)
    found = []
    for task, spec in manifest.tasks.items():
        known = manifest.labels[task].loc[ids].dropna()
        own = told[(told["task"] == task) & (told["what"] == "set")].set_index("patient_id")["value"].loc[known.index]
        n, row = seen.trust[task]["n"], {"part": "coverage", "seed": seed, "task": task}
        low, high = coverage_band(n, len(known), MISS)
        row |= {"n_calibration": n, "n_test": len(known), "low": low, "high": high}
        if spec.kind == "survival":
            bound = own.str.split().str[0].astype(float).to_numpy()
            train = manifest.labels[task].loc[data.parts["train"]].dropna()
            g = censoring_curve(train["time_days"], train["event"])
            row["covered"] = float(np.mean(covered(bound, known["time_days"], known["event"], g)))
            drawn = truth.draw(600, seed)
            hazard = pd.Series(np.exp(truth.log_hazard(drawn.latents)), drawn.patients["patient_id"]).loc[known.index]
            law = np.exp(-((bound / truth.WEIBULL_SCALE_DAYS) ** truth.WEIBULL_SHAPE) * hazard.to_numpy())
            row |= {"truly": float(law.mean()), "median_days": float(np.median(bound))}
            horizon = seen.trust[task]["horizon_days"]
            days, curve = reasons.confidence.curves(seen.outputs[task].loc[known.index])
            said = np.exp(-cumulative_hazard(curve, days, np.full(len(known), horizon)))
            law = np.exp(-((horizon / truth.WEIBULL_SCALE_DAYS) ** truth.WEIBULL_SHAPE) * hazard.to_numpy())
            row |= {"event_free_said": float(said.mean()), "event_free_true": float(law.mean())}
        else:
            word = known["value"].map(lambda k, c=spec.classes: c[int(k)])
            row["covered"] = float(np.mean([w in s.split("|") for w, s in zip(word, own, strict=True)]))
            row["size"] = float((own.str.count(r"\|") + 1).mean())
        found.append(row)
    return found


def outside(seed: int, out: str) -> list[dict[str, Any]]:
    """A row a question: share of test patients who are called unlike the training patients."""
    from nsclc_mtl.commands import outside as room

    base = ["cohort.n=400", "cohort.site=shift", "folds.n=3", "folds.validation=0.2"]
    found = []
    for kind, more in (("known", []), ("unseen", ["folds.external={column: site, values: [C]}"])):
        members, manifest, data, ids = trained([*base, *more], seed, out)
        far = room.judge(data.fitted.outside, members[0], manifest, ids, data)
        n = len(data.fitted.outside["known"])
        most = int(np.floor(RATE * (n + 1) + 1e-9))
        high = float(stats.betabinom(len(ids), most, n + 1 - most).ppf(0.975)) / len(ids)
        row = {"part": "outside", "seed": seed, "kind": kind, "n_reference": n, "n_test": len(ids), "high": high}
        row |= {"reference": data.fitted.outside["reference"], "flagged": float((far["rarity"] <= RATE).mean())}
        parts = [c for c in far if c not in ("rarity", "furthest")]
        found.append(row | {f"beyond 95 % of training, {p}": float((far[p].dropna() >= 0.95).mean()) for p in parts})
    return found


def mean_interval(values: pd.Series) -> str:
    """Mean over seeds with its interval."""
    return "{:.3f} ({:.3f} to {:.3f})".format(*interval(values))


def tell(rows: list[dict[str, Any]]) -> None:
    """Prints the tables."""
    frame = pd.DataFrame(rows)
    for task, own in frame[frame["part"] == "coverage"].groupby("task", sort=False) if "task" in frame else ():
        inside = ((own["covered"] >= own["low"] - 1e-12) & (own["covered"] <= own["high"] + 1e-12)).sum()
        cal = own["n_calibration"]
        n = f"n_cal {cal.min():.0f}-{cal.max():.0f}, n_test {own['n_test'].mean():.0f}"
        print(
            f"{task:<9} covered {mean_interval(own['covered'])}, {inside} of {len(own)} within their band; {n}", end=""
        )
        if own["truly"].notna().any() if "truly" in own else False:
            within = ((own["truly"] >= own["low"]) & (own["truly"] <= own["high"])).sum()
            print(f"; by the truth {mean_interval(own['truly'])}, {within} of {len(own)} within", end="")
            print(f"; median bound {own['median_days'].mean():.0f} days; event-free at the horizon: said ", end="")
            print(f"{own['event_free_said'].mean():.3f}, true {own['event_free_true'].mean():.3f}")
        else:
            print(f"; {own['size'].mean():.2f} classes a set")
    for kind, own in frame[frame["part"] == "outside"].groupby("kind", sort=False) if "kind" in frame else ():
        below = (own["flagged"] <= own["high"] + 1e-12).sum()
        n = f"n_reference {own['n_reference'].mean():.0f} ({', '.join(sorted(set(own['reference'])))})"
        print(
            f"{kind} sites: {mean_interval(own['flagged'])} called unlike, {below} of {len(own)} within the band; {n}"
        )
        for column in [c for c in own if c.startswith("beyond")]:
            print(f"    {column}: {own[column].mean():.3f}")


def main() -> None:
    """Measures, prints, and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="coverage,outside")
    parser.add_argument("--seeds", default="0-19")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tell", type=Path)
    asked = parser.parse_args()
    if asked.tell:
        tell(json.loads(asked.tell.read_text()))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as out:
        for seed in seeds(asked.seeds):
            for part in asked.parts.split(","):
                rows += {"coverage": coverage, "outside": outside}[part](seed, out)
            if asked.out:
                asked.out.write_text(json.dumps(rows, indent=1) + "\n")
            print(f"seed {seed} done", flush=True)
    tell(rows)


if __name__ == "__main__":
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    main()
