"""How often the 95 % intervals of an evaluation hold the truth: fixed models on new patients, cross-validated ones.

    python tests/evidence/intervals.py --runs 2000 --workers 2        # half an hour on two cores

Each run is a `predictions.csv` of patients drawn anew, judged by `mtl evaluate`'s own code (`report.evaluation.judge`).

Fixed models: scores with noise, whose true metric is the mean over sixty cohorts of 5,000 patients; of survival with
curves, and with the outcomes of 500 training patients from whom the censoring is taken. Beside the model stands one
with more noise (as a floor), and the paired differences between them are covered too. Cross-validated: ridge models of
20 columns, five folds. Their intervals are held against two truths: the mean of the metrics that these very five models
have on 5,000 new patients (what the interval promises: it is conditional on the trained models), and the mean of that
over all runs (what a reader may take it for: another training, another split). Intervals of the coverage itself are
binomial (Wilson). All metrics of a run are of the same patients, so that their coverages err together.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report.evaluation import judge

TASKS = {
    "response": TaskSpec("response", "binary", ("no", "yes")),
    "grade": TaskSpec("grade", "ordinal", ("G1", "G2", "G3")),
    "survival": TaskSpec("survival", "survival"),
}
METRICS = {
    "response": ("auc", "brier", "balanced_accuracy"),
    "grade": ("ordinal_auc", "brier", "quadratic_kappa"),
    "survival": ("c_index", "uno_c", "auc_1y", "auc_3y", "brier_1y", "brier_3y", "ibs"),
}
PAIRED = {"response": ("auc", "brier"), "grade": ("ordinal_auc",), "survival": ("c_index", "ibs")}
OTHER = "floor:noise"  # the second model
DAYS = np.r_[np.linspace(120, 1560, 13), 365, 1095]  # of the curves; beyond the last some draws have nobody left
DAYS.sort()
Z = 1.959964


def patients(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """A latent number x, and outcomes that follow it: response, grade, days and event (about 40 % censored)."""
    x = rng.normal(size=n)
    grade = np.digitize(1.2 * x + rng.logistic(size=n), [-1.2, 1.0])
    death, end = rng.exponential(np.exp(-0.8 * x)) * 1000, rng.exponential(1500, n)
    return pd.DataFrame(
        {"x": x, "response": rng.random(n) < 1 / (1 + np.exp(-x)), "grade": grade,
         "days": np.minimum(death, end) + 1, "event": death <= end}
    )  # fmt: skip


def said(who: pd.DataFrame, score: np.ndarray, fold: str = "0", curves: bool = False) -> pd.DataFrame:
    """Rows of predictions.csv of a model whose only number is `score`, an estimate of x."""
    ids = [f"p{i}" for i in who.index]
    p = 1 / (1 + np.exp(-score))
    above = [1 / (1 + np.exp(-(1.2 * score - cut))) for cut in (-1.2, 1.0)]
    outputs = {
        "response": {"p:no": 1 - p, "p:yes": p},
        "grade": {"p:G1": 1 - above[0], "p:G2": above[0] - above[1], "p:G3": above[1]},
        "survival": {"risk": score},
    }
    if curves:  # as if the estimate were x itself
        hazard = np.exp(0.8 * score) / 1000
        outputs["survival"] |= {f"surv:{day:g}": np.exp(-hazard * day) for day in DAYS}
    words = {
        "response": np.where(who["response"], "yes", "no"),
        "grade": np.array(["G1", "G2", "G3"])[who["grade"]],
        "survival": np.full(len(who), ""),
    }
    frames = []
    for task, of in outputs.items():
        for output, value in of.items():
            rows = {"patient_id": ids, "task": task, "fold": fold, "part": "test", "output": output, "value": value}
            frame = pd.DataFrame(rows).assign(target=words[task], event=np.nan, time_days=np.nan)
            if task == "survival":
                frame["event"], frame["time_days"] = who["event"].to_numpy(float), who["days"].to_numpy()
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def intervals(
    table: pd.DataFrame, draws: int, seed: int, training: pd.DataFrame | None = None
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Value, low and high of every metric that is looked at, and of the differences to the second model.

    training: event and time_days of the patients from whom the censoring is taken; without it there are no weights.
    """
    outcomes = None if training is None else {"survival": dict.fromkeys(table["fold"].unique(), training)}
    results = judge(table, TASKS, outcomes, draws, seed)
    found = {}
    for task, metrics in METRICS.items():
        made = results[task].metrics
        for metric in (m for m in metrics if m in made and made[m]["learner"].value.known):  # else there are no weights
            at = {metric: made[metric]["learner"].interval()}
            if OTHER in made[metric] and metric in PAIRED[task]:
                at[f"difference:{metric}"] = results[task].difference(metric, OTHER)
            found |= {(task, name): (one.value, one.lo, one.hi) for name, one in at.items()}
    return found


def both(who: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """What the model and the one with more noise say."""
    x = who["x"].to_numpy()
    models = (("learner", 1.0), (OTHER, 1.6))
    made = [said(who, x + noise * rng.normal(size=len(x)), curves=True).assign(model=m) for m, noise in models]
    return pd.concat(made, ignore_index=True)


def fixed(n: int, runs: int, draws: int, workers: int = 1) -> pd.DataFrame:
    """Coverage for models that were fixed beforehand, on n independent patients a run.

    The truth of the weighted metrics is that of the same days and weights on many patients; the curve of the training
    patients is one and the same in all runs, as it is for a model that was fixed.
    """
    truth = true_values()
    rows: dict[tuple[str, str, str], list[bool]] = {}
    with ProcessPoolExecutor(workers) as pool:
        for found in pool.map(partial(one_run, n, draws), range(runs), chunksize=10):
            for key, (_, lo, hi) in found.items():
                rows.setdefault(("fixed model", *key), []).append(lo <= truth[key] <= hi)
    return table_of(rows, n)


def trained_before() -> pd.DataFrame:
    """Outcomes of the patients from whom a fixed model has its censoring."""
    who = patients(500, np.random.default_rng(4))
    return pd.DataFrame({"event": who["event"].astype(float), "time_days": who["days"]})


def true_values(cohorts: int = 60, n: int = 5_000) -> dict[tuple[str, str], float]:
    """What every metric of the fixed models is on many patients, a mean over cohorts."""
    told = []
    for k in range(cohorts):
        rng = np.random.default_rng([7, k])
        told.append(intervals(both(patients(n, rng), rng), 0, 0, trained_before()))
    return {key: float(np.mean([of[key][0] for of in told])) for key in told[0]}


def one_run(n: int, draws: int, run: int) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Intervals of the fixed models on n new patients."""
    rng = np.random.default_rng([1, run])
    return intervals(both(patients(n, rng), rng), draws, run, trained_before())


def crossed(n: int, runs: int, draws: int, columns: int = 20, folds: int = 5) -> pd.DataFrame:
    """Coverage under cross-validation: of the mean of these fold models, and of the mean over all trainings."""
    weight = np.random.default_rng(9).normal(size=columns) / columns**0.5

    def seen(who: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
        return who["x"].to_numpy()[:, None] * weight + rng.normal(size=(len(who), columns))

    rng = np.random.default_rng(2)
    many = patients(5_000, rng)
    wide = seen(many, rng)
    made, truths = [], []
    for run in range(runs):
        rng = np.random.default_rng([3, run])
        who = patients(n, rng)
        x, fold = seen(who, rng), np.arange(n) % folds
        parts, own = [], []
        for k in range(folds):
            inside = fold != k
            ridge = LogisticRegression(C=0.1).fit(x[inside], who["response"][inside])
            parts.append(said(who[fold == k], ridge.decision_function(x[fold == k]), str(k)))
            own.append(
                {key: v for key, (v, _, _) in intervals(said(many, ridge.decision_function(wide)), 0, 0).items()}
            )
        made.append(intervals(pd.concat(parts, ignore_index=True), draws, run))
        truths.append({key: float(np.mean([of[key] for of in own])) for key in own[0]})
    held = {}
    for key in made[0]:
        everywhere = float(np.mean([truth[key] for truth in truths]))
        of = [(at[key][1], at[key][2], truth[key]) for at, truth in zip(made, truths, strict=True)]
        held["these fold models", *key] = [lo <= own <= hi for lo, hi, own in of]
        held["any training of this size", *key] = [lo <= everywhere <= hi for lo, hi, _ in of]
    return table_of(held, n)


def table_of(held: dict[tuple[str, str, str], list[bool]], n: int) -> pd.DataFrame:
    """Rows {truth, task, metric, patients, runs, coverage, lo, hi}."""
    rows = []
    for (truth, task, metric), values in held.items():
        m, p = len(values), float(np.mean(values))
        middle, half = (p + Z**2 / (2 * m)), Z * (p * (1 - p) / m + Z**2 / (4 * m * m)) ** 0.5
        lo, hi = ((middle - half) / (1 + Z**2 / m), (middle + half) / (1 + Z**2 / m))
        rows.append({"truth": truth, "task": task, "metric": metric, "patients": n, "runs": m, "coverage": p})
        rows[-1] |= {"lo": lo, "hi": hi}
    return pd.DataFrame(rows)


def main() -> None:
    """Prints the table."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    words.add_argument("--runs", type=int, default=500)
    words.add_argument("--crossed", type=int, default=200, help="runs of the cross-validated part")
    words.add_argument("--draws", type=int, default=500)
    words.add_argument("--workers", type=int, default=1, help="processes of the fixed models' runs")
    words.add_argument("--patients", type=int, nargs="+", default=[200])
    words.add_argument("--out", type=Path)
    asked: Any = words.parse_args()
    tables = []
    for n in asked.patients:
        tables += [fixed(n, asked.runs, asked.draws, asked.workers), crossed(n, asked.crossed, asked.draws)]
    found = pd.concat(tables, ignore_index=True)
    print(found.to_string(index=False, float_format="%.3f"))
    if asked.out:
        asked.out.write_text(json.dumps(found.to_dict("records"), indent=1) + "\n")


if __name__ == "__main__":
    main()
