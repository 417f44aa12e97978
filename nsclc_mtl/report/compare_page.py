"""compare.html, its tables and the rows of metrics.json: several runs side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup
from rich.box import HEAVY_HEAD
from rich.table import Table

from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.report import curves, terminal
from nsclc_mtl.report.contrast import p_word, point
from nsclc_mtl.report.evaluation import row
from nsclc_mtl.report.measures import LEARNER, LOWER_IS_BETTER
from nsclc_mtl.report.page import FILTERS, Page, metric_word, slug
from nsclc_mtl.report.section import Figure, Section
from nsclc_mtl.report.side_by_side import Beside, Entry
from nsclc_mtl.report.templates import template

LEVEL = 0.05


def render(made: Mapping[str, Beside], entries: Sequence[Entry], notes: Sequence[str], places: Sequence[str]) -> Page:
    """The page; the figures of its tasks and a table of every metric stand beside it."""
    figures: list[Figure] = []
    tasks = []
    for name, one in made.items():
        drawn = _figure(name, one)
        figures.append(drawn)
        tasks.append(_task(one) | {"figure": drawn})
    questions = sum(len(one.contrasts) for one in made.values())
    html = template("compare.html.j2", FILTERS).render(
        title=f"{len(entries)} runs side by side",
        runs=[
            {"label": e.label, "place": place, "tasks": ", ".join(e.tasks)}
            for e, place in zip(entries, places, strict=True)
        ],
        notes=notes,
        tasks=tasks,
        questions=questions,
    )
    held = Section("compare", "Every metric", Markup(""), tables={"compare": whole_table(made)})
    return Page(html, figures, [held])


def _task(one: Beside) -> dict[str, Any]:
    first = one.results[one.reference]
    primary = first.primary
    lines = []
    for label, result in one.results.items():
        other = one.contrasts.get(label)
        p = one.adjusted.get(label, math.nan)
        lines.append(
            {
                "label": label,
                "at": result.metrics[primary][LEARNER].interval(),
                "other": other,
                "p": p_word(other.p) if other else "",
                "test": other.test if other else "",
                "adjusted": p_word(p) if other else "",
                "bold": p < LEVEL,
                "left_out": one.left_out[label],
            }
        )
    metrics = dict.fromkeys(m for r in one.results.values() for m in r.metrics if m != primary)
    others = [
        {
            "name": metric_word(metric),
            "low": metric in LOWER_IS_BETTER,
            "at": [
                r.metrics[metric][LEARNER].interval() if metric in r.metrics else _nothing()
                for r in one.results.values()
            ],
        }
        for metric in metrics
    ]
    return {
        "name": one.task.name,
        "kind": one.task.kind,
        "classes": one.task.classes,
        "metric": metric_word(primary),
        "n": first.n,
        "events": first.events,
        "reference": one.reference,
        "same": one.same,
        "folds": {label: len(r.folds) for label, r in one.results.items()},
        "lines": lines,
        "others": others,
        "labels": list(one.results),
    }


def _figure(name: str, one: Beside) -> Figure:
    first = one.results[one.reference]
    metric = first.primary
    rows = [(label, r.metrics[metric][LEARNER].interval()) for label, r in one.results.items()]
    return curves.interval_figure(
        f"{slug(name)}-runs",
        [(label if len(label) < 22 else label[:20] + "…", at) for label, at in rows if math.isfinite(at.value)],
        f"{name}: runs side by side",
        metric_word(metric),
        0.5,
        f"{one.reference} (circle) and the other runs (squares) with 95 % intervals; 0.5 is chance. Overlapping "
        "intervals say little of the paired differences.",
    )


def metric_rows(made: Mapping[str, Beside]) -> list[dict[str, Any]]:
    """Rows of metrics.json: every metric of every run (`model` is its label), in each fold and over all; then the
    differences to the reference with their P."""
    rows = []
    for one in made.values():
        for label, result in one.results.items():
            for metric, models in result.metrics.items():
                for k, fold in enumerate(result.folds):
                    rows.append(row(one.task, metric, fold.fold, label, models[LEARNER].fold_interval(k), [fold]))
                rows.append(row(one.task, metric, "all", label, models[LEARNER].interval(), result.folds))
        for label, at in one.contrasts.items():
            result = one.results[label]
            numbers = {
                f"difference:{result.primary}": at.difference,
                f"p_{at.test.lower()}:{result.primary}": point(at.p),
                f"p_holm:{result.primary}": point(Score(one.adjusted[label])),
                f"smallest_difference:{result.primary}": point(at.smallest),
            }
            rows += [row(one.task, word, "all", label, at_, result.folds) for word, at_ in numbers.items()]
    return rows


def whole_table(made: Mapping[str, Beside]) -> pd.DataFrame:
    """`tables/compare.csv`: a row a task and run, with the difference to the reference."""
    rows = []
    for one in made.values():
        for label, result in one.results.items():
            at = result.metrics[result.primary][LEARNER].interval()
            other = one.contrasts.get(label)
            gap = other.difference if other else _nothing()
            rows.append(
                {
                    "task": one.task.name,
                    "metric": result.primary,
                    "run": label,
                    "reference": one.reference,
                    "same_folds": one.same,
                    "patients": result.n,
                    "events": result.events,
                    "left_out": one.left_out[label],
                    "value": at.value,
                    "lo": at.lo,
                    "hi": at.hi,
                    "difference": gap.value,
                    "difference_lo": gap.lo,
                    "difference_hi": gap.hi,
                    "p": float(other.p) if other else math.nan,
                    "test": other.test if other else "",
                    "p_holm": one.adjusted.get(label, math.nan),
                    "smallest_difference": float(other.smallest) if other else math.nan,
                    "reason": gap.reason or at.reason,
                }
            )
    return pd.DataFrame(rows)


def table(made: Mapping[str, Beside], boxed: bool) -> Table:
    """The same for the terminal; bold is what stays below .05 after Holm."""
    out = Table(
        title="The same test patients, 95 % intervals conditional on the trained models",
        title_justify="left",
        box=HEAVY_HEAD if boxed else None,
    )
    for column in ("task", "n", "events", "metric", "run", "value", "minus the first", "P", "Holm"):
        out.add_column(column, justify="right" if column in ("n", "events", "P", "Holm") else "left")
    for name, one in made.items():
        for label, result in one.results.items():
            first = label == one.reference
            events = "" if result.events is None else str(result.events)
            head = (name, str(result.n), events, metric_word(result.primary)) if first else ("", "", "", "")
            at = result.metrics[result.primary][LEARNER].interval()
            other = one.contrasts.get(label)
            p = one.adjusted.get(label, math.nan)
            told = ("", "", "") if other is None else (terminal.told(other.difference, "+"), p_word(other.p), p_word(p))
            out.add_row(*head, label, terminal.told(at), *told, style="bold" if p < LEVEL else "")
        out.add_section()
    return out


def _nothing() -> Interval:
    return Interval(math.nan, math.nan, math.nan)
