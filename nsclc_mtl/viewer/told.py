"""What a run says of a patient, task by task, in plain types that JSON knows: the words of its tables, nothing new."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.trust.survival_calibration import cumulative_hazard
from nsclc_mtl.viewer.board import Board, Said

# flags of trust.csv that speak against every task of a patient
AGAINST_ALL = ("flag:outside", "flag:site")
YEARS = (1, 3, 5)  # of survival, told as numbers, where the curve reaches them
UNTRAINED = "never trained"  # of the reason for a combination of modalities that no training patient had


class Told:
    """The tables of a run by patient, so that one patient costs a look-up and not a pass over the cohort."""

    def __init__(self, said: Said, tasks: Mapping[str, TaskSpec]) -> None:
        self.said, self.tasks = said, dict(tasks)
        self._rows = dict(list(said.predictions.groupby("patient_id", sort=False)))
        trust = said.trust
        self._trust = dict(list(trust[trust["patient_id"] != ""].groupby("patient_id", sort=False)))
        of_fold = trust[trust["patient_id"] == ""]
        self._of_fold = {key: _words(rows) for key, rows in of_fold.groupby(["fold", "task"], sort=False)}
        self._audit = _by_patient(said.audit)
        self._shapley = _by_patient(said.shapley)
        self._weights = _by_patient(said.weights)

    def patient(self, patient: str) -> dict[str, Any]:
        """{present, missing, reasons, abstains}: what holds of the patient for every task."""
        row = self.said.patients.loc[patient] if self.said.patients is not None else None
        own = self._own(patient)
        flags = _words(own[own["task"] == ""])
        missing = [
            k.removeprefix("flag:missing:") for k, v in flags.items() if k.startswith("flag:missing:") and v == "1"
        ]
        caution = list(own[(own["what"] == "reason") & (own["task"] == "")]["value"])
        if row is not None:
            missing = str(row["missing"]).split()
            of_tasks = set(own[(own["what"] == "reason") & (own["task"] != "")]["value"])
            caution = [r for r in str(row["caution"]).split("; ") if r and r not in of_tasks]
        return {
            "present": None if row is None else str(row["modalities"]).split(),
            "missing": missing,
            "reasons": caution,
            "abstains": any(flags.get(flag) == "1" for flag in AGAINST_ALL) or any(UNTRAINED in r for r in caution),
        }

    def task(self, patient: str, name: str) -> dict[str, Any] | None:
        """What is predicted of a task; None where nothing is.

        `abstains`: the prediction set does not decide (several classes, or none), or the members disagree.
        """
        spec, rows = self.tasks[name], self._rows.get(patient)
        rows = rows[rows["task"] == name] if rows is not None else None
        if rows is None or rows.empty:
            return None
        value = {str(o): number(v) for o, v in zip(rows["output"], rows["value"], strict=True)}
        own = self._own(patient)
        own = own[own["task"] == name]
        facts = self._of_fold.get((str(rows["fold"].iloc[0]), name), {}) | _words(own)
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
            "set_level": _level(facts.get("miss")),
            "n_calibration": number(facts.get("n_calibration")),
            "members": number(facts.get("members")),
            "spread": number(facts.get("spread")),
            "votes": number(facts.get("votes")),
            "abstains": (has_set and len(decided) != 1) or facts.get("flag:disagree") == "1",
            "reasons": list(own[own["what"] == "reason"]["value"]),
            "known": known(spec, dict(zip(map(str, rows.columns), rows.iloc[0], strict=True))),
            "horizon_days": number(facts.get("horizon_days")),
            "lower_bound_days": number(facts.get("lower_bound_days")),
            "curve": (curve := _curve(value, facts)),
            "years": _at_years(curve),
            "fold": str(rows["fold"].iloc[0]),
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

    def _own(self, patient: str) -> pd.DataFrame:
        return self._trust.get(patient, self.said.trust.iloc[:0])


def summary(board: Board, told: Told, patient: str) -> dict[str, Any]:
    """One row of the worklist: id, covariates, and of each task what is said, how surely, and what is known."""
    mine = told.patient(patient)
    keep = ("said", "confidence", "set", "abstains", "known", "reasons", "risk", "value")
    tasks = {}
    for name in board.tasks:
        one = told.task(patient, name)
        tasks[name] = None if one is None else {key: one[key] for key in keep}
    return {
        "id": patient,
        "covariates": covariates(board, patient),
        **mine,
        "tasks": tasks,
        "slides": len(board.slides_of(patient)),
        "scans": len(board.scans_of(patient)),
    }


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


def _words(rows: pd.DataFrame) -> dict[str, str]:
    return {str(w): str(v) for w, v in zip(rows["what"], rows["value"], strict=True) if str(v) != ""}


def _by_patient(table: pd.DataFrame | None) -> dict[str, pd.DataFrame]:
    return {} if table is None else {str(p): rows for p, rows in table.groupby("patient_id", sort=False)}


def _level(miss: str | None) -> float | None:
    found = number(miss)
    return None if found is None else 1 - found


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


def _at_years(curve: Mapping[str, Any] | None) -> list[dict[str, Any]]:
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
