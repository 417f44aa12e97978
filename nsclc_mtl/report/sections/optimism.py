"""Train, validation and test patients side by side, and the optimism between them."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas

from nsclc_mtl.metrics.comparison import Bootstrapped, Interval, bootstrap, interval_of, repeated, resamples_of
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.report import curves
from nsclc_mtl.report.evaluation import TaskResult, folds_of, row, used
from nsclc_mtl.report.measures import LEARNER, Fold, metrics_of, tried
from nsclc_mtl.report.section import Evidence, Figure, Section
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS, metric_word
from nsclc_mtl.report.words import told as value_told

PARTS = ("train", "validation", "test")


def optimism(evidence: Evidence) -> list[Section]:
    """One section with a row a task; nothing where only test patients were predicted (another cohort)."""
    lines = []
    for result in evidence.results.values():
        own = evidence.predictions[evidence.predictions["task"] == result.task.name]
        if own["part"].isin(("train", "validation")).any():
            lines.append(_line(result, own.assign(model=LEARNER), evidence.settings))
    if not lines:
        return []
    html = template("sections/optimism.html.j2", FILTERS).render(
        lines=lines, untold=sorted({line["train"].reason for line in lines if not math.isfinite(line["train"].value)})
    )
    rows = [r for line in lines for r in line["rows"]]
    return [Section("optimism", "Training and test patients side by side", Markup(html),
                    figures=[_figure(lines)], rows=rows)]  # fmt: skip


def _line(result: TaskResult, own: pd.DataFrame, settings: Any) -> dict[str, Any]:
    """The primary metric of the three parts of one task with the differences, and its rows of metrics.json."""
    task, metric = result.task, result.primary
    rng = np.random.default_rng([int(settings.get("seed", 0)), *f"optimism {task.name}".encode()])
    draws = int(settings.get("bootstrap", 1000))
    at: dict[str, Interval] = {"test": result.metrics[metric][LEARNER].interval()}
    line: dict[str, Any] = {"task": task.name, "metric": metric_word(metric), "rows": []}
    for part in ("train", "validation"):
        folds = folds_of(own[own["part"] == part], task, {}) if (own["part"] == part).any() else []
        seen, gap, folds = _beside(result, folds, draws, rng, part)
        at[part], line[f"{part} minus test"] = seen, gap
        line["rows"] += [
            row(task, metric, "all", LEARNER, seen, folds, part),
            row(task, f"optimism:{metric}", "all", LEARNER, gap, folds, part),
        ]
    return line | at


def _beside(
    result: TaskResult, folds: list[Fold], draws: int, rng: np.random.Generator, part: str
) -> tuple[Interval, Interval, list[Fold]]:
    """The metric in a part, and less that of the test part; and the folds that they stand on.

    Whoever is drawn is drawn in both: a patient trains some folds and tests another.
    """
    if not folds:
        none = Interval(math.nan, math.nan, math.nan, f"predictions.csv holds no outputs of {part} patients")
        return none, none, folds
    both = [*folds, *result.folds]
    people = [f.patients for f in both]
    weights = resamples_of(people, draws, rng)
    of = metrics_of(result.task, result.folds)[result.primary]
    repeats = repeated(people)

    def over(some: list[Fold], at: slice) -> Bootstrapped:
        # one after the other: the pairs of a training part are many
        return bootstrap((tried(of, f, f.said[LEARNER]) for f in some), weights[at], repeats)

    here, test = over(folds, slice(0, len(folds))), over(result.folds, slice(len(folds), None))
    if not here.value.known or not test.value.known:
        gap = interval_of(Score.missing(here.value.reason or test.value.reason), here.draws)
    else:
        reason = "; ".join(dict.fromkeys(r for r in (here.value.reason, test.value.reason) if r))
        gap = interval_of(Score(here.value - test.value, reason), here.draws - test.draws)
    return here.interval(), gap, used(folds, here)


def _figure(lines: list[dict[str, Any]]) -> Figure:
    """A row a task with a sign for each part."""
    signs = {"train": (curves.GREY, "s"), "validation": (curves.ORANGE, "D"), "test": (curves.BLUE, "o")}
    with matplotlib.rc_context(curves.RC):
        height = 1.15 + 0.55 * len(lines)
        drawn = Canvas(figsize=(curves.WIDTH, height))
        axes = drawn.add_axes((0.24, 0.52 / height, 0.73, 0.55 * len(lines) / height))
        for k, line in enumerate(reversed(lines)):
            for n, (part, (colour, sign)) in enumerate(signs.items()):
                at, y = line[part], k + 0.22 * (1 - n)
                axes.plot([at.lo, at.hi], [y, y], color=colour, lw=1.6, solid_capstyle="butt")
                axes.plot([at.value], [y], sign, color=colour, ms=5, label=part if k == 0 else None)
        axes.axvline(0.5, color="#c4c8cc", lw=0.9, zorder=0)
        axes.set_yticks(range(len(lines)), [f"{line['task']}\n{line['metric']}" for line in reversed(lines)])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.5, len(lines) - 0.5)
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, frameon=False, handletextpad=0.2)
        told = "; ".join(f"{x['task']}: " + ", ".join(f"{p} {value_told(x[p])}" for p in PARTS) for x in lines)
        shown = curves.svg(drawn, "Training, validation and test patients", told + ".")
    data = pd.DataFrame(
        [(x["task"], x["metric"], p, x[p].value, x[p].lo, x[p].hi) for x in lines for p in PARTS],
        columns=["task", "metric", "part", "value", "lo", "hi"],
    )
    caption = "Each part with its 95 % interval. What lies right of the test part is memory, not foresight."
    return Figure("optimism", shown, data, caption)
