"""check.html: the findings of `mtl check` first, then the flow of patients and what they have. One file, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from nsclc_mtl.cohort.lint import Lint, attrition, counts
from nsclc_mtl.cohort.lint.finding import REMEDIES, Finding
from nsclc_mtl.records import PARTS, Manifest, event_column
from nsclc_mtl.report import curves
from nsclc_mtl.report.flow import flow_figure
from nsclc_mtl.report.section import Figure
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
        followed_figure(manifest, name).drawn
        for name, found in lint.follow_up.items()
        if found.patients and found.median.known
    ]
    return {
        "flow": flow_figure([step for step in lint.flow if not step.branch]).drawn,
        "branch_columns": list(branches.columns[3:]),
        "branches": branches.to_dict("records"),
        "heat": _heat(manifest),
        "follow_up": [_follow_up_row(name, found) for name, found in lint.follow_up.items()],
        "figures": figures,
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


def followed_figure(manifest: Manifest, task: str, name: str = "follow-up", caption: str = "") -> Figure:
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
    return curves.kaplan_meier_figure(name, drawn, f"{task}: follow-up", "still followed", caption)
