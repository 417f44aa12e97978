"""patients/<id>/page.html: what a run says of one patient, how far to rely on it, and the pictures. One file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report.curves import BLUE, DAYS_PER_MONTH, GREY, ORANGE, RC, WIDTH, svg
from nsclc_mtl.report.held_out import HeldOut, of_model
from nsclc_mtl.report.patient_pictures import embedded
from nsclc_mtl.report.section import Figure
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import slug
from nsclc_mtl.trust import conformal

_SPREAD_WORDS = {"survival": "probability of being event-free", "regression": "number"}


@dataclass
class Patient:
    """What is known of one patient. Everything is text and escaped on the page.

    said: rows of predictions.csv (task, output, value, target, event, time_days). trust: rows of trust.csv that hold
    for the patient or for what predicted him (patient_id empty), all text. heterogeneity: rows of heterogeneity.csv.
    bars: task -> SVG file of its feature bars, as this program wrote it. pictures: PNG files with their captions.
    held_out: task -> how the models do on patients whom they had not seen; without it that is not known. calibrated:
    task -> by what its probabilities are calibrated, "" where they are not; without it nothing is said of it.
    """

    patient_id: str
    cohort: str
    tasks: Mapping[str, TaskSpec]
    said: pd.DataFrame
    trust: pd.DataFrame
    meta: Sequence[tuple[str, str]] = ()  # label, value
    reasons: Sequence[str] = ()  # why not to rely on it
    present: Sequence[str] = ()
    missing: Sequence[str] = ()
    bars: Mapping[str, Path] = field(default_factory=dict)
    pictures: Sequence[tuple[Path, str]] = ()
    heterogeneity: pd.DataFrame | None = None
    held_out: Mapping[str, HeldOut] = field(default_factory=dict)
    calibrated: Mapping[str, str] = field(default_factory=dict)


def render(patient: Patient) -> str:
    """The page as HTML text."""
    pictures, left_out, smaller = embedded(patient.pictures)
    return template("patient.html.j2").render(
        of=patient,
        cautions=cautions(patient),
        tasks=[_task(patient, spec) for spec in patient.tasks.values()],
        pictures=pictures,
        left_out=left_out,
        smaller=smaller,
        spread=_heterogeneity(patient.heterogeneity),
    )


def _task(patient: Patient, spec: TaskSpec) -> dict[str, Any]:
    mine = patient.said[patient.said["task"] == spec.name]
    value = {str(o): float(v) for o, v in zip(mine["output"], mine["value"], strict=True)}
    told = patient.trust[patient.trust["task"] == spec.name]
    own = told[told["patient_id"] == patient.patient_id]
    facts = _words(told[told["patient_id"] == ""]) | _words(own)
    rows = []
    for output, v in value.items():
        if output.startswith("p:"):
            rows.append({"name": output[2:], "value": chance(v), "width": f"{100 * min(max(v, 0.0), 1.0):.1f}"})
    days, curve = survival(value)
    horizon = _float(facts.get("horizon_days"))
    first, *others = sentences(spec, facts, value)
    return {
        "name": spec.name,
        "anchor": f"task-{slug(spec.name)}",
        "kind": spec.kind,
        "endpoint": spec.endpoint,
        "rows": rows,
        "sentences": [first, *of_model(patient.calibrated.get(spec.name), patient.held_out.get(spec.name)), *others],
        "reasons": list(own[own["what"] == "reason"]["value"]),
        "known": _known(spec, mine),
        "figure": curve_figure(spec, days, curve, horizon, _float(facts.get("lower_bound_days"))).drawn
        if len(days)
        else None,
        "days": [(f"{d:g}", chance(s)) for d, s in zip(days, curve, strict=True)],
        # written by `feature_bars.figure`, which escapes its texts
        "bars": Markup(patient.bars[spec.name].read_text(encoding="utf-8")) if spec.name in patient.bars else None,
    }


def cautions(patient: Patient) -> list[str]:
    """Reasons for caution that lie in the model, whoever is predicted: those of like tasks in one line."""
    lines: dict[str, list[str]] = {}
    for task in patient.tasks:
        found = patient.held_out.get(task)
        if found is None:
            lines.setdefault("how it does on patients whom it had not seen is not known", []).append(task)
        elif found.verdict != "better than chance":
            lines.setdefault(f"{found.verdict} on the patients who were held out", []).append(task)
        if patient.calibrated.get(task) == "":
            lines.setdefault("probabilities are not calibrated", []).append(task)
    return [f"{', '.join(names)}: {line}" for line, names in lines.items()]


def chance(p: float) -> str:
    """A probability with two digits; never 0 or 1, which no model knows.

    >>> chance(0.576), chance(0.99997), chance(0.0)
    ('0.58', '> 0.99', '< 0.01')
    """
    shown = f"{p:.2f}"
    return {"1.00": "> 0.99", "0.00": "< 0.01"}.get(shown, shown)


def _words(rows: pd.DataFrame) -> dict[str, str]:
    return {str(w): str(v) for w, v in zip(rows["what"], rows["value"], strict=True) if str(v) != ""}


def _float(text: str | None) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return math.nan


def survival(value: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Days, ascending, and the patient's survival curve on them, from the outputs `surv:<days>`."""
    points = sorted((float(o.split(":", 1)[1]), v) for o, v in value.items() if o.startswith("surv:"))
    return np.array([d for d, _ in points]), np.array([v for _, v in points])


def sentences(spec: TaskSpec, facts: Mapping[str, str], value: Mapping[str, float]) -> list[str]:
    """What is predicted of a task, with which confidence, set or bound, and how far the members differ, in words."""
    sure, horizon = _float(facts.get("confidence")), _float(facts.get("horizon_days"))
    said, told = facts.get("predicted", ""), []
    if spec.kind == "regression":
        unit = f" {spec.unit}" if spec.unit else ""
        told.append(f"Predicted: {value['value']:.5g}{unit}." if "value" in value else "Nothing is predicted.")
    elif spec.kind == "survival":
        if math.isfinite(sure):
            word = "alive without the event" if said == "event-free" else "with the event before"
            at = f" day {horizon:.0f}" if math.isfinite(horizon) else " the horizon"
            told.append(
                f"Judged likelier: {word}{' at' if said == 'event-free' else ''}{at} (probability {chance(sure)})."
            )
        if "risk" in value:
            score = f"{value['risk']:.3f}".replace("-", "−")
            told.append(f"Risk score {score}: higher is worse; it has no unit and compares within a fold.")
    elif said:
        told.append(f"Predicted: {said}, with probability {chance(sure)}.")
    told.append(_set(spec, facts))
    members = int(_float(facts.get("members")) if facts.get("members") else 1)
    if (far := _float(facts.get("spread"))) == far:
        word = _SPREAD_WORDS.get(spec.kind, "probability of the predicted class")
        more = f"; {facts['votes']} of {members} say {said}" if "votes" in facts else ""
        told.append(f"The {members} models differ by a standard deviation of {far:.3f} in the {word}{more}.")
    else:
        told.append("One model predicted it, so how far models would differ is not known.")
    return told


def _set(spec: TaskSpec, facts: Mapping[str, str]) -> str:
    if "n_calibration" not in facts or not ("set" in facts or "set_size" in facts):
        what = {"survival": "lower bound", "regression": "interval"}.get(spec.kind, "prediction set")
        return f"There is no {what}: no calibration patients with this outcome were set aside."
    words, sets = facts.get("set", ""), int(_float(facts.get("sets")) if facts.get("sets") else 1)
    if spec.kind == "survival":
        what, does = "such bounds", "are outlived by"
        said = f"Lower bound: {words} without the event"
    elif spec.kind == "regression":
        what, does = "such intervals", "hold the truth for"
        said = f"Interval: {words}{f' {spec.unit}' if spec.unit else ''}"
    else:
        what, does = "such sets", "hold the truth for"
        classes = words.split("|") if words else []
        one = "alone" if len(classes) == 1 else "the set does not decide" if len(classes) < len(spec.classes) else (
            "every class, so it says nothing")  # fmt: skip
        likely = f"{' or '.join(classes)} ({one})" if classes else "empty, no class is likely enough"
        said = f"Prediction set: {likely}"
    single, whole = (f"{100 * conformal.promised(_float(facts.get('miss')), n):.0f} of 100" for n in (1, sets))
    like = f"patients like the {facts['n_calibration']} of the calibration"
    if sets == 1:
        return f"{said}; {what} {does} {single} {like}."
    return (
        f"{said}, by a vote of {sets} folds. Of each fold alone {what} {does} {single} {like}; of the vote at least "
        f"{whole} is all that is proven (Cherubin 2019; Gasparin and Ramdas 2024). How often it does is measured where "
        "outcomes are known: mtl evaluate, “How far a prediction may be relied on”."
    )


def _known(spec: TaskSpec, mine: pd.DataFrame) -> str:
    """The outcome as the cohort has it, empty where it is unknown."""
    if mine.empty:
        return ""
    row = mine.iloc[0]
    if spec.kind == "survival":
        time, event = row.get("time_days"), row.get("event")
        if pd.isna(time) or str(time) == "":
            return ""
        happened = not pd.isna(event) and str(event) not in ("", "0", "0.0", "False", "censored")
        cause = f" ({event})" if happened and spec.causes else ""
        return f"event{cause} on day {float(time):.0f}" if happened else f"no event until day {float(time):.0f}"
    target = row.get("target")
    return "" if pd.isna(target) or str(target) == "" else f"{target}{f' {spec.unit}' if spec.unit else ''}"


def curve_figure(
    spec: TaskSpec, days: np.ndarray, curve: np.ndarray, horizon: float = math.nan, bound: float = math.nan
) -> Figure:
    """The patient's survival curve on the days [day] that were predicted, with the horizon and the lower bound."""
    x, y = np.r_[0.0, days] / DAYS_PER_MONTH, np.r_[1.0, curve]
    with matplotlib.rc_context(RC):
        drawn = Canvas(figsize=(WIDTH, 2.9))
        axes = drawn.add_axes((0.12, 0.17, 0.85, 0.78))
        axes.plot(x, y, color=BLUE, lw=1.8, marker="o", ms=4.5)
        for day, v in zip(x[1:], y[1:], strict=True):
            axes.annotate(chance(v), (day, v), (3, 5), textcoords="offset points", fontsize=8)
        lines = ((horizon, "horizon", GREY, (0, (2, 3))), (bound, "lower bound", ORANGE, "--"))
        for height, (day, word, colour, style) in zip((0.02, 0.09), lines, strict=True):  # two days may be close
            if math.isfinite(day) and 0 <= day <= days[-1]:
                axes.axvline(day / DAYS_PER_MONTH, color=colour, lw=1.0, ls=style)
                axes.text(day / DAYS_PER_MONTH, height, f" {word}", color=colour, fontsize=8, va="bottom")
        axes.set(ylim=(0, 1.08), ylabel="event-free", xlabel="months", xlim=(0, x[-1] * 1.07))
        axes.set_xticks(np.arange(0, x[-1] + 0.01, 12 if x[-1] > 24 else 3))
        told = "; ".join(f"day {d:g}: {chance(v)}" for d, v in zip(days, curve, strict=True))
        shown = svg(drawn, f"{spec.name}: predicted survival", f"Probability to be free of the event. {told}.")
    return Figure(f"survival-{slug(spec.name)}", shown, pd.DataFrame({"time_days": days, "event_free": curve}))


def _heterogeneity(rows: pd.DataFrame | None) -> list[dict[str, str]]:
    """How each map is spread over a slide, as text."""
    if rows is None:
        return []

    def number(value: Any, digits: int) -> str:
        at = _float(str(value))
        return f"{at:.{digits}f}".replace("-", "−") if math.isfinite(at) else "–"

    out = []
    for row in rows.to_dict("records"):
        task = "" if pd.isna(row["task"]) else str(row["task"])
        reason = "" if pd.isna(row["reason"]) else str(row["reason"])
        out.append(
            {
                "slide": str(row["slide_id"]), "map": f"{row['map']} on {task}" if task else str(row["map"]),
                "tiles": str(row["tiles"]), "entropy": number(row["entropy"], 3),
                "effective": number(row["effective_tiles"], 1), "moran": number(row["moran_i"], 3),
                "p": number(row["moran_p"], 3), "reason": reason,
            }
        )  # fmt: skip
    return out
