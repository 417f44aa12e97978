"""How the inputs of new patients differ from those that the folds were trained on: `drift.csv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl.records import Manifest

if TYPE_CHECKING:
    import pandas as pd

    from nsclc_mtl.config import Run

FILE = "drift.csv"


def measured(models: Mapping[int, Any], manifest: Manifest, ids: Sequence[str]) -> pd.DataFrame:
    """Rows of `drift.csv`: one a feature of each modality, and before them one of the modality itself (feature empty).

    modality, feature; n: new patients in whom it is measured, trained: training patients (mean over the folds);
    difference: standardised, in SD of training; distance: Kolmogorov-Smirnov's; stability:
    population stability index (of a category on the row of its column), stability_chance: its mean where nothing moved;
    chance: P of the difference of one
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
                codes = data.fitted.tables[name].categories if name in data.fitted.tables else {}
                tables.append(_features(name, before, now[name], codes))
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
    "modality", "feature", "n", "trained", "difference", "distance", "stability", "stability_chance", "chance",
    "missing", "missing_trained", "strange",
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


def _features(name: str, before: Mapping[str, Any], now: Any, codes: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """A row a feature. codes: column -> the categories that training knew; `f"{column}={category}"` are features."""
    import numpy as np
    import pandas as pd

    from nsclc_mtl.metrics import drift

    names = [feature for feature in before["names"] if feature in now.values.columns]
    kept = [i for i, feature in enumerate(before["names"]) if feature in now.values.columns]
    values = now.values[names].to_numpy(float)
    at, below = (np.array(before[word], float).reshape(len(drift.LEVELS), -1)[:, kept] for word in ("deciles", "below"))
    mean, sd, count = (np.array(before[word], float)[kept] for word in ("mean", "sd", "measured"))
    stable, usual = drift.stability(values, at, below, count)
    single = {f"{column}={v}" for column, words in codes.items() for v in words}  # told as one, by their column
    stable, usual = (np.where([n in single for n in names], np.nan, told) for told in (stable, usual))
    table = pd.DataFrame(
        {
            "modality": name,
            "feature": names,
            "n": np.isfinite(values).sum(0).astype(float),
            "trained": count,
            "difference": drift.standardised_difference(values, mean, sd),
            "distance": drift.distance(values, at, below),
            "stability": stable,
            "stability_chance": usual,
            "missing": 1 - np.isfinite(values).mean(0) if len(values) else np.nan,
            "missing_trained": 1 - count / before["read"],
        }
    ).reindex(columns=list(COLUMNS))
    odd = pd.DataFrame(
        [(name, column, float(len(new)), float(new.mean())) for column, new in now.strange.items() if len(new)],
        columns=["modality", "feature", "n", "strange"],
    )
    # an ordered column is a number too; of a category the row tells nothing else
    table["strange"] = table["feature"].map(odd.set_index("feature")["strange"]).astype(float)
    apart = odd[~odd["feature"].isin(names)].reindex(columns=list(COLUMNS))
    apart = apart.astype(dict.fromkeys(COLUMNS[2:], float))
    for column, words in codes.items():
        at_row = apart["feature"] == column
        told = _code(column, words, before, now)
        apart.loc[at_row, ["stability", "stability_chance"]] = told
    whole = pd.concat([part for part in (table, apart) if len(part)] or [table])
    return whole.astype(dict.fromkeys(COLUMNS[2:], float)).reset_index(drop=True)


def _code(column: str, words: Sequence[str], before: Mapping[str, Any], now: Any) -> tuple[float, float]:
    """Stability of a column of categories, and its mean where nothing moved; a further bin for what training lacked."""
    import numpy as np

    from nsclc_mtl.metrics import drift

    names = [f"{column}={v}" for v in words]
    if not set(names) <= set(before["names"]):
        return float("nan"), float("nan")
    rows = [before["names"].index(n) for n in names]
    shares, trained = np.array(before["mean"], float)[rows], np.array(before["measured"], float)[rows]
    counts = np.append(now.values[names].sum().to_numpy(float), float(now.strange[column].sum()))
    if counts.sum() < drift.LEAST or trained.min(initial=np.inf) < drift.LEAST:
        return float("nan"), float("nan")
    stable, usual = drift.index(counts, np.append(np.rint(shares * trained), 0.0))
    return float(stable), float(usual)


OUTSIDE = "outside.csv"


def outside_shares(models: Mapping[int, Any], far: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Rows of `outside.csv`: of each fold, how many new patients lie outside of what its training patients are like.

    fold; part: a modality, `all` (the fused views of the tasks) or `furthest` (the flag of trust.csv: the part that is
    furthest out); n: new patients who have it; known: patients whom they are ranked among; outside: share whose rank
    among these is at most `rate`; lo, hi: its 95 % interval (Wilson); band_lo, band_hi: where the share lies with
    95 % probability if the new patients are like the known ones (beta-binomial). far: of `outside.judge`, by fold.
    """
    import numpy as np
    import pandas as pd

    from nsclc_mtl.metrics.calibration import rates
    from nsclc_mtl.trust.conformal import coverage_band
    from nsclc_mtl.trust.outside import enough

    rows = []
    for fold, seen in far.items():
        state = models[fold][1].fitted.outside
        if not state or "rarity" not in seen:
            continue
        rate = float(state["rate"])
        for part in [c for c in seen if c not in ("rarity", "furthest")] + ["furthest"]:
            known = len(state["known"] if part == "furthest" else state["scales"][part]["sorted"])
            if part == "furthest":
                rank = seen["rarity"].dropna().to_numpy(float)
            else:  # of the share who lie nearer
                rank = (1 + known * (1 - seen[part].dropna().to_numpy(float))) / (known + 1)
            if not len(rank) or known < enough(rate):
                continue
            out = (rank <= rate + 1e-9).astype(float)
            share, lo, hi = rates(out)(np.ones(len(out), dtype=bool))
            low, high = coverage_band(known, len(out), rate)
            rows.append((fold, part, len(out), known, share, lo, hi, rate, 1 - high, 1 - low))
    names = ["fold", "part", "n", "known", "outside", "lo", "hi", "rate", "band_lo", "band_hi"]
    return pd.DataFrame(rows, columns=names)


def told(
    models: Mapping[int, Any], manifest: Manifest, ids: Sequence[str], far: Mapping[int, pd.DataFrame], run: Run
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`measured` and `outside_shares` of these patients, written to the run, and the strongest shifts in sentences."""
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
    away = outside_shares(models, {fold: rows.loc[rows.index.intersection(list(ids))] for fold, rows in far.items()})
    if len(away):
        away.to_csv(run.path / OUTSIDE, index=False, lineterminator="\n", float_format="%.5g")
    return table, away


def read(path: Path) -> pd.DataFrame | None:
    """A `drift.csv` or `outside.csv` as it was written; None where there is none."""
    import pandas as pd

    if not path.is_file():
        return None
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    for column in frame.columns.difference(["modality", "feature", "fold", "part"]):
        frame[column] = pd.to_numeric(frame[column].replace("", None))
    return frame
