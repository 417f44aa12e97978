"""What each modality is worth to each task: the audit that `mtl train` made on its test patients."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from markupsafe import Markup

from nsclc_mtl.explain.audit import NULL_BOUND
from nsclc_mtl.explain.spoiling import MODES
from nsclc_mtl.explain.weighing import Weighing, compare
from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.report import audit_figures
from nsclc_mtl.report.measures import PRIMARY
from nsclc_mtl.report.section import Evidence, Figure, Section
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS, metric_word, slug

WORDS = {"permute": "permuted", "mean": "training mean", "drop": "left out", "shapley": "Shapley value"}
Rows = Sequence[Mapping[str, Any]]


def audit(evidence: Evidence) -> list[Section]:
    """A section in the chapter of every task that was audited, and one that says how to read them."""
    every = [row for row in _rows(evidence) if row["task"] in evidence.results]
    if not every:
        return []
    weights, shapley = (_table(evidence, name) for name in ("fusion_weights.csv", "shapley.csv"))
    by_task = {task: [row for row in every if row["task"] == task] for task in evidence.results}
    sections = []
    for task, rows in by_task.items():
        if rows:
            metric = metric_word(PRIMARY[evidence.results[task].task.kind])
            made = _of_task(task, metric, rows, _own(weights, task), _own(shapley, task))
            sections.append(_elsewhere(made) if evidence.splits is None else made)
    modalities = list(dict.fromkeys(row["modality"] for row in every))
    cells = {(row["task"], row["modality"]): row for row in every if row["mode"] == "permute"}
    whole = template("sections/audit.html.j2", FILTERS).render(
        modalities=modalities,
        tasks=[task for task, rows in by_task.items() if rows],
        cells=cells,
        external=evidence.splits is None,
        bound=NULL_BOUND,
        has_shapley=any(row["mode"] == "shapley" and row["loss"] is not None for row in every),
    )
    tables = {"audit": pd.DataFrame(every)}
    title = f"Which modality each task rests on{', in the training cohort' if evidence.splits is None else ''}"
    return [*sections, Section("audit", title, Markup(whole), tables=tables)]


def _rows(evidence: Evidence) -> Rows:
    """The audit of the folds that are judged; none where the run has none."""
    if evidence.audit is not None:
        return evidence.audit
    file = evidence.folder / "audit.json" if evidence.folder is not None else None
    return json.loads(file.read_text(encoding="utf-8")) if file is not None and file.is_file() else []


def _table(evidence: Evidence, name: str) -> pd.DataFrame:
    """A table of the run by fold; of some folds alone where the audit is."""
    path = evidence.folder / name if evidence.folder is not None else None
    if path is None or not path.is_file():
        return pd.DataFrame()
    words = ("patient_id", "task", "part", "modality", "fold")
    table = pd.read_csv(path, dtype=dict.fromkeys(words, str), keep_default_na=False)
    return table if evidence.audit is None else table[table["fold"].isin(set(evidence.predictions["fold"].astype(str)))]


def _own(table: pd.DataFrame, task: str) -> pd.DataFrame:
    return table[table["task"] == task] if len(table) else table


def _of_task(task: str, metric: str, rows: Rows, weights: pd.DataFrame, shapley: pd.DataFrame) -> Section:
    weighing = compare(weights, rows) if len(weights) else None
    at = {(row["modality"], row["mode"]): row for row in rows}
    modalities = sorted(
        dict.fromkeys(row["modality"] for row in rows), key=lambda m: -(at.get((m, "permute"), {}).get("loss") or 0.0)
    )
    asked = [mode for mode in (*MODES, "shapley") if any((m, mode) in at for m in modalities)]
    asked.sort(key=list(WORDS).index)
    modes = [mode for mode in asked if any((at.get((m, mode)) or {}).get("loss") is not None for m in modalities)]
    name = f"{slug(task)}-audit"
    figures: list[Figure] = [
        audit_figures.losses(f"{name}-losses", rows, modalities, f"{task}: loss by modality", metric)
    ]
    if any(row["mode"] == "shapley" and row["loss"] is not None for row in rows):
        of = weighing.mean if weighing is not None else {}
        title = f"{task}: what each modality adds"
        figures.append(audit_figures.contributions(f"{name}-shapley", rows, modalities, title, metric, of))
    if len(shapley):
        figures.append(audit_figures.shares(f"{name}-patients", shapley, modalities, f"{task}: patient by patient"))
    html = template("sections/audit_task.html.j2", FILTERS).render(
        sentences=sentences(rows, metric),
        modes=[WORDS[mode] for mode in modes],
        lines=[_line(m, [at.get((m, mode)) for mode in modes], weighing) for m in modalities],
        weighing=weighing,
        reasons=_reasons(rows, asked, len(modalities)),
    )
    return Section(f"audit-{slug(task)}", "What each modality is worth", Markup(html), task, figures)


def _elsewhere(made: Section) -> Section:
    """The section of a task on a page about other patients than those who were audited: it says whose audit it is."""
    whose = (
        "This was measured on the test patients of the training cohort, when the model was trained, and not on these."
    )
    return replace(
        made,
        title=f"{made.title}, in the training cohort",
        html=Markup("<p><strong>{}</strong></p>\n{}").format(whose, made.html),
        figures=[replace(f, caption=f"{f.caption} Test patients of the training cohort.") for f in made.figures],
    )


def _line(modality: str, cells: Sequence[Mapping[str, Any] | None], weighing: Weighing | None) -> dict[str, Any]:
    """One modality of the table."""
    each = [None if cell is None else _interval(cell) for cell in cells]
    having = next((cell["of"] for cell in cells if cell is not None and "of" in cell), None)
    weight = weighing.mean.get(modality) if weighing is not None else None
    words = {str(cell["verdict"]) for cell in cells if cell is not None and cell["mode"] == "permute"}
    return {"modality": modality, "n": having, "cells": each, "weight": weight, "word": ", ".join(words)}


def _interval(row: Mapping[str, Any]) -> Interval:
    nan = float("nan")
    value, lo, hi = (nan if row[key] is None else float(row[key]) for key in ("loss", "lo", "hi"))
    return Interval(value, lo, hi, str(row.get("reason", "")))


def sentences(rows: Rows, metric: str) -> list[str]:
    """What permuting showed, in words: what is needed, what misleads, what is nothing, what is not known."""
    said = {word: [r for r in rows if r["mode"] == "permute" and r["verdict"] == word] for word in _VERDICTS}
    out = []
    for word, about in _VERDICTS.items():
        found = sorted(said[word], key=lambda row: -(row["loss"] or 0.0))
        if not found:
            continue
        if word in ("needed", "misleads"):
            told = _listed([f"{r['modality']} ({abs(r['loss']):.3f})" for r in found])
        else:
            told = _listed([str(r["modality"]) for r in found])
        out.append(about.format(told, are="is" if len(found) == 1 else "are", metric=metric, bound=NULL_BOUND))
    return out


_VERDICTS = {
    "needed": "Needed: {}; the {metric} falls by so much when another patient’s data stand in their place.",
    "misleads": "Misleading: {}; the {metric} rises by so much when another patient’s data stand in their place.",
    "equivalent to nothing": "Equivalent to nothing: {}; a loss of {bound} or more is ruled out.",
    "unclear": "Not told: {}; the interval holds both no loss and one of {bound} or more.",
}


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _reasons(rows: Rows, modes: Sequence[str], modalities: int) -> list[str]:
    """Why something is not there, or rests on fewer patients than have the modality."""
    missing: dict[tuple[str, str], list[str]] = {}
    fewer = []
    for row in sorted((row for row in rows if row["mode"] in modes), key=lambda row: modes.index(row["mode"])):
        if row["loss"] is None and row.get("reason"):
            missing.setdefault((row["mode"], row["reason"]), []).append(str(row["modality"]))
        elif row["mode"] == "drop" and row.get("n", 0) < row.get("of", 0):
            fewer.append(f"{row['modality']} {row['n']} of {row['of']}")
    said = []
    for (mode, reason), names in missing.items():
        of = "" if len(names) == modalities else f", {_listed(names)}"  # all of them need no list
        word = WORDS[mode]
        said.append(f"{word[:1].upper()}{word[1:]}{of}: {reason}.")
    if fewer:
        said.append(
            f"Patients who could be left without it, having something else that training knows: {_listed(fewer)}."
        )
    return said
