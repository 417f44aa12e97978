"""The record of a split: its hash, what it was made from, and who stands where. `splits.json` beside `splits.csv`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nsclc_mtl.cohort.splits import strata
from nsclc_mtl.records import PARTS, IntegrityFault, Manifest


def digest(splits: pd.DataFrame) -> str:
    """SHA-256 of the table whatever the order of its rows: of the UTF-8 JSON of its sorted [fold, patient_id, part].

    >>> digest(pd.DataFrame({"patient_id": ["b", "a"], "fold": [0, 0], "part": ["test", "train"]}))[:12]
    'bc8b1117d1c7'
    """
    rows = sorted(
        (int(fold), str(patient), str(part))
        for fold, patient, part in zip(splits["fold"], splits["patient_id"], splits["part"], strict=True)
    )
    return _sha256([list(row) for row in rows])


def ids_digest(ids: Iterable[str]) -> str:
    """SHA-256 of a set of patients: of the UTF-8 JSON of the sorted ids."""
    return _sha256(sorted(map(str, ids)))


def _sha256(content: Any) -> str:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def record(
    splits: pd.DataFrame,
    manifest: Manifest,
    options: Mapping[str, Any],
    together: Sequence[Mapping[str, Any]] = (),
    names: Mapping[int, str] | None = None,
    balanced: Mapping[str, pd.DataFrame] | None = None,
) -> dict[str, Any]:
    """What `splits.json` holds, plain types: hashes, options, strata, sites, patients who stand together, and for
    every fold and part the patients and the events or classes of every task. `names`: of folds, the site for one.
    `balanced`: labels of the tasks that the strata are made of (None: those of the manifest)."""
    people = sorted(splits["patient_id"].unique())
    balanced = manifest.labels if balanced is None else balanced
    kinds, sizes = np.unique(strata(balanced, people), return_counts=True)
    site = manifest.patients["site"].astype(str).reindex(people)
    folds = []
    for fold, rows in splits.groupby("fold"):
        number = int(str(fold))
        parts = {}
        for part in PARTS:
            ids = list(rows.loc[rows["part"] == part, "patient_id"])
            if ids:
                parts[part] = _part(manifest, ids)
        folds.append({"fold": number, "name": (names or {}).get(number, ""), "parts": parts})
    return {
        "sha256": digest(splits),
        "patients": len(people),
        "patients_sha256": ids_digest(people),
        "tasks": list(manifest.tasks),
        "options": dict(options),
        "balanced": list(balanced),
        "strata": {str(k): int(v) for k, v in zip(kinds, sizes, strict=True)},
        "sites": {str(k): int(v) for k, v in site.value_counts().sort_index().items() if k},
        "together": [dict(group) for group in together],
        "folds": folds,
    }


def _part(manifest: Manifest, ids: Sequence[str]) -> dict[str, Any]:
    out: dict[str, Any] = {"patients": len(ids)}
    site = manifest.patients["site"].astype(str).loc[list(ids)]
    if (site != "").any():
        out["sites"] = sorted(set(site) - {""})
    for name, spec in manifest.tasks.items():
        known = manifest.labels[name].loc[list(ids)].dropna()
        if spec.kind == "survival":
            out[name] = {"known": len(known), "events": int(known["event"].sum())}
        elif spec.kind == "regression":
            out[name] = {"known": len(known), "median": float(known["value"].median()) if len(known) else None}
        else:
            counts = np.bincount(known["value"].astype(int), minlength=len(spec.classes))
            out[name] = {word: int(n) for word, n in zip(spec.classes, counts, strict=True)}
    return out


def verify(splits: pd.DataFrame, sha256: str | None, path: Path | None = None) -> None:
    """Raises IntegrityFault where the table does not hash to `sha256`, or to what the record beside `path` says."""
    found = digest(splits)
    where = f"'{path.name}'" if path is not None else "the split"
    if sha256 is not None and found != str(sha256):
        raise IntegrityFault(
            f"{where} hashes to {found[:16]}..., folds.sha256 promises {str(sha256)[:16]}...; it is another split: "
            "take the right one, or the hash out"
        )
    beside = path.with_suffix(".json") if path is not None else None
    if beside is None or not beside.is_file():
        return
    try:
        said = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IntegrityFault(f"'{beside.name}' is no JSON; restore the record of the split, or take it away") from error
    promised = said.get("sha256") if isinstance(said, dict) and "folds" in said else None
    if promised is not None and found != promised:
        raise IntegrityFault(
            f"{where} hashes to {found[:16]}..., '{beside.name}' beside it promises {str(promised)[:16]}...: one of "
            "them was changed; restore them, or take the record away"
        )
