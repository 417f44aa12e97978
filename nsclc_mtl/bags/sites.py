"""Site effects of a modality's table: fitted on the training patients of a fold, taken out of everybody's rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from nsclc_mtl.records import Manifest, UsageFault
from nsclc_mtl.tables.harmonize import Combat, named_sites
from nsclc_mtl.tables.kept_covariates import kept_covariates
from nsclc_mtl.tables.recipe import Recipe
from nsclc_mtl.tables.transform import Transform

HARMONIZE = ("none", "combat")


def wanted(name: str, options: Mapping[str, Any]) -> bool:
    """Whether the modality `name` is harmonised. Raises UsageFault on a word that is none."""
    word = str(options.get("harmonize") or "none")
    if word not in HARMONIZE:
        raise UsageFault(f"harmonize={word!r} of the modality '{name}' is none of {', '.join(HARMONIZE)}")
    return word == "combat"


def needs_sites(manifest: Manifest, name: str) -> None:
    """Raises UsageFault where no patient of the cohort has a site."""
    if not (named_sites(manifest.patients["site"]) != "").any():
        raise UsageFault(
            f"harmonize=combat of the modality '{name}' needs to know the sites, and cohort={manifest.name} declares "
            "none: name their column in cohort.patients.site, or set harmonize=none"
        )


def fit_sites(manifest: Manifest, name: str, rows: pd.DataFrame, options: Mapping[str, Any]) -> Combat | None:
    """ComBat of these (training) rows of a table, as its options say; None where they say `harmonize: none`.

    Columns that are no numbers are left out. Raises UsageFault where the cohort has no sites, and what `Combat.fit` and
    `kept_covariates` raise.
    """
    if not wanted(name, options):
        return None
    needs_sites(manifest, name)
    said = dict(options.get("combat") or {})
    covariates, kinds = kept_covariates(manifest, said.pop("covariates", None) or ())
    numbers = rows.select_dtypes("number")
    spec = manifest.modalities.get(name)  # None: a table that was made of one, such as the mean slide feature
    recipe = Recipe.of(options, spec.options if spec else {})
    change = Transform.of(recipe.values, recipe.log, list(map(str, numbers.columns)))
    return Combat.fit(numbers, manifest.patients["site"], covariates, kinds, change=change, **said)


def without_sites(manifest: Manifest, table: pd.DataFrame, combat: Combat | None) -> pd.DataFrame:
    """The table of any patients of the manifest with the fitted site effects taken out; as it is without `combat`."""
    if combat is None:
        return table
    covariates, _ = kept_covariates(manifest, combat.kept.get("kinds") or {})
    return combat.transform(table, manifest.patients["site"], covariates)
