"""Is the learner better than the floor: differences, P adjusted over the tasks, what its score adds to the stage."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from nsclc_mtl.baselines import likelihood_ratio
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.report.against_floor import against_floor, compared, of_floor
from nsclc_mtl.report.contrast import Contrast, p_word, point
from nsclc_mtl.report.evaluation import TaskResult, row, used
from nsclc_mtl.report.fold import once, once_said
from nsclc_mtl.report.measures import LEARNER, score_of
from nsclc_mtl.report.section import Evidence, Section
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS, metric_word, model_word, slug

STAGE = "floor:stage"


@dataclass(frozen=True)
class _Line:
    """The learner against one floor."""

    model: str
    at: Contrast
    named: bool = False  # the primary floor
    adjusted: float = math.nan  # P by Holm, of the primary floor
    bold: bool = False


def comparison(evidence: Evidence) -> list[Section]:
    """A part of every task's chapter that has a floor, and one over all tasks for the primary floor."""
    primary = f"floor:{evidence.settings.get('primary_floor') or 'all tables'}"
    tested = against_floor(evidence.results, primary, evidence.splits)
    lines = {name: _lines(result, evidence.splits) for name, result in evidence.results.items()}
    lines = {name: found for name, found in lines.items() if found}
    if not lines:
        return []
    sections, summary = [], []
    for name, found in lines.items():
        result = evidence.results[name]
        own = [
            replace(line, named=True, adjusted=tested[name].adjusted, bold=tested[name].bold)
            if line.model == primary
            else line
            for line in found
        ]
        remark = tested[name].remark if name in tested else ""
        sections.append(_of_task(result, own, primary, len(tested), remark))
        summary += [(result, line, remark) for line in own if line.model == primary]
    if len(summary) > 1:
        sections.append(_over_tasks(summary, primary))
    return sections


def stage_ratio(result: TaskResult) -> likelihood_ratio.LikelihoodRatio:
    """What the learner's out-of-fold score adds to that of the stage floor, both standardised within their fold.

    The folds are strata of the Cox model, a factor of the others. The test takes every row for a patient of its own, so
    who is tested in several repeats stands in it once, with the first.
    """
    task, missing = result.task, likelihood_ratio.LikelihoodRatio(Score.missing(""), 0, Score.missing(""))

    def none(reason: str) -> likelihood_ratio.LikelihoodRatio:
        return likelihood_ratio.LikelihoodRatio(Score.missing(reason), missing.freedom, Score.missing(reason))

    if task.kind == "multiclass":
        return none("classes without an order have no single score")
    columns: dict[str, list[np.ndarray]] = {"ours": [], "stage": [], "label": [], "event": [], "fold": []}
    for k, fold in enumerate(once(result.folds)):
        said = fold.said.get(STAGE)
        if said is None or said.shape[1] == 0 or not fold.patients:
            continue
        ours, stage = score_of(task, fold.said[LEARNER]), score_of(task, said)
        both = ~(np.isnan(ours) | np.isnan(stage))
        for word, column in (("ours", ours), ("stage", stage), ("label", fold.label), ("event", fold.event)):
            columns[word].append(column[both])
        columns["fold"].append(np.full(int(both.sum()), float(k)))
    if not columns["fold"]:
        return none("there is no floor of the stage here")
    c = {word: np.concatenate(parts) for word, parts in columns.items()}
    base, added = (likelihood_ratio.within(c[word], c["fold"])[:, None] for word in ("stage", "ours"))
    if not base.any():
        base = base[:, :0]
    if task.kind == "survival":
        return likelihood_ratio.survival_ratio(base, added, c["label"], c["event"], c["fold"])
    make = likelihood_ratio.number_ratio if task.kind == "regression" else likelihood_ratio.classes_ratio
    return make(base, added, c["label"], c["fold"])


def _lines(result: TaskResult, splits: pd.DataFrame | None) -> list[_Line]:
    """The learner against every floor that has a value."""
    return [
        _Line(model, of_floor(result, model, splits)) for model in result.models("floor:") if compared(result, model)
    ]


def _of_task(result: TaskResult, lines: list[_Line], primary: str, tasks: int, remark: str) -> Section:
    name = slug(result.task.name)
    ratio = stage_ratio(result)
    told = [_cells(line, primary) for line in lines]
    html = template("sections/comparison.html.j2", FILTERS).render(
        lines=told,
        metric=metric_word(result.primary),
        tasks=tasks,
        remark=remark,
        n=result.n,
        events=result.events,
        kind=result.task.kind,
        ratio=ratio,
        stage=any(STAGE in f.said and f.said[STAGE].shape[1] for f in result.folds),
        ratio_p=p_word(ratio.p),
        folds=len(result.folds),
        first=once_said(result.folds),
        repeats=any(line.at.splits for line in lines),
        named=next((cell for cell in told if cell["named"]), None),
        smallest=any(line.at.smallest.known for line in lines),
    )
    return Section(
        f"comparison-{name}",
        "Against the floor",
        Markup(html),
        result.task.name,
        tables={f"{name}-comparison": _table(result, lines, ratio)},
        rows=_rows(result, lines, ratio),
    )


def _cells(line: _Line, primary: str) -> dict[str, Any]:
    return {
        "name": model_word(line.model),
        "named": line.model == primary,
        "at": line.at,
        "p": p_word(line.at.p),
        "adjusted": p_word(line.adjusted) if line.model == primary else "",
        "bold": line.bold,
        "splits": line.at.splits,
        "splits_p": p_word(line.at.splits.p) if line.at.splits else "",
    }


def _over_tasks(summary: list[tuple[TaskResult, _Line, str]], primary: str) -> Section:
    rows = [
        {
            "task": result.task.name,
            "metric": metric_word(result.primary),
            "n": result.n,
            "events": "" if result.events is None else result.events,
            "remark": remark,
            **_cells(line, primary),
        }
        for result, line, remark in summary
    ]
    html = template("sections/comparison_tasks.html.j2", FILTERS).render(
        rows=rows, floor=model_word(primary), repeats=any(line.at.splits for _, line, _ in summary)
    )
    return Section("comparison", "All tasks against the primary floor", Markup(html))


def _table(result: TaskResult, lines: list[_Line], ratio: likelihood_ratio.LikelihoodRatio) -> pd.DataFrame:
    """What `tables/TASK-comparison.csv` holds: a row a floor, the likelihood ratio in that of the stage."""
    rows = []
    for line in lines:
        gap = line.at.difference
        rows.append(
            {
                "task": result.task.name,
                "metric": result.primary,
                "floor": model_word(line.model),
                "difference": gap.value,
                "lo": gap.lo,
                "hi": gap.hi,
                "p": float(line.at.p),
                "test": line.at.test,
                "p_holm": line.adjusted,
                "smallest_difference": float(line.at.smallest),
                "p_nadeau_bengio": float(line.at.splits.p) if line.at.splits else math.nan,
                "likelihood_ratio": float(ratio.statistic) if line.model == STAGE else math.nan,
                "p_likelihood_ratio": float(ratio.p) if line.model == STAGE else math.nan,
                "patients": result.n,
                "events": result.events,
                "reason": gap.reason,
            }
        )
    return pd.DataFrame(rows)


def _rows(result: TaskResult, lines: list[_Line], ratio: likelihood_ratio.LikelihoodRatio) -> list[dict[str, Any]]:
    """For metrics.json: P, adjusted P, the smallest difference that could be shown, of each floor."""
    out = []
    for line in lines:
        metric = result.primary
        both = used(result.folds, result.metrics[metric][LEARNER], result.metrics[metric][line.model])
        numbers = {f"p_{line.at.test.lower()}:{metric}": line.at.p, f"smallest_difference:{metric}": line.at.smallest}
        if line.named:
            numbers[f"p_holm:{metric}"] = Score(line.adjusted, line.at.ruling.reason)
        for word, value in numbers.items():
            out.append(row(result.task, word, "all", line.model, point(value), both))
        if line.at.splits:
            word = f"nadeau_bengio:{metric}"
            out.append(row(result.task, word, "all", line.model, line.at.splits.difference, both))
            out.append(row(result.task, f"p_{word}", "all", line.model, point(line.at.splits.p), both))
        if line.model == STAGE:
            for word, value in (("likelihood_ratio", ratio.statistic), ("p_likelihood_ratio", ratio.p)):
                out.append(row(result.task, f"{word}:stage", "all", LEARNER, point(value), result.folds))
    return out
