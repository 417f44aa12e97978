"""What a run says and refuses about the sites of its patients, where tables are harmonised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import DataFault, Manifest, UsageFault

if TYPE_CHECKING:
    import pandas as pd


def keeps_no_outcome(cohort: Mapping[str, Any], combat: Mapping[str, Any]) -> None:
    """Raises DataFault where `combat.covariates` names an outcome of the cohort, also of a task that is not trained."""
    names = list(combat.get("covariates") or ())
    if not names:
        return
    from nsclc_mtl.tables.kept_covariates import refuse_outcomes
    from nsclc_mtl.tables.outcomes import task_spec

    forbidden = {str(column) for column in cohort.get("never_inputs") or ()}
    for task, declared in (cohort.get("tasks") or {}).items():
        forbidden |= {str(task), *task_spec(task, declared).columns}
    refuse_outcomes(names, forbidden)


def adapted_sites(settings: Mapping[str, Any], manifest: Manifest, splits: pd.DataFrame) -> list[str]:
    """A sentence on training patients without a site, who take no part in `adaptation`; none where nobody is adapted.

    Raises UsageFault where the cohort has no sites or declares no modality of a name that is to be adapted, and
    DataFault where the training patients of a fold know only one site.
    """
    from nsclc_mtl.config.allow import nearest
    from nsclc_mtl.tables.harmonize import named_sites

    if not settings.get("adaptation"):
        return []
    declared = settings["cohort"]["modalities"]
    if strange := [name for name in settings["adaptation"].get("modalities") or () if name not in declared]:
        raise UsageFault(f"adaptation.modalities: the cohort declares no '{strange[0]}'{nearest(strange[0], declared)}")
    site = named_sites(manifest.patients["site"])
    if not (site != "").any():
        raise UsageFault(
            f"adaptation needs to know the sites, and cohort={manifest.name} declares none: name their column in "
            "cohort.patients.site, or set adaptation=none"
        )
    train = splits[splits["part"] == "train"]
    for fold, ids in train.groupby("fold")["patient_id"]:
        known = sorted(set(ids.map(site)) - {""})
        if len(known) < 2:
            raise DataFault(
                f"adaptation: the training patients of fold {fold} know "
                f"{f'only the site {known[0]!r}' if known else 'no site'}, two are needed; "
                "split otherwise (folds), or set adaptation=none"
            )
    people = train["patient_id"].drop_duplicates()
    bare = int((people.map(site) == "").sum())
    return [f"adaptation: {bare} of {len(people)} training patients have no site and take no part in it"] * (bare > 0)


def unknown_sites(manifest: Manifest, splits: pd.DataFrame, options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence a harmonised modality on the patients whose site their fold does not know well enough, if any.

    Raises UsageFault where the cohort has no sites.
    """
    from nsclc_mtl.bags.sites import needs_sites, wanted
    from nsclc_mtl.tables.harmonize import named_sites

    told = []
    site = named_sites(manifest.patients["site"])
    for name, chosen in options.items():
        if name not in manifest.tables or not wanted(name, chosen):
            continue
        needs_sites(manifest, name)
        least, how = int(chosen["combat"]["least"]), chosen["combat"]["unseen"]
        have = splits[splits["patient_id"].isin(manifest.tables[name].index)]
        strange: set[str] = set()
        for _, rows in have.groupby("fold"):
            of = rows["patient_id"].map(site)
            counts = of[rows["part"] == "train"].value_counts()
            known = set(counts[counts >= least].index) - {""}
            strange |= set(rows.loc[~of.isin(known), "patient_id"])
        if strange:
            told.append(
                f"{name}: {len(strange)} of {have['patient_id'].nunique()} patients are of a site with fewer than "
                f"{least} training patients in some fold (combat.least); such a site is unseen, combat.unseen={how}"
            )
    return told


def strangers(manifest: Manifest, ids: Sequence[str], models: Mapping[int, Any]) -> list[tuple[str, int, str]]:
    """Harmonised modality, patients whose site at least one fold does not know, and what becomes of them."""
    found: dict[str, tuple[set[str], str]] = {}
    for _, data in models.values():
        for name, combat in data.fitted.combat.items():
            here = (
                [p for p in ids if p in manifest.tables[name].index]
                if combat.columns and name in manifest.tables
                else []
            )
            site = manifest.patients.loc[here, "site"]
            found.setdefault(name, (set(), combat.unseen))[0].update(site.index[~site.isin(list(combat.sites))])
    return [(name, len(people), how) for name, (people, how) in found.items() if people]
