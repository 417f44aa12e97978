"""How the inputs of new patients differ from those that the folds were trained on: `drift.csv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import Manifest

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.config import Run

FILE = "drift.csv"


def measured(models: Mapping[int, Any], manifest: Manifest, ids: Sequence[str]) -> pd.DataFrame:
    """Rows of `drift.csv`: one a feature of each modality, and before them one of the modality itself (feature empty).

    modality, feature; n: new patients in whom it is measured, trained: training patients (mean over the folds);
    difference: standardised, in SD of training; distance: Kolmogorov-Smirnov's; chance: P of the difference of one
    feature, were there none (of a modality: of its missing share); missing, missing_trained: shares without it (of a
    feature: among those who have the modality); strange: share of a category that training did not have. Numbers are
    means over the folds; a feature that a fold did not choose is left out of them. Folds that kept no summaries of
    their inputs give no rows.
    """
    import pandas as pd

    from nsclc_mtl.bags.described import described
    from nsclc_mtl.metrics import drift

    tables = []
    for _, data in models.values():
        if not data.fitted.reference:
            continue
        now = described(manifest, ids, data.fitted, data.cache)
        for name, before in data.fitted.reference.items():
            tables.append(_modality(name, before, len(set(manifest.who(name)) & set(ids)), len(ids)))
            if name in now and len(now[name].values):
                tables.append(_features(name, before, now[name]))
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS))
    # most of them are read once: a table that two folds chose other columns of keeps the first one's order
    by = pd.concat(tables).groupby(["modality", "feature"], sort=False)[list(COLUMNS[2:])].mean().reset_index()
    alone = drift.chance(by["difference"].to_numpy(float), by["n"].to_numpy(), by["trained"].to_numpy())
    by["chance"] = by["chance"].where(by["feature"] == "", alone)
    order = {name: k for k, name in enumerate(dict.fromkeys(by["modality"]))}
    at = by["modality"].map(order)
    return by.iloc[sorted(range(len(by)), key=lambda i: (at[i], by["feature"][i] != ""))].reset_index(drop=True)


COLUMNS = (
    "modality", "feature", "n", "trained", "difference", "distance", "chance", "missing", "missing_trained", "strange",
)  # fmt: skip


def _modality(name: str, before: Mapping[str, Any], n: int, of: int) -> pd.DataFrame:
    import pandas as pd

    from nsclc_mtl.metrics import drift

    row = {
        "modality": name,
        "feature": "",
        "n": n,
        "trained": before["n"],
        "missing": 1 - n / of if of else float("nan"),
        "missing_trained": 1 - before["n"] / before["of"],
    }
    row["chance"] = drift.chance_of_shares(row["missing"], row["missing_trained"], of, before["of"])
    return pd.DataFrame([row]).reindex(columns=list(COLUMNS)).astype(dict.fromkeys(COLUMNS[2:], float))


def _features(name: str, before: Mapping[str, Any], now: Any) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    from nsclc_mtl.metrics import drift

    names = [feature for feature in before["names"] if feature in now.values.columns]
    kept = [i for i, feature in enumerate(before["names"]) if feature in now.values.columns]
    values = now.values[names].to_numpy(float)
    at, below = (np.array(before[word], float).reshape(len(drift.LEVELS), -1)[:, kept] for word in ("deciles", "below"))
    mean, sd, count = (np.array(before[word], float)[kept] for word in ("mean", "sd", "measured"))
    table = pd.DataFrame(
        {
            "modality": name,
            "feature": names,
            "n": np.isfinite(values).sum(0).astype(float),
            "trained": count,
            "difference": drift.standardised_difference(values, mean, sd),
            "distance": drift.distance(values, at, below),
            "missing": 1 - np.isfinite(values).mean(0),
            "missing_trained": 1 - count / before["read"],
        }
    ).reindex(columns=list(COLUMNS))
    odd = pd.DataFrame(
        [(name, column, float(len(new)), float(new.mean())) for column, new in now.strange.items()],
        columns=["modality", "feature", "n", "strange"],
    )
    # an ordered column is a number too; of a category the row tells nothing else
    table["strange"] = table["feature"].map(odd.set_index("feature")["strange"]).astype(float)
    apart = odd[~odd["feature"].isin(names)].reindex(columns=list(COLUMNS))
    whole = pd.concat([part for part in (table, apart) if len(part)] or [table])
    return whole.astype(dict.fromkeys(COLUMNS[2:], float)).reset_index(drop=True)


def told(models: Mapping[int, Any], manifest: Manifest, ids: Sequence[str], run: Run) -> pd.DataFrame:
    """`measured`, written to `drift.csv` of the run, and the strongest shifts in sentences for the user."""
    from nsclc_mtl.report.sections.drift import sentences

    table = measured(models, manifest, ids)
    if len(table):
        table.to_csv(run.path / FILE, index=False, lineterminator="\n", float_format="%.5g")
        for sentence in sentences(table):
            run.say(f"inputs: {sentence}")
    else:
        run.say(
            "note: inputs are not compared with training: this model was trained before summaries of them were kept"
        )
    return table
