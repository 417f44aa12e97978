"""What a run says of a patient, task by task, in plain types that JSON knows: the words of its tables, nothing new."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.trust.conformal import promised
from nsclc_mtl.trust.survival_calibration import cumulative_hazard
from nsclc_mtl.viewer.board import Board, Said

# flags of trust.csv that speak against every task of a patient
AGAINST_ALL = ("flag:outside", "flag:site")
YEARS = (1, 3, 5)  # of survival, told as numbers, where the curve reaches them
UNTRAINED = "never trained"  # of the reason for a combination of modalities that no training patient had


@dataclass(frozen=True)
class Predicted:
    """The rows of predictions.csv of a patient and task: outputs by name, and the first row's known outcome."""

    fold: str
    value: dict[str, float | None]
    truth: dict[str, Any]


class Told:
    """The tables of a run by patient: one pass over each, then a patient costs look-ups in dictionaries."""

    def __init__(self, said: Said, tasks: Mapping[str, TaskSpec]) -> None:
        self.said, self.tasks = said, dict(tasks)
        self._predicted = _predicted(said.predictions)
        self._facts, self._reasons = _facts(said.trust)
        self._patients = {} if said.patients is None else _texts(said.patients, "modalities", "missing", "caution")

    @cached_property
    def _audit(self) -> dict[str, pd.DataFrame]:
        return _by_patient(self.said.audit)

    @cached_property
    def _shapley(self) -> dict[str, pd.DataFrame]:
        return _by_patient(self.said.shapley)

    @cached_property
    def _weights(self) -> dict[str, pd.DataFrame]:
        return _by_patient(self.said.weights)

    def patient(self, patient: str) -> dict[str, Any]:
        """{present, missing, reasons, abstains}: what holds of the patient for every task."""
        row = self._patients.get(patient)
        flags = self._facts.get((patient, ""), {})
        missing = [
            k.removeprefix("flag:missing:") for k, v in flags.items() if k.startswith("flag:missing:") and v == "1"
        ]
        caution = list(self._reasons.get((patient, ""), ()))
        if row is not None:
            missing = row["missing"].split()
            of_tasks = {reason for task in self.tasks for reason in self._reasons.get((patient, task), ())}
            caution = [r for r in row["caution"].split("; ") if r and r not in of_tasks]
        return {
            "present": None if row is None else row["modalities"].split(),
            "missing": missing,
            "reasons": caution,
            "abstains": any(flags.get(flag) == "1" for flag in AGAINST_ALL) or any(UNTRAINED in r for r in caution),
        }

    def task(self, patient: str, name: str) -> dict[str, Any] | None:
        """What is predicted of a task; None where nothing is.

        `abstains`: the prediction set does not decide (several classes, or none), or the members disagree.
        """
        spec, own = self.tasks[name], self._predicted.get((patient, name))
        if own is None:
            return None
        value = own.value
        facts = self._facts.get((own.fold, name, "fold"), {}) | self._facts.get((patient, name), {})
        likely = facts.get("set", "")
        # of an empty set only the size has a value
        has_set = bool(spec.classes) and ("set" in facts or "set_size" in facts)
        decided = [word for word in likely.split("|") if word] if spec.classes else []
        return {
            "name": name,
            "kind": spec.kind,
            "classes": list(spec.classes),
            "score_words": score_words(spec),
            "endpoint": spec.endpoint,
            "unit": spec.unit,
            "said": facts.get("predicted") or _likeliest(spec, value),
            "confidence": number(facts.get("confidence")) if "confidence" in facts else _most(spec, value),
            "probabilities": [{"class": c, "p": value.get(f"p:{c}")} for c in spec.classes],
            "risk": value.get("risk"),
            "value": value.get("value"),
            "interval": [number(facts.get("interval_low")), number(facts.get("interval_high"))]
            if "interval_low" in facts
            else None,
            "set": decided if has_set else None,
            "set_level": _level(facts),
            "sets": number(facts.get("sets")),
            "n_calibration": number(facts.get("n_calibration")),
            "members": number(facts.get("members")),
            "spread": number(facts.get("spread")),
            "votes": number(facts.get("votes")),
            "abstains": (has_set and len(decided) != 1) or facts.get("flag:disagree") == "1",
            "reasons": list(self._reasons.get((patient, name), ())),
            "known": known(spec, own.truth),
            "horizon_days": number(facts.get("horizon_days")),
            "lower_bound_days": number(facts.get("lower_bound_days")),
            "curve": _curve(value, facts),
            "fold": own.fold,
        }

    def shown(self, patient: str, name: str) -> list[dict[str, Any]]:
        """The score of a task when only some modalities are shown, as the audit found it: [{modalities, score}].

        The first one is what all modalities of the patient say. Where the audit did not show every combination, it is
        followed by those that leave one out. Classes without an order have several scores, and nothing is told.
        """
        rows, spec = self._audit.get(patient), self.tasks[name]
        if rows is None or spec.kind == "multiclass":
            return []
        rows = rows[(rows["task"] == name) & rows["mode"].isin(("", "drop", "coalition"))]
        score = {
            (str(m), str(how)): number(v)
            for m, how, v in zip(rows["modality"], rows["mode"], rows["value"], strict=True)
        }
        touched = set(rows.loc[(rows["mode"] == "drop") & rows["touched"].astype(bool), "modality"])
        have = [m for m in dict.fromkeys(rows["modality"]) if (m, "drop") in score and m in touched]
        if ("", "") not in score:
            return []
        combined = {tuple(m.split("+")) if m else (): v for (m, how), v in score.items() if how == "coalition"}
        told = {tuple(have): score["", ""]}
        told |= {tuple(o for o in have if o != m): score[m, "drop"] for m in have}
        told |= {tuple(o for o in have if o in names): v for names, v in combined.items() if set(names) <= set(have)}
        return [{"modalities": list(names), "score": v} for names, v in told.items()]

    def contributions(self, patient: str, name: str, modalities: list[str], missing: list[str]) -> list[dict[str, Any]]:
        """Shapley value of each modality for a task, and whether the patient has it: [{modality, value, present}].

        Of classes without an order, for the class that is predicted.
        """
        rows = self._shapley.get(patient)
        if rows is None:
            return []
        rows = rows[rows["task"] == name]
        if rows["output"].nunique() > 1:
            rows = rows[rows["output"] == (self.task(patient, name) or {}).get("said")]
        value = {str(m): number(v) for m, v in zip(rows["modality"], rows["value"], strict=True)}
        if not value:
            return []
        return [{"modality": m, "value": value.get(m), "present": m not in missing} for m in modalities]

    def base(self, patient: str, name: str) -> float | None:
        """What the model says of a task without any modality: the contributions start from there."""
        rows = self._shapley.get(patient)
        rows = rows[rows["task"] == name] if rows is not None else None
        if rows is None or rows.empty:
            return None
        if rows["output"].nunique() > 1:
            rows = rows[rows["output"] == (self.task(patient, name) or {}).get("said")]
        return number(rows["base"].iloc[0]) if len(rows) else None

    def weights(self, patient: str, name: str) -> list[dict[str, Any]]:
        """Weights that the fusion gave its parts for a task, means over the members: [{part, weight}]."""
        rows = self._weights.get(patient)
        if rows is None:
            return []
        mean = rows[rows["task"] == name].groupby("part", sort=False)["weight"].mean()
        return [{"part": str(part), "weight": number(weight)} for part, weight in mean.items()]


def score_words(spec: TaskSpec) -> str:
    """What the score of a task is, that the audit and the Shapley values speak of."""
    if spec.kind == "binary":
        return f"log odds of {spec.classes[1]}"
    if spec.kind == "ordinal":
        return f"expected class ({spec.classes[0]} = 0 to {spec.classes[-1]} = {len(spec.classes) - 1})"
    words = {"survival": "risk score, higher is worse", "regression": "standard deviations of the training patients"}
    return words.get(spec.kind, "log odds of the predicted class against the mean")


def covariates(board: Board, patient: str) -> dict[str, str]:
    """The covariates of a patient as text; blank ones are left out."""
    row = board.covariates.loc[patient]
    return {str(k): str(v) for k, v in row.items() if not pd.isna(v) and str(v) != ""}


def known(spec: TaskSpec, row: Mapping[str, Any]) -> str | None:
    """The outcome as the cohort has it, in words; None where it is unknown."""
    if spec.kind == "survival":
        time, event = number(row.get("time_days")), row.get("event")
        if time is None:
            return None
        happened = not pd.isna(event) and str(event) not in ("", "0", "0.0")
        return f"event on day {time:.0f}" if happened else f"no event until day {time:.0f}"
    target = row.get("target")
    return None if target is None or pd.isna(target) or str(target) == "" else str(target)


def number(value: Any) -> float | None:
    """A float that JSON can hold; None where there is none.

    >>> number("0.5"), number(""), number(float("nan"))
    (0.5, None, None)
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _predicted(table: pd.DataFrame) -> dict[tuple[str, str], Predicted]:
    found: dict[tuple[str, str], Predicted] = {}
    truths = ("target", "event", "time_days")
    columns = [_column(table, c) for c in ("patient_id", "task", "fold", "output", "value", *truths)]
    for patient, task, fold, output, value, *truth in zip(*columns, strict=True):
        own = found.get((patient, task))
        if own is None:
            own = found[patient, task] = Predicted(str(fold), {}, dict(zip(truths, truth, strict=True)))
        own.value[str(output)] = number(value)
    return found


def _facts(trust: pd.DataFrame) -> tuple[dict[tuple[str, ...], dict[str, str]], dict[tuple[str, str], list[str]]]:
    """What is told by (patient, task), of a fold by (fold, task, "fold"); and the reasons by (patient, task)."""
    facts: dict[tuple[str, ...], dict[str, str]] = {}
    reasons: dict[tuple[str, str], list[str]] = {}
    columns = [_column(trust, c) for c in ("patient_id", "fold", "task", "what", "value")]
    for patient, fold, task, what, value in zip(*columns, strict=True):
        if what == "reason" and patient:
            reasons.setdefault((patient, task), []).append(value)
        elif value != "":
            facts.setdefault((patient, task) if patient else (str(fold), task, "fold"), {})[what] = str(value)
    return facts, reasons


def _column(table: pd.DataFrame, name: str) -> list[Any]:
    return list(table[name]) if name in table else [None] * len(table)


def _texts(table: pd.DataFrame, *columns: str) -> dict[str, dict[str, str]]:
    rows = zip(*(_column(table, c) for c in columns), strict=True)
    return {p: {c: str(v) for c, v in zip(columns, row, strict=True)} for p, row in zip(table.index, rows, strict=True)}


def _by_patient(table: pd.DataFrame | None) -> dict[str, pd.DataFrame]:
    return {} if table is None else {str(p): rows for p, rows in table.groupby("patient_id", sort=False)}


def _level(facts: Mapping[str, str]) -> float | None:
    """Share of the patients whom the set is sure to serve: of a vote of several less than of one."""
    miss = number(facts.get("miss"))
    return None if miss is None else promised(miss, int(number(facts.get("sets")) or 1))


def _likeliest(spec: TaskSpec, value: Mapping[str, float | None]) -> str | None:
    p = {c: value.get(f"p:{c}") for c in spec.classes}
    found = {c: v for c, v in p.items() if v is not None}
    return max(found, key=lambda c: found[c]) if found else None


def _most(spec: TaskSpec, value: Mapping[str, float | None]) -> float | None:
    found = [v for c in spec.classes if (v := value.get(f"p:{c}")) is not None]
    return max(found) if found else None


def _curve(value: Mapping[str, float | None], facts: Mapping[str, str]) -> dict[str, Any] | None:
    """Days and survival, with two standard deviations of the members around it where several predicted."""
    points = sorted((float(o.split(":", 1)[1]), v) for o, v in value.items() if o.startswith("surv:") and v is not None)
    if not points:
        return None
    sd = [number(facts.get(f"spread:{day:g}")) for day, _ in points]
    known_sd = all(one is not None for one in sd)
    band = [(max(0.0, s - 2 * (e or 0)), min(1.0, s + 2 * (e or 0))) for (_, s), e in zip(points, sd, strict=True)]
    return {
        "days": [day for day, _ in points],
        "survival": [s for _, s in points],
        "lower": [low for low, _ in band] if known_sd else None,
        "upper": [high for _, high in band] if known_sd else None,
    }


def at_years(curve: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Survival at 1, 3 and 5 years as far as the curve goes: [{years, survival, lower, upper}].

    Between the days at which the curve is written the hazard is constant.
    """
    if curve is None:
        return []

    def at(line: list[float] | None, day: float) -> float | None:
        return None if line is None else math.exp(-float(cumulative_hazard([line], curve["days"], [day])[0]))

    lines = ("survival", "lower", "upper")
    within = [year for year in YEARS if 365 * year <= curve["days"][-1]]
    return [{"years": year} | {line: at(curve[line], 365 * year) for line in lines} for year in within]
