"""What `--resume` finds: folds that are finished, folds that can go on where they were, and folds to train anew."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.commands.reasons import FILE as TRUST
from nsclc_mtl.commands.sealed import unbroken, unwritable, written
from nsclc_mtl.commands.weights import FILE as WEIGHTS
from nsclc_mtl.records import IntegrityFault, Manifest, TryAgain

if TYPE_CHECKING:
    import pandas as pd

FINISHED = "finished.json"
BEGUN = "begun.json"
_POINT = re.compile(r"resume-(\d+)-(\d+)-([0-9a-f]{16})\.ckpt")  # member, epochs finished, digest of the content


def account(settings: Mapping[str, Any], manifest: Manifest, rows: pd.DataFrame) -> dict[str, str]:
    """What a fold was made from, as digests: the configuration, the cohort's tables, and who is in which part."""
    from nsclc_mtl.config import config_hash
    from nsclc_mtl.config.wiring import NO_MODEL

    parts = sorted(zip(rows["patient_id"].astype(str), rows["part"].astype(str), strict=True))
    tables = sorted((str(i["path"]), i["sha256"]) for i in manifest.inputs)
    return {
        "the configuration": config_hash(settings, NO_MODEL),
        "the cohort's tables": hashlib.sha256(json.dumps(tables).encode()).hexdigest(),
        "the patients of its parts": hashlib.sha256(json.dumps(parts).encode()).hexdigest(),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Finished folds
# ---------------------------------------------------------------------------------------------------------------------


def finish(folder: Path, made_from: Mapping[str, str], weights: Mapping[str, str]) -> None:
    """`finished.json`, the last file of a fold: what it was made from, and the digests of what was predicted.

    `weights` are those of the members, told so that two trainings can be compared.

    What the fold could have gone on from is removed.
    """
    from nsclc_mtl.tables.read import sha256

    made = ("predictions.csv", "audit.parquet", WEIGHTS, TRUST)
    files = {name: sha256(folder / name) for name in made if (folder / name).is_file()}
    with written(folder / FINISHED) as aside:
        told = {"made_from": dict(made_from), "files": files, "weights": dict(weights)}
        aside.write_text(json.dumps(told, indent=1) + "\n")
    tidy(folder)


def tidy(folder: Path) -> None:
    """Removes what only an unfinished fold needs."""
    for path in (folder / BEGUN, *folder.glob("resume-*.ckpt"), *folder.glob("*.tmp")):
        path.unlink(missing_ok=True)


def unfinished(folder: Path, made_from: Mapping[str, str]) -> str:
    """Why the fold in `folder` has to be trained again; empty where it is finished, whole, and made from the same."""
    from nsclc_mtl.tables.read import sha256

    try:
        told = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
        before, files = dict(told["made_from"]), dict(told["files"])
    except (OSError, KeyError, TypeError, ValueError):
        return "its training did not finish"
    if why := _changed(before, made_from):
        return why
    try:
        unbroken(folder)
    except IntegrityFault as fault:
        return str(fault).split(";")[0]
    for name, digest in files.items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            return f"'{folder.name}/{name}' is not the file that the training wrote (sha256 differs)"
    return "" if "predictions.csv" in files else "it has no predictions"


def _changed(before: Mapping[str, str], made_from: Mapping[str, str]) -> str:
    for what, digest in made_from.items():
        if before.get(what) != digest:
            return f"{what} {'has' if what.endswith('configuration') else 'have'} changed"
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# Folds in work
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Progress:
    """How far a fold has come: members that are finished, and where the one in training can go on."""

    folder: Path
    made_from: dict[str, str]
    members: dict[str, str] = field(default_factory=dict)  # model<m>.ckpt -> sha256
    point: Path | None = None  # the checkpoint to go on from
    member: int = 0
    epoch: int = 0  # epochs that the member in training has finished

    def reached(self, member: int, epoch: int, raw: bytes, write: Callable[[bytes, Path], None]) -> None:
        """Keeps the state of a member after an epoch, under a name that tells whether it is whole, and no older one."""
        name = f"resume-{member}-{epoch}-{hashlib.sha256(raw).hexdigest()[:16]}.ckpt"
        write(raw, self.folder / name)
        for path in self.folder.glob("resume-*.ckpt"):
            if path.name != name:
                path.unlink()

    def trained(self, path: Path) -> None:
        """Notes a member that is finished."""
        from nsclc_mtl.tables.read import sha256

        self.members[path.name] = sha256(path)
        self._note()
        for old in self.folder.glob("resume-*.ckpt"):
            old.unlink()
        self.point = None

    def _note(self) -> None:
        with written(self.folder / BEGUN) as aside:
            aside.write_text(json.dumps({"made_from": self.made_from, "members": self.members}, indent=1) + "\n")


def begin(folder: Path, made_from: Mapping[str, str]) -> Progress:
    """How far the fold has come; one that has not begun, or cannot go on, begins here in an empty folder.

    Raises TryAgain where the folder cannot be written: nobody should learn that after the training.
    """
    found = begun(folder, made_from)
    if isinstance(found, str):
        try:
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir()
        except OSError as error:
            raise TryAgain(unwritable(folder, error.strerror)) from error
        found = Progress(folder, _with_versions(made_from))
    for remnant in folder.glob("*.tmp"):  # of a process that was killed
        remnant.unlink(missing_ok=True)
    found._note()
    return found


def begun(folder: Path, made_from: Mapping[str, str]) -> Progress | str:
    """How far a fold has come that was left unfinished; why it cannot go on otherwise, empty where it has not begun."""
    from nsclc_mtl.tables.read import sha256

    try:
        told = json.loads((folder / BEGUN).read_text(encoding="utf-8"))
        before, members = dict(told["made_from"]), dict(told["members"])
    except (OSError, KeyError, TypeError, ValueError):
        return ""
    if why := _changed(before, _with_versions(made_from)):
        return why
    for name, digest in members.items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            return f"'{folder.name}/{name}' is not the file that the training wrote (sha256 differs)"
    found = Progress(folder, before, members, member=len(members))
    points = [(int(m[1]), int(m[2]), m[3], m.string) for m in map(_POINT.fullmatch, _names(folder)) if m]
    for member, epoch, digest, name in sorted(points, reverse=True):
        if member != len(members):
            continue
        if not sha256(folder / name).startswith(digest):
            return f"its checkpoint '{folder.name}/{name}' is not the file that the training wrote (sha256 differs)"
        found.point, found.epoch = folder / name, epoch
        return found
    return found if members else ""


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("resume-*.ckpt"))


def _with_versions(made_from: Mapping[str, str]) -> dict[str, str]:
    """Also what the numbers of a half-trained fold depend on: its two halves are to be made by the same code."""
    from nsclc_mtl.config.machine import versions

    return {**made_from, "the versions of the libraries": json.dumps(versions(), sort_keys=True)}
