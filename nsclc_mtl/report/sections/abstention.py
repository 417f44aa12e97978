"""Abstention: what a task's metric becomes when the least certain patients are left out, against chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas

from nsclc_mtl.metrics.comparison import Measure, average, over_folds
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report import curves
from nsclc_mtl.report.evaluation import TaskResult
from nsclc_mtl.report.fold import once, once_said
from nsclc_mtl.report.measures import LEARNER, Fold, metrics_of, proba_of, tried
from nsclc_mtl.report.section import Evidence, Figure, Section
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.trust_table import numbers
from nsclc_mtl.report.words import FILTERS, metric_word, slug

KEPT = np.round(np.arange(1.0, 0.29, -0.05), 2)  # shares of the patients that are kept
_FEWEST = 20  # kept patients: of fewer a metric says nothing
_RANDOM = 200  # orders in which patients are left out at random


def abstention(evidence: Evidence) -> list[Section]:
    """A risk-coverage curve in each task's chapter (Geifman and El-Yaniv, NeurIPS 2017); [] without `trust.csv`."""
    rows = evidence.trust
    if rows is None or rows.empty:
        return []
    return [s for result in evidence.results.values() if (s := _abstention(result, rows)) is not None]


def _abstention(result: TaskResult, rows: pd.DataFrame) -> Section | None:
    task, folds = result.task, once(result.folds)
    sure = [_certainty(task, rows, f) for f in folds]
    if not any(np.isfinite(s).any() for s in sure):
        return None
    name, figures = slug(task.name), list[Figure]()
    found: list[tuple[str, pd.DataFrame]] = []
    measures = {result.primary: metrics_of(task, folds)[result.primary]}
    if task.classes:
        measures["accuracy"] = lambda f, said: _accuracy(task, f, said)
    for metric, measure_of in measures.items():
        each = [tried(measure_of, f, f.said[LEARNER]) for f in folds]
        if metric == "accuracy" and len(figures) and not any(callable(m) for m in each):
            continue
        table = curve(each, sure)
        if table["value"].notna().any():
            figures.append(_figure(f"{name}-abstention-{slug(metric)}", task, metric, table, len(result.folds)))
            found.append((metric, table))
    if not figures:
        return None
    told = []
    for metric, table in found:
        half = table[table["kept"] == 0.5].iloc[0]
        if np.isfinite(half["value"]):
            told.append(
                f"With the less certain half left out the {metric_word(metric)} is {half['value']:.3f} "
                f"(all: {table['value'].iloc[0]:.3f}; half left out at random: {half['random_lo']:.3f} to "
                f"{half['random_hi']:.3f})" + _verdict(half)
            )
    html = template("sections/abstention.html.j2", FILTERS).render(task=task, told=told, first=once_said(result.folds))
    tables = {f"{name}-abstention": pd.concat([t.assign(metric=m) for m, t in found])}
    title = "When the least certain are left out"
    return Section(f"{name}-abstention", title, Markup(html), task.name, figures, tables)


def _verdict(half: pd.Series) -> str:
    """How a sentence on half of the patients ends; the metrics that are shown are higher where better."""
    if np.isnan(half["random_lo"]):
        return "."
    if half["random_lo"] <= half["value"] <= half["random_hi"]:
        return ", not told apart from chance."
    return f", {'better' if half['value'] > half['random_hi'] else 'worse'} than at random."


def _certainty(task: TaskSpec, rows: pd.DataFrame, fold: Fold) -> np.ndarray:
    """How sure a prediction is, [patient]: its probability; of a number minus the spread of the members."""
    if task.kind == "regression":
        return -numbers(rows, task.name, "spread", fold.fold, fold.patients)
    return numbers(rows, task.name, "confidence", fold.fold, fold.patients)


def _accuracy(task: TaskSpec, fold: Fold, said: pd.DataFrame) -> Measure | Score:
    proba = proba_of(task, said)
    if proba is None or np.isnan(proba).any():
        return Score.missing("no probabilities for some patients")
    return average((proba.argmax(axis=1) == fold.label).astype(float))


def curve(measures: Sequence[Measure | Score], sure: Sequence[np.ndarray]) -> pd.DataFrame:
    """Metric of the most certain patients of each fold: kept, n, value, random_lo, random_hi (95 % of random orders).

    Within each fold its least certain patients are left out first; of equally certain ones the later in the table.
    """
    rng = np.random.default_rng(0)
    used = [(m, s) for m, s in zip(measures, sure, strict=True) if not isinstance(m, Score) and np.isfinite(s).any()]
    out = []
    for share in KEPT:
        values, chance, sizes = [], [], []
        for measure, certain in used:
            n = len(certain)
            keep = math.ceil(share * n - 1e-9)
            order = np.argsort(-np.where(np.isfinite(certain), certain, -np.inf), kind="stable")
            own = np.zeros((1, n))
            own[0, order[:keep]] = 1
            drawn = (rng.random((_RANDOM, n)).argsort(axis=1).argsort(axis=1) < keep).astype(float)
            values.append(measure(own))
            chance.append(measure(drawn))
            sizes.append(keep)
        row = {"kept": share, "n": sum(sizes), "value": math.nan, "random_lo": math.nan, "random_hi": math.nan}
        if sum(sizes) >= _FEWEST:
            row["value"] = float(over_folds(values, sizes, True)[0])
            at_random = over_folds(chance, sizes, True)
            if np.isfinite(at_random).any():
                row["random_lo"], row["random_hi"] = np.nanquantile(at_random, [0.025, 0.975])
        out.append(row)
    return pd.DataFrame(out)


def _figure(name: str, task: TaskSpec, metric: str, table: pd.DataFrame, folds: int) -> Figure:
    known = table[table["value"].notna()]
    with matplotlib.rc_context(curves.RC):
        drawn = Canvas(figsize=(curves.WIDTH, 3.2))
        axes = drawn.add_axes((0.14, 0.17, 0.83, 0.78))
        x = 100 * (1 - known["kept"])
        axes.fill_between(x, known["random_lo"], known["random_hi"], color="#c4c8cc", alpha=0.55, lw=0)
        axes.plot(x, known["value"], color=curves.BLUE, lw=1.8, marker="o", ms=3)
        axes.axhline(known["value"].iloc[0], color=curves.GREY, lw=0.8, ls=(0, (2, 3)))
        axes.set(xlabel="least certain patients left out, %", ylabel=f"{metric_word(metric)} of the others")
        axes.margins(x=0.02)
        said = "; ".join(f"{100 * k:.0f} % kept {v:.3f}" for k, v in zip(known["kept"], known["value"], strict=True))
        shown = curves.svg(drawn, f"{task.name}: abstention, {metric_word(metric)}", f"{metric_word(metric)}: {said}.")
    word = metric_word(metric).capitalize() if metric == "accuracy" else metric_word(metric)
    caption = (
        f"{word} of the patients who are left when the least certain{' of each fold' if folds > 1 else ''} go. Grey: "
        "95 % of random orders; dashed: everybody."
    )
    return Figure(name, shown, table.assign(metric=metric), caption)
