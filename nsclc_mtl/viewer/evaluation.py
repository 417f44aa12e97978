"""What an evaluation left of a task: its metrics and the tables behind its figures. Read, never computed again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.viewer.told import number

LEARNER = "learner"
MEAN = "-1"  # the fold of patients from elsewhere, whom all folds predict together
PRIMARY = {"binary": "auc", "multiclass": "auc", "ordinal": "ordinal_auc", "survival": "c_index",
           "regression": "concordance"}  # fmt: skip
WORDS = {
    "auc": "AUC",
    "ordinal_auc": "ordinal AUC",
    "c_index": "C-index",
    "concordance": "concordance",
    "uno_c": "Uno’s C",
    "balanced_accuracy": "balanced accuracy",
    "brier": "Brier score",
    "ibs": "integrated Brier score",
    "calibration_slope": "calibration slope",
    "mae": "mean absolute error",
    "accuracy": "accuracy",
}
"""What a reader calls the metrics that the page shows; the others stand in the report."""
YEARS = {"1y": (365.25, "1 year"), "3y": (1095.75, "3 years"), "5y": (1826.25, "5 years")}
"""Horizons that survival is judged at: days, and how they are said."""


class Evaluation:
    """The folder of `mtl evaluate`. Files that are not there, or lead out of it, are as nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.resolve().name
        told = self.file("metrics.json")
        rows = json.loads(told.read_text("utf-8")) if told else []
        self.elsewhere = any(row["fold"] == MEAN for row in rows)
        self.rows = [row for row in rows if row["part"] == "test" and row["fold"] == "all" and row["model"] == LEARNER]

    def file(self, *parts: str) -> Path | None:
        """A file of the folder; None where there is none, or where a link leads elsewhere."""
        path = self.folder.joinpath(*parts)
        return path if path.is_file() and path.resolve().is_relative_to(self.folder.resolve()) else None

    def other(self, spec: TaskSpec, n: int) -> str:
        """Why its numbers are not those of the n test patients of a task, as a sentence; empty where they are."""
        primary = [row for row in self.rows if row["task"] == spec.name and row["metric"] == PRIMARY[spec.kind]]
        if not primary:
            return f"The evaluation {self.name} does not judge {spec.name}."
        if self.elsewhere or primary[0]["n"] != n:
            return (
                f"The evaluation {self.name} judged other patients ({primary[0]['n']}): its numbers are in its report."
            )
        return ""

    def metrics(self, spec: TaskSpec) -> list[dict[str, Any]]:
        """The task's metrics over all folds, the primary one first:
        [{metric, words, value, lo, hi, n, events, reason}]."""
        own = {row["metric"]: row for row in self.rows if row["task"] == spec.name}
        first = PRIMARY[spec.kind]
        return [_metric(own[name], word) for name, word in sorted(WORDS.items(), key=lambda w: w[0] != first)
                if name in own]  # fmt: skip

    def of_level(self, spec: TaskSpec, by: str, level: str) -> dict[str, Any] | None:
        """The primary metric among the patients of a subgroup; None where the evaluation did not part them so."""
        wanted = f"{PRIMARY[spec.kind]}|{by}={level}"
        found = [row for row in self.rows if row["task"] == spec.name and row["metric"] == wanted]
        return _metric(found[0], WORDS[PRIMARY[spec.kind]]) if found else None

    def calibration(self, spec: TaskSpec) -> list[dict[str, Any]]:
        """Of each class, cut or year: [{target, curve: {predicted, observed, lo, hi}, groups: [{predicted, observed,
        lo, hi, n}]}]."""
        out = []
        for target, suffix in targets_of(spec):
            table = self._figure("-".join([slug(spec.name), "calibration", *([slug(suffix)] if suffix else [])]))
            if table is None:
                continue
            table = table[table["model"] == LEARNER]
            curve, groups = table[table["kind"] == "curve"], table[table["kind"] == "group"]
            names = ("predicted", "observed", "lo", "hi")
            out.append(
                {
                    "target": target,
                    "curve": {name: [number(v) for v in curve[name]] for name in names},
                    "groups": [
                        {name: number(row[name]) for name in (*names, "n")} for row in groups.to_dict("records")
                    ],
                }
            )
        return out

    def abstention(self, spec: TaskSpec) -> list[dict[str, Any]]:
        """What the metrics are of the patients who are left when the least certain go:
        [{metric, words, kept, n, value, lo, hi}]; lo and hi are those of random orders."""
        out = []
        for metric in (PRIMARY[spec.kind], "accuracy"):
            table = self._figure(f"{slug(spec.name)}-abstention-{slug(metric)}")
            if table is None:
                continue
            numbers = {
                name: [number(v) for v in table[column]]
                for name, column in (("kept", "kept"), ("n", "n"), ("value", "value"), ("lo", "random_lo"),
                                     ("hi", "random_hi"))
            }  # fmt: skip
            out.append({"metric": metric, "words": WORDS[metric], **numbers})
        return out

    def _figure(self, name: str) -> pd.DataFrame | None:
        path = self.file("figures", f"{name}.csv")
        return pd.read_csv(path) if path else None


def slug(name: str) -> str:
    """The name as the report writes it into the names of its files."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "x"


def targets_of(spec: TaskSpec) -> Sequence[tuple[str, str]]:
    """What has a probability, and the end of its file's name."""
    if spec.kind == "survival":
        return [(f"event within {word}", year) for year, (_, word) in YEARS.items()]
    if spec.kind == "regression":
        return []
    if spec.kind == "ordinal":
        return [(f"above {c}", f"above_{c}") for c in spec.classes[:-1]]
    if spec.kind == "binary":
        return [(spec.classes[1], "")]
    return [(c, c) for c in spec.classes]


def _metric(row: dict[str, Any], word: str) -> dict[str, Any]:
    numbers = {name: number(row[name]) for name in ("value", "lo", "hi")}
    return {"metric": row["metric"], "words": word, **numbers, "n": row["n"], "events": row["n_events"],
            "reason": str(row["reason"] or "")}  # fmt: skip
