"""`mtl probe`: whether the features tell the site, before and after ComBat, and what the tasks are worth elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands.probe_table import made, plain_interval
from nsclc_mtl.commands.sites import keeps_no_outcome
from nsclc_mtl.records import Manifest, TaskSpec, UsageFault

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run

KINDS = ("deep", "omics", "radiomics", "vector")  # tables that ComBat is for; the clinical ones are probed as they are


def body(cfg: DictConfig, run: Run) -> None:
    """Writes `probe.json` and prints two tables: of the features, or with `ckpt` of what a trained run made of them.

    Raises UsageFault where the cohort has no two sites to tell apart.
    """
    from threadpoolctl import threadpool_limits

    from nsclc_mtl.baselines import site_probe
    from nsclc_mtl.commands.cohort import open_cohort
    from nsclc_mtl.config import build, plain
    from nsclc_mtl.tables.harmonize import named_sites

    settings = plain(cfg)
    if settings["ckpt"] is not None:
        from nsclc_mtl.commands import embeddings

        embeddings.probe(settings, run)
        return
    if settings["against"] is not None:
        raise UsageFault("against= compares two trained runs: give the first as ckpt=RUN")
    keeps_no_outcome(settings["cohort"], settings["combat"])
    manifest = open_cohort({**settings, "tasks": settings["tasks"] or None})
    if settings["tasks"] == []:
        manifest.tasks = {}
    site = named_sites(manifest.patients["site"])
    task, label = site_probe.site_task(site, int(settings["least"]))
    if len(task.classes) < 2:
        raise UsageFault(
            f"cohort={manifest.name} has {len(task.classes)} sites with {settings['least']} patients or more, two are "
            "needed; name their column in cohort.patients.site, or set least lower"
        )
    run.inputs += manifest.inputs
    counts = site[site != ""].value_counts()
    kept = {name: int(counts[name]) for name in task.classes}
    run.say(f"{manifest.name}: sites {', '.join(f'{name} ({n} patients)' for name, n in kept.items())}")
    if len(counts) > len(kept):
        run.say(
            f"note: {len(counts) - len(kept)} smaller sites are not told apart; they train where a site is held out"
        )
    model = build(settings["floor"])
    with threadpool_limits(1):
        sites = probed(manifest, task, label, settings, model, run)
        tasks = tasks_elsewhere(manifest, site, task.classes, settings, model, run)
    content = {"sites": kept, "probe": sites, "tasks": tasks}
    (run.path / "probe.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    _show(run, sites, tasks, settings["unseen"])
    run.done.append(manifest.name)


def probed(
    manifest: Manifest, task: TaskSpec, label: pd.DataFrame, settings: Mapping[str, Any], model: Any, run: Run
) -> list[dict[str, Any]]:
    """A row a table: AUC of telling the site (macro, one against the rest) before and after ComBat, and the change."""
    import pandas as pd

    from nsclc_mtl.baselines import site_probe
    from nsclc_mtl.tables.harmonize import named_sites

    tables, apart = _tables(manifest)
    rows = []
    for name, table in run.track({**tables, **apart}.items(), "tables"):
        own = table[table.index.isin(label.dropna().index)]
        spec, ours = site_probe.site_task(named_sites(manifest.patients.loc[own.index, "site"]), int(settings["least"]))
        if len(spec.classes) < 2:
            run.say(f"note: {name}: fewer than two sites have it in {settings['least']} patients: not probed")
            continue
        words = {"folds": int(settings["folds"]), "seed": int(settings["seed"]), "model": model}
        before = site_probe.tell_sites(name, own, spec, ours, **words)
        if name in _harmonised(manifest, [name], apart):
            prepare = _combat(manifest, name, settings, "pooled")
            after = site_probe.tell_sites(name, own, spec, ours, prepare=prepare, **words)
        else:
            after = before
        said = pd.concat([after.assign(model="learner"), before.assign(model="floor:before")])
        (result,) = _judged(said, {spec.name: spec}, settings).values()
        models = result.metrics[result.primary]
        row = {"table": name, "patients": result.n, "sites": len(spec.classes)}
        row["before"] = plain_interval(models["floor:before"].interval())
        if after is not before:
            row["after"] = plain_interval(models["learner"].interval())
            row["change"] = plain_interval(result.difference(result.primary, "floor:before"))
        rows.append(row)
    return rows


def tasks_elsewhere(
    manifest: Manifest, site: pd.Series, sites: Sequence[str], settings: Mapping[str, Any], model: Any, run: Run
) -> list[dict[str, Any]]:
    """A row a task and floor: its metric at sites held out, without ComBat and with it, and the paired differences."""
    import pandas as pd

    from nsclc_mtl.baselines import floor_tables, site_probe

    if not manifest.tasks:
        return []
    tables, apart = _tables(manifest)
    splits = site_probe.leave_one_site_out(site, sites)
    given = (tables, apart, manifest.tasks, manifest.labels, splits)
    words = {"seed": int(settings["seed"]), "model": model}
    plain = site_probe.elsewhere(*given, **words)
    moved, changed = _harmonised(manifest, tables, apart), {}
    for unseen in run.track(settings["unseen"], "ways to treat the unseen site"):
        prepare = {n: _combat(manifest, n, settings, unseen) for n in moved}
        changed[unseen] = site_probe.elsewhere(*given, prepare=prepare, **words)
    touched = {f"floor:{floor}" for floor, sees in floor_tables(list(tables), apart).items() if {*sees} & {*moved}}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for floor in dict.fromkeys(plain["model"]):
        without = plain[plain["model"] == floor]
        for unseen in settings["unseen"]:
            # a floor on tables that ComBat leaves alone is told once, without a difference
            of = changed[unseen][changed[unseen]["model"] == floor] if floor in touched else without
            said = pd.concat([of.assign(model="learner"), without.assign(model="floor:without")])
            for name, result in _judged(said, manifest.tasks, settings).items():
                models = result.metrics[result.primary]
                row = rows.setdefault(
                    (name, floor), {"task": name, "metric": result.primary, "floor": floor.removeprefix("floor:")}
                )
                row["without"] = plain_interval(models["floor:without"].interval())
                if floor in touched:
                    row[unseen] = plain_interval(models["learner"].interval())
                    row[f"{unseen} minus it"] = plain_interval(result.difference(result.primary, "floor:without"))
    return [row for task in manifest.tasks for (name, _), row in rows.items() if name == task]


def _tables(manifest: Manifest) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """The tables of the cohort, and the mean slide features, which `all tables` leaves out."""
    from nsclc_mtl.commands.floors import slide_floors, slide_means

    return dict(manifest.tables), {name: slide_means(manifest, m) for name, m in slide_floors(manifest).items()}


def _harmonised(manifest: Manifest, tables: Sequence[str] | Mapping[str, Any], apart: Mapping[str, Any]) -> list[str]:
    return [n for n in (*tables, *apart) if n in apart or manifest.modalities[n].kind in KINDS]


def _combat(manifest: Manifest, name: str, settings: Mapping[str, Any], unseen: str) -> Any:
    """What takes the site effects out of a table, fitted on a fold's training patients."""
    from nsclc_mtl.bags.sites import fit_sites, without_sites

    options = {"harmonize": "combat", "combat": {**settings["combat"], "unseen": unseen}}

    def prepare(table: pd.DataFrame, training: list[str]) -> pd.DataFrame:
        rows = table.loc[table.index.intersection(training)]
        return without_sites(manifest, table, fit_sites(manifest, name, rows, options))

    return prepare


def _judged(said: pd.DataFrame, tasks: Mapping[str, TaskSpec], settings: Mapping[str, Any]) -> dict[str, Any]:
    from nsclc_mtl.report import evaluation

    frame = said.assign(fold=said["fold"].astype(str))
    return evaluation.judge(frame, tasks, None, int(settings["bootstrap"]), int(settings["seed"]))


def _show(
    run: Run, sites: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]], unseen: Sequence[str]
) -> None:
    title = "AUC of telling the site from a table, 95 % intervals; .5 is chance"
    run.show(made(title, ["table", "patients", "sites", "before", "after", "change"], sites))
    if tasks:
        from nsclc_mtl.report.words import metric_word

        named = [{**row, "task": f"{row['task']}, {metric_word(row['metric'])}"} for row in tasks]
        columns = ["task", "floor", "without", *(f"{how} minus it" for how in unseen)]
        run.show(made("each site held out in turn: floors without ComBat, and the change with it", columns, named))
