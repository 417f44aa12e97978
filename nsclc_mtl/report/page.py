"""report.html: one file that needs no network, reads on a phone and prints."""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nsclc_mtl.metrics.roc import Roc, roc
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report import curves, tripod
from nsclc_mtl.report.against_floor import AgainstFloor, against_floor
from nsclc_mtl.report.contrast import p_word
from nsclc_mtl.report.evaluation import TaskResult, shares
from nsclc_mtl.report.facts import facts
from nsclc_mtl.report.fold import dealt, once, once_said
from nsclc_mtl.report.measures import LEARNER, LOWER_IS_BETTER, Fold, proba_of, score_of
from nsclc_mtl.report.section import Evidence, Figure, Maker, Section
from nsclc_mtl.report.survival_measures import ends
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS, metric_word, model_word, slug

_LARGEST_BYTES = 5_000_000
_IMAGES = 6


@dataclass
class Story:
    """What the page tells besides the numbers of the tasks. Everything is text and escaped on the page."""

    title: str
    meta: list[tuple[str, str]] = field(default_factory=list)  # label, value
    primary_floor: str = "floor:all tables"
    notes: list[str] = field(default_factory=list)
    images: list[tuple[Path, str]] = field(default_factory=list)  # PNG files with their captions


@dataclass
class Page:
    """The page as HTML text, and what is written beside it."""

    html: str
    figures: list[Figure]  # of the tasks' chapters
    sections: list[Section]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What the sections add to metrics.json."""
        return [row for section in self.sections for row in section.rows]


def render(evidence: Evidence, story: Story, makers: Sequence[Maker] = ()) -> Page:
    """The page. makers: kinds of sections, in the order in which they stand on it."""
    sections = [section for make in makers for section in make(evidence)]
    tested = against_floor(evidence.results, story.primary_floor, evidence.splits)
    tasks = [
        _task(r, story.primary_floor, tested.get(name)) | {"late": evidence.late.get(name, "")}
        for name, r in evidence.results.items()
    ]
    chapters = _chapters(sections, tasks, story)
    sections.append(tripod.checklist(evidence, chapters | _within(sections)))
    text = template("page.html.j2", FILTERS).render(
        story=story,
        tasks=tasks,
        sections=sections,
        chapters=chapters | {tripod.NAME: sections[-1].title},
        images=_images(story.images),
        folds=facts(evidence).folds if all(r.averaged for r in evidence.results.values()) else 0,
        repeats=any(one.at.splits for one in tested.values()),
        has_floor=any(r.models("floor:") for r in evidence.results.values()),
        has_ceiling=any(r.models("oracle:") for r in evidence.results.values()),
    )
    return Page(text, [figure for task in tasks for figure in task["figures"]], sections)


def _chapters(sections: Sequence[Section], tasks: Sequence[Mapping[str, Any]], story: Story) -> dict[str, str]:
    """{anchor: title} of the chapters in the order of the page."""
    out = {s.name: s.title for s in sections if s.first}
    out |= {f"task-{k + 1}": task["name"] for k, task in enumerate(tasks)}
    out |= {s.name: s.title for s in sections if not s.first and not s.task}
    out |= {"pictures": "Where the model looked"} if story.images else {}
    return out | {"reading": "How to read the numbers"}


def _within(sections: Sequence[Section]) -> dict[str, str]:
    """{anchor: title} of what stands within chapters: the sections of the tasks, and headings inside any section."""
    out = {s.name: f"{s.title}, {s.task}" for s in sections if s.task}
    for section in sections:
        out |= {a: html.unescape(t) for a, t in re.findall(r'<h3 id="([^"<>]+)">([^<]+)</h3>', section.html)}
    return out


def _task(result: TaskResult, primary_floor: str, tested: AgainstFloor | None) -> dict[str, Any]:
    """What the template needs of one task."""
    primary = result.primary
    models = result.metrics[primary]
    ours = models[LEARNER].interval()
    floors: list[dict[str, Any]] = [
        {"model": m, "name": model_word(m), "at": models[m].interval(), "gap": result.difference(primary, m)}
        for m in result.models("floor:")
    ]
    ceilings: list[dict[str, Any]] = [
        {"name": model_word(m), "at": models[m].interval()} for m in result.models("oracle:")
    ]
    against = next((f for f in floors if f["model"] == primary_floor), None)
    figures: list[Figure] = []
    name = slug(result.task.name)
    shown = [("learner", ours)] + [(str(r["name"]), r["at"]) for r in floors + ceilings]
    figures.append(
        curves.interval_figure(
            f"{name}-models",
            [(n, at) for n, at in shown if math.isfinite(at.value)],
            f"{result.task.name}: learner and floor",
            metric_word(primary),
            0.5,
            f"Learner (circle){', floors (squares)' if floors else ''}{' and ceilings (diamonds)' if ceilings else ''} "
            "with 95 % intervals; 0.5 is chance.",
        )
    )
    why = ""
    if result.task.kind == "regression":
        said = [(f.label, score_of(result.task, f.said[LEARNER])) for f in once(result.folds)]
        title = f"{result.task.name}: predicted and known"
        caption = (
            "Test patients: what is known against what was predicted without them"
            f"{', a sign and colour a fold' if len(said) > 1 else ''}; on the line they agree.{once_said(result.folds)}"
        )
        figures.append(curves.scatter_figure(f"{name}-scatter", said, title, result.task.unit, caption))
    elif result.task.kind != "survival":
        drawn = _rocs(result, against["model"] if against else None)
        if drawn:
            several = len(drawn[0].folds) > 1
            caption = "Bold: mean of the within-fold curves, weighted by patients. Thin: the folds of the first curve."
            caption = caption if several else "Test patients; the diagonal is chance."
            figures.append(curves.roc_figure(f"{name}-roc", drawn, f"{result.task.name}: ROC", caption))
        else:
            why = "no fold holds both classes among its test patients, so there is no ROC curve"
    judged = ends(result.folds) if result.task.kind == "survival" else {}
    others = [
        {
            "name": metric_word(metric) + (f", {judged[metric]}" if metric in judged else ""),
            "ours": each[LEARNER].interval(),
            "floor": each[primary_floor].interval() if primary_floor in each else None,
            "low": metric in LOWER_IS_BETTER,
        }
        for metric, each in result.metrics.items()
        if metric != primary
    ]
    return {
        "name": result.task.name,
        "kind": result.task.kind,
        "classes": result.task.classes,
        "endpoint": result.task.endpoint,
        "unit": result.task.unit,
        "metric": metric_word(primary),
        "n": result.n,
        "dealt": dealt([f.patients for f in result.folds]),
        "events": result.events,
        "ours": ours,
        "floors": floors,
        "ceilings": ceilings,
        "against": against,
        "verdict": f"{tested.word if tested else 'not compared with'} the floor",
        "remark": tested.remark if tested else "",
        "adjusted": p_word(tested.adjusted) if tested and math.isfinite(tested.adjusted) else "",
        "figures": figures,
        "why": why,
        "others": others,
        "shares": [{"name": metric_word(k), "at": v} for k, v in shares(result).items()],
        "averaged": result.averaged,
        "folds": [
            {"fold": f.fold, "n": len(f.patients), "events": int(f.event.sum()), "at": models[LEARNER].fold_interval(k)}
            for k, f in enumerate(result.folds)
        ],
    }


def _rocs(result: TaskResult, floor: str | None) -> list[Roc]:
    """ROC of the learner (binary: beside the primary floor; more classes: one curve a cut or class)."""
    task = result.task
    drawn: list[Roc | None] = []
    if task.kind == "binary":
        for model in (LEARNER, floor):
            if model is not None:
                folds = [(f.label, score_of(task, f.said[model])) for f in result.folds if len(f.patients)]
                drawn.append(roc(model_word(model), folds))
    else:
        cuts = range(len(task.classes) - (task.kind == "ordinal"))
        for k in cuts:
            name = f"above {task.classes[k]}" if task.kind == "ordinal" else task.classes[k]
            drawn.append(roc(name, [_one_cut(task, f, k) for f in result.folds if len(f.patients)]))
    return [d for d in drawn if d is not None]


def _one_cut(task: TaskSpec, fold: Fold, k: int) -> tuple[np.ndarray, np.ndarray]:
    proba = proba_of(task, fold.said[LEARNER])
    if proba is None:
        return fold.label * 0, fold.label * np.nan
    if task.kind == "ordinal":
        return (fold.label > k).astype(float), proba[:, k + 1 :].sum(axis=1)
    return (fold.label == k).astype(float), proba[:, k]


def _images(images: Sequence[tuple[Path, str]]) -> list[dict[str, str]]:
    """Pictures as data URIs, the first few that fit into the page."""
    out: list[dict[str, str]] = []
    left = _LARGEST_BYTES // 2
    for path, caption in images[:_IMAGES]:
        data = path.read_bytes()
        if len(data) * 4 / 3 > left:
            continue
        left -= len(data) * 4 // 3
        out.append({"uri": "data:image/png;base64," + base64.b64encode(data).decode(), "caption": caption})
    return out
