"""`mtl check`: what is wrong with a cohort, before anything is trained on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, Fault, Manifest

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from nsclc_mtl.cohort.lint import Lint
    from nsclc_mtl.cohort.lint.finding import Finding
    from nsclc_mtl.config import Run


def body(cfg: DictConfig, run: Run) -> None:
    """Counts and findings on the terminal, in `check.json` and `check.html`. Raises DataFault (exit 3) on errors."""
    from nsclc_mtl.cohort import lint
    from nsclc_mtl.cohort.lint import copies
    from nsclc_mtl.commands import splitting
    from nsclc_mtl.commands.tile import rooted
    from nsclc_mtl.config import plain
    from nsclc_mtl.tables import outcomes

    settings = plain(cfg)
    try:
        declared = settings["cohort"]
        specs = {name: outcomes.task_spec(name, given) for name, given in declared["tasks"].items()}
        early = copies.declared(declared, specs)
        settings = {**settings, "cohort": copies.without(declared, early)} if early else settings
        manifest, whole = _open(settings)
    except DataFault as fault:  # the tables themselves: nothing can be counted
        _unreadable(run, settings, fault)
        raise
    run.inputs += manifest.inputs
    made, refused = _split(settings, manifest)
    splits = made.table if made is not None else None
    found = lint.check(
        manifest,
        splits,
        limits=lint.Limits(
            level=float(settings["alarm"]),
            certain=float(settings["alarm_error"]),
            patients=int(settings["alarm_patients"]),
            alpha=float(settings["alpha"]),
        ),
        root=Path(rooted(settings)["root"]),
        hash_slides=bool(settings["hash_slides"]),
        cohort=declared,
        outcomes=whole,
        early=early + refused,
    )
    record = splitting.record(settings, manifest, made) if made is not None else {}
    _write(run, lint.as_json(manifest, found, splits, record), _page(run, settings, manifest, found, splits, record))
    _show(run, manifest, splits, found, record)
    run.done.append(manifest.name)
    if found.errors:
        raise DataFault(_verdict(manifest.name, found.errors))


def _open(settings: dict[str, Any]) -> tuple[Manifest, Manifest]:
    """The cohort as the run asks for it, and with all declared tasks, whose outcomes must not be inputs either."""
    from nsclc_mtl.commands.cohort import open_cohort

    declared = settings["cohort"]["tasks"]
    asked = settings.get("tasks") or [name for name, task in declared.items() if not task.get("optional")]
    if set(declared) <= set(asked):
        manifest = open_cohort(settings)
        return manifest, manifest
    try:
        whole = open_cohort({**settings, "tasks": [*asked, *(name for name in declared if name not in asked)]})
    except DataFault:  # a task that nobody asked for cannot be read: it is let go
        manifest = open_cohort(settings)
        return manifest, manifest
    tasks = {name: whole.tasks[name] for name in asked}
    labels = {name: whole.labels[name] for name in asked}
    return replace(whole, tasks=tasks, labels=labels), whole


def _split(settings: dict[str, Any], manifest: Manifest) -> tuple[Any, list[Finding]]:
    """The split that `mtl train` would use, and what it would refuse about it."""
    from nsclc_mtl.cohort.lint.finding import Finding
    from nsclc_mtl.commands import splitting

    made = None
    try:
        made = splitting.split(settings, manifest)
        splitting.sound(settings, manifest, made)
    except DataFault as fault:
        return made, [Finding("error", "split", "folds", str(fault))]
    return made, []


def _verdict(name: str, errors: list[Finding]) -> str:
    """One sentence for stderr: every column that is an error by name, or the first of other errors."""
    columns = list(dict.fromkeys(f"'{f.column}'" for f in errors if f.column))
    listed = ", ".join(columns[:8]) + (f" and {len(columns) - 8} more" if len(columns) > 8 else "")
    told = (
        f"{len(errors)} error{'s' * (len(errors) > 1)} in cohort={name}, first: {errors[0].where}: {errors[0].sentence}"
    )
    return f"{told}; columns to look at: {listed}" if len(columns) > 1 else told


def _unreadable(run: Run, settings: Mapping[str, Any], fault: Fault) -> None:
    """`check.json` and `check.html` where the tables cannot be read: the fault, or all that it lists."""
    from nsclc_mtl.cohort.lint.finding import Finding
    from nsclc_mtl.report import check_page

    rows = getattr(fault, "rows", None) or ()  # a fault that lists all those of the tables
    listed = [vars(row) for row in rows] or [{"fault": str(fault)}]
    findings = [Finding("error", "table", "cohort", str(fault)).plain()]
    content = {"cohort": settings["cohort"].get("name"), "errors": len(listed), "warnings": 0, "findings": findings}
    _write(run, {**content, "faults": listed}, check_page.render(_meta(run, settings), faults=listed))


def _write(run: Run, content: Mapping[str, Any], page: str) -> None:
    (run.path / "check.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (run.path / "check.html").write_text(page, encoding="utf-8")


def _page(
    run: Run,
    settings: Mapping[str, Any],
    manifest: Manifest,
    found: Lint,
    splits: pd.DataFrame | None,
    record: Mapping[str, Any],
) -> str:
    from nsclc_mtl.report import check_page

    return check_page.render(_meta(run, settings), manifest, found, splits, record)


def _meta(run: Run, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the head of the page says."""
    from datetime import UTC, datetime

    from nsclc_mtl import __version__

    cohort = settings["cohort"]
    return [
        ("Cohort", str(cohort.get("name") or "cohort")),
        ("Tasks", ", ".join(settings.get("tasks") or cohort["tasks"])),
        ("Run", run.path.name),
        ("Seed", str(settings["seed"])),
        ("Version", __version__),
        ("Checked", f"{datetime.now(UTC):%d %B %Y}"),
    ]


def _show(run: Run, manifest: Manifest, splits: pd.DataFrame | None, found: Lint, record: Mapping[str, Any]) -> None:
    from nsclc_mtl.report import check_text

    for table in check_text.tables(manifest, found, splits, record):
        run.show(table)
    for note in manifest.notes:
        run.say(f"note: {note}")
    for style, line in check_text.lines(found.findings):
        run.say(line, style=style)
    wrong, doubtful = len(found.errors), len(found.findings) - len(found.errors)
    run.say(f"{wrong} error{'s' * (wrong != 1)}, {doubtful} warning{'s' * (doubtful != 1)}")
    run.say(f"page: {run.path / 'check.html'}")
