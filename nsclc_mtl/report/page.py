"""report.html: one file that needs no network, reads on a phone and prints."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.metrics.follow_up import follow_up
from nsclc_mtl.metrics.survival import log_rank
from nsclc_mtl.records import Manifest, TaskSpec, event_column
from nsclc_mtl.report import curves
from nsclc_mtl.report.evaluation import TaskResult, risk_groups, shares
from nsclc_mtl.report.measures import LEARNER, LOWER_IS_BETTER, Fold, proba_of, score_of
from nsclc_mtl.report.section import Evidence, Figure, Maker, Section
from nsclc_mtl.report.templates import template

METRIC_WORDS = {
    "auc": "AUC",
    "ordinal_auc": "ordinal AUC",
    "c_index": "C-index",
    "ibs": "integrated Brier score",
    "brier": "Brier score",
    "concordance": "concordance",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "r2": "R²",
    "spearman": "Spearman’s correlation",
    "balanced_accuracy": "balanced accuracy",
    "calibration_slope": "calibration slope",
    "share": "share of the attainable margin",
    "fusion_share": "fusion share",
}
_LARGEST_BYTES = 5_000_000
_IMAGES = 6


@dataclass
class Story:
    """What the page tells besides the numbers of the tasks. Everything is text and escaped on the page."""

    title: str
    meta: list[tuple[str, str]] = field(default_factory=list)  # label, value
    primary_floor: str = "floor:all tables"
    notes: list[str] = field(default_factory=list)
    audit: list[dict[str, Any]] = field(default_factory=list)  # rows of the modality audit, any columns
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
    tasks = [
        _task(r, evidence.predictions, story.primary_floor, evidence.cutoffs.get(name))
        for name, r in evidence.results.items()
    ]
    html = template("page.html.j2", FILTERS).render(
        story=story,
        tasks=tasks,
        sections=sections,
        flow=flow(evidence.results, evidence.manifest, evidence.splits, evidence.predictions),
        audit_columns=list(story.audit[0]) if story.audit else [],
        images=_images(story.images),
        has_ceiling=any(r.models("oracle:") for r in evidence.results.values()),
    )
    return Page(html, [figure for task in tasks for figure in task["figures"]], sections)


def slug(name: str) -> str:
    """The name as a part of file names and anchors: a-z, 0-9 and -."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "x"


def metric_word(metric: str) -> str:
    """The metric as a reader says it."""
    if metric in METRIC_WORDS:
        return METRIC_WORDS[metric]
    if metric.startswith("auc_above_"):
        return f"AUC, above {metric.removeprefix('auc_above_')}"
    if metric.startswith("auc_") and metric.endswith("y") and metric[4:-1].isdigit():
        return f"AUC at {metric[4:-1]} years" if metric != "auc_1y" else "AUC at 1 year"
    return f"AUC, {metric.removeprefix('auc_')} against the rest" if metric.startswith("auc_") else metric


def model_word(model: str) -> str:
    """The model as a reader says it."""
    return model.replace("floor:", "").replace("oracle:", "ceiling: ")


def _task(
    result: TaskResult, predictions: pd.DataFrame, primary_floor: str, cutoff: float | None = None
) -> dict[str, Any]:
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
    if result.task.kind == "survival":
        parted, why = risk_groups(predictions, result, cutoff)
        if parted:
            told = ", ".join(f"{n} {len(t)} ({int(e.sum())} events)" for n, (t, e) in parted.items())
            chi = _log_rank(parted)
            whose = (
                "the folds’ training patients (mean of the folds)"
                if cutoff is not None
                else "their fold’s training patients"
            )
            caption = (
                f"Test patients above and below the median risk of {whose}: {told}. "
                "Bands: 95 %, log-log; ticks: censored."
            )
            if chi and cutoff is not None:
                caption += f" Log-rank χ² {chi}; the cut-off and the model were fixed before these patients were seen."
            elif chi:
                caption += (
                    f" Log-rank χ² {chi}, given without P: the groups of a cross-validated model are not independent."
                )
            title = f"{result.task.name}: survival by predicted risk"
            figures.append(curves.kaplan_meier_figure(f"{name}-survival", parted, title, caption=caption))
    elif result.task.kind == "regression":
        said = [(f.label, score_of(result.task, f.said[LEARNER])) for f in result.folds]
        title = f"{result.task.name}: predicted and known"
        caption = (
            "Test patients: what is known against what was predicted without them, a sign and colour a fold; "
            "on the line they agree."
        )
        figures.append(curves.scatter_figure(f"{name}-scatter", said, title, result.task.unit, caption))
    else:
        drawn = _rocs(result, against["model"] if against else None)
        if drawn:
            caption = "Bold: mean of the within-fold curves, weighted by patients. Thin: the folds of the first curve."
            figures.append(curves.roc_figure(f"{name}-roc", drawn, f"{result.task.name}: ROC", caption))
        else:
            why = "no fold holds both classes among its test patients, so there is no ROC curve"
    others = []
    for metric, each in result.metrics.items():
        if metric != primary:
            floor = each.get(primary_floor)
            others.append(
                {
                    "name": metric_word(metric),
                    "ours": each[LEARNER].interval(),
                    "floor": floor.interval() if floor else None,
                    "low": metric in LOWER_IS_BETTER,
                }
            )
    return {
        "name": result.task.name,
        "kind": result.task.kind,
        "classes": result.task.classes,
        "endpoint": result.task.endpoint,
        "unit": result.task.unit,
        "metric": metric_word(primary),
        "n": result.n,
        "events": result.events,
        "ours": ours,
        "floors": floors,
        "ceilings": ceilings,
        "against": against,
        "verdict": _verdict(against),
        "figures": figures,
        "why": why,
        "others": others,
        "shares": [{"name": metric_word(k), "at": v} for k, v in shares(result).items()],
        "folds": [
            {"fold": f.fold, "n": len(f.patients), "events": int(f.event.sum()), "at": models[LEARNER].fold_interval(k)}
            for k, f in enumerate(result.folds)
        ],
    }


def _verdict(against: Mapping[str, Any] | None) -> str:
    if against is None:
        return ""
    gap: Interval = against["gap"]
    if not math.isfinite(gap.lo):
        return "not compared with the floor"
    if gap.lo > 0:
        return "above the floor"
    return "below the floor" if gap.hi < 0 else "not told apart from the floor"


def _log_rank(groups: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    time = np.concatenate([t for t, _ in groups.values()])
    event = np.concatenate([e for _, e in groups.values()])
    group = np.concatenate([np.full(len(t), k) for k, (t, _) in enumerate(groups.values())])
    chi, freedom = log_rank(time, event, group)
    return f"{chi:.2f} on {freedom} degree of freedom" if chi.known else ""


def _rocs(result: TaskResult, floor: str | None) -> list[curves.Roc]:
    """ROC of the learner (binary: beside the primary floor; more classes: one curve a cut or class)."""
    task = result.task
    drawn: list[curves.Roc | None] = []
    if task.kind == "binary":
        for model in (LEARNER, floor):
            if model is not None:
                folds = [(f.label, score_of(task, f.said[model])) for f in result.folds if len(f.patients)]
                drawn.append(curves.roc(model_word(model), folds))
    else:
        cuts = range(len(task.classes) - (task.kind == "ordinal"))
        for k in cuts:
            name = f"above {task.classes[k]}" if task.kind == "ordinal" else task.classes[k]
            drawn.append(curves.roc(name, [_one_cut(task, f, k) for f in result.folds if len(f.patients)]))
    return [d for d in drawn if d is not None][: len(curves.STYLES)]


def _one_cut(task: TaskSpec, fold: Fold, k: int) -> tuple[np.ndarray, np.ndarray]:
    proba = proba_of(task, fold.said[LEARNER])
    if proba is None:
        return fold.label * 0, fold.label * np.nan
    if task.kind == "ordinal":
        return (fold.label > k).astype(float), 1 - proba[:, : k + 1].sum(axis=1)
    return (fold.label == k).astype(float), proba[:, k]


def flow(
    results: Mapping[str, TaskResult],
    manifest: Manifest | None,
    splits: pd.DataFrame | None,
    predictions: pd.DataFrame | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Who is in the study: patients, modalities, labels, folds. Lists of rows, empty where not known.

    Studied are the patients of the folds, else those who were predicted; others of the cohort's tables do not count.
    """
    out: dict[str, list[dict[str, Any]]] = {"modalities": [], "labels": [], "parts": [], "total": []}
    if manifest is not None:
        folded = splits if splits is not None else predictions
        studied = manifest.patients.index if folded is None else pd.Index(folded["patient_id"].unique())
        patients = manifest.patients[manifest.patients.index.isin(studied)]
        total = len(patients)
        sites = patients["site"].nunique() if "site" in patients else 0
        out["total"].append({"patients": total, "sites": sites})
        for name, spec in manifest.modalities.items():
            n = len(patients.index.intersection(manifest.who(name)))
            out["modalities"].append({"name": name, "kind": spec.kind, "n": n, "share": n / max(total, 1)})
        for name in results:
            out["labels"].append(_label_row(results[name].task, manifest.labels[name].reindex(patients.index)))
    else:
        out["total"].append(
            {"patients": len({p for r in results.values() for f in r.folds for p in f.patients}), "sites": 0}
        )
    if splits is not None:
        for fold, rows in splits.groupby("fold", sort=True):
            counts = rows["part"].value_counts()
            out["parts"].append({"fold": fold, **{part: int(counts.get(part, 0)) for part in _PARTS}})
    return out


_PARTS = ("train", "validation", "calibration", "test")


def _label_row(task: TaskSpec, label: pd.DataFrame) -> dict[str, Any]:
    if task.kind == "survival":
        known = label["event"].notna() & label["time_days"].notna()
        found = follow_up(label["time_days"], label[event_column(label)])
        word, days = ("follow-up", found.median) if found.median.known else ("time", found.observed)
        told = f"{found.events} events, median {word} {days / curves.DAYS_PER_MONTH:.0f} months"
    elif task.kind == "regression":
        known = label["value"].notna()
        low, middle, high = label["value"].quantile([0.25, 0.5, 0.75])
        told = f"median {middle:.4g} ({low:.4g} to {high:.4g}) {task.unit}".rstrip() if known.any() else ""
    else:
        known = label["value"].notna()
        counts = label.loc[known, "value"].astype(int).value_counts()
        told = ", ".join(f"{name} {int(counts.get(k, 0))}" for k, name in enumerate(task.classes))
    return {
        "name": task.name,
        "kind": task.kind,
        "known": int(known.sum()),
        "missing": int((~known).sum()),
        "told": told,
    }


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


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−") if math.isfinite(value) else "–"


def _signed(at: Interval) -> Markup:
    """A difference with its interval, the interval on a line of its own where the page is narrow."""
    if not math.isfinite(at.value):
        return Markup("–")
    return _banded(f"{at.value:+.3f}".replace("-", "−"), at)


def _interval(at: Interval) -> Markup:
    """A value with its interval."""
    return _banded(_number(at.value), at)


FILTERS: dict[str, Callable[..., str]] = {"number": _number, "interval": _interval, "signed": _signed}
"""What templates of the report say numbers and intervals with."""


def _banded(value: str, at: Interval) -> Markup:
    if not math.isfinite(at.lo):
        return Markup("{}").format(value)
    return Markup('{} <span class="band">({} to {})</span>').format(value, _number(at.lo), _number(at.hi))
