"""Section of each task: would decisions by its probabilities be better than to treat everybody, or nobody."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MultipleLocator

from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.metrics.decision import net_benefit, net_benefit_at
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival_calibration import observed_risk
from nsclc_mtl.records import UsageFault
from nsclc_mtl.report.curves import BLUE, GREY, INK, ORANGE, RC, WIDTH, above, svg
from nsclc_mtl.report.evaluation import TaskResult
from nsclc_mtl.report.fold import once_said
from nsclc_mtl.report.measures import LEARNER
from nsclc_mtl.report.probabilities import (
    Target,
    draws_of,
    interval_of,
    joined,
    primary_floor,
    row,
    spoken,
    targets_of,
)
from nsclc_mtl.report.section import Evidence, Figure, Section
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS, slug

ALL, NONE = "treat all", "treat none"
_LOW, _STEP = 0.01, 0.01
_LEAST_TOP, _MOST_TOP = 0.2, 0.95  # a default range ends at twice the prevalence, within these


def decision(evidence: Evidence) -> list[Section]:
    """Of every task with probabilities: net benefit over a range of thresholds, beside the primary floor."""
    sections = []
    for result in evidence.results.values():
        models = [m for m in (LEARNER, primary_floor(evidence)) if m in result.metrics[result.primary]]
        targets, _ = targets_of(result, models)
        targets = [t for t in targets if LEARNER in t.said and len(t.patients)]
        if not targets:
            continue
        weights = np.vstack([np.ones(len(targets[0].patients)), draws_of(evidence, result)])
        name = slug(result.task.name)
        lines: list[dict[str, Any]] = []
        rows: list[dict[str, Any]] = []
        figures = []
        for target in targets:
            at = thresholds_of(target, evidence.settings.get("thresholds"))
            benefit = _benefits(target, at, weights)
            own = f"{name}-decision{'-' + slug(target.suffix) if target.suffix else ''}"
            figures.append(_figure(own, result, target, at, benefit))
            for k in _told_at(at):
                lines.append(_line(target, at, benefit, k, not len(lines) or lines[-1]["target"] != target.name))
                rows += _rows(result, target, float(at[k]), benefit, k)
        html = template("sections/decision.html.j2", FILTERS).render(
            lines=lines,
            floor=next((spoken(m) for m in models if m != LEARNER and any(m in t.said for t in targets)), ""),
            survival=result.task.kind == "survival",
            draws=len(weights) - 1,
            named=bool(evidence.settings.get("thresholds")),
            why=list(dict.fromkeys(w for t in targets for w in joined(t.lacking))),
        )
        sections.append(
            Section(f"decision-{name}", "Decision curves", Markup(html), result.task.name, figures, {}, rows)
        )
    return sections


def thresholds_of(target: Target, named: Sequence[float] | None) -> np.ndarray:
    """Thresholds in steps of 1 %: the named range, or from 1 % to twice the share of patients who have the outcome.

    Of survival that share is 1 - Kaplan-Meier. Raises UsageFault for a range that is none.
    """
    if named:
        if len(named) != 2 or not 0 < float(named[0]) < float(named[1]) < 1:
            raise UsageFault(f"thresholds={list(named)} is no range: two numbers within 0 and 1, such as [0.05,0.5]")
        low, top = float(named[0]), float(named[1])
    else:
        share = target.prevalence
        if target.when is not None:
            share = float(observed_risk(target.time, target.event, target.when, np.ones((1, len(target.time))))[0])
        low, top = _LOW, min(_MOST_TOP, max(_LEAST_TOP, 2 * share))
    return np.round(np.arange(low, top + 1e-9, _STEP), 4)


def _benefits(target: Target, at: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Net benefit of each strategy, [1 + draw, threshold]: the first row is the patients as they are."""

    def of(p: np.ndarray) -> np.ndarray:
        if target.when is None:
            return net_benefit(target.happened, p, at, weights)
        return net_benefit_at(p, target.time, target.event, target.when, at, weights)

    out = {model: of(p) for model, p in target.said.items()}
    # everybody is treated at every threshold: one risk serves them all
    whole = np.ones(len(target.patients))
    return out | {ALL: of(whole)}


def _told_at(at: np.ndarray) -> list[int]:
    """Which thresholds stand in the table: three, a quarter, a half and three quarters of the way."""
    return sorted({round((len(at) - 1) * share) for share in (0.25, 0.5, 0.75)})


def _difference(benefit: dict[str, np.ndarray], other: str, k: int, n: int) -> Interval:
    gap = benefit[LEARNER][:, k] - benefit[other][:, k]
    value = Score(float(gap[0])) if math.isfinite(gap[0]) else Score.missing(_WHY)
    return interval_of(value, gap[1:], n)


_WHY = "nobody above the threshold is followed so far"


def _at(benefit: np.ndarray, k: int, n: int) -> Interval:
    value = float(benefit[0, k])
    return interval_of(Score(value) if math.isfinite(value) else Score.missing(_WHY), benefit[1:, k], n)


def _line(target: Target, at: np.ndarray, benefit: dict[str, np.ndarray], k: int, first: bool) -> dict[str, Any]:
    n = len(target.patients)
    floor = next((m for m in target.said if m != LEARNER), None)
    treated = target.said[LEARNER] >= at[k]
    return {
        "target": target.name,
        "first": first,
        "threshold": 100 * float(at[k]),
        "treated": 100 * float(treated.mean()),
        "ours": _at(benefit[LEARNER], k, n),
        "all": float(benefit[ALL][0, k]),
        "best": _difference(benefit, ALL, k, n),
        "gap": _difference(benefit, floor, k, n) if floor else None,
    }


def _rows(
    result: TaskResult, target: Target, threshold: float, benefit: dict[str, np.ndarray], k: int
) -> list[dict[str, Any]]:
    n, metric = len(target.patients), f"net_benefit{target.suffix}@{threshold:.2f}"
    out = [row(result, target, metric, model, _at(values, k, n)) for model, values in benefit.items()]
    for model in benefit:
        if model != LEARNER:
            out.append(row(result, target, f"difference:{metric}", model, _difference(benefit, model, k, n)))
    return out


def _step(width: float) -> float:
    """Between the ticks of an axis so wide: whole per cent, so that no label is rounded; seven ticks at most."""
    return next((s for s in (0.01, 0.02, 0.05, 0.1) if width / s <= 7), 0.2)


def _figure(name: str, result: TaskResult, target: Target, at: np.ndarray, benefit: dict[str, np.ndarray]) -> Figure:
    looks: dict[str, tuple[str, Any, float]] = {
        LEARNER: (BLUE, "-", 2.0), ALL: (GREY, (0, (1.5, 1.5)), 1.6), NONE: (INK, "-", 0.9)
    }  # fmt: skip
    parts = []
    with matplotlib.rc_context(RC):
        drawn = Canvas(figsize=(WIDTH, 3.9))
        axes = drawn.add_axes((0.175, 0.135, 0.78, 0.735))
        highest = 0.0
        for model, values in {**benefit, NONE: np.zeros((1, len(at)))}.items():
            colour, style, width = looks.get(model, (ORANGE, (0, (5, 2)), 1.8))
            mine = model == LEARNER
            good = values[1:]
            known = (~np.isnan(good)).sum(axis=0) >= 20 if mine else np.zeros(len(at), dtype=bool)
            lo, hi = np.full(len(at), np.nan), np.full(len(at), np.nan)
            if known.any():
                lo[known], hi[known] = np.nanquantile(good[:, known], [0.025, 0.975], axis=0)
                axes.fill_between(at, lo, hi, color=colour, alpha=0.13, lw=0)
            axes.plot(at, values[0], color=colour, ls=style, lw=width, label=spoken(model))
            highest = max(highest, float(np.nanmax(np.r_[0.0, values[0], hi])))
            parts.append(
                pd.DataFrame({"strategy": model, "threshold": at, "net_benefit": values[0], "lo": lo, "hi": hi})
            )
        top = max(highest * 1.08, 0.02)
        axes.set(xlim=(at[0], at[-1]), ylim=(-0.25 * top, top), xlabel="threshold probability", ylabel="net benefit")
        axes.xaxis.set_major_locator(MultipleLocator(_step(float(at[-1] - at[0]))))
        axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f} %")
        above(axes)
        title = f"{result.task.name}: decision curve, {target.name}"
        picture = svg(
            drawn, title, f"Net benefit against the threshold: {', '.join(spoken(m) for m in benefit)}, {NONE}."
        )
    caption = (
        f"{target.name[:1].upper()}{target.name[1:]}: net benefit of treating those whose probability reaches the "
        f"threshold, {len(target.patients)} test patients{' of all folds' if len(result.folds) > 1 else ''}."
        f"{once_said(result.folds)} Band: 95 % of the learner. Below 0 it would be better to treat nobody."
    )
    return Figure(name, picture, pd.concat(parts, ignore_index=True), caption)
