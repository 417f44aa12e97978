"""The audit's table: a modality that carries the signal is needed, one that is noise is equivalent to nothing."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.explain.audit import summarise
from nsclc_mtl.records import TaskSpec

IDS = [f"{i:03d}" for i in range(160)]
TASKS = {
    "response": TaskSpec("response", "binary", ("no", "yes")),
    "os": TaskSpec("os", "survival"),
    "look": TaskSpec("look", "multiclass", ("a", "b", "c")),
}


def told() -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Scores of two folds: `rna` carries everything, `noise` nothing."""
    rng = np.random.Generator(np.random.PCG64(0))
    truth = rng.normal(size=len(IDS))
    labels = {
        "response": pd.DataFrame({"value": (truth + rng.normal(size=160) > 0).astype(float)}, index=IDS),
        "os": pd.DataFrame({"event": 1.0, "time_days": np.exp(6 - truth)}, index=IDS),
        "look": pd.DataFrame({"value": 0.0}, index=IDS),
    }
    labels["response"].iloc[:10] = np.nan
    rows = []
    for modality, mode, repeats in (("", "", 1), ("rna", "permute", 3), ("rna", "drop", 1), ("noise", "permute", 3)):
        for repeat in range(repeats):
            score = rng.permutation(truth) if modality == "rna" else truth
            rows += [
                (p, int(i) % 2, task, modality, mode, repeat, s)
                for i, (p, s) in enumerate(zip(IDS, score, strict=True))
                for task in TASKS
            ]
    columns = ["patient_id", "fold", "task", "modality", "mode", "repeat", "value"]
    return pd.DataFrame(rows, columns=columns), labels


def test_what_is_needed_and_what_is_nothing() -> None:
    spoiled, labels = told()
    rows = {(r["task"], r["modality"], r["mode"]): r for r in summarise(spoiled, TASKS, labels, draws=200, seed=0)}
    assert {task for task, _, _ in rows} == {"response", "os"}
    for task, metric in (("response", "auc"), ("os", "c_index")):
        lost = rows[task, "rna", "permute"]
        assert (lost["metric"], lost["verdict"]) == (metric, "needed")
        assert lost["lo"] < lost["loss"] < lost["hi"]
        noise = rows[task, "noise", "permute"]
        assert (noise["loss"], noise["verdict"]) == (0, "equivalent to nothing")
    assert rows["os", "rna", "permute"]["loss"] == pytest.approx(0.5, abs=0.05)  # from a perfect order to chance
    assert rows["os", "rna", "drop"]["verdict"] == "needed"


def test_a_task_whose_labels_nobody_knows_has_no_rows() -> None:
    spoiled, labels = told()
    labels["response"]["value"] = np.nan
    rows = summarise(spoiled, TASKS, labels, draws=20, seed=0)
    assert {r["task"] for r in rows} == {"os"}


def test_what_cannot_be_measured_is_null_in_json() -> None:
    spoiled, labels = told()
    labels["response"]["value"] = 1.0
    rows = summarise(spoiled, TASKS, labels, draws=20, seed=0)
    one_class = [r for r in rows if r["task"] == "response"]
    assert one_class
    assert all(r["loss"] is None and r["verdict"] == "unclear" for r in one_class)
    json.dumps(rows, allow_nan=False)
