"""Censoring of patients from elsewhere: G of the training beside their own, and what the choice does to the metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas

from nsclc_mtl.metrics.comparison import bootstrap, paired_difference, repeated, resamples_of
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import graf_weights
from nsclc_mtl.report import curves
from nsclc_mtl.report.evaluation import TaskResult, row
from nsclc_mtl.report.fold import HORIZONS_DAYS, OWN, own_censoring
from nsclc_mtl.report.measures import LEARNER, Fold, tried
from nsclc_mtl.report.section import Evidence, Figure, Section
from nsclc_mtl.report.survival_measures import ends, last_day, measures
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS, metric_word, model_word, slug

_FREE = ("c_index", "antolini_c")  # no weights in them


def censoring(evidence: Evidence) -> list[Section]:
    """A section in the chapter of each survival task of patients from elsewhere; [] for the cohort of the training."""
    if evidence.splits is not None:
        return []
    results = [r for r in evidence.results.values() if r.task.kind == "survival"]
    return [_section(evidence, r) for r in results if r.averaged and len(r.folds[0].label)]


def _section(evidence: Evidence, result: TaskResult) -> Section:
    [fold] = result.folds
    mine, name = own_censoring(fold), slug(result.task.name)
    draws, seed = (int(evidence.settings.get(word) or 0) for word in ("bootstrap", "seed"))
    rows, tau = _both(result, mine, draws, seed)
    weights = _weights(fold, mine)
    told = [
        {k: v for k, v in r.items() if k not in ("training", "own", "gap")}
        | {f"{k}_{end}": getattr(r[k], end) for k in ("training", "own", "gap") for end in ("value", "lo", "hi")}
        for r in rows
    ]
    html = template("sections/censoring.html.j2", FILTERS).render(
        task=result.task,
        rows=[r for r in rows if r["model"] == LEARNER],
        others=any(r["model"] != LEARNER for r in rows),
        weights=weights,
        known=fold.censoring is not None,
        reason=fold.unweighed,
        tau=tau,
        days=ends([mine]).get("ibs", ""),
        file=f"tables/{name}-censoring.csv",
        n=len(fold.label),
        censored=int((fold.event == 0).sum()),
    )
    tables = {f"{name}-censoring": pd.DataFrame(told)} if told else {}
    if weights:
        tables[f"{name}-censoring-weights"] = pd.DataFrame(weights)
    title = "Censoring here and in the training"
    made = Section(f"{name}-censoring", title, Markup(html), result.task.name, [_figure(name, fold, mine, tau)], tables)
    made.rows = [row(result.task, OWN + r["metric"], "all", r["model"], r["own"], result.folds) for r in rows]
    return made


def _both(result: TaskResult, mine: Fold, draws: int, seed: int) -> tuple[list[dict[str, Any]], float]:
    """metric, model, training, own, gap (Intervals; own minus training, paired) of every metric with weights; and the
    end of Uno's C in days: that of the training for both, else by the same rule from these patients.

    The resamples are those of `evaluation.judge`, so that the gap is within each.
    """
    task, people = result.task, [mine.patients]
    end = last_day(result.folds)
    tau = end if math.isfinite(end) else last_day([mine])
    weights = resamples_of(people, draws, np.random.default_rng([seed, *task.name.encode()]))
    rows = []
    for metric, measure_of in measures(task, [mine], tau).items():
        for model in result.metrics[result.primary] if metric not in _FREE else ():
            before, own = (
                bootstrap([tried(measure_of, f, f.said[model])], weights, repeated(people))
                for f in (*result.folds, mine)
            )
            if not before.value.known and not own.value.known:
                continue
            rows.append(
                {
                    "metric": metric,
                    "model": model,
                    "word": metric_word(metric),
                    "name": model_word(model),
                    "training": before.interval(),
                    "own": own.interval(),
                    "gap": paired_difference(own, before),
                }
            )
    return rows, tau


def _weights(fold: Fold, mine: Fold) -> list[dict[str, Any]]:
    """horizon, days, known (patients whose state then is known), training, own: mean weight of a patient in the Brier
    score at the horizon, by each G. 1 where G is that of these patients: what is known then stands for all."""
    made = []
    for word, days in HORIZONS_DAYS.items():
        if days >= fold.label.max():
            continue
        known = int(((fold.label > days) | (fold.event == 1)).sum())
        line: dict[str, Any] = {"horizon": word, "days": days, "known": known}
        for of, one in (("training", fold), ("own", mine)):
            found = graf_weights(fold.label, fold.event, days, one.censoring) if one.censoring is not None else None
            line[of] = math.nan if found is None or isinstance(found, Score) else float(found.mean())
        made.append(line)
    return made


def _figure(name: str, fold: Fold, mine: Fold, tau: float) -> Figure:
    lines = [("training", fold.censoring), ("these patients", mine.censoring)]
    unit = curves.DAYS_PER_MONTH
    with matplotlib.rc_context(curves.RC):
        drawn = Canvas(figsize=(curves.WIDTH, 3.2))
        axes = drawn.add_axes((0.14, 0.17, 0.83, 0.78))
        told, data = [], []
        for (word, curve), (colour, style) in zip(lines, curves.STYLES, strict=False):
            if curve is None or not len(curve.time):
                continue
            x, y = np.r_[0.0, curve.time], np.r_[1.0, curve.value]
            drawn_line = axes.step(x / unit, y, where="post", color=colour, lw=1.8, label=word)[0]
            drawn_line.set_linestyle(style)
            data.append(pd.DataFrame({"group": word, "time_days": x, "value": y}))
            told.append(f"{word} {', '.join(f'{float(curve.at(d)):.2f} at {w}' for w, d in _marks(x[-1]))}")
        axes.axvline(tau / unit, color=curves.GREY, lw=0.8, ls=(0, (2, 3)))
        axes.set(xlabel="months", ylabel="G: not censored by then", ylim=(0, 1.02))
        axes.set_xlim(left=0)
        axes.legend(loc="best", frameon=False, handlelength=3)
        shown = curves.svg(drawn, f"{name}: censoring", f"Probability not to be censored: {'; '.join(told)}.")
    whose = (
        "of those who are judged" if fold.censoring is None else "of the training patients and of those who are judged"
    )
    caption = (
        f"Probability not to be censored by a time (reverse Kaplan-Meier), {whose}. Dashed: end of Uno’s C, "
        f"{tau:.0f} days."
    )
    return Figure(f"{name}-censoring", shown, pd.concat(data), caption)


def _marks(last: float) -> Sequence[tuple[str, float]]:
    return [(word, days) for word, days in HORIZONS_DAYS.items() if days <= last] or [("the end", last)]
