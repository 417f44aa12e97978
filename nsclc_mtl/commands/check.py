"""`mtl check`: what is wrong with a cohort, before anything is trained on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, Manifest, TableFault

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from nsclc_mtl.cohort.leaks import Finding
    from nsclc_mtl.config import Run


def body(cfg: DictConfig, run: Run) -> None:
    """Counts and findings on the terminal and in `check.json`. Raises DataFault (exit 3) where there are errors."""
    from nsclc_mtl.cohort import checks
    from nsclc_mtl.cohort.leaks import Finding
    from nsclc_mtl.commands.cohort import checked, open_cohort, write_unmatched
    from nsclc_mtl.commands.tile import rooted
    from nsclc_mtl.config import plain

    settings = plain(cfg)
    try:
        manifest = open_cohort(settings)
        checked(settings)
    except DataFault as fault:  # the tables themselves: nothing can be counted
        rows = [vars(row) for row in fault.rows] if isinstance(fault, TableFault) else []
        found = [vars(Finding("error", "table", "cohort", str(fault)))]
        _write(run, {"errors": max(len(rows), 1), "warnings": 0, "findings": found, "faults": rows})
        raise
    run.inputs += manifest.inputs
    write_unmatched(manifest, run.path)
    splits, early = _split(settings, manifest)
    findings, best = checks.check(
        manifest,
        splits,
        level=float(settings["alarm"]),
        patients=int(settings["alarm_patients"]),
        alpha=float(settings["alpha"]),
        root=Path(rooted(settings)["root"]) if settings["hash_slides"] else None,
    )
    findings = early + findings
    _write(run, checks.as_json(manifest, findings, best, splits))
    _show(run, manifest, splits, findings, best)
    run.done.append(manifest.name)
    errors = [f for f in findings if f.level == "error"]
    if errors:
        raise DataFault(
            f"{len(errors)} error{'s' * (len(errors) > 1)} in cohort={manifest.name}, first: "
            f"{errors[0].where}: {errors[0].sentence}"
        )


def _split(settings: dict[str, Any], manifest: Manifest) -> tuple[pd.DataFrame | None, list[Finding]]:
    """The split that `mtl train` would use, and what it would refuse about it."""
    from nsclc_mtl.cohort.leaks import Finding
    from nsclc_mtl.commands.cohort import split
    from nsclc_mtl.commands.train import enough

    splits = None
    try:
        splits = split(settings, manifest)
        enough(manifest, splits, settings["folds"]["min_events"])
    except DataFault as fault:
        return splits, [Finding("error", "split", "folds", str(fault))]
    return splits, []


def _write(run: Run, content: Any) -> None:
    (run.path / "check.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _show(
    run: Run, manifest: Manifest, splits: pd.DataFrame | None, findings: list[Finding], best: pd.DataFrame
) -> None:
    from nsclc_mtl.cohort import checks

    sites = checks.per_site(manifest)
    run.show(_table(f"{manifest.name}: who has what", sites.reset_index(names="")))
    if splits is not None:
        run.show(_table("folds: patients, events, and patients of the rarest class", checks.per_part(manifest, splits)))
    if len(best):
        listed = best.assign(value=best["value"].map("{:.2f}".format))
        run.show(_table("what single columns know (AUC or C, training patients of the first fold)", listed))
    for name, spec in manifest.tasks.items():
        if spec.kind == "survival":
            days = checks.median_follow_up(manifest.labels[name])
            run.say(f"{name}: median follow-up {days:.0f} days ({days / 365.25:.1f} years)")
    for note in manifest.notes:
        run.say(f"note: {note}")
    for finding in findings:
        style = "red" if finding.level == "error" else "yellow"
        run.say(f"{finding.level} [{finding.rule}] {finding.where}: {finding.sentence}", style=style)
    errors = sum(f.level == "error" for f in findings)
    run.say(f"{errors} errors, {len(findings) - errors} warnings")


def _table(title: str, frame: pd.DataFrame) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name, dtype in frame.dtypes.items():
        table.add_column(str(name), justify="right" if dtype.kind in "iuf" else "left")
    for row in frame.itertuples(index=False):
        table.add_row(*(str(cell) for cell in row))
    return table
