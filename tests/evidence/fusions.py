"""Fusions and balances on the features-level phantom: shares of the attainable margin, and what a lost modality costs.

    python tests/evidence/fusions.py --seeds 0-9 --out fusions.json          # hours on two cores
    python tests/evidence/fusions.py --seeds 20-21 --fusions concat_mil,ple --balances sum
    python tests/evidence/fusions.py --tell fusions.json                     # the tables of what was found before

Cross-validated with the code and the configuration of `mtl train`: n = 400, each seed another cohort with its own
folds. A fusion is a preset of `conf/model`, or an option of `conf/fusion` with everything else as in `moe_mil`.
Intervals over seeds are Student t intervals of the mean; differences from `concat_mil` under the same balance are
paired by seed. The fusion share of response is the model's gain over the additive ceiling, as a share of what there is
to gain (ratio of means over seeds). The last table drops each modality, at test time, from all who have another one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from features_level import ALONE, TASKS, interval, job, seeds

FLOOR = "concat_mil"
FUSIONS = (FLOOR, "late_fusion", "attention_fusion", "coattention", "low_rank", "moe_mil", "ple", "cascade")
CONF = Path(__file__).parents[2] / "conf"


def overrides(fusion: str, balance: str) -> list[str]:
    """Words of `mtl train` for a fusion and a balance."""
    preset = (CONF / "model" / f"{fusion}.yaml").is_file()
    return [f"model={fusion}" if preset else f"fusion={fusion}", f"balance={balance}"]


def measured(fusion: str, balance: str, seed: int, n: int, work: str, changes: list[str]) -> dict[str, Any]:
    """What `features_level.job` finds for one cohort, with the names of the fusion and the balance."""
    found = job(("fusion", n, seed, ""), work, [*overrides(fusion, balance), *changes])
    return {**found, "fusion": fusion, "balance": balance}


def share(row: dict[str, Any], task: str) -> float:
    """Model's part of the margin between a coin and what is attainable."""
    return (row[f"{task}/model"] - 0.5) / (row[f"{task}/attainable"] - 0.5)


def fusion_share(rows: list[dict[str, Any]]) -> float:
    """Ratio of means: response beyond the additive ceiling, over what is attainable beyond it."""
    gained = np.mean([r["response/model"] - r["response/additive"] for r in rows])
    return float(gained / np.mean([r["response/attainable"] - r["response/additive"] for r in rows]))


def told(values: list[float]) -> str:
    """`mean (low to high)`, the mean alone for one seed."""
    mean, low, high = interval(values)
    return f"{mean:+.3f}" if np.isnan(low) else f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def tell(results: list[dict[str, Any]]) -> None:
    """Prints the tables."""
    pairs: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in results:
        pairs.setdefault((row["fusion"], row["balance"]), {})[row["seed"]] = row
    print("\nShare of the attainable margin")
    print(f"{'fusion':<18}{'balance':<13}{'seeds':>5}  " + "".join(f"{task:<26}" for task in TASKS) + "fusion share")
    for (fusion, balance), rows in pairs.items():
        cells = [told([share(r, task) for r in rows.values()]) for task in TASKS]
        line = f"{fusion:<18}{balance:<13}{len(rows):>5}  " + "".join(f"{cell:<26}" for cell in cells)
        print(f"{line}{fusion_share(list(rows.values())):+.3f}")
    print(f"\nAUC or C-index minus that of {FLOOR} under the same balance, paired by seed")
    for (fusion, balance), rows in pairs.items():
        floor = pairs.get((FLOOR, balance), {})
        both = sorted(set(rows) & set(floor))
        if fusion == FLOOR or not both:
            continue
        cells = [told([rows[s][f"{task}/model"] - floor[s][f"{task}/model"] for s in both]) for task in TASKS]
        print(f"{fusion:<18}{balance:<13}{len(both):>5}  " + "".join(f"{cell:<26}" for cell in cells))
    print("\nWhat is lost (AUC or C-index) when a modality is dropped at test time")
    for (fusion, balance), rows in pairs.items():
        for modality in ALONE:
            cells = []
            for task in TASKS:
                lost = [
                    a["loss"]
                    for r in rows.values()
                    for a in r["audit"]
                    if (a["task"], a["modality"], a["mode"]) == (task, modality, "drop")
                ]
                cells.append(told(lost))
            print(f"{fusion:<18}{balance:<13}{modality:<12}" + "".join(f"{cell:<26}" for cell in cells))


def main() -> None:
    """Runs what is asked for, saves after every cohort, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-9")
    parser.add_argument("--fusions", default=",".join(FUSIONS))
    parser.add_argument("--balances", default="sum,uncertainty")
    parser.add_argument("--n", type=int, default=400, help="patients a cohort")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", default="fusions.json", help="results; what stands there already is not run again")
    parser.add_argument("--work", default="out", help="folder of the phantom cohorts")
    parser.add_argument("--tell", help="print the tables of this file and run nothing")
    parser.add_argument("changes", nargs="*", help="further overrides of `mtl train`")
    chosen = parser.parse_args()
    if chosen.tell:
        tell(json.loads(Path(chosen.tell).read_text()))
        return
    out = Path(chosen.out)
    results = json.loads(out.read_text()) if out.is_file() else []
    done = {(r["fusion"], r["balance"], r["seed"], r["n"]) for r in results}
    work = [
        (fusion, balance, seed, chosen.n)
        for seed in seeds(chosen.seeds)
        for fusion in chosen.fusions.split(",")
        for balance in chosen.balances.split(",")
        if (fusion, balance, seed, chosen.n) not in done
    ]
    with ProcessPoolExecutor(chosen.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(measured, *one, chosen.work, chosen.changes) for one in work]
        for number, each in enumerate(as_completed(jobs), start=1):
            row = each.result()
            results.append(row)
            out.write_text(json.dumps(results))
            values = ", ".join(f"{task} {row[f'{task}/model']:.3f}" for task in TASKS)
            print(f"{number}/{len(jobs)} {row['fusion']} {row['balance']} seed {row['seed']}: {values}", flush=True)
    tell(results)


if __name__ == "__main__":
    main()
