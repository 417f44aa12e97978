"""Run folders as `mtl train` leaves them, made by hand, and `mtl compare` of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from nsclc_mtl.cli import app
from nsclc_mtl.cohort.split_record import digest

N, FOLDS = 90, 3
TASKS: dict[str, dict[str, Any]] = {
    "response": {"kind": "binary", "classes": ["no", "yes"]},
    "survival": {"kind": "survival", "classes": [], "endpoint": "overall survival"},
}
COLUMNS = ["patient_id", "task", "fold", "part", "output", "value", "target", "event", "time_days"]


def train(
    folder: Path,
    skill: float,
    *,
    tasks: Sequence[str] = ("response", "survival"),
    who: Sequence[int] = range(N),
    shift: int = 0,
    seed: int = 0,
    days: Sequence[int] = (200, 400, 800),
    repeats: int = 1,
) -> Path:
    """A run folder as `mtl train` leaves it; the higher the skill, the better it predicts."""
    truth, rng = np.random.default_rng(9), np.random.default_rng(seed)
    m = truth.normal(size=N)
    label = (m + 0.5 * truth.normal(size=N) > 0).astype(int)
    t, u = truth.exponential(600 * np.exp(-m)) + 1, truth.exponential(1200, N) + 1
    rows, split = [], []
    for k in range(FOLDS * repeats):
        seen = skill * m + rng.normal(size=N)
        for i in who:
            part = "test" if (i + (shift + k // FOLDS) * (i // 7)) % FOLDS == k % FOLDS else "train"
            split.append((f"{i:04d}", k, part))
            if "response" in tasks:
                yes = round(1 / (1 + np.exp(-seen[i])), 6)
                truth_of = (["no", "yes"][label[i]], "", "")
                rows += [(f"{i:04d}", "response", k, part, f"p:{c}", p, *truth_of) for c, p in
                         (("no", 1 - yes), ("yes", yes))]  # fmt: skip
            if "survival" in tasks:
                curve = {f"surv:{d}": np.exp(-d / 900 * np.exp(seen[i])) for d in days} if part == "test" else {}
                for output, value in ({"risk": seen[i]} | curve).items():
                    rows.append(
                        (f"{i:04d}", "survival", k, part, output, value, "", int(t[i] <= u[i]), min(t[i], u[i]))
                    )
    folder.mkdir(parents=True)
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "predictions.csv", index=False, float_format="%.7g")
    splits = pd.DataFrame(split, columns=["patient_id", "fold", "part"])
    splits.to_csv(folder / "splits.csv", index=False)
    (folder / "splits.json").write_text(json.dumps({"sha256": digest(splits), "folds": []}))
    (folder / "cohort.json").write_text(json.dumps({"name": "toy", "tasks": {name: TASKS[name] for name in tasks}}))
    (folder / "config.yaml").write_text("seed: 0\n")
    return folder


def compare(runs: Path, *words: str, name: str = "x") -> tuple[int, str]:
    given = [str(runs / word) if "=" not in word else word for word in words]
    done = CliRunner().invoke(app, ["compare", *given, f"paths.runs={runs / 'out'}", f"name={name}", "bootstrap=200"])
    return done.exit_code, " ".join(done.output.split())


def rows_of(runs: Path, name: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    rows = json.loads((runs / "out" / "compare" / name / "metrics.json").read_text())
    return {(r["task"], r["metric"], r["model"]): r for r in rows if r["fold"] == "all"}
