"""Pure noise through the whole command line: outcomes of a phantom cohort handed around, trained and evaluated.

    python tests/evidence/noise.py --seeds 0-19 --work DIR        # a quarter of an hour on one core

Each seed is a cohort of 200 patients at the level of features whose outcomes (all of a patient together) were permuted,
so that no input tells anything of them. `mtl train` and `mtl evaluate` run as a user runs them. A C-index or AUC whose
mean over the seeds is not .50 would be a leak. The intervals of the mean are Student's t over the seeds; beside it, how
many of the evaluations' own 95 % intervals hold .5.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from features_level import interval, seeds

OUTCOMES = ["grade", "stage", "response", "os_days", "os_status"]
PRIMARY = {"grade": "ordinal_auc", "stage": "ordinal_auc", "response": "auc", "survival": "c_index"}


def mtl(*words: str) -> None:
    """Runs `mtl`, and says what it said where it fails."""
    done = subprocess.run([sys.executable, "-m", "nsclc_mtl", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"mtl {' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")


def found(seed: int, n: int, work: Path) -> dict[str, tuple[float, float, float]]:
    """Main metric of every task with its interval, {task: (value, lo, hi)}."""
    data, runs = work / f"data{seed}", work / f"runs{seed}"
    words = [f"paths.runs={runs}", f"paths.out={work / f'out{seed}'}"]
    made = ["cohort.level=features", f"cohort.n={n}", f"cohort.seed={seed}"]
    mtl("demo", "--data-only", "--out", str(data), *made, *words)
    table = pd.read_csv(data / "patients.csv", dtype=str, keep_default_na=False)
    order = np.random.default_rng(seed).permutation(len(table))
    table[OUTCOMES] = table[OUTCOMES].to_numpy()[order]
    table.to_csv(data / "patients.csv", index=False)
    mtl(
        "train", f"cohort.root={data}", *made, f"seed={seed}", "name=noise", "audit=0", "logger=none",
        "folds.workers=0", *words,
    )  # fmt: skip
    mtl("evaluate", f"ckpt={runs / 'train' / 'noise'}", "name=noise", "floors=[]", "bootstrap=200", *words)
    rows = json.loads((runs / "evaluate" / "noise" / "metrics.json").read_text())
    return {
        r["task"]: (r["value"], r["lo"], r["hi"])
        for r in rows
        if (r["metric"], r["fold"], r["model"], r["part"]) == (PRIMARY.get(r["task"]), "all", "learner", "test")
    }


def main() -> None:
    """Prints a line a seed, and the means."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    words.add_argument("--seeds", default="0-19")
    words.add_argument("--n", type=int, default=200)
    words.add_argument("--work", type=Path, required=True, help="a folder for cohorts and runs")
    asked = words.parse_args()
    every = []
    for seed in seeds(asked.seeds):
        every.append(found(seed, asked.n, asked.work))
        print(f"seed {seed}: " + ", ".join(f"{task} {v:.3f}" for task, (v, _, _) in every[-1].items()), flush=True)
    for task in PRIMARY:
        mean, lo, hi = interval([each[task][0] for each in every])
        held = sum(each[task][1] <= 0.5 <= each[task][2] for each in every)
        print(f"{task:<9} mean {mean:.3f} ({lo:.3f} to {hi:.3f}); {held} of {len(every)} intervals hold .5")
    whole = np.mean([[each[task][0] for task in PRIMARY] for each in every])
    print(f"all tasks and seeds: {whole:.4f}")


if __name__ == "__main__":
    main()
