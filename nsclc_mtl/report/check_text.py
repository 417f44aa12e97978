"""The check of a cohort on the terminal: tables of at most a hundred columns, and the findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table

from nsclc_mtl.cohort.lint import Lint, attrition, counts
from nsclc_mtl.cohort.lint.finding import REMEDIES, Finding
from nsclc_mtl.records import Manifest
from nsclc_mtl.report.check_page import fold_rows, months

WIDTH = 100


def tables(manifest: Manifest, lint: Lint, splits: pd.DataFrame | None, record: Mapping[str, Any]) -> Iterator[Table]:
    """The flow, who has what at which site, the folds, the follow-up, and what single columns know."""
    yield _flow(manifest.name, lint)
    yield _table("who has what, by site", counts.per_site(manifest).reset_index(names=""))
    if splits is not None:
        rows = fold_rows(manifest, splits, record)
        drop = ["parts"] if any(row["name"] for row in rows) else ["parts", "name"]
        title = f"folds ({rows[0]['parts']}): patients, events, known numbers, patients of the rarest class"
        yield _table(title, pd.DataFrame(rows).drop(columns=drop))
    if lint.follow_up:
        rows = [
            {
                "task": name,
                "patients": f.patients,
                "events": f.events,
                "median": months(f.median),
                "95 % interval": f"{months(f.lo)} to {months(f.hi)}",
            }
            for name, f in lint.follow_up.items()
        ]
        yield _table("follow-up in months, by reverse Kaplan-Meier", pd.DataFrame(rows))
    if len(lint.best):
        listed = lint.best.assign(value=lint.best["value"].map("{:.2f}".format))
        yield _table("what single columns know (AUC, C or concordance, training patients of the first fold)", listed)


def lines(findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    """Style and text of each finding, errors first, after the last of a rule what to do about it."""
    for k, finding in enumerate(findings):
        style = "red" if finding.level == "error" else "yellow"
        yield style, f"{finding.level} [{finding.rule}] {finding.where}: {finding.sentence}"
        last = k + 1 == len(findings) or (findings[k + 1].level, findings[k + 1].rule) != (finding.level, finding.rule)
        if last:
            yield "dim", f"  to do: {REMEDIES[finding.rule]}"


def _flow(name: str, lint: Lint) -> Table:
    """Rows of who is kept, and indented under them who is left out; branches under their names."""
    flow = attrition.table(lint.flow)
    sites = list(flow.columns[3:])
    made = _empty(f"{name}: from the tables to the folds", ["", *sites])
    branch = ""
    sizes = flow["branch"].value_counts()
    for row in flow.to_dict("records"):
        left_out = row["kind"] != "kept"
        what = f"  – {row['what']}" if left_out else row["what"]
        if row["branch"] != branch:
            branch = row["branch"]
            if sizes[branch] > 1:
                made.add_row()
            what = f"{branch}: {what}"
        made.add_row(what, *(str(row[site]) for site in sites), style="dim" if left_out else None)
    return made


def _table(title: str, frame: pd.DataFrame) -> Table:
    right = {str(name) for name, dtype in frame.dtypes.items() if dtype.kind in "iuf"}
    right |= {
        str(c)
        for c in frame.columns
        if str(c).endswith((" events", " rarest", " known", "patients", "median", "interval"))
    }
    made = _empty(title, [str(name) for name in frame.columns], right)
    for row in frame.itertuples(index=False):
        made.add_row(*(str(cell) for cell in row))
    return made


def _empty(title: str, columns: Sequence[str], right: set[str] | None = None) -> Table:
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for k, name in enumerate(columns):
        numbers = k > 0 if right is None else name in right
        made.add_column(name, justify="right" if numbers else "left", overflow="fold")
    return made
