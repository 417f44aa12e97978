"""Where a patient stands among those whom the model was tested on: position of a score, risk groups, their curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.metrics.risk_groups import groups_of
from nsclc_mtl.metrics.survival import Curve, kaplan_meier
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.viewer.board import Said

NAMES = {2: ("lower risk", "higher risk"), 3: ("low risk", "middle risk", "high risk")}


class Reference:
    """The test patients of the training run, by task and fold: scores of different folds share no scale."""

    def __init__(self, said: Said, tasks: dict[str, TaskSpec]) -> None:
        self.said, self.tasks = said, tasks
        rows = said.reference if said.reference is not None else said.predictions.iloc[:0]
        self._by = {(str(t), str(f)): own for (t, f), own in rows.groupby(["task", "fold"], sort=False)}
        self._groups: dict[str, list[dict[str, Any]]] = {}
        self._values: dict[tuple[str, str], pd.Series] = {}  # scores, ascending, by task and fold ("" = all folds)

    def position(self, task: dict[str, Any], patient: str) -> dict[str, Any] | None:
        """{values, own, others, words}: the score among those of the same fold's test patients, ascending.

        A patient who is one of them is not compared with himself: `others` is then true.

        Of patients from elsewhere, whom all folds predict together, among those of all folds: `words` says which.
        """
        spec, fold = self.tasks[task["name"]], task["fold"]
        same = fold if (spec.name, fold) in self._by else ""
        scores, own = self._sorted(spec, same), _own(spec, task)
        others = bool(same) and patient in scores.index
        values = (scores[scores.index != patient] if others else scores).to_list()
        if own is None or not values:
            return None
        of = f"{len(values)} {'other ' if others else ''}test patients" + (f" of fold {fold}" if same else "")
        return {"values": values, "own": own, "others": others, "words": f"{_what(spec)} among {of}"}

    def _sorted(self, spec: TaskSpec, fold: str) -> pd.Series:
        key = (spec.name, fold)
        if key not in self._values:
            frames = [own for (t, f), own in self._by.items() if t == spec.name and fold in ("", f)]
            each = [_scores(spec, own) for own in frames]
            self._values[key] = pd.concat(each).sort_values().round(5) if each else pd.Series(dtype=float)
        return self._values[key]

    def groups(self, name: str) -> list[dict[str, Any]]:
        """Kaplan-Meier curves of the test patients below and above the cut-off that each fold's training fixed:
        [{name, n, events, days, survival, lower, upper, at_risk}]; empty where there are none."""
        if name not in self._groups:
            self._groups[name] = self._curves(name) if self.tasks[name].kind == "survival" else []
        return self._groups[name]

    def group(self, task: dict[str, Any]) -> str | None:
        """The risk group of a patient: by the cut-off of the fold that predicts him, else by the mean of all folds'."""
        cuts = self.cuts(task["name"])
        if task["risk"] is None or not cuts:
            return None
        cut = cuts.get(task["fold"], sum(cuts.values()) / len(cuts))
        group = int(groups_of([task["risk"]], [cut])[0])
        return NAMES[2][group] if group >= 0 else None

    def cuts(self, name: str) -> dict[str, float]:
        """The median risk of each fold's training patients, by fold; empty where the run kept none."""
        each = self.said.cutoffs.get(name) or {}
        return {str(f): float(level["median"]) for f, level in each.items() if isinstance(level, dict)}

    def _curves(self, name: str) -> list[dict[str, Any]]:
        cuts, parts = self.cuts(name), []
        for (task, fold), own in self._by.items():
            if task == name and fold in cuts:
                rows = own[(own["output"] == "risk") & own["time_days"].notna() & own["event"].notna()]
                parts.append(rows.assign(group=groups_of(rows["value"], [cuts[fold]])))
        if not any(map(len, parts)):
            return []
        rows = pd.concat(parts)
        out = []
        for number, word in enumerate(NAMES[2]):
            own = rows[rows["group"] == number]
            if len(own):
                curve = kaplan_meier(own["time_days"], own["event"])
                ticks = np.arange(0, float(rows["time_days"].max()) + 1, 365.25)
                out.append(
                    {
                        "name": word, "n": len(own), "events": int(own["event"].sum()), **steps(curve),
                        "at_risk": [{"days": float(t), "n": int((own["time_days"] >= t).sum())} for t in ticks],
                    }
                )  # fmt: skip
        return out


def steps(curve: Curve) -> dict[str, list[float]]:
    """Days, survival and its 95 % band: 1 where it is not defined yet, as before where it no longer is."""
    return {
        "days": np.asarray(curve.time, float).tolist(),
        "survival": np.asarray(curve.value, float).round(5).tolist(),
        "lower": _defined(curve.lo),
        "upper": _defined(curve.hi),
    }


def _defined(band: np.ndarray) -> list[float]:
    filled: list[float] = pd.Series(np.asarray(band, float)).ffill().fillna(1.0).round(5).tolist()
    return filled


def _scores(spec: TaskSpec, rows: pd.DataFrame) -> pd.Series:
    """The score of each patient, by id."""
    if spec.kind in ("survival", "regression"):
        output = "risk" if spec.kind == "survival" else "value"
        return rows[rows["output"] == output].set_index("patient_id")["value"].dropna().astype(float)
    wide = rows.pivot_table(index="patient_id", columns="output", values="value")
    if any(f"p:{c}" not in wide for c in spec.classes):
        return pd.Series(dtype=float)
    p = wide[[f"p:{c}" for c in spec.classes]].dropna().astype(float)
    return p.max(axis=1) if spec.kind == "multiclass" else p.mul(np.arange(len(spec.classes))).sum(axis=1)


def _own(spec: TaskSpec, task: dict[str, Any]) -> float | None:
    if spec.kind in ("survival", "regression"):
        found = task["risk" if spec.kind == "survival" else "value"]
        return None if found is None else float(found)
    p = [one["p"] for one in task["probabilities"]]
    if any(v is None for v in p):
        return None
    return float(max(p)) if spec.kind == "multiclass" else float(sum(k * v for k, v in enumerate(p)))


def _what(spec: TaskSpec) -> str:
    if spec.kind == "survival":
        return "risk (higher is worse)"
    if spec.kind == "ordinal":
        return f"expected class ({spec.classes[0]} = 0 to {spec.classes[-1]} = {len(spec.classes) - 1})"
    if spec.kind == "binary":
        return f"probability of {spec.classes[1]}"
    return "probability of the predicted class" if spec.kind == "multiclass" else f"number {spec.unit}".strip()
