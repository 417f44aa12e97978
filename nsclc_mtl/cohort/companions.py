"""Patients who stand in one part because they are one, or nearly: declared groups, shared slides, the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nsclc_mtl.cohort import twins
from nsclc_mtl.cohort.twins import Twins
from nsclc_mtl.records import DataFault, Manifest, UsageFault
from nsclc_mtl.tables.read import MISSING

WORDS = ("group", "slides", "rows", "any_row")


def companions(manifest: Manifest, words: Sequence[str], root: Path | None, group: str | None) -> list[Twins]:
    """Who belongs together, for the reasons named by `words`.

    `group`: the same value in the column `group` of the patients table (a family, two tumours of one person); `slides`:
    the same slide file (path, or content below `root`); `rows`: the same row in every table that both have, where
    chance would not bring it about, or where the outcomes are the same too; `any_row`: in one table at least. Raises
    UsageFault on another word and DataFault where the column is absent.
    """
    strange = [word for word in words if word not in WORDS]
    if strange:
        raise UsageFault(f"folds.together names {strange[0]!r}, which is none of {', '.join(WORDS)}")
    found = []
    if "group" in words and group:
        if group not in manifest.patients:
            raise DataFault(f"the patients table has no column '{group}' (cohort.patients.group)")
        value = manifest.patients[group].astype(str).str.strip()
        value = value[~value.isin(MISSING)]
        found += [
            Twins("group", "patients", tuple(map(str, who.index)), sentence=f"are '{name}' in the column '{group}'")
            for name, who in value.groupby(value, sort=True)
            if len(who) > 1
        ]
    if "slides" in words:
        found += [same for same in twins.same_slides(manifest, root) if len(same.patients) > 1]
    if "rows" in words or "any_row" in words:
        rows = twins.same_rows(manifest)
        found += rows if "any_row" in words else twins.same_in_all(manifest, rows)
        found += twins.same_in_outcomes(manifest)
    return found


def torn(found: Sequence[Twins], splits: pd.DataFrame) -> None:
    """Raises DataFault where given folds put one slide, or one declared group, on both sides of a test part."""
    for same in found:
        folds = twins.apart(same.patients, splits) if same.why in ("group", "slides") else []
        if folds:
            what = f"slides {', '.join(same.items[:3])} {same.sentence}" if same.items else f"they {same.sentence}"
            raise DataFault(
                f"patients {', '.join(same.patients[:4])} stand on both sides of the test part of fold {folds[0]} "
                f"({len(folds)} such folds), and {what}; correct the folds or the table, or narrow folds.together"
            )
