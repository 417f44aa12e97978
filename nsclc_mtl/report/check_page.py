"""check.html: the findings of `mtl check` first, then the flow of patients and what they have. One file, no network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from nsclc_mtl.cohort.lint import Lint, attrition, counts
from nsclc_mtl.cohort.lint.attrition import Step
from nsclc_mtl.cohort.lint.finding import REMEDIES, Finding
from nsclc_mtl.records import PARTS, Manifest, event_column
from nsclc_mtl.report import curves
from nsclc_mtl.report.templates import template

_MOST_SITES = 4  # curves in one figure


def render(
    meta: Sequence[tuple[str, str]],
    manifest: Manifest | None = None,
    lint: Lint | None = None,
    splits: pd.DataFrame | None = None,
    record: Mapping[str, Any] | None = None,
    faults: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page as HTML text. Without a manifest (the tables could not be read) it holds `faults` alone: rows of one
    fault each, any columns. `record` as `splits.json` has it."""
    findings = lint.findings if lint is not None else []
    return template("check.html.j2").render(
        meta=list(meta),
        faults=list(faults),
        fault_columns=list(faults[0]) if faults else [],
        errors=sum(f.level == "error" for f in findings) + len(faults),
        warnings=sum(f.level == "warning" for f in findings),
        groups=_grouped(findings),
        cohort=_cohort(manifest, lint, splits, record or {}) if manifest is not None and lint is not None else None,
    )


def _grouped(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings of one level and rule together, with what to do about them."""
    keys = dict.fromkeys((f.level, f.rule) for f in findings)
    return [
        {
            "level": level,
            "rule": rule,
            "todo": REMEDIES[rule],
            "rows": [f for f in findings if (f.level, f.rule) == key],
        }
        for key in keys
        for level, rule in [key]
    ]


def _cohort(manifest: Manifest, lint: Lint, splits: pd.DataFrame | None, record: Mapping[str, Any]) -> dict[str, Any]:
    flow = attrition.table(lint.flow)
    branches = flow[flow["branch"] != ""]
    figures = [
        _followed(manifest, name) for name, found in lint.follow_up.items() if found.patients and found.median.known
    ]
    return {
        "flow": Markup(flow_figure([step for step in lint.flow if not step.branch])),
        "branch_columns": list(branches.columns[3:]),
        "branches": branches.to_dict("records"),
        "heat": _heat(manifest),
        "follow_up": [_follow_up_row(name, found) for name, found in lint.follow_up.items()],
        "figures": [Markup(figure) for figure in figures],  # our own SVG, its texts escaped where it was made
        "folds": [] if splits is None else fold_rows(manifest, splits, record),
        "tasks": list(manifest.tasks),
        "record": record,
        "overlap": [] if splits is None else counts.overlap(manifest, splits).to_dict("records"),
        "best": lint.best.to_dict("records"),
        "notes": list(manifest.notes),
    }


def fold_rows(manifest: Manifest, splits: pd.DataFrame, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a fold: its name, and `train / validation / test` of the patients and of every task's events, known
    numbers or rarest class, as text."""
    table = counts.per_part(manifest, splits)
    names = {fold["fold"]: fold["name"] for fold in record.get("folds", ())}
    parts = [part for part in PARTS if (table["part"] == part).any()]
    out = []
    for fold, rows in table.groupby("fold"):
        at = rows.set_index("part").reindex(parts)
        cells = {
            str(column): " / ".join("–" if pd.isna(v) else str(int(v)) for v in at[column])
            for column in table.columns
            if column not in ("fold", "part")
        }
        out.append({"fold": int(str(fold)), "name": names.get(int(str(fold)), ""), "parts": " / ".join(parts), **cells})
    return out


def _heat(manifest: Manifest) -> dict[str, Any]:
    """Share of each site's patients who have a modality or a known label, as rows of cells with their tint."""
    table = counts.per_site(manifest)
    wanted = [str(row) for row in table.index if str(row).startswith("has ") or str(row).endswith(" known")]
    values = dict(zip(map(str, table.index), table.to_numpy().tolist(), strict=True))
    rows, sizes = [], values["patients"]
    for row in wanted:
        cells = []
        for n, of in zip(values[row], sizes, strict=True):
            share = n / of if of else 0.0
            cells.append({"n": n, "of": of, "share": share, "tint": round(0.06 + 0.6 * share, 3), "dark": share > 0.75})
        rows.append({"name": row.removeprefix("has "), "cells": cells})
    return {"sites": list(zip(map(str, table.columns), sizes, strict=True)), "rows": rows}


def _follow_up_row(name: str, found: Any) -> dict[str, str]:
    return {
        "task": name,
        "patients": str(found.patients),
        "events": str(found.events),
        "median": months(found.median) if found.median.known else f"– ({found.median.reason})",
        "interval": f"{months(found.lo)} to {months(found.hi)}" if found.median.known else "–",
    }


def months(days: float) -> str:
    """Days as months, `not reached` where there is no number."""
    return f"{days / curves.DAYS_PER_MONTH:.1f}" if days == days else "not reached"


def _followed(manifest: Manifest, task: str) -> str:
    """The reverse Kaplan-Meier curve, of each site where there are few."""
    labels = manifest.labels[task].dropna()
    site = counts.sites(manifest).loc[labels.index]
    groups = {str(name): rows for name, rows in labels.groupby(site)}
    if not 2 <= len(groups) <= _MOST_SITES:
        groups = {"all": labels}
    drawn = {
        name: (rows["time_days"].to_numpy(float), (rows[event_column(rows)] == 0).to_numpy(float))
        for name, rows in groups.items()
    }
    return curves.kaplan_meier_figure(f"{task}-follow-up", drawn, f"{task}: follow-up", "still followed").svg


# ---------------------------------------------------------------------------------------------------------------------
# The flow of patients
# ---------------------------------------------------------------------------------------------------------------------

_BOX, _GAP, _SIDE, _LINE = 280, 46, 300, 19  # px


def flow_figure(steps: Sequence[Step]) -> str:
    """SVG of the trunk as CONSORT draws it: boxes of who is kept, beside the arrows who is left out and why."""
    kept: list[Step] = []
    out: list[list[Step]] = []
    for step in steps:
        if step.kind == "kept":
            kept.append(step)
            out.append([])
        else:
            out[-1].append(step)
    parts, y = [], 1.0
    tall = 2 * _LINE + 16
    for k, step in enumerate(kept):
        parts.append(_box(1, y, _BOX, [f"{step.n} patients", step.what], bold=True))
        y += tall
        if k + 1 == len(kept):
            break
        reasons = out[k]
        lines = [f"{sum(s.n for s in reasons)} left out", *(f"{s.n} {s.what}" for s in reasons)] if reasons else []
        height = max(_GAP, len(lines) * _LINE + 16 + 20 if lines else 0)
        middle = 1 + _BOX / 2
        parts.append(_arrow(middle, y, middle, y + height))
        if lines:
            top = y + (height - len(lines) * _LINE - 16) / 2
            parts.append(_arrow(middle, y + height / 2, _BOX + 40, y + height / 2))
            parts.append(_box(_BOX + 40, top, _SIDE, lines))
        y += height
    told = "; ".join(f"{s.n} {s.what}" for s in steps)
    wide = _BOX + 40 + _SIDE + 2
    return (
        f'<svg viewBox="0 0 {wide} {y + 2:.0f}" role="img" class="flow" aria-label="{html.escape(told)}">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="#5c636b"/></marker></defs>{"".join(parts)}</svg>'
    )


def _box(x: float, y: float, width: float, lines: Sequence[str], bold: bool = False) -> str:
    text = "".join(
        f'<text x="{x + 12:.0f}" y="{y + 8 + _LINE * (i + 0.72):.1f}" font-weight="{650 if bold and i == 0 else 400}">'
        f"{html.escape(_cut(line, width))}</text>"
        for i, line in enumerate(lines)
    )
    height = len(lines) * _LINE + 16
    fill = "#f5f6f7" if bold else "#fff"
    return f'<rect x="{x}" y="{y:.1f}" width="{width}" height="{height}" rx="4" fill="{fill}" stroke="#9aa0a6"/>{text}'


def _cut(line: str, width: float) -> str:
    most = int((width - 24) / 6.6)  # px a letter at 13 px
    return line if len(line) <= most else line[: most - 1] + "…"


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#5c636b" stroke-width="1.2" '
        'marker-end="url(#tip)"/>'
    )
