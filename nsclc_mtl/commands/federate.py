"""`mtl federate simulate`: the sites of a cohort train one model without pooling their patients, in this process.

Beside it, on the same folds: the model of all patients pooled, and a model of each site alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import federate_membership, federate_report, federation, train
from nsclc_mtl.commands.outputs import plain_name
from nsclc_mtl.commands.sealed import written
from nsclc_mtl.records import DataFault, Fault, Manifest, UsageFault

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run
    from nsclc_mtl.federated.plan import Plan
    from nsclc_mtl.federated.rounds import Trained
    from nsclc_mtl.federated.site import Begun


@dataclass(frozen=True)
class Fold:
    """A fold of a cohort whose patients are at sites: site -> its patients."""

    settings: Mapping[str, Any]
    plan: Plan
    manifest: Manifest
    splits: pd.DataFrame
    sites: Mapping[str, list[str]]
    number: int

    @property
    def rows(self) -> pd.DataFrame:
        """Its rows of the split."""
        return self.splits[self.splits["fold"] == self.number]


WAYS = ("centralised", "local")
ALL = "all"  # sites together, in records and tables
NEXT = "next: mtl evaluate ckpt={}"


def body(cfg: DictConfig, run: Run) -> None:
    """Trains every fold over the sites, and what it is compared with."""
    from nsclc_mtl.config import plain
    from nsclc_mtl.federated.plan import Plan

    settings = plain(cfg)
    plan = Plan.of(settings["federated"])
    federation.refuse(settings)
    against = [str(way) for way in settings["federated"]["against"] or ()]
    if strange := [way for way in against if way not in WAYS]:
        raise UsageFault(f"federated.against: '{strange[0]}' is none of {', '.join(WAYS)}")
    dealt = settings["federated"]["sites"]
    if isinstance(dealt, int) and dealt < 2:
        raise UsageFault(f"federated.sites={dealt}: two sites or more are needed")
    manifest, splits, folds = train.opened(settings, run)
    federation.declared(settings, manifest).sound()
    sites = sites_of(settings, manifest, splits, plan)
    run.say(", ".join(f"{site}: {len(ids)} patients" for site, ids in sites.items()))
    kept = train.keep(settings, manifest, splits, run)
    for fold, seconds in train.train_folds(settings, [fold for fold in folds if fold not in kept], run, train_fold):
        run.done.append(f"fold{fold}")
        run.say(f"fold {fold} trained in {seconds:.0f} s")
    train.closed({**settings, "audit": settings["audit"] if _one_model(plan) else 0}, manifest, run)
    for name in beside(run.path):
        complete(run.path, run.path / name, manifest, splits)
    federate_report.write(settings, manifest, splits, sites, run)
    run.say(NEXT.format(os.path.relpath(run.path)))


def _one_model(plan: Plan) -> bool:
    return plan.scaling == "pooled" and plan.normalisation == "shared"


def sites_of(settings: Mapping[str, Any], manifest: Manifest, splits: pd.DataFrame, plan: Plan) -> dict[str, list[str]]:
    """Site -> its patients among those of the split: by the cohort's column of sites, another column, or by hash.

    Raises UsageFault and DataFault where there are fewer than two with enough patients.
    """
    import zlib

    from nsclc_mtl.tables.harmonize import named_sites

    said = settings["federated"]["sites"]
    ids = list(dict.fromkeys(splits["patient_id"]))
    if isinstance(said, int) and not isinstance(said, bool):
        named = {patient: f"site{zlib.crc32(patient.encode()) % said + 1}" for patient in ids}
    else:
        column = "site" if said is None else str(said)
        if column not in manifest.patients:
            raise UsageFault(f"federated.sites={column}: the patients table has no such column")
        text = named_sites(manifest.patients[column])
        named = {patient: str(text[patient]) for patient in ids}
    out: dict[str, list[str]] = {}
    for patient, site in named.items():
        out.setdefault(site, []).append(patient)
    if "" in out:
        raise DataFault(
            f"{len(out[''])} patients have no site: fill the column, or set federated.sites to a number to deal them"
        )
    if ALL in out:
        raise DataFault(f"a site is called '{ALL}', which means all sites together: give it another name")
    if len(out) < plan.min_sites:
        raise UsageFault(
            f"the cohort has {len(out)} site(s) ({', '.join(sorted(out))}), federated.min_sites={plan.min_sites}; name "
            "their column in cohort.patients.site, or deal patients to sites by hash: federated.sites=3"
        )
    return dict(sorted(out.items()))


def train_fold(settings: Mapping[str, Any], number: int, path: Path) -> None:
    """One fold: over the sites, pooled, and each site alone. `federation/fold<k>.json` tells of the rounds."""
    import pandas as pd

    from nsclc_mtl.commands.cohort import open_cohort
    from nsclc_mtl.commands.fold import threads
    from nsclc_mtl.commands.members import quiet
    from nsclc_mtl.federated.plan import Plan

    splits = pd.read_csv(path / "splits.csv", dtype={"patient_id": str}, keep_default_na=False)
    manifest, plan = open_cohort(settings), Plan.of(settings["federated"])
    sites = sites_of(settings, manifest, splits, plan)
    manifest.patients = manifest.patients.assign(site=pd.Series({p: s for s, ids in sites.items() for p in ids}))
    here = Fold(settings, plan, manifest, splits, sites, number)
    with threads(settings["folds"]["threads"], splits["fold"].nunique()), quiet():
        for way in settings["federated"]["against"] or ():
            _beside(way, here, path)
        _federated(here, path)


def _plainly(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of models beside that of the run: no audit of modalities, and nobody is told unlike the others."""
    return {**settings, "audit": 0, "trust": {**settings["trust"], "outside": 0}}


def federated(fold: Fold, path: Path | None) -> tuple[Trained, dict[str, Begun]]:
    """A fold trained over sites of this process, and what each site trains with. None as `path`: nothing is written."""
    from nsclc_mtl.commands import resume
    from nsclc_mtl.federated.audit import AuditLog
    from nsclc_mtl.federated.inside import InProcess
    from nsclc_mtl.federated.rounds import Server
    from nsclc_mtl.federated.site import Site

    settings, manifest, plan, number = fold.settings, fold.manifest, fold.plan, fold.number
    declared, quiet = federation.declared(settings, manifest), _plainly(settings)
    there = {}
    for site, ids in fold.sites.items():
        own = fold.splits[fold.splits["patient_id"].isin(ids)]
        folder = None if path is None else path / "sites" / plain_name(site)
        parts = federation.Configured(quiet, declared, folder, plan.privacy)
        there[site] = Site(site, federation.only(manifest, ids), own, plan, parts)

    kept = None if path is None else path / "federation"
    log = None if kept is None else AuditLog(kept / f"messages{number}.jsonl")
    same = json.dumps(resume.account(settings, manifest, fold.rows), sort_keys=True)
    learner = federation.seeded(settings, declared, number)
    server = Server(InProcess(there, log), plan, declared, federation.fits(settings), learner, kept, same)
    made = server.train(number, int(settings["seed"]), federation.steps(settings))
    return made, {name: site.begun(number) for name, site in there.items()}


def _federated(fold: Fold, path: Path) -> None:
    import pandas as pd

    from nsclc_mtl.bags.cache import BagCache
    from nsclc_mtl.bags.datamodule import Share
    from nsclc_mtl.commands.members import fold_data

    made, begun = federated(fold, path)
    settings, manifest, rows, number = fold.settings, fold.manifest, fold.rows, fold.number
    federation.record(made, path / "federation" / f"fold{number}.json")
    federate_membership.keep_losses(settings, manifest, fold.splits, number, begun, path)
    if _one_model(fold.plan):
        data = fold_data(settings, manifest, rows, BagCache(), Share(), made.fitted)
        federation.conclude(settings, manifest, rows, made.learner, data, path)
        return
    from nsclc_mtl.commands import reasons, resume, weights

    folder = path / f"fold{number}"
    folder.mkdir(exist_ok=True)
    for name in ("predictions.csv", reasons.FILE, weights.FILE):
        own = [path / "sites" / plain_name(site) / f"fold{number}" / name for site in fold.sites]
        of = [file for file in own if file.is_file()]
        if of:
            frame = pd.concat([pd.read_csv(file, dtype=str, keep_default_na=False) for file in of])
            with written(folder / name) as aside:
                frame.to_csv(aside, index=False, lineterminator="\n")
    resume.finish(folder, resume.account(settings, manifest, rows), {})


def _beside(way: str, fold: Fold, path: Path) -> None:
    """Trains what the federation is compared with; a site that cannot be trained alone is told in `refused.json`."""
    settings, manifest, rows = _plainly(fold.settings), fold.manifest, fold.rows
    if way == "centralised":
        _alone(settings, manifest, rows, path / way)
        return
    for site, ids in fold.sites.items():
        folder = path / way / plain_name(site)
        try:
            _alone(settings, federation.only(manifest, ids), rows[rows["patient_id"].isin(ids)], folder)
        except Fault as fault:
            with written(folder / f"refused{fold.number}.json") as aside:
                aside.write_text(json.dumps({"sentence": str(fault)}) + "\n", encoding="utf-8")


def _alone(settings: Mapping[str, Any], manifest: Manifest, rows: pd.DataFrame, run: Path) -> None:
    from nsclc_mtl.commands import fold, resume
    from nsclc_mtl.commands.members import train_members

    folder = run / f"fold{int(rows['fold'].iloc[0])}"
    made_from = resume.account(settings, manifest, rows)
    if not resume.unfinished(folder, made_from):
        return
    run.mkdir(parents=True, exist_ok=True)
    progress = resume.begin(folder, made_from)
    members, data = train_members(settings, manifest, rows, progress)
    digests = fold.conclude(settings, manifest, rows, folder, members, data, {})
    resume.finish(folder, made_from, digests)


def beside(run: Path) -> list[str]:
    """Run folders within a federation's: of the sites, of all patients pooled, and of each site alone."""
    found = [*run.glob("sites/*"), *run.glob("centralised"), *run.glob("local/*")]
    return sorted(str(folder.relative_to(run)) for folder in found if any(folder.glob("fold*/predictions.csv")))


def complete(run: Path, folder: Path, manifest: Manifest, splits: pd.DataFrame) -> None:
    """Makes a run folder of the folds in `folder`: configuration, split, cohort and predictions."""
    import shutil

    folds = sorted((path.parent.name for path in folder.glob("fold*/predictions.csv")), key=lambda name: int(name[4:]))
    train.gather(folder, folds)
    whose = set(_patients(folder, folds))
    own = splits[splits["patient_id"].isin(whose)]
    with written(folder / "splits.csv") as aside:
        own.to_csv(aside, index=False)
    shutil.copyfile(run / "config.yaml", folder / "config.yaml")
    train.describe(federation.only(manifest, sorted(whose)), folder)


def _patients(folder: Path, folds: list[str]) -> list[str]:
    import pandas as pd

    of = [pd.read_csv(folder / fold / "predictions.csv", dtype=str, keep_default_na=False) for fold in folds]
    return list(pd.concat(of)["patient_id"].unique())
