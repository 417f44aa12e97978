"""The linter of a cohort: what it counts, and what a reviewer would find in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from nsclc_mtl.cohort import visits
from nsclc_mtl.cohort.lint import alarms, associations, attrition, copies, counts, duplicates, plausible
from nsclc_mtl.cohort.lint.attrition import Step
from nsclc_mtl.cohort.lint.finding import Finding, worst_first
from nsclc_mtl.metrics.follow_up import FollowUp
from nsclc_mtl.records import Manifest


@dataclass
class Limits:
    """From what on the linter speaks."""

    level: float = 0.85  # AUC or C of a single column that raises the alarm
    certain: float = 0.98  # ... and that is an error
    patients: int = 30  # fewest training patients that a column is judged on
    alpha: float = 0.01  # error rate of each family of tests


@dataclass
class Lint:
    """What is known of a cohort: findings (errors first), and the counts behind them."""

    findings: list[Finding]
    best: pd.DataFrame  # task, modality, column, value, n: the columns that know most by themselves
    flow: list[Step] = field(default_factory=list)
    follow_up: dict[str, FollowUp] = field(default_factory=dict)  # days

    @property
    def errors(self) -> list[Finding]:
        """The findings that end the command with exit 3."""
        return [f for f in self.findings if f.level == "error"]


def check(
    manifest: Manifest,
    splits: pd.DataFrame | None,
    *,
    limits: Limits | None = None,
    root: Path | None = None,
    hash_slides: bool = True,
    cohort: Mapping[str, Any] | None = None,
    outcomes: Manifest | None = None,
    early: list[Finding] | None = None,
) -> Lint:
    """Looks at everything. `root`: folder of the tables (None = raw rows and slide files are not looked at), `cohort`:
    the declaration, `outcomes`: the same cohort with all its declared tasks, also those that are not trained, `early`:
    findings that were made on the way here. Of a series the latest values are looked at."""
    limits = limits or Limits()
    manifest = replace(manifest, tables={**manifest.tables, **visits.latest(manifest)})
    train = _train_parts(manifest, splits)
    found = copies.copies(manifest, copies.outcome_parts(outcomes or manifest))
    strong, best = alarms.alarms(
        manifest, train, level=limits.level, certain=limits.certain, patients=limits.patients, alpha=limits.alpha
    )
    copied = {(f.where, f.column) for f in found}
    found += [f for f in strong if (f.where, f.column) not in copied]
    found += alarms.smells(manifest)
    group = ((cohort or {}).get("patients") or {}).get("group")
    found += duplicates.duplicates(manifest, splits, root if hash_slides else None, group)
    found += plausible.constants(manifest)
    found += associations.missing_by_outcome(manifest, limits.alpha)
    found += associations.missing_by_site(manifest, limits.alpha)
    found += associations.label_by_site(manifest, limits.alpha)
    found += plausible.follow_up(manifest)
    found += plausible.directions(cohort or {}, manifest)
    found += plausible.orders(cohort or {}, outcomes or manifest)
    if splits is not None:
        found += plausible.unjudged(manifest, splits)
    flow = attrition.attrition(manifest, splits, cohort, root)
    return Lint(worst_first([*(early or []), *found]), best, flow, counts.follow_ups(manifest))


def _train_parts(manifest: Manifest, splits: pd.DataFrame | None) -> list[list[str]]:
    """Training patients of every fold; everybody where there are no folds."""
    if splits is None:
        return [manifest.ids]
    rows = splits[splits["part"] == "train"]
    return [list(group["patient_id"]) for _, group in rows.groupby("fold")]


def as_json(manifest: Manifest, lint: Lint, splits: pd.DataFrame | None, record: Mapping[str, Any]) -> dict[str, Any]:
    """What `check.json` holds (docs/check-and-splits.md), plain types. `record`: of the split, `splits.json`."""
    per_site = counts.per_site(manifest)
    warnings = len(lint.findings) - len(lint.errors)
    return {
        "cohort": manifest.name,
        "errors": len(lint.errors),
        "warnings": warnings,
        "findings": [f.plain() for f in lint.findings],
        "flow": [step.plain() for step in lint.flow],
        "per_site": {str(k): {str(n): int(v) for n, v in row.items()} for k, row in per_site.T.iterrows()},
        "per_part": [] if splits is None else counts.per_part(manifest, splits).astype(object).to_dict("records"),
        "overlap": [] if splits is None else counts.overlap(manifest, splits).astype(object).to_dict("records"),
        "splits": dict(record),
        "strongest_columns": lint.best.round(4).to_dict("records"),
        "follow_up": {name: _follow_up(found) for name, found in lint.follow_up.items()},
        "notes": manifest.notes,
    }


def _follow_up(found: FollowUp) -> dict[str, Any]:
    """Days, None where a number is not reached, with the reason."""

    def day(value: float) -> float | None:
        return round(float(value), 1) if value == value else None

    return {
        "median_days": day(found.median),
        "lo_days": day(found.lo),
        "hi_days": day(found.hi),
        "median_time_days": day(found.observed),
        "patients": found.patients,
        "events": found.events,
        "reason": found.median.reason,
    }
