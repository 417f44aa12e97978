"""Training in bf16 against training in single precision on the phantom: does any task lose anything?

    python tests/evidence/precision.py --seeds 0-2 --work DIR        # some minutes on one core

Each seed is another cohort at the level of features with its own folds. Both precisions train on the same patients from
the same weights, in batches of the same patients. Differences are paired by seed, their intervals Student's t over the
seeds. Beside them, as the noise that any training has: single precision against itself from other initial weights.
"""

from __future__ import annotations

import argparse

import numpy as np
from features_level import TASKS, interval, job, seeds

WAYS = {"single": [], "bf16": ["precision=bf16-mixed"], "single, other start": []}


def found(seed: int, n: int, work: str, changes: list[str]) -> dict[str, dict[str, float]]:
    """Main metric of every task, {way: {task: value}}."""
    said = {}
    for way, words in WAYS.items():
        again = [f"seed={1000 + seed}"] if "other" in way else []
        done = job(("precision", n, seed, ""), work, [*words, *again, f"folds.seed={seed}", *changes])
        said[way] = {task: done[f"{task}/model"] for task in TASKS}
    return said


def main() -> None:
    """Prints a line a seed, and the paired differences."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    words.add_argument("--seeds", default="0-2")
    words.add_argument("--n", type=int, default=200)
    words.add_argument("--work", required=True, help="a folder for the cohorts")
    words.add_argument("changes", nargs="*", help="overrides of `mtl train`, for example model=abmil")
    asked = words.parse_args()
    every = []
    for seed in seeds(asked.seeds):
        every.append(found(seed, asked.n, asked.work, ["folds.n=3", *asked.changes]))
        for way, said in every[-1].items():
            print(f"seed {seed}, {way}: " + ", ".join(f"{t} {v:.4f}" for t, v in said.items()), flush=True)
    print(f"{len(every)} cohorts of {asked.n} patients, 3 folds; ordinal AUC, C-index of survival")
    for way in ("bf16", "single, other start"):
        for task in (*TASKS, "mean of the tasks"):
            gaps = [
                np.mean([each[way][t] - each["single"][t] for t in ([task] if task in TASKS else TASKS)])
                for each in every
            ]
            mean, lo, hi = interval(gaps)
            print(f"{way} minus single, {task}: {mean:+.4f} ({lo:+.4f} to {hi:+.4f})")


if __name__ == "__main__":
    main()
