"""Section of each task: do its probabilities mean what they say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas

from nsclc_mtl.metrics.calibration import Assessed, Group, assess, groups, rates
from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival_calibration import DCalibration, assess_at, d_calibration, risks
from nsclc_mtl.report.curves import BLUE, GREY, INK, ORANGE, RC, WIDTH, above, svg
from nsclc_mtl.report.evaluation import TaskResult
from nsclc_mtl.report.fold import once, once_said
from nsclc_mtl.report.measures import LEARNER
from nsclc_mtl.report.probabilities import (
    Target,
    draws_of,
    interval_of,
    joined,
    last_day,
    primary_floor,
    row,
    spoken,
    survival_at,
    targets_of,
)
from nsclc_mtl.report.section import Evidence, Figure, Section
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS, slug

NUMBERS = {
    "slope": "calibration_slope",
    "intercept": "calibration_intercept",
    "in_the_large": "calibration_in_the_large",
    "observed_expected": "observed_expected",
    "ici": "ici",
    "e50": "e50",
    "e90": "e90",
}
"""Number of `Assessed` -> metric in metrics.json, before the target's suffix."""
_POINTS = 60  # of a curve
_BARS = 20  # of the histogram
_FEW = 10  # of the rarer outcome: one for each group of patients


@dataclass
class _Told:
    """One target as the template shows it."""

    target: Target
    found: dict[str, Assessed]  # model ->
    intervals: dict[str, dict[str, Interval]]  # model -> number ->
    groups: list[Group]


def calibration(evidence: Evidence) -> list[Section]:
    """Of every task with probabilities: slope, observed over expected, ICI, D-calibration, and the curves."""
    sections = []
    for result in evidence.results.values():
        models = [m for m in (LEARNER, primary_floor(evidence)) if m in result.metrics[result.primary]]
        targets, why = targets_of(result, models)
        targets = [t for t in targets if LEARNER in t.said]
        if not targets:
            if result.task.kind == "survival" and why:
                sections.append(_section(result, [], {}, why, models))
            continue
        weights = draws_of(evidence, result)
        told = [_assessed(target, weights) for target in targets]
        uniform = {m: _d_calibration(result, m) for m in models} if result.task.kind == "survival" else {}
        sections.append(_section(result, told, uniform, why, models))
    return sections


def _assessed(target: Target, weights: np.ndarray) -> _Told:
    found: dict[str, Assessed] = {}
    for model, p in target.said.items():
        grid = np.linspace(float(np.quantile(p, 0.01)), float(np.quantile(p, 0.99)), _POINTS)
        if target.when is None:
            found[model] = assess(target.happened, p, weights, grid)
        else:
            own = target.hazard[model]
            found[model] = assess_at(p, target.time, target.event, target.when, weights, grid, own)
    n = len(target.patients)
    intervals = {
        m: {name: interval_of(score, a.draws[name], n) for name, score in a.values.items()} for m, a in found.items()
    }
    observe = rates(target.happened) if target.when is None else risks(target.time, target.event, target.when)
    return _Told(target, found, intervals, groups(target.said[LEARNER], observe))


def _d_calibration(result: TaskResult, model: str) -> DCalibration:
    """Who was seen beyond the last day of the curves counts as censored on that day: so much is known of him."""
    folds = once(result.folds)  # chi-square takes every row for a patient of its own
    last = last_day(folds, model)
    time, event = (np.concatenate([getattr(f, word) for f in folds]) for word in ("label", "event"))
    if not last:
        none = Score.missing("no survival curves")
        return DCalibration(none, none, np.full(10, np.nan))
    return d_calibration(survival_at(folds, model, np.minimum(time, last)), np.where(time > last, 0.0, event))


def _section(
    result: TaskResult, told: list[_Told], uniform: dict[str, DCalibration], why: list[str], models: list[str]
) -> Section:
    name = slug(result.task.name)
    rows = [
        row(result, t.target, NUMBERS[number] + t.target.suffix, model, at)
        for t in told
        for model, intervals in t.intervals.items()
        for number, at in intervals.items()
    ]
    nan = float("nan")
    for model, test in uniform.items():
        for metric, score in (("d_calibration_chi2", test.chi2), ("d_calibration_p", test.p)):
            rows.append(row(result, None, metric, model, Interval(float(score), nan, nan, score.reason)))
    survival = result.task.kind == "survival"
    html = template("sections/calibration.html.j2", FILTERS).render(
        survival=survival,
        n=result.n,
        rows=[_line(t, model) for t in told for model in t.intervals],
        uniform=[{"model": spoken(m), "chi2": u.chi2, "p": u.p} for m, u in uniform.items()],
        censored=100 * (1 - (result.events or 0) / max(1, result.n)) if survival else nan,
        folds=len(once(result.folds)),
        first=once_said(result.folds),
        draws=len(next(iter(told[0].found.values())).curve_draws) if told else 0,
        why=list(dict.fromkeys([*why, *(w for t in told for w in joined(t.target.lacking))])),
    )
    figures = [
        _figure(f"{name}-calibration{'-' + slug(t.target.suffix) if t.target.suffix else ''}", result, t) for t in told
    ]
    tables = {}
    if survival and any(u.p.known for u in uniform.values()):
        bins = pd.DataFrame({"from": np.arange(10) / 10, "to": np.arange(1, 11) / 10})
        tables[f"{name}-d-calibration"] = bins.assign(**{spoken(m): u.share for m, u in uniform.items()})
    return Section(f"calibration-{name}", "Calibration", Markup(html), result.task.name, figures, tables, rows)


def _line(told: _Told, model: str) -> dict[str, Any]:
    at = told.intervals[model]
    return {
        "name": told.target.name,
        "model": spoken(model),
        "ours": model == LEARNER,
        "slope": at["slope"],
        "intercept": at.get("intercept"),
        "large": at["in_the_large"],
        "ratio": at["observed_expected"],
        "ici": at["ici"],
        "e90": at["e90"],
    }


def _figure(name: str, result: TaskResult, told: _Told) -> Figure:
    """Smooth curves of the learner and the floor, groups of patients as points, predictions as a histogram below."""
    target, parts = told.target, []
    ours = target.said[LEARNER]
    top = max([*(p.max() for p in target.said.values()), *(g.observed for g in told.groups if g.n)])
    top = min(1.0, math.ceil((top if math.isfinite(top) else 1.0) * 10 + 0.2) / 10)
    with matplotlib.rc_context(RC):
        drawn = Canvas(figsize=(WIDTH, 4.9))
        axes = drawn.add_axes((0.12, 0.27, 0.85, 0.63))
        axes.plot([0, top], [0, top], color="#9aa0a6", lw=0.9, label="ideal")
        for model, found in told.found.items():
            mine = model == LEARNER
            if mine and len(found.curve_draws):
                lo, hi = _band(found.curve_draws)
                axes.fill_between(found.grid, lo, hi, color=BLUE, alpha=0.14, lw=0)
            else:
                lo = hi = np.full(len(found.grid), np.nan)
            style = "-" if mine else (0, (5, 2))
            axes.plot(found.grid, found.curve, color=BLUE if mine else ORANGE, ls=style, lw=1.8, label=spoken(model))
            parts.append(_part("curve", model, found.grid, found.curve, lo, hi))
        shown = [g for g in told.groups if math.isfinite(g.observed)]
        x, y = np.array([g.predicted for g in shown]), np.array([g.observed for g in shown])
        low, high = np.array([g.lo for g in shown]), np.array([g.hi for g in shown])
        whiskers = np.maximum(np.nan_to_num(np.stack([y - low, high - y])), 0) if shown else None
        axes.errorbar(x, y, yerr=whiskers, fmt="o", color=INK, ms=4, lw=0.9, label="learner, groups of patients")
        parts.append(_part("group", LEARNER, x, y, low, high, np.array([g.n for g in shown])))
        what = "observed share" if target.when is None else "observed risk (1 − Kaplan-Meier)"
        axes.set(xlim=(-0.01 * top, top), ylim=(-0.01 * top, top * 1.04), ylabel=what)
        axes.set_xticklabels([])
        above(axes)
        below = drawn.add_axes((0.12, 0.105, 0.85, 0.13))
        edges = np.linspace(0, top, _BARS + 1)
        count, _ = np.histogram(np.clip(ours, 0, top), edges)
        below.bar(edges[:-1], count, np.diff(edges), align="edge", color=GREY, edgecolor="white", lw=0.5)
        below.set(xlim=(-0.01 * top, top), xlabel=f"predicted probability: {target.name}", ylabel="patients")
        below.set_yticks([0, count.max()])
        middle = (edges[:-1] + edges[1:]) / 2
        parts.append(_part("histogram", LEARNER, middle, count * np.nan, count * np.nan, count * np.nan, count))
        title = f"{result.task.name}: calibration, {target.name}"
        at = told.intervals[LEARNER]["ici"].value
        picture = svg(
            drawn, title, f"Observed against predicted probability of {len(ours)} test patients. ICI {at:.3f}."
        )
    events = int(target.happened.sum())
    rarer = events if target.when is not None else min(events, len(ours) - events)
    happened = f"{events} {'of them so' if target.when is None else 'with the event by then'}"
    of_all = " of all folds" if len(result.folds) > 1 else ""
    caption = (
        f"{target.name[:1].upper()}{target.name[1:]}: {len(ours)} test patients{of_all}, {happened}."
        f"{once_said(result.folds)} Line: smooth curve with its 95 % band, from the 1st to the 99th percentile of the "
        "predictions; points: patients in groups of equal size with 95 % intervals; bars: how many patients have which "
        "prediction."
    ) + ("" if rarer >= _FEW else f" With {rarer} of the rarer outcome the curve says little.")
    return Figure(name, picture, pd.concat(parts, ignore_index=True), caption)


def _band(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise 95 % band, where at least 20 draws have a curve."""
    good = draws[~np.isnan(draws).any(axis=1)]
    if len(good) < 20:
        none = np.full(draws.shape[1], np.nan)
        return none, none
    lo, hi = np.quantile(good, [0.025, 0.975], axis=0)
    return lo, hi


def _part(kind: str, model: str, x: Any, y: Any, lo: Any, hi: Any, n: Any = "") -> pd.DataFrame:
    return pd.DataFrame({"kind": kind, "model": model, "predicted": x, "observed": y, "lo": lo, "hi": hi, "n": n})
