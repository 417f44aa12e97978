"""The learner in subgroups of the patients: its metric with interval in each, and whether they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas

from nsclc_mtl.metrics.comparison import Interval, bootstrap, resamples_of
from nsclc_mtl.metrics.multiplicity import heterogeneity
from nsclc_mtl.metrics.paired import standard_error
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report import curves
from nsclc_mtl.report.contrast import p_word, point
from nsclc_mtl.report.evaluation import TaskResult, row, used
from nsclc_mtl.report.fold import among
from nsclc_mtl.report.measures import LEARNER, Fold, metrics_of, tried
from nsclc_mtl.report.section import Evidence, Figure, Section
from nsclc_mtl.report.subgroup import Subgroups
from nsclc_mtl.report.subgroup import subgroups as parted
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS, metric_word, slug, told

LEAST_PATIENTS, LEAST_EVENTS = 10, 5


@dataclass(frozen=True)
class Level:
    """The learner among the patients of one subgroup."""

    word: str
    patients: int
    events: int | None
    at: Interval
    error: float  # bootstrap standard error, NaN where there is none
    folds: Sequence[Fold]


@dataclass(frozen=True)
class Factor:
    """All subgroups of one column, and the P that the metric is the same in all."""

    by: Subgroups
    levels: list[Level]
    p: Score
    statistic: Score
    freedom: int


def subgroups(evidence: Evidence) -> list[Section]:
    """A part of every task's chapter where the cohort has columns to part it by."""
    if evidence.manifest is None:
        return []
    wanted = evidence.settings.get("subgroups")
    sections = []
    for result in evidence.results.values():
        tested = sorted({p for f in result.folds for p in f.patients})
        columns = set(result.task.columns)
        by = [one for one in parted(evidence.manifest, tested, wanted) if one.column not in columns]
        if by and result.metrics[result.primary][LEARNER].value.known:
            factors = factors_of(result, by, evidence.settings)
            sections.append(_section(result, factors))
    return sections


def factors_of(result: TaskResult, by: Sequence[Subgroups], settings: object) -> list[Factor]:
    """The primary metric in every subgroup, on the draws of the page's other intervals.

    Within each fold, averaged with the subgroup's patients as weights; a fold without a value among them is left out,
    and said. The test is Cochran's Q over the bootstrap's standard errors: subgroups hold different patients.
    """
    get = settings.get  # type: ignore[attr-defined]
    rng = np.random.default_rng([int(get("seed", 0)), *result.task.name.encode()])
    weights = resamples_of([f.patients for f in result.folds], int(get("bootstrap", 1000)), rng)
    out = []
    for one in by:
        levels = [_level(result, word, set(who), weights) for word, who in one.members.items()]
        levels = [level for level in levels if level.patients]
        q, freedom, p = heterogeneity([x.at.value for x in levels], [x.error for x in levels])
        out.append(Factor(one, levels, p, q, freedom))
    return out


def _level(result: TaskResult, word: str, who: set[str], weights: Sequence[np.ndarray]) -> Level:
    folds, drawn = [], []
    for fold, w in zip(result.folds, weights, strict=True):
        at = np.array([i for i, patient in enumerate(fold.patients) if patient in who], dtype=int)
        folds.append(among(fold, at))
        drawn.append(w[:, at])
    people, events, rare = _count(result.task, folds)
    reason = _too_few(result.task, people, rare)
    if reason:
        return _without(word, people, events, reason, folds)
    of = metrics_of(result.task, result.folds)[result.primary]
    # of small subgroups some fold lacks a pair in nearly every draw: a draw averages over those that have a value
    values = bootstrap([tried(of, f, f.said[LEARNER]) for f in folds], drawn, repeats=True)
    kept = used(folds, values)
    held, _, rare = _count(result.task, kept)
    if values.value.known and (reason := _too_few(result.task, held, rare)):  # some folds are left out
        return _without(word, people, events, f"{reason} in the folds that have a value", folds)
    return Level(word, people, events, values.interval(), float(standard_error(values.draws)), kept)


def _without(word: str, people: int, events: int | None, reason: str, folds: Sequence[Fold]) -> Level:
    return Level(word, people, events, Interval(math.nan, math.nan, math.nan, reason), math.nan, folds)


def _count(task: TaskSpec, folds: Sequence[Fold]) -> tuple[int, int | None, int]:
    """Patients; events or positives (None for more classes); and how many of the rarer outcome."""
    label = {p: (x, e) for f in folds for p, x, e in zip(f.patients, f.label, f.event, strict=True)}
    if task.kind == "survival":
        events = int(sum(e == 1 for _, e in label.values()))
        return len(label), events, events
    if task.kind == "binary":
        positive = int(sum(x == 1 for x, _ in label.values()))
        return len(label), positive, min(positive, len(label) - positive)
    if task.kind == "regression":
        return len(label), None, len(label)
    classes = [x for x, _ in label.values()]
    return len(label), None, len(label) - max((classes.count(c) for c in set(classes)), default=0)


def _too_few(task: TaskSpec, patients: int, rare: int) -> str:
    if patients < LEAST_PATIENTS:
        return f"fewer than {LEAST_PATIENTS} patients"
    if rare < LEAST_EVENTS:
        word = {"survival": "events", "binary": "of the rarer class"}.get(task.kind, "outside the largest class")
        return f"fewer than {LEAST_EVENTS} {word}"
    return ""


def _section(result: TaskResult, factors: list[Factor]) -> Section:
    name, metric = slug(result.task.name), metric_word(result.primary)
    whole = result.metrics[result.primary][LEARNER].interval()
    tests = sum(f.p.known for f in factors)
    html = template("sections/subgroups.html.j2", FILTERS).render(
        factors=[{"of": f, "p": p_word(f.p)} for f in factors],
        metric=metric,
        whole=whole,
        tests=tests,
        folds=len(result.folds),
        kind=result.task.kind,
        counted=result.task.kind in ("survival", "binary"),
        least=(LEAST_PATIENTS, LEAST_EVENTS),
    )
    rows = []
    for factor in factors:
        for level in factor.levels:
            word = f"{result.primary}|{factor.by.column}={level.word}"
            rows.append(row(result.task, word, "all", LEARNER, level.at, level.folds))
        word = f"p_interaction:{result.primary}|{factor.by.column}"
        rows.append(row(result.task, word, "all", LEARNER, point(factor.p), result.folds))
    figure = forest(f"{name}-subgroups", result.task, metric, factors, whole)
    return Section(f"subgroups-{name}", "Subgroups", Markup(html), result.task.name, [figure], rows=rows)


def forest(name: str, task: TaskSpec, metric: str, factors: Sequence[Factor], whole: Interval) -> Figure:
    """The metric of every subgroup with its interval, patients and events beside it, the whole as a line."""
    lines: list[tuple[str, Level | None]] = []
    for factor in factors:
        p = f", P {p_word(factor.p)}" if factor.p.known else ""
        lines.append((f"{_short(factor.by.column, 30)}{p}", None))
        lines += [(_short(level.word, 18), level) for level in factor.levels]
    with matplotlib.rc_context(curves.RC):
        height = 0.85 + 0.235 * len(lines)
        drawn = Canvas(figsize=(curves.WIDTH, height))
        bottom, tall = 0.5 / height, 0.235 * len(lines) / height
        axes = drawn.add_axes((0.27, bottom, 0.5, tall))
        events = any(level is not None and level.events is not None for _, level in lines)
        for k, (word, level) in enumerate(lines):
            y = len(lines) - 1 - k
            beside = axes.get_yaxis_transform()
            if level is None:
                axes.text(-0.53, y, word, transform=beside, va="center", weight="bold", fontsize=8.8)
                continue
            axes.text(-0.03, y, word, transform=beside, va="center", ha="right", fontsize=8.8)
            counts = [str(level.patients)] + ([str(level.events)] if events else [])
            for n, count in enumerate(counts):
                axes.text(1.2 + 0.22 * n, y, count, transform=beside, va="center", ha="right", fontsize=8.8)
            if math.isfinite(level.at.value):
                axes.plot([level.at.lo, level.at.hi], [y, y], color=curves.GREY, lw=1.5, solid_capstyle="butt")
                axes.plot([level.at.value], [y], "s", color=curves.BLUE, ms=4.5)
            else:
                axes.text(0.5, y, "no value", transform=beside, va="center", ha="center", fontsize=8, color=curves.GREY)
        for n, head in enumerate(["n"] + (["positive" if task.kind == "binary" else "events"] if events else [])):
            axes.text(1.2 + 0.22 * n, len(lines) - 0.1, head, transform=axes.get_yaxis_transform(),
                      ha="right", fontsize=8.2, color="#4a4f55")  # fmt: skip
        axes.axvline(whole.value, color=curves.BLUE, lw=0.8, ls=(0, (2, 3)), zorder=0)
        axes.axvline(0.5, color="#c4c8cc", lw=0.9, zorder=0)
        axes.set_ylim(-0.7, len(lines) - 0.4)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(metric)
        said = "; ".join(f"{f.by.column} {x.word}: {told(x.at)}" for f in factors for x in f.levels)
        shown = curves.svg(drawn, f"{task.name}: subgroups", f"{metric} with 95 % intervals. {said}.")
    data = pd.DataFrame(
        [
            (f.by.column, x.word, x.patients, x.events, x.at.value, x.at.lo, x.at.hi, float(f.p), x.at.reason)
            for f in factors
            for x in f.levels
        ],
        columns=["column", "level", "patients", "events", "value", "lo", "hi", "p_interaction", "reason"],
    )
    caption = (
        f"Dashed: all patients, {whole.value:.3f}. Grey line: 0.5, chance. P: that all levels of a column are equal."
    )
    return Figure(name, shown, data, caption)


def _short(word: str, most: int) -> str:
    return word if len(word) <= most else word[: most - 1] + "…"
