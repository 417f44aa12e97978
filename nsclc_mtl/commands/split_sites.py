"""The sites that a split keeps together or tests alone: of each patient, of those linked, and of an external part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nsclc_mtl.records import DataFault, Manifest, UsageFault

if TYPE_CHECKING:
    import pandas as pd

Cohort = tuple[Manifest, list[str]]
"""Patients of a cohort, in the order of the table."""


def sites(manifest: Manifest, ids: list[str]) -> np.ndarray:
    """Site of each patient, text. Raises UsageFault without such a column and DataFault where it is blank."""
    site = manifest.patients["site"].astype(str).str.strip().loc[ids]
    if (site == "").all():
        raise UsageFault("folds.sites needs the column of the sites: set cohort.patients.site=COLUMN")
    blank = list(site.index[site == ""])
    if blank:
        raise DataFault(
            f"folds.sites: {len(blank)} patients have no site ({', '.join(map(str, blank[:3]))}); fill in the column "
            "cohort.patients.site"
        )
    return site.to_numpy(str)


def linked(site: np.ndarray, unit: np.ndarray, notes: list[str]) -> np.ndarray:
    """Sites, those that share patients who belong together as one (`A + B`)."""
    from nsclc_mtl.cohort import twins

    names = sorted(set(site))
    of_unit: dict[int, set[str]] = {}
    for name, number in zip(site, unit, strict=True):
        of_unit.setdefault(int(number), set()).add(str(name))
    group = twins.components(names, [sorted(sites) for sites in of_unit.values()])
    joined = {g: " + ".join(n for n, at in zip(names, group, strict=True) if at == g) for g in set(group)}
    several = [name for name in joined.values() if " + " in name]
    if several:
        notes.append(f"sites that share patients who belong together stand in one part: {'; '.join(several)}")
    word = {name: joined[at] for name, at in zip(names, group, strict=True)}
    return np.array([word[str(name)] for name in site])


def external(given: Mapping[str, Any], manifest: Manifest, ids: list[str]) -> tuple[str, pd.Series]:
    """Name of the external part, and who is in it (bool by patient). Raises UsageFault and DataFault on wrong words."""
    if not isinstance(given, Mapping) or set(given) != {"column", "values"} or not given["values"]:
        raise UsageFault("folds.external needs a column and its values: folds.external={column: site, values: [C]}")
    column, values = str(given["column"]), [str(value) for value in given["values"]]
    if column not in manifest.patients:
        raise UsageFault(f"folds.external.column: the patients table has no column '{column}'")
    cell = manifest.patients[column].astype(str).str.strip()
    absent = [value for value in values if value not in set(cell)]
    if absent:
        held = ", ".join(sorted(set(cell) - {""})[:8])
        raise UsageFault(f"folds.external.values: no patient has '{absent[0]}' in column '{column}'; it holds {held}")
    return f"{column}={'+'.join(values)}", cell.loc[ids].isin(values)


def same_tested(folds: Mapping[str, Any], whole: Cohort, run: Cohort, unit: np.ndarray) -> None:
    """Raises DataFault where other sites are too small to be tested in a run than in the whole (`unit`: of its ids)."""
    from nsclc_mtl.cohort import site_splits

    (manifest, everybody), tested = whole, []
    site = dict(zip(everybody, linked(sites(manifest, everybody), unit, []), strict=True))
    for cohort, ids in (whole, run):
        at = np.array([site[patient] for patient in ids], dtype=str)
        small = site_splits.too_small(cohort.labels, ids, at, folds["site_patients"], folds["min_test"])
        tested.append(set(at) - set(small))
    if unlike := sorted(tested[0] ^ tested[1]):
        raise DataFault(f"{', '.join(unlike)}: large enough to be tested in one of the two alone")
