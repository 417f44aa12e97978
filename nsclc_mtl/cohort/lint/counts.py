"""Counts: who has what at which site, and in which part of which fold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nsclc_mtl.metrics.follow_up import FollowUp, follow_up
from nsclc_mtl.records import PARTS, Manifest, event_column

MANY_SITES = 8  # so many stand in a table by name, the rest together


def having(manifest: Manifest) -> dict[str, pd.Series]:
    """Who has each modality: bool by patient id."""
    index = manifest.patients.index
    out = {}
    for name in manifest.modalities:
        out[name] = pd.Series(np.isin(index.to_numpy(str), np.array(manifest.who(name), str)), index=index)
    return out


def known(manifest: Manifest, task: str) -> pd.Series:
    """Whose label of the task is known: bool by patient id."""
    return manifest.labels[task].notna().all(axis=1)


def inapplicable(manifest: Manifest, task: str) -> pd.Series:
    """Whom the task does not apply to (no label, and none is missing): bool by patient id."""
    applies = manifest.applicable.get(task)
    if applies is None:
        return pd.Series(False, index=manifest.patients.index)
    return ~applies.reindex(manifest.patients.index).fillna(True).astype(bool)


def sites(manifest: Manifest) -> pd.Series:
    """Site of each patient by id; `(no site)` where blank, `(others)` beyond the `MANY_SITES` largest."""
    site = manifest.patients["site"].astype(str).replace("", "(no site)")
    sizes = site.value_counts()
    if len(sizes) > MANY_SITES + 1:
        large = set(sizes.sort_values(ascending=False, kind="stable").index[:MANY_SITES])
        site = site.where(site.isin(large), "(others)")
    return site


def by_site(manifest: Manifest, rows: dict[str, pd.Series]) -> pd.DataFrame:
    """How many patients of each site every row holds; int, a column a site and `all`."""
    site = sites(manifest)
    counted = pd.DataFrame(rows, index=site.index)
    total = counted.sum().astype(int)
    if site.nunique() < 2:
        return pd.DataFrame({"all": total})
    table = counted.groupby(site).sum().T.astype(int)
    named = [name for name in table.columns if name not in ("(others)", "(no site)")]
    last = [name for name in ("(others)", "(no site)") if name in table.columns]
    return table[[*named, *last]].assign(all=total)


def per_site(manifest: Manifest) -> pd.DataFrame:
    """Patients, modalities, known labels and events of every site, one column a site and `all`; int."""
    rows = {"patients": pd.Series(True, index=manifest.patients.index)}
    rows |= {f"has {name}": has for name, has in having(manifest).items()}
    for name, spec in manifest.tasks.items():
        rows[f"{name} known"] = known(manifest, name)
        if spec.kind == "survival":
            rows[f"{name} events"] = known(manifest, name) & (manifest.labels[name]["event"] == 1)
        else:
            for number, word in enumerate(spec.classes):
                rows[f"{name}={word}"] = manifest.labels[name]["value"] == number
        if (outside := inapplicable(manifest, name)).any():
            rows[f"{name} not applicable"] = outside
    return by_site(manifest, rows)


def per_part(manifest: Manifest, splits: pd.DataFrame) -> pd.DataFrame:
    """Patients, and events, known numbers or the rarest class of every task; a row a fold and part."""
    out = []
    for fold, rows in splits.groupby("fold"):
        for part in PARTS:
            ids = rows.loc[rows["part"] == part, "patient_id"]
            if len(ids) == 0:
                continue
            row: dict[str, object] = {"fold": int(str(fold)), "part": part, "patients": len(ids)}
            for name, spec in manifest.tasks.items():
                labels = manifest.labels[name].loc[list(ids)].dropna()
                if spec.kind == "survival":
                    row[f"{name} events"] = int(labels["event"].sum())
                elif spec.kind == "regression":
                    row[f"{name} known"] = len(labels)
                else:
                    counts = np.bincount(labels["value"].astype(int), minlength=len(spec.classes))
                    row[f"{name} rarest"] = int(counts.min())
            out.append(row)
    return pd.DataFrame(out)


def overlap(manifest: Manifest, splits: pd.DataFrame) -> pd.DataFrame:
    """Sites, and patients, that stand on both sides of the test part of each fold: fold, test_sites, shared_sites,
    shared_patients. Without a column of sites the first two are 0."""
    site = manifest.patients["site"].astype(str)
    out = []
    for fold, rows in splits.groupby("fold"):
        tested = rows[rows["part"] == "test"]["patient_id"]
        others = rows[rows["part"] != "test"]["patient_id"]
        there, here = set(site.loc[list(tested)]) - {""}, set(site.loc[list(others)]) - {""}
        both = len(set(tested) & set(others))
        out.append((int(str(fold)), len(there), len(there & here), both))
    return pd.DataFrame(out, columns=["fold", "test_sites", "shared_sites", "shared_patients"])


def follow_ups(manifest: Manifest) -> dict[str, FollowUp]:
    """Follow-up of every survival task, in days."""
    return {
        name: follow_up(labels["time_days"], labels[event_column(labels)])
        for name, labels in manifest.labels.items()
        if name in manifest.tasks and manifest.tasks[name].kind == "survival"
    }
