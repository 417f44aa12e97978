"""Findings about patients and slides that are there twice, and where the folds put them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nsclc_mtl.cohort import twins
from nsclc_mtl.cohort.lint.finding import Finding, some
from nsclc_mtl.cohort.twins import Twins
from nsclc_mtl.records import Manifest


def duplicates(
    manifest: Manifest, splits: pd.DataFrame | None, root: Path | None, group: str | None = None
) -> list[Finding]:
    """Slides that several patients own (errors, unless a column `group` calls them one), rows and ids that repeat."""
    persons = manifest.patients[group].astype(str) if group and group in manifest.patients else None
    out = []
    for found in twins.same_slides(manifest, root):
        one = len(found.patients) == 1
        declared = persons is not None and persons.loc[list(found.patients)].nunique() == 1
        who = f"patient {found.patients[0]}" if one else f"patients {some(found.patients)}"
        told = f"slides {some(found.items)} {found.sentence} ({who})" + _sides(found, splits)
        out.append(Finding("warning" if one or declared else "error", "duplicate", "slides", told))
    rows = twins.same_rows(manifest)
    whole = twins.same_in_all(manifest, rows)
    for found in whole:
        told = f"patients {some(found.patients)} {found.sentence}: one person?" + _sides(found, splits)
        out.append(Finding("warning", "duplicate", found.where, told))
    said = {found.patients for found in whole}
    repeated = [f for f in twins.same_in_outcomes(manifest) if tuple(sorted(f.patients)) not in said]
    if repeated:
        out.append(_alike("patients", repeated, splits, "one person?"))
    for modality in manifest.tables:
        alike = [f for f in rows if f.where == modality and tuple(sorted(f.patients)) not in said]
        if alike:
            out.append(_alike(modality, alike, splits, "filled in, empty, or entered twice?"))
    for found in twins.same_ids(manifest.ids):
        told = f"{some(found.patients)} {found.sentence}" + _sides(found, splits)
        out.append(Finding("warning", "duplicate", "patients", told))
    return out


def _alike(modality: str, alike: list[Twins], splits: pd.DataFrame | None, asked: str) -> Finding:
    """One finding for all groups of equal rows in a table: an empty profile makes many."""
    largest = max(alike, key=lambda f: len(f.patients))
    told = f"patients {some(largest.patients)} {largest.sentence}"
    if len(alike) > 1:
        everybody = sum(len(f.patients) for f in alike)
        told += f", and so have {len(alike) - 1} further groups ({everybody} patients in all)"
    apart = [f for f in alike if twins.apart(f.patients, splits)]
    told += f"; {asked}" + _sides(max(apart, key=lambda f: len(f.patients), default=largest), splits)
    return Finding("warning", "duplicate", modality, told)


def _sides(found: Twins, splits: pd.DataFrame | None) -> str:
    """What a reader must know of the split: whether the twins stand on both sides of it."""
    folds = twins.apart(found.patients, splits)
    return f"; they stand on both sides of the test part in {len(folds)} folds" if folds else ""
