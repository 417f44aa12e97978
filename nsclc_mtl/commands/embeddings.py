"""`mtl probe ckpt=RUN`: whether the embeddings of a trained run tell the site, and what its tasks are worth beside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import Manifest, UsageFault

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.config import Run
    from nsclc_mtl.learner import Learner
    from nsclc_mtl.metrics.comparison import Bootstrapped

JOINED = "all, joined"


def probe(settings: Mapping[str, Any], run: Run) -> None:
    """Writes `probe.json` and prints two tables: of the sites and of the tasks; with `against` two runs side by side.

    Raises UsageFault where the cohort has no sites or the runs do not test the same patients in the same folds.
    """
    from threadpoolctl import threadpool_limits

    from nsclc_mtl.commands.probe_table import made
    from nsclc_mtl.report.words import metric_word

    runs = [Trained(settings["ckpt"], settings, run)]
    if settings["against"] is not None:
        runs.append(Trained(settings["against"], settings, run))
        same_tests(*runs)
    with threadpool_limits(1):
        sites = told(runs, settings, run)
    tasks = worth(runs, settings)
    names = {word: one.folder.resolve().name for word, one in zip(("ckpt", "against"), runs, strict=False)}
    content = {"runs": names, "embeddings": sites, "tasks": tasks}
    (run.path / "probe.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    of = f"run {names['ckpt']}" + (f", against {names['against']}" if len(runs) > 1 else "")
    more = ["against", "change"] if len(runs) > 1 else []
    if sites:
        title = f"AUC of telling the site from the embeddings of test patients, {of}; chance: sites permuted"
        run.show(made(title, ["embedding", "patients", "parts", "value", "chance", *more], sites))
    named = [{**row, "task": f"{row['task']}, {metric_word(row['metric'])}"} for row in tasks]
    run.show(made(f"the tasks on the test parts, {of}", ["task", "value", *more], named))
    run.done.append(names["ckpt"])


class Trained:
    """A finished run: its configuration, cohort, folds and predictions. Raises UsageFault where it is none."""

    def __init__(self, ckpt: Any, settings: Mapping[str, Any], run: Run) -> None:
        import yaml

        from nsclc_mtl.commands.cohort import open_cohort
        from nsclc_mtl.commands.trained import read_table, run_folder, tasks_of
        from nsclc_mtl.tables.harmonize import named_sites

        self.folder: Path = run_folder(ckpt)
        for name in ("config.yaml", "predictions.csv", "splits.csv"):
            run.read(self.folder / name)
        self.settings: dict[str, Any] = yaml.safe_load((self.folder / "config.yaml").read_text(encoding="utf-8"))
        if settings["cohort"].get("root"):
            self.settings["cohort"]["root"] = settings["cohort"]["root"]
        self.manifest: Manifest = open_cohort(self.settings)
        self.site = named_sites(self.manifest.patients["site"])
        if not (self.site != "").any():
            raise UsageFault(
                f"cohort={self.manifest.name} of the run '{self.folder.name}' declares no sites: name their column in "
                "cohort.patients.site and train again"
            )
        self.predictions = read_table(self.folder / "predictions.csv")
        self.tasks = tasks_of(self.folder / "cohort.json", self.manifest)
        done = {path.name[4:] for path in self.folder.glob("fold*") if path.is_dir()}
        splits = read_table(self.folder / "splits.csv")
        tests = splits[(splits["part"] == "test") & splits["fold"].isin(done)]
        self.tests = {str(fold): sorted(rows["patient_id"]) for fold, rows in tests.groupby("fold")}

    def embeddings(self, fold: str) -> dict[str, pd.DataFrame]:
        """What the encoders of a fold say of its test patients, [patient, dim] a modality, of those who have it.

        Of an ensemble the first member speaks.
        """
        from nsclc_mtl.bags.cache import BagCache
        from nsclc_mtl.commands.fold_files import load_fold

        members, fitted, _, _ = load_fold(self.settings, self.folder / f"fold{fold}")
        return embedded(members[0], self.manifest, self.tests[fold], SimpleNamespace(fitted=fitted, cache=BagCache()))


def embedded(member: Learner, manifest: Manifest, ids: Sequence[str], data: Any) -> dict[str, pd.DataFrame]:
    """Embeddings of these patients, a table a modality with a row for each who has it, and joined (NaN where absent).

    `data` has the `fitted` and the `cache` to read with.
    """
    import pandas as pd
    import torch

    from nsclc_mtl.bags.datamodule import loader, moved

    parts: dict[str, list[pd.DataFrame]] = {}
    with torch.no_grad():
        for batch in loader(manifest, ids, data.fitted, data.cache):
            batch = moved(batch, member.device)
            for name, embedding in member.embed(batch).items():
                wide = pd.DataFrame(embedding.vector.float().cpu().numpy(), batch.patients).add_prefix(f"{name} ")
                parts.setdefault(name, []).append(wide[batch.present[name].cpu().numpy()])
    tables = {name: pd.concat(rows) for name, rows in parts.items()}
    joined = pd.concat([table.reindex(list(ids)) for table in tables.values()], axis=1)
    return {JOINED: joined, **tables}


def same_tests(one: Trained, other: Trained) -> None:
    """Raises UsageFault where two runs do not test the same patients in the same folds, or not the same tasks."""
    if one.tests != other.tests or not one.site.equals(other.site):
        raise UsageFault(
            f"the runs '{one.folder.name}' and '{other.folder.name}' do not test the same patients in the same folds: "
            "train both with the same cohort, seed and folds"
        )


def told(runs: Sequence[Trained], settings: Mapping[str, Any], run: Run) -> list[dict[str, Any]]:
    """A row an embedding: AUC of telling the site within the test parts, with its interval and the level of chance.

    The mean over folds by their patients. Test parts without two sites of `least` patients are left out.
    """
    import numpy as np

    from nsclc_mtl.baselines import site_probe
    from nsclc_mtl.commands.probe_table import plain_interval
    from nsclc_mtl.metrics.comparison import paired_difference

    tables = [{fold: one.embeddings(fold) for fold in run.track(one.tests, "folds")} for one in runs]
    names = [
        name for name in next(iter(tables[0].values())) if all(name in of for each in tables for of in each.values())
    ]
    seed, least, folds = int(settings["seed"]), int(settings["least"]), int(settings["folds"])
    rows = []
    for name in names:
        sites = {}
        for fold in tables[0]:
            here = [set(each[fold][name].index) for each in tables]
            within = runs[0].site.loc[[p for p in runs[0].tests[fold] if all(p in people for people in here)]]
            if len(kept := site_probe.large_sites(within, least)):
                sites[fold] = kept
        if not sites:
            run.say(f"note: {name}: no test part holds two sites with {least} patients or more: not probed (see least)")
            continue
        if len(sites) < len(tables[0]):
            run.say(f"note: {name}: {len(tables[0]) - len(sites)} test parts have no two sites of {least} patients")
        words = {"folds": folds}
        cells = [
            [
                cell
                for number, (fold, site) in enumerate(sites.items())
                for cell in site_probe.tell_within(each[fold][name].loc[site.index], site, seed=[seed, number], **words)
            ]
            for each in tables
        ]
        judged = spread(cells, int(settings["bootstrap"]), seed)
        row: dict[str, Any] = {"embedding": name, "patients": sum(map(len, sites.values())), "parts": len(sites)}
        row["value"] = plain_interval(judged[0].interval())
        if times := int(settings["permutations"]):
            parts = [tables[0][fold][name].loc[site.index] for fold, site in sites.items()]
            by_chance = site_probe.permuted(parts, list(sites.values()), seed=seed, times=times, **words)
            lo, hi = np.quantile(by_chance, [0.025, 0.975])
            row["chance"] = {"value": float(by_chance.mean()), "lo": float(lo), "hi": float(hi), "reason": ""}
        if len(runs) > 1:
            row["against"] = plain_interval(judged[1].interval())
            row["change"] = plain_interval(paired_difference(judged[0], judged[1]))
        rows.append(row)
    return rows


def spread(cells: Sequence[Sequence[Any]], draws: int, seed: int) -> list[Bootstrapped]:
    """AUC over the cells of each run with its bootstrap distribution, on the same resamples of the same patients."""
    import numpy as np

    from nsclc_mtl.metrics.comparison import bootstrap, repeated, resamples_of

    people = [cell.patients for cell in cells[0]]
    weights = resamples_of(people, draws, np.random.default_rng([seed, 104729]))
    return [bootstrap([cell.measure for cell in each], weights, repeated(people)) for each in cells]


def worth(runs: Sequence[Trained], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a task: its main metric on the test parts, and beside it that of the other run with the paired change."""
    import pandas as pd

    from nsclc_mtl.commands.judging import evaluate_predictions
    from nsclc_mtl.commands.probe_table import plain_interval

    models = ["learner", "floor:against"][: len(runs)]
    frame = pd.concat([one.predictions.assign(model=model) for model, one in zip(models, runs, strict=True)])
    frame = frame[frame["fold"].isin(list(runs[0].tests))]
    tasks = {name: spec for name, spec in runs[0].tasks.items() if all(name in one.tasks for one in runs)}
    if not tasks:
        return []
    rows = []
    results = evaluate_predictions(frame, tasks, None, None, int(settings["bootstrap"]), int(settings["seed"]))
    for name, result in results.items():
        at = result.metrics[result.primary]
        row = {"task": name, "metric": result.primary, "value": plain_interval(at["learner"].interval())}
        if len(runs) > 1:
            row["against"] = plain_interval(at["floor:against"].interval())
            row["change"] = plain_interval(result.difference(result.primary, "floor:against"))
        rows.append(row)
    return rows
