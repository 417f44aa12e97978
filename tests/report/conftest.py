"""A small study with saved predictions, as `mtl train` writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.records import Manifest, ModalitySpec, TaskSpec

TASKS = {
    "grade": TaskSpec("grade", "ordinal", ("G1", "G2", "G3")),
    "response": TaskSpec("response", "binary", ("no", "yes")),
    "type": TaskSpec("type", "multiclass", ("a", "b", "c")),
    "survival": TaskSpec("survival", "survival", endpoint="overall survival"),
}
DAYS = (180.0, 365.0, 730.0)


def probabilities(task: TaskSpec, latent: np.ndarray) -> np.ndarray:
    centres = np.linspace(-1, 1, len(task.classes))
    p = np.exp(-((latent[:, None] - centres) ** 2))
    return p / p.sum(axis=1, keepdims=True)


def make(n: int = 90, folds: int = 3, seed: int = 0) -> dict[str, Any]:
    """Manifest, splits, predictions of a learner that sees a noisy latent."""
    rng = np.random.default_rng(seed)
    ids = [f"{i:05d}" for i in range(n)]  # ids that numbers would lose
    m = rng.normal(size=n)
    t, u = rng.exponential(700 * np.exp(-m)) + 1, rng.exponential(1500, n) + 1
    label: dict[str, pd.DataFrame] = {}
    for name, task in TASKS.items():
        if task.kind == "survival":
            label[name] = pd.DataFrame({"event": (t <= u) * 1.0, "time_days": np.minimum(t, u)}, index=ids)
        else:
            value = probabilities(task, m + 0.4 * rng.normal(size=n)).argmax(axis=1).astype(float)
            label[name] = pd.DataFrame({"value": np.where(rng.random(n) < 0.1, np.nan, value)}, index=ids)
    fold = rng.permutation(n) % folds
    rows, split = [], []
    for k in range(folds):
        seen = m + rng.normal(size=n) * 0.8
        for i, p in enumerate(ids):
            part = "test" if fold[i] == k else "validation" if (fold[i] + 1) % folds == k and i % 4 == 0 else "train"
            split.append((p, k, part))
            for name, task in TASKS.items():
                own = label[name].loc[p]
                if task.kind == "survival":
                    said = {"risk": seen[i]} | {f"surv:{d:g}": np.exp(-d / 900 * np.exp(seen[i])) for d in DAYS}
                    truth = ("", own["event"], own["time_days"])
                else:
                    said = {
                        f"p:{c}": v for c, v in zip(task.classes, probabilities(task, seen[i : i + 1])[0], strict=True)
                    }
                    truth = ("" if np.isnan(own["value"]) else task.classes[int(own["value"])], np.nan, np.nan)
                for output, value in said.items():
                    if part != "train" or not output.startswith("surv:"):
                        rows.append((p, name, k, part, output, round(float(value), 6), *truth))
    columns = ["patient_id", "task", "fold", "part", "output", "value", "target", "event", "time_days"]
    clinical = pd.DataFrame({"age": rng.normal(60, 8, n), "marker": m + rng.normal(size=n)}, index=ids)
    radiomics = pd.DataFrame(rng.normal(size=(n, 4)), index=ids).add_prefix("f")
    return {
        "manifest": Manifest(
            name="toy",
            patients=pd.DataFrame({"site": rng.choice(["A", "B"], n)}, index=ids),
            tasks=TASKS,
            modalities={
                "clinical": ModalitySpec("clinical", "clinical"),
                "radiomics": ModalitySpec("radiomics", "radiomics"),
            },
            labels=label,
            tables={"clinical": clinical, "radiomics": radiomics.iloc[: n // 2]},
        ),
        "splits": pd.DataFrame(split, columns=["patient_id", "fold", "part"]),
        "predictions": pd.DataFrame(rows, columns=columns),
    }


@pytest.fixture(scope="session")
def toy() -> dict[str, Any]:
    return make()


def again(toy: dict[str, Any], repeats: int = 3, seed: int = 0) -> pd.DataFrame:
    """The toy's predictions, and `repeats` - 1 further repeats of them: folds dealt anew, and other noise."""
    whole, per = [toy["predictions"]], toy["splits"]["fold"].nunique()
    for k in range(1, repeats):
        other = make(len(toy["manifest"].patients), per, seed=seed + k)["predictions"]
        # the outcomes are those of the toy's own patients: only who is tested where, and what is said, differs
        own = toy["predictions"].drop_duplicates(["patient_id", "task"]).set_index(["patient_id", "task"])
        truth = own[["target", "event", "time_days"]]
        told = other.drop(columns=truth.columns).join(truth, on=["patient_id", "task"])
        whole.append(told.assign(fold=told["fold"] + k * per)[list(toy["predictions"].columns)])
    return pd.concat(whole, ignore_index=True)
