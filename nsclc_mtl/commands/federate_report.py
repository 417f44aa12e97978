"""What came of a federation: `federation.json`, `federation.html`, and the table on the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import federate_membership
from nsclc_mtl.commands.federate_membership import RECORDS, finite
from nsclc_mtl.commands.outputs import plain_name
from nsclc_mtl.commands.sealed import written
from nsclc_mtl.records import PARTS, Manifest

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.config import Run


def write(
    settings: Mapping[str, Any], manifest: Manifest, splits: pd.DataFrame, sites: Mapping[str, list[str]], run: Run
) -> None:
    """`federation.json`, `federation.html` and its figures in the run folder; the main table onto the terminal."""
    from nsclc_mtl.report import section
    from nsclc_mtl.report.federated import page

    told = account(settings, manifest, splits, sites, run.path)
    made = page.render(told)
    with written(run.path / "federation.json") as aside:
        aside.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    section.save([], made.figures, run.path)
    with written(run.path / "federation.html") as aside:
        aside.write_text(made.html, encoding="utf-8")
    run.show(page.table(told, boxed=run.console.is_terminal))
    run.say(f"page: {run.path / 'federation.html'}")


def account(
    settings: Mapping[str, Any], manifest: Manifest, splits: pd.DataFrame, sites: Mapping[str, list[str]], run: Path
) -> dict[str, Any]:
    """All that the page tells, from the files of a run folder: what `federation.json` holds."""
    from dataclasses import asdict

    from nsclc_mtl.federated.plan import Plan
    from nsclc_mtl.report.federated import ways

    records = _records(run)
    folds = [record["number"] for record in records]
    refused = _refused(run, sites, folds)
    draws, seed = int(settings["bootstrap"]), int(settings["seed"])
    done = splits[splits["fold"].isin(folds)]
    plan = {k: v for k, v in settings["federated"].items() if k not in ("sites", "against")}
    privacy = Plan.of(settings["federated"]).privacy
    plan["privacy"] = None if privacy is None else asdict(privacy)
    site_of = {patient: site for site, ids in sites.items() for patient in ids}
    rows = ways.rows(
        _predictions(run, sites),
        manifest.tasks,
        site_of,
        {(str(r["fold"]), r["site"]): r["sentence"] for r in refused},
        int(plan["least"]),
        draws,
        seed,
    )
    judged = {row["task"] for row in rows}
    tasks = [
        {"name": name, "kind": spec.kind, "classes": list(spec.classes), "endpoint": spec.endpoint}
        for name, spec in manifest.tasks.items()
        if name in judged
    ]
    return {
        "run": _head(settings, manifest, splits, run),
        "plan": plan,
        "tasks": tasks,
        "sites": [_site(site, ids, manifest, done) for site, ids in sites.items()],
        "all": _site(ways.ALL, list(site_of), manifest, done),
        "refused": refused,
        "rows": rows,
        "folds": [_fold(record) for record in records],
        "left": _left(run, folds),
        "membership": federate_membership.attacked(run, folds, draws, seed),
        "notes": list(manifest.notes),
    }


def _head(settings: Mapping[str, Any], manifest: Manifest, splits: pd.DataFrame, run: Path) -> dict[str, Any]:
    from datetime import UTC, datetime

    told = json.loads((run / "run.json").read_text("utf-8")) if (run / "run.json").is_file() else {}
    return {
        "cohort": manifest.name,
        "name": run.resolve().name,
        "patients": int(splits["patient_id"].nunique()),
        "seed": int(settings["seed"]),
        "version": str((told.get("versions") or {}).get("nsclc-mtl", "")),
        "commit": str(told.get("git_commit") or "")[:10],
        "date": f"{datetime.now(UTC):%d %B %Y}",
    }


def _records(run: Path) -> list[dict[str, Any]]:
    """What the server kept of every fold, with its `number`."""
    found = sorted((run / RECORDS).glob("fold*.json"), key=lambda path: int(path.stem[4:]))
    return [{**json.loads(path.read_text(encoding="utf-8")), "number": int(path.stem[4:])} for path in found]


def _predictions(run: Path, sites: Mapping[str, list[str]]) -> dict[str, pd.DataFrame]:
    """Way of training -> rows of predictions.csv; a way that was not trained is absent."""
    import pandas as pd

    from nsclc_mtl.commands.trained import read_table
    from nsclc_mtl.report.federated.ways import CENTRALISED, FEDERATED, LOCAL

    there = {FEDERATED: read_table(run / "predictions.csv")}
    if (file := run / CENTRALISED / "predictions.csv").is_file():
        there[CENTRALISED] = read_table(file)
    local = [f for site in sites if (f := run / LOCAL / plain_name(site) / "predictions.csv").is_file()]
    if local:
        there[LOCAL] = pd.concat(map(read_table, local), ignore_index=True)
    elif (run / LOCAL).is_dir():
        there[LOCAL] = there[FEDERATED].iloc[:0]
    return there


def _refused(run: Path, sites: Mapping[str, list[str]], folds: Sequence[int]) -> list[dict[str, Any]]:
    """Who could not be trained alone in which fold, and why."""
    from nsclc_mtl.report.federated.ways import LOCAL

    out = []
    for site in sites:
        folder = run / LOCAL / plain_name(site)
        for fold in folds:
            file = folder / f"refused{fold}.json"
            if file.is_file() and not (folder / f"fold{fold}" / "predictions.csv").is_file():
                out.append({"fold": fold, "site": site, **json.loads(file.read_text(encoding="utf-8"))})
    return out


def _site(site: str, ids: Sequence[str], manifest: Manifest, splits: pd.DataFrame) -> dict[str, Any]:
    """Patients of a site, how many stand in each part of each fold, and whose outcome is known."""
    own = splits[splits["patient_id"].isin(ids)]
    counts = own.groupby("part")["fold"].value_counts()
    folds = sorted(splits["fold"].unique())
    parts = {part: [int(counts.get((part, fold), 0)) for fold in folds] for part in PARTS}
    known, events = {}, {}
    for name, spec in manifest.tasks.items():
        label = manifest.labels[name]
        there = label[label.index.isin(ids)].dropna()
        known[name] = len(there)
        column = {"survival": "event", "binary": "value"}.get(spec.kind)
        events[name] = None if column is None else int((there[column] == 1).sum())
    return {"site": site, "patients": len(ids), "parts": parts, "known": known, "events": events}


def _fold(record: Mapping[str, Any]) -> dict[str, Any]:
    """The rounds of a fold: loss of each site, how far the model moved, who was silent or rejected, what it cost."""
    rounds = record["rounds"]
    names = sorted({site for made in rounds for site in made["sites"]})
    loss = {site: [finite((made["sites"].get(site) or {}).get("loss")) for made in rounds] for site in names}
    told: list[str] = [word for word in record.get("said") or () if word.startswith("round ")]
    for made in rounds:
        told += [
            f"round {made['number']}: the answer of {site} is rejected: {why}" for site, why in made["rejected"].items()
        ]
        told += [f"round {made['number']}: {site} was silent" for site in made["silent"]]
    cost = [made["privacy"] for made in rounds if made.get("privacy")]
    return {
        "number": record["number"],
        "patients": dict(record["patients"]),
        "loss": {site: of for site, of in loss.items() if any(value is not None for value in of)},
        "rounds": [made["number"] for made in rounds],
        "moved": [finite(made["moved"]) for made in rounds],
        "told": list(dict.fromkeys(told)),
        "privacy": dict(cost[-1]) if cost else {},
    }


def _left(run: Path, folds: Sequence[int]) -> dict[str, Any] | None:
    """Messages and bytes by site and by kind, from the logs of messages; None where there is none.

    A message `in` came from a site, one `out` went to it.
    """
    lines: list[dict[str, Any]] = []
    for fold in folds:
        file = run / RECORDS / f"messages{fold}.jsonl"
        if file.is_file():
            lines += map(json.loads, file.read_text(encoding="utf-8").splitlines())
    lines = [line for line in lines if line.get("direction") in ("in", "out") and "site" in line]
    if not lines:
        return None
    sites, kinds = [], []
    for site in sorted({line["site"] for line in lines}):
        up, down = (
            [line["bytes"] for line in lines if (line["site"], line["direction"]) == (site, way)]
            for way in ("in", "out")
        )
        counted = {"messages_up": len(up), "bytes_up": sum(up), "messages_down": len(down), "bytes_down": sum(down)}
        sites.append({"site": site, **counted})
    came = [line for line in lines if line["direction"] == "in"]
    for kind in dict.fromkeys(str(line.get("kind", "unreadable")) for line in came):
        own = [line["bytes"] for line in came if str(line.get("kind", "unreadable")) == kind]
        kinds.append({"kind": kind, "messages": len(own), "bytes": sum(own)})
    return {"sites": sites, "kinds": kinds}
