"""`mtl federate client`: a hospital takes part; it reaches out to the server, and tells of no patient."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands import federation, federation_words, train
from nsclc_mtl.records import UsageFault

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nsclc_mtl.config import Run


def body(cfg: DictConfig, run: Run) -> None:
    """Shows what will leave, asks once, answers the server until it is through, and keeps the site's own run."""
    from nsclc_mtl.commands.federate_server import declared
    from nsclc_mtl.commands.members import quiet
    from nsclc_mtl.config import plain
    from nsclc_mtl.federated.audit import AuditLog
    from nsclc_mtl.federated.client import join
    from nsclc_mtl.federated.plan import Plan
    from nsclc_mtl.federated.site import Site

    settings = plain(cfg)
    own, plan = settings["client"], Plan.of(settings["federated"])
    if not own["site"]:
        raise UsageFault("client.site=NAME is needed: the name under which the server knows this site")
    federation.refuse(settings)
    manifest, splits, folds = train.opened(settings, run)
    known = declared(settings)
    known.sound()
    columns = {name: table.shape[1] for name, table in manifest.tables.items()}
    for line in federation_words.leaving(known, plan, columns, str(own["server"]), folds):
        run.say(line)
    _agreed(bool(own["agree"]))
    parts = federation.Configured(settings, known, run.path, plan.privacy)
    agreed = federation_words.agreement(settings, known)
    site = Site(
        str(own["site"]), manifest, splits, plan, parts, run.path / "federation", agreement=agreed,
        key=_key(run.path) if plan.secure else None, roster=_roster(own["publics"]), say=run.say,
    )  # fmt: skip
    log = AuditLog(run.path / "messages.jsonl")
    with quiet():
        stay = join(
            site,
            site=str(own["site"]),
            server=str(own["server"]),
            work=run.path,
            folder=Path(own["keys"]) if own["keys"] else None,
            plain=bool(own["plain"]),
            wait_s=float(own["wait_s"]),
            idle_s=float(own["idle_s"]),
            audit=log,
            say=run.say,
        )
    run.say(f"{stay.answered} questions were answered; {log.path.name} has {log.lines} lines and ends with {log.head}")
    run.done += [f"fold{fold}" for fold in folds if (run.path / f"fold{fold}" / "predictions.csv").is_file()]
    if not run.done:
        raise UsageFault("the server ended before a fold was finished here; see messages.jsonl")
    train.closed(settings, manifest, run)
    run.say(train.NEXT.format(os.path.relpath(run.path)))


def _agreed(said: bool) -> None:
    """Raises UsageFault unless somebody agrees that this leaves the site."""
    if said:
        return
    if not sys.stdin.isatty():
        raise UsageFault("nobody is here to agree to what leaves this site: read it above, then set client.agree=true")
    if input("Let this leave the site? Type yes: ").strip().lower() != "yes":
        raise UsageFault("nothing has left this site")


def _key(run: Path) -> tuple[bytes, bytes]:
    """The site's key of secure summation, made once for the run, 0600."""
    from nsclc_mtl.federated import masks

    path = run / "federation" / "sum.key"
    if path.is_file():
        both = bytes.fromhex(path.read_text(encoding="ascii").strip())
        return both[:32], both[32:]
    path.parent.mkdir(parents=True, exist_ok=True)
    private, public = masks.keys()
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write((private + public).hex() + "\n")
    return private, public


def _roster(given: Any) -> dict[str, bytes] | None:
    """Site -> public key of secure summation, from a mapping of hexadecimal keys; None where none are given."""
    if not given:
        return None
    try:
        return {str(site): bytes.fromhex(str(key)) for site, key in given.items()}
    except (AttributeError, ValueError):
        raise UsageFault("client.publics is a mapping of site: key, each key 64 hexadecimal digits") from None
