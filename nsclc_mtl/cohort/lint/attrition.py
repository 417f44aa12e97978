"""Attrition: from the rows of the tables to the patients of the folds, with counts and reasons, as CONSORT draws it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from nsclc_mtl.cohort.lint import counts
from nsclc_mtl.records import DataFault, Manifest, TaskSpec
from nsclc_mtl.tables import read

Kind = Literal["kept", "left out"]


@dataclass(frozen=True)
class Step:
    """One line of the flow: so many rows or patients are kept, or left out for a reason."""

    branch: str  # "" = the trunk; else `modality NAME` or `task NAME`
    kind: Kind
    what: str
    n: int
    per_site: dict[str, int] = field(default_factory=dict)  # of patients; empty where rows are counted

    def plain(self) -> dict[str, Any]:
        """As `check.json` holds it."""
        return {"branch": self.branch, "kind": self.kind, "what": self.what, "n": self.n, "per_site": self.per_site}


def attrition(
    manifest: Manifest,
    splits: pd.DataFrame | None,
    cohort: Mapping[str, Any] | None = None,
    root: Path | None = None,
) -> list[Step]:
    """The flow: the trunk down to the patients of the folds, then a branch for every modality and every task.

    `cohort` (the declaration) and `root` (folder of its tables) give the raw rows and the reasons; without them the
    branches hold what the manifest knows. In the trunk and
    in every branch the last line is the first less those left out.
    """
    patients = manifest.patients.index
    has = counts.having(manifest)
    some = pd.DataFrame(has).any(axis=1) if has else pd.Series(False, index=patients)
    label = pd.DataFrame({t: counts.known(manifest, t) for t in manifest.tasks}).any(axis=1)
    file = (cohort or {}).get("patients", {}).get("file", "the patients table")
    inside = some & label
    if splits is not None:
        inside = pd.Series(np.isin(patients.to_numpy(str), splits["patient_id"].unique().astype(str)), index=patients)
    told = "usable: a modality and a label" if splits is None else "in the folds"
    steps = [
        _step(manifest, "", "kept", f"rows of {file}", pd.Series(True, index=patients)),
        _step(manifest, "", "left out", "no modality", ~inside & ~some & label),
        _step(manifest, "", "left out", "no known label", ~inside & some & ~label),
        _step(manifest, "", "left out", "no modality and no known label", ~inside & ~some & ~label),
        _step(manifest, "", "left out", "usable, but in no fold", ~inside & some & label),
        _step(manifest, "", "kept", told, inside),
    ]
    for name in manifest.modalities:
        steps += _modality(manifest, name, has[name], root)
    for name, spec in manifest.tasks.items():
        steps += _task(manifest, spec, (cohort or {}).get("tasks", {}).get(name), cohort, root)
    return _short([step for step in steps if step.n or step.kind == "kept"])


def _short(steps: list[Step]) -> list[Step]:
    """The same flow; of a branch that leaves nobody out only the last line is kept."""
    losing = {step.branch for step in steps if step.kind == "left out"}
    last = {step.branch: step for step in steps}
    return [step for step in steps if not step.branch or step.branch in losing or step is last[step.branch]]


def table(steps: list[Step]) -> pd.DataFrame:
    """The flow as a table: branch, kind, what, then a count for every site and `all`; blank where rows are counted."""
    names = list(dict.fromkeys(site for step in steps for site in step.per_site))
    rows = [
        {"branch": s.branch, "kind": s.kind, "what": s.what, **{k: s.per_site.get(k, "") for k in names}, "all": s.n}
        for s in steps
    ]
    return pd.DataFrame(rows)


def _step(manifest: Manifest, branch: str, kind: Kind, what: str, who: pd.Series) -> Step:
    made = counts.by_site(manifest, {"n": who})
    per_site = {str(k): int(n) for k, n in zip(made.columns, made.to_numpy()[0], strict=True) if k != "all"}
    return Step(branch, kind, what, int(who.sum()), per_site)


def _modality(manifest: Manifest, name: str, has: pd.Series, root: Path | None) -> list[Step]:
    branch, spec = f"modality {name}", manifest.modalities[name]
    steps = []
    options = spec.options
    if name in manifest.tables and root is not None and _is_table(options.get("file"), root):
        column = str(options.get("id") or manifest.patients.index.name or "patient_id")
        try:
            ids = read.read_text(root / options["file"])[column].astype(str)
        except (DataFault, KeyError):  # what cannot be read again is not counted; the manifest read it its own way
            ids = pd.Series(dtype=str)
        known = ids[ids.isin(manifest.patients.index)]
        if len(ids):
            steps = [
                Step(branch, "kept", f"rows of {options['file']}", len(ids)),
                Step(branch, "left out", "rows of no patient of the cohort", len(ids) - len(known)),
                Step(branch, "left out", "further rows of a patient", len(known) - known.nunique()),
                Step(branch, "left out", "for other reasons", known.nunique() - int(has.sum())),
            ]
    elif name in manifest.bags and manifest.slides is not None:
        owned = manifest.slides["patient_id"].isin(manifest.ids)
        ready = sum(map(len, manifest.bags[name].values()))
        steps = [
            Step(branch, "kept", f"rows of {options.get('table', 'slides.csv')} (slides)", len(owned)),
            Step(branch, "left out", "slides of no patient of the cohort", int((~owned).sum())),
            Step(branch, "left out", "slides without features or tiles", int(owned.sum()) - ready),
            Step(branch, "left out", "further slides of a patient (all are used)", ready - len(manifest.bags[name])),
        ]
    return [*steps, _step(manifest, branch, "kept", "patients who have it", has)]


def _is_table(file: Any, root: Path) -> bool:
    return bool(file) and Path(str(file)).suffix != ".npz" and (root / str(file)).is_file()


def _task(
    manifest: Manifest,
    spec: TaskSpec,
    given: Mapping[str, Any] | None,
    cohort: Mapping[str, Any] | None,
    root: Path | None,
) -> list[Step]:
    """Who has a label of the task, and why the others have none; reasons that the declaration does not tell are one."""
    branch, index = f"task {spec.name}", manifest.patients.index
    known = counts.known(manifest, spec.name)
    outside = counts.inapplicable(manifest, spec.name) & ~known
    left = ~known & ~outside
    steps = [
        _step(manifest, branch, "kept", "patients", pd.Series(True, index=index)),
        _step(manifest, branch, "left out", "not applicable", outside),
    ]
    for what, who in _reasons(spec, given, _raw(manifest, given, cohort, root)).items():
        why = who.reindex(index, fill_value=False) & left
        steps.append(_step(manifest, branch, "left out", what, why))
        left = left & ~why
    steps.append(_step(manifest, branch, "left out", "not known", left))
    told = "label known"
    if spec.kind == "survival":
        told += f", {int(manifest.labels[spec.name]['event'].sum())} events"
    return [*steps, _step(manifest, branch, "kept", told, known)]


def _raw(
    manifest: Manifest, given: Mapping[str, Any] | None, cohort: Mapping[str, Any] | None, root: Path | None
) -> pd.DataFrame | None:
    """The table that the labels were made of, as text by patient id; None where it cannot be had."""
    if given is None or cohort is None:
        return None
    file = given.get("file")
    if not file or file == cohort["patients"]["file"]:
        return manifest.patients
    column = str(given.get("id") or cohort["patients"].get("id", "patient_id"))
    try:
        raw = read.read_indexed(root / file, column, unique=False) if root is not None else None
    except DataFault:
        return None
    return None if raw is None else raw[~raw.index.duplicated()]


def _reasons(spec: TaskSpec, given: Mapping[str, Any] | None, raw: pd.DataFrame | None) -> dict[str, pd.Series]:
    """Why a label is not known, in the order of asking: bool by patient id."""
    if given is None or raw is None:
        return {}
    if spec.kind != "survival":
        column = given.get("column")
        if column not in raw:
            return {}
        cell = raw[column].astype(str).str.strip()
        nothing = {str(word) for word, to in (given.get("map") or {}).items() if to is None}
        return {
            f"'{column}' is blank": cell.isin(read.MISSING),
            f"'{column}' is mapped to not known": cell.isin(nothing),
        }
    when = given.get("time")
    dated = isinstance(when, Mapping)
    column = when.get("date") if isinstance(when, Mapping) else when
    if given.get("event") not in raw or column not in raw:
        return {}
    event, time = (raw[name].astype(str).str.strip() for name in (given["event"], column))
    nothing = {str(word) for word, to in given["events"].items() if to is None}
    days = pd.to_numeric(time, errors="coerce")
    reasons = {
        f"'{given['event']}' is blank": event.isin(read.MISSING),
        f"'{given['event']}' is mapped to not known": event.isin(nothing),
        f"'{column}' is blank": time.isin(read.MISSING),
    }
    if not dated:
        reasons |= {f"'{column}' is negative: before the index date": days < 0, f"'{column}' is zero": days == 0}
    return reasons
