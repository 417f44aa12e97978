"""compare.html, its tables and the rows of metrics.json: several runs side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup
from rich.box import HEAVY_HEAD
from rich.table import Table

from nsclc_mtl.metrics.comparison import Interval, repeated
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.report import curves
from nsclc_mtl.report.contrast import Contrast, p_word, point, striking
from nsclc_mtl.report.evaluation import row, used
from nsclc_mtl.report.fold import dealt
from nsclc_mtl.report.measures import LEARNER, LOWER_IS_BETTER, PRIMARY, Fold
from nsclc_mtl.report.page import Page
from nsclc_mtl.report.section import Figure, Section
from nsclc_mtl.report.side_by_side import Beside, Entry
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS, metric_word, slug, told


def render(
    made: Mapping[str, Beside],
    entries: Sequence[Entry],
    notes: Sequence[str],
    places: Sequence[str],
    looks: Sequence[str],
) -> Page:
    """The page; the figures of its tasks and a table of every metric stand beside it.

    places, looks: of each run its folder, and how often its test patients have been looked at.
    """
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
            {"label": e.label, "place": place, "tasks": ", ".join(e.tasks), "look": look}
            for e, place, look in zip(entries, places, looks, strict=True)
        ],
        notes=notes,
        tasks=tasks,
        questions=questions,
        survival=any(one.task.kind == "survival" for one in made.values()),
        second=any(one.second for one in made.values()),
        repeats=any(_splits(found) for one in made.values() for found in one.every.values()),
    )
    held = Section("compare", "Every metric", Markup(""), tables={"compare": whole_table(made)})
    return Page(html, figures, [held])


def _task(one: Beside) -> dict[str, Any]:
    first = one.results[one.reference]
    primary = first.primary
    metrics = dict.fromkeys(m for r in one.results.values() for m in r.metrics if m != primary)
    others = [
        {
            "name": metric_word(metric),
            "low": metric in LOWER_IS_BETTER,
            "at": [r.metrics[metric][LEARNER].interval() for r in one.results.values()],
        }
        for metric in metrics
    ]
    return {
        "name": one.task.name,
        "kind": one.task.kind,
        "classes": one.task.classes,
        "compared": [
            {
                "name": metric_word(metric),
                "low": metric in LOWER_IS_BETTER,
                "primary": metric == primary,
                "splits": _splits(found),
                "lines": _lines(one, metric, found),
            }
            for metric, found in one.every.items()
        ],
        "n": first.n,
        "events": first.events,
        "reference": one.reference,
        "same": one.same,
        "again": any(repeated([f.patients for f in r.folds]) for r in one.results.values()),
        "dealt": dealt([f.patients for f in first.folds]),
        "others": others,
        "labels": list(one.results),
    }


def _lines(one: Beside, metric: str, found: Mapping[str, Contrast]) -> list[dict[str, Any]]:
    """What a table of the page says of each run."""
    made = []
    for label, result in one.results.items():
        other = found.get(label)
        p = _adjusted(one, metric, label)
        made.append(
            {
                "label": label,
                "at": result.metrics[metric][LEARNER].interval(),
                "other": other,
                "p": p_word(other.p) if other else "",
                "adjusted": p_word(p) if other else "",
                "bold": _bold(one, metric, label),
                "splits": other.splits if other else None,
                "splits_p": p_word(other.splits.p) if other and other.splits else "",
                "left_out": one.left_out[label],
            }
        )
    return made


def _adjusted(one: Beside, metric: str, label: str) -> float:
    """P by Holm; NaN of the reference, and of metrics beside the primary one, which are not adjusted."""
    return one.adjusted.get(label, math.nan) if metric == one.results[label].primary else math.nan


def _bold(one: Beside, metric: str, label: str) -> bool:
    """Of the primary metric alone: the others are not adjusted."""
    other, ours = one.every[metric].get(label), one.results[label].metrics[metric][LEARNER].interval()
    return other is not None and striking(_adjusted(one, metric, label), other.difference, ours)


def _splits(found: Mapping[str, Contrast]) -> bool:
    return any(other.splits for other in found.values())


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
                own = models[LEARNER]
                rows.append(row(one.task, metric, "all", label, own.interval(), used(result.folds, own)))
        for metric, label, at in _each(one):
            numbers = dict[str, Interval]()
            numbers[f"difference:{metric}"] = at.difference
            numbers[f"p_{at.test.lower()}:{metric}"] = point(at.p)
            if metric == PRIMARY[one.task.kind]:
                numbers[f"p_holm:{metric}"] = point(Score(one.adjusted[label], at.ruling.reason))
            numbers[f"smallest_difference:{metric}"] = point(at.smallest)
            if at.splits:
                numbers[f"nadeau_bengio:{metric}"] = at.splits.difference
                numbers[f"p_nadeau_bengio:{metric}"] = point(at.splits.p)
            both = _both(one, metric, label)
            rows += [row(one.task, word, "all", label, i, both) for word, i in numbers.items()]
    return rows


def _both(one: Beside, metric: str, label: str) -> list[Fold]:
    """The folds of a run that its difference to the reference stands on."""
    ours, theirs = (one.results[run].metrics[metric][LEARNER] for run in (label, one.reference))
    return used(one.results[label].folds, *((ours, theirs) if one.same else (ours,)))


def _each(one: Beside) -> Iterator[tuple[str, str, Contrast]]:
    for metric, found in one.every.items():
        for label, other in found.items():
            yield metric, label, other


def whole_table(made: Mapping[str, Beside]) -> pd.DataFrame:
    """`tables/compare.csv`: a row a task, metric that is compared and run, with the difference to the reference."""
    rows = []
    for one in made.values():
        for metric, label in _rows(one):
            result = one.results[label]
            at = result.metrics[metric][LEARNER].interval()
            other = one.every[metric].get(label)
            gap = other.difference if other else _nothing()
            rows.append(
                {
                    "task": one.task.name,
                    "metric": metric,
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
                    "p_holm": _adjusted(one, metric, label),
                    "smallest_difference": float(other.smallest) if other else math.nan,
                    "p_nadeau_bengio": float(other.splits.p) if other and other.splits else math.nan,
                    "reason": gap.reason or at.reason,
                }
            )
    return pd.DataFrame(rows)


def _rows(one: Beside) -> list[tuple[str, str]]:
    """(metric, run) of what is compared, the primary metric first."""
    return [(metric, label) for metric in one.every for label in one.results]


def table(made: Mapping[str, Beside], boxed: bool) -> Table:
    """The same for the terminal; bold is what stays below .05 after Holm (`striking`), by both P if there are two."""
    out = Table(
        title="The same test patients, 95 % intervals conditional on the trained models",
        title_justify="left",
        box=HEAVY_HEAD if boxed else None,
    )
    repeats = any(_splits(found) for one in made.values() for found in one.every.values())
    words = ("task", "n", "events", "metric", "run", "value", "minus the first", "P", "Holm")
    for column in (*words, "P, splits") if repeats else words:
        out.add_column(column, justify="right" if column in ("n", "events", "P", "Holm", "P, splits") else "left")
    for name, one in made.items():
        for metric, label in _rows(one):
            result, other, p = one.results[label], one.every[metric].get(label), _adjusted(one, metric, label)
            events = "" if result.events is None else str(result.events)
            of = (name, str(result.n), events) if metric == result.primary else ("", "", "")
            head = (*of, metric_word(metric)) if label == one.reference else ("", "", "", "")
            beside: tuple[str, ...] = ()
            if other is not None:
                holm = p_word(p) if metric == result.primary else ""
                beside = (told(other.difference, "+"), p_word(other.p), holm)
                beside += (p_word(other.splits.p),) if other.splits else ()
            at = told(result.metrics[metric][LEARNER].interval())
            out.add_row(*head, label, at, *beside, style="bold" if _bold(one, metric, label) else "")
        out.add_section()
    if repeats:
        out.caption = "Holm: of the larger of P and P over the repeated splits"
    return out


def _nothing() -> Interval:
    return Interval(math.nan, math.nan, math.nan)
