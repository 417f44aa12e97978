"""`mtl federate server`: asks hospitals over the network, and holds no patient."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import federation, federation_words
from nsclc_mtl.records import UsageFault

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run
    from nsclc_mtl.federated.fitting import Declared
    from nsclc_mtl.federated.messages import Channel
    from nsclc_mtl.federated.rounds import Trained


def body(cfg: DictConfig, run: Run) -> None:
    """Waits for the sites, trains every fold over them, and keeps the models and what was said."""
    from nsclc_mtl.config import plain
    from nsclc_mtl.federated import keys
    from nsclc_mtl.federated.audit import AuditLog
    from nsclc_mtl.federated.plan import Plan
    from nsclc_mtl.federated.server import serve

    settings = plain(cfg)
    own, plan = settings["server"], Plan.of(settings["federated"])
    federation.refuse(settings)
    known = declared(settings)
    known.sound()
    folds = list(range(int(settings["folds"]["n"]))) if settings["fold"] == "all" else [int(settings["fold"])]
    folder = Path(own["keys"]) if own["keys"] else None
    sites = list(own["sites"] or (sorted(keys.roster(folder)) if folder else ()))
    if len(sites) < plan.min_sites:
        raise UsageFault(f"server.sites names {len(sites)} sites, federated.min_sites={plan.min_sites}: name them all")
    run.say(f"waiting for {', '.join(sites)}")
    log = AuditLog(run.path / "messages.jsonl")
    serve(
        lambda channel: train(channel, settings, plan, known, folds, run),
        listen=str(own["listen"]),
        sites=sites,
        work=run.path,
        folder=folder,
        plain=bool(own["plain"]),
        wait_s=float(own["wait_s"]),
        at_least=own["at_least"],
        audit=log,
        say=run.say,
    )
    run.say(f"{log.path.name} has {log.lines} lines and ends with {log.head}")


def declared(settings: dict[str, Any]) -> Declared:
    """What is known of tasks and modalities without any patient."""
    from types import SimpleNamespace

    from nsclc_mtl.cohort.manifest import declared as of_cohort
    from nsclc_mtl.commands import assemble
    from nsclc_mtl.federated.fitting import Declared

    tasks, modalities = of_cohort(settings["cohort"], settings.get("tasks"), settings.get("modalities"))
    options = assemble.options(settings, SimpleNamespace(modalities=modalities))  # type: ignore[arg-type]
    return Declared(tasks, modalities, options)


def train(channel: Channel, settings: dict[str, Any], plan: Any, known: Declared, folds: list[int], run: Run) -> None:
    """Every fold over the sites of the channel; a fold that is finished is kept."""
    from nsclc_mtl.federated.rounds import Server

    for fold in folds:
        path = run.path / "federation" / f"fold{fold}.json"
        if path.is_file():
            run.say(f"fold {fold} is finished and kept")
            run.done.append(f"fold{fold}")
            continue
        learner = federation.seeded(settings, known, fold)
        agreed = federation_words.agreement(settings, known)
        server = Server(
            channel, plan, known, federation.fits(settings), learner, run.path / "federation",
            json.dumps(agreed, sort_keys=True), agreed,
        )  # fmt: skip
        made = server.train(fold, int(settings["seed"]), federation.steps(settings))
        keep(made, known, run.path / f"fold{fold}")
        federation.record(made, path)
        run.done.append(f"fold{fold}")
        for site, cost in made.rounds[-1].privacy.items():
            run.say(f"fold {fold}, {site}: epsilon={cost['epsilon']:.3g} at delta={cost['delta']:g}")
        for site, of in made.metrics.items():
            told = ", ".join(f"{task} {m['metric']} {_number(m['value'])}" for task, m in of.items())
            run.say(f"fold {fold}, {site}: {told or 'too few test patients'}")


def keep(made: Trained, known: Declared, folder: Path) -> None:
    """`fold<k>/` with the model and what was fitted for it, sealed; without predictions, as no patient was seen."""
    from nsclc_mtl.commands import fold_files, sealed

    folder.mkdir(parents=True, exist_ok=True)
    federation.save(made.learner, folder)
    have = {name: dict(options) for name, options in known.options.items() if name in made.fitted.dims()}
    fold_files.save_fitted(folder, made.fitted, known.tasks, have)
    sealed.seal(folder)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
