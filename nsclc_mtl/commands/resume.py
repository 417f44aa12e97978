"""Which folds of a run are finished, so that `--resume` keeps them and trains the others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import IntegrityFault, Manifest

if TYPE_CHECKING:
    import pandas as pd

FINISHED = "finished.json"


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


def finish(folder: Path, made_from: Mapping[str, str]) -> None:
    """`finished.json`, the last file of a fold: what it was made from, and the digests of what was predicted."""
    from nsclc_mtl.config.run import write_atomic
    from nsclc_mtl.tables.read import sha256

    files = {name: sha256(folder / name) for name in ("predictions.csv", "audit.parquet") if (folder / name).is_file()}
    write_atomic(folder / FINISHED, json.dumps({"made_from": dict(made_from), "files": files}, indent=1) + "\n")


def unfinished(folder: Path, made_from: Mapping[str, str]) -> str:
    """Why the fold in `folder` has to be trained again; empty where it is finished, whole, and made from the same."""
    from nsclc_mtl.commands.assemble import unbroken
    from nsclc_mtl.tables.read import sha256

    try:
        told = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
        before, files = dict(told["made_from"]), dict(told["files"])
    except (OSError, KeyError, TypeError, ValueError):
        return "its training did not finish"
    for what, digest in made_from.items():
        if before.get(what) != digest:
            return f"{what} {'has' if what.endswith('configuration') else 'have'} changed"
    try:
        unbroken(folder)
    except IntegrityFault as fault:
        return str(fault).split(";")[0]
    for name, digest in files.items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            return f"'{folder.name}/{name}' is not the file that the training wrote (sha256 differs)"
    return "" if "predictions.csv" in files else "it has no predictions"
