"""Seven tenths of the labels unknown: the training goes on, counts them right, and the unknown rows say nothing."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.config import execute
from nsclc_mtl.phantom.cohort import make

SMALL = [
    "cohort.level=features", "cohort.n=80", "folds.n=2", "folds.workers=0", "folds.validation=0.2",
    "folds.min_events=1", "trainer.max_epochs=1", "optim.min_steps=1", "audit=0", "device=cpu", "logger=none",
    "modalities=[clinical,rna]",
]  # fmt: skip


def train(root: Path, name: str) -> Path:
    words = [f"name={name}", f"paths.runs={root / 'runs'}", f"paths.out={root / 'out'}", f"cohort.root={root / 'data'}"]
    assert execute("train", [*words, *SMALL], lambda: import_module("nsclc_mtl.commands.train").body) == 0
    return root / "runs" / "train" / name


@pytest.mark.slow
def test_what_stands_in_the_unknown_rows_changes_nothing(tmp_path: Path) -> None:
    root = make(tmp_path / "data", level="features", n=80)
    table = pd.read_csv(root / "patients.csv", dtype=str, keep_default_na=False)
    unknown = np.random.default_rng(0).permutation(80)[:56]
    table.loc[unknown, "os_status"] = ""  # the times stay there
    table.loc[unknown, "grade"] = ""
    table.to_csv(root / "patients.csv", index=False)
    first = train(tmp_path, "first")
    cohort = json.loads((first / "cohort.json").read_text())["tasks"]
    known = (table["os_status"] != "").sum()
    assert cohort["survival"]["known"] == known <= 24
    assert cohort["grade"]["known"] == (table["grade"] != "").sum() <= 24
    rows = json.loads((first / "metrics.json").read_text())
    assert {row["task"]: row["n"] for row in rows if row["fold"] == "all"}["survival"] == known
    record = json.loads((first / "splits.json").read_text())
    assert sum(fold["parts"]["test"]["survival"]["known"] for fold in record["folds"]) == known
    days = table.loc[unknown, "os_days"].to_numpy()
    table.loc[unknown, "os_days"] = days[::-1]
    assert (days != days[::-1]).any()
    table.to_csv(root / "patients.csv", index=False)
    second = train(tmp_path, "second")
    for file in ("predictions.csv", "splits.csv", "splits.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes()


@pytest.mark.slow
def test_the_split_of_a_run_serves_the_next(tmp_path: Path) -> None:
    """splits.csv with splits.json beside it, and the hash; a row moved to another part ends with 5."""
    make(tmp_path / "data", level="features", n=80)
    first = train(tmp_path, "first")
    record = json.loads((first / "splits.json").read_text())
    words = [f"paths.runs={tmp_path / 'runs'}", f"paths.out={tmp_path / 'out'}", f"cohort.root={tmp_path / 'data'}"]
    given = [*words, *SMALL, f"folds.file={first / 'splits.csv'}", f"folds.sha256={record['sha256']}"]

    def again(name: str) -> int:
        return execute("train", [f"name={name}", *given], lambda: import_module("nsclc_mtl.commands.train").body)

    assert again("second") == 0
    second = tmp_path / "runs" / "train" / "second"
    assert (second / "splits.csv").read_bytes() == (first / "splits.csv").read_bytes()
    text = (first / "splits.csv").read_text()
    (first / "splits.csv").write_text(text.replace(",train", ",validation", 1))
    assert again("third") == 5
