"""How often a comparison over repeated splits finds a difference between two models that are equally good.

    python tests/evidence/repeated_splits.py --runs 2000        # ten minutes on one core

Each run draws patients anew and deals them into three folds, three times. Two ridge models see ten columns each, of
the same worth, so that over cohorts neither is better than the other: whatever is found is false. The two are compared
as a report compares them (`report.contrast`): by the P of the patients (DeLong for a response, bootstrap for survival),
by Nadeau and Bengio's P over the splits, and by the larger of the two, which a verdict goes by. The same for one
partition into three folds, where there is the P of the patients alone. With `--apart` the second model's columns are
worth less, and what is found is power.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression, Ridge

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report.contrast import Contrast, Judged, contrast
from nsclc_mtl.report.evaluation import judge

TASKS = {
    "response": TaskSpec("response", "binary", ("no", "yes")),
    "survival": TaskSpec("survival", "survival"),
}
FOLDS, COLUMNS = 3, 10
MODELS = ("learner", "floor:other")
Z = 1.959964


def cohort(n: int, apart: float, rng: np.random.Generator) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Outcomes of n patients, and the columns of the two models [n, 10]; `apart`: how much less the second tells."""
    x = rng.normal(size=n)
    death, end = rng.exponential(np.exp(-x)) * 1000, rng.exponential(2500, n)
    who = pd.DataFrame(
        {"yes": rng.random(n) < 1 / (1 + np.exp(-1.5 * x)), "days": np.minimum(death, end) + 1, "event": death <= end}
    )
    return who, [x[:, None] * worth / COLUMNS**0.5 + rng.normal(size=(n, COLUMNS)) for worth in (1.0, 1.0 - apart)]


def said(who: pd.DataFrame, x: np.ndarray, model: str, train: np.ndarray, test: np.ndarray, fold: int) -> pd.DataFrame:
    """Rows of predictions.csv: what a model that was trained on `train` says of `test`."""
    p = LogisticRegression(C=0.1).fit(x[train], who["yes"][train]).predict_proba(x[test])[:, 1]
    risk = -Ridge(alpha=10).fit(x[train], np.log(who["days"][train])).predict(x[test])
    one = {"patient_id": [f"p{i}" for i in test], "fold": str(fold), "part": "test", "model": model}
    yes, own = np.where(who["yes"][test], "yes", "no"), who.iloc[test]
    return pd.concat(
        [
            pd.DataFrame({**one, "task": "response", "output": "p:no", "value": 1 - p, "target": yes}),
            pd.DataFrame({**one, "task": "response", "output": "p:yes", "value": p, "target": yes}),
            pd.DataFrame(
                {**one, "task": "survival", "output": "risk", "value": risk, "target": "",
                 "event": own["event"].to_numpy(float), "time_days": own["days"].to_numpy()}
            ),
        ],
        ignore_index=True,
    )  # fmt: skip


def compared(n: int, repeats: int, apart: float, draws: int, run: int) -> dict[str, Contrast]:
    """Task -> the two models compared, on one cohort."""
    rng = np.random.default_rng([run, repeats])
    who, columns = cohort(n, apart, rng)
    rows, splits = [], []
    for fold in range(FOLDS * repeats):
        if fold % FOLDS == 0:
            order = rng.permutation(n)
        test = np.sort(order[fold % FOLDS :: FOLDS])
        train = np.setdiff1d(np.arange(n), test)
        rows += [said(who, x, model, train, test, fold) for x, model in zip(columns, MODELS, strict=True)]
        parts = {
            "patient_id": [f"p{i}" for i in range(n)],
            "part": np.where(np.isin(np.arange(n), test), "test", "train"),
        }
        splits.append(pd.DataFrame(parts).assign(fold=fold))
    found = judge(pd.concat(rows, ignore_index=True), TASKS, None, draws, run)
    made = {}
    for name, result in found.items():
        ours, theirs = (Judged(result.folds, m, result.metrics[result.primary][m]) for m in MODELS)
        made[name] = contrast(result.task, ours, theirs, [pd.concat(splits)])
    return made


def main() -> None:
    """Prints the share of runs in which each P is below .05, with Wilson's interval."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    words.add_argument("--runs", type=int, default=500)
    words.add_argument("--patients", type=int, default=90)
    words.add_argument("--draws", type=int, default=200)
    words.add_argument("--apart", type=float, default=0.0, help="how much less the second model's columns tell, 0 to 1")
    words.add_argument("--out", type=Path)
    asked: Any = words.parse_args()
    held: dict[tuple[str, int, str], list[bool]] = {}
    for repeats in (1, 3):
        for run in range(asked.runs):
            for task, at in compared(asked.patients, repeats, asked.apart, asked.draws, run).items():
                each = {f"patients ({at.test})": at.p, "verdict": at.ruling}
                each |= {"splits": at.splits.p} if at.splits else {}
                for word, p in each.items():
                    held.setdefault((task, repeats, word), []).append(bool(p < 0.05))
    rows = []
    for (task, repeats, word), values in held.items():
        m, p = len(values), float(np.mean(values))
        middle, half = p + Z**2 / (2 * m), Z * (p * (1 - p) / m + Z**2 / (4 * m * m)) ** 0.5
        rows.append({"task": task, "repeats": repeats, "P of": word, "runs": m, "below .05": p,
                     "lo": (middle - half) / (1 + Z**2 / m), "hi": (middle + half) / (1 + Z**2 / m)})  # fmt: skip
    found = pd.DataFrame(rows)
    print(found.to_string(index=False, float_format="%.3f"))
    if asked.out:
        asked.out.write_text(json.dumps(found.to_dict("records"), indent=1) + "\n")


if __name__ == "__main__":
    main()
