"""The section on inputs: how those of new patients differ from those of the training patients."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas

from nsclc_mtl.metrics.drift import LEAST
from nsclc_mtl.report.curves import BLUE, GREY, ORANGE, RC, WIDTH, svg
from nsclc_mtl.report.measures import LEARNER
from nsclc_mtl.report.section import Evidence, Figure, Section
from nsclc_mtl.report.templates import template
from nsclc_mtl.report.words import FILTERS

LEVEL = 0.01  # of Bonferroni's test over the features of a modality
SMALL = 0.2  # SD; a smaller difference is told of no modality, however sure (Cohen, 1988)
MISSING = 0.1  # a share that differs by so much is told, where chance makes it so in less than LEVEL
MOVED = 0.25  # of the population stability index: moved, by convention
SHOWN = 12


def drift(evidence: Evidence) -> list[Section]:
    """One section where inputs of other patients than the training cohort's were compared, with `tables/drift.csv`."""
    table = evidence.drift
    if table is None or not len(table):
        return []
    found = summary(table)
    away = None if evidence.outside is None or not len(evidence.outside) else over_folds(evidence.outside)
    strongest = table[table["difference"].notna()].sort_values("difference", key=abs, ascending=False, kind="stable")
    html = template("sections/drift.html.j2", FILTERS).render(
        told=sentences(table),
        outside=away.to_dict("records") if away is not None else [],
        moved=MOVED,
        rows=found.to_dict("records"),
        strongest=strongest.head(SHOWN).to_dict("records"),
        least=LEAST,
        level=LEVEL,
        small=SMALL,
    )
    figures = [_figure(table, found)] if strongest.shape[0] else []
    tables = {"drift": table}
    if evidence.outside is not None and away is not None:
        tables |= {"outside": evidence.outside, "outside-mean": away}
    title = "Are these patients’ inputs like those in training?"
    return [Section("drift", title, Markup(html), "", figures, tables, _metrics(found, away))]


def over_folds(outside: pd.DataFrame) -> pd.DataFrame:
    """A row a part: means over the folds of what `outside.csv` says, and how many folds were within their band."""
    own = outside.assign(within=outside["outside"].between(outside["band_lo"] - 1e-9, outside["band_hi"] + 1e-9))
    by = own.groupby("part", sort=False)
    made = by[["n", "known", "outside", "lo", "hi", "rate", "band_lo", "band_hi"]].mean()
    return made.assign(folds=by.size(), folds_within=by["within"].sum()).reset_index()


def _metrics(found: pd.DataFrame, away: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Rows for metrics.json; of no task."""

    def row(metric: str, n: float, value: float, lo: float = math.nan, hi: float = math.nan) -> dict[str, Any]:
        plain = [None if not math.isfinite(v) else float(v) for v in (value, lo, hi)]
        return {
            "task": "", "metric": metric, "part": "test", "fold": "all", "model": LEARNER,
            **dict(zip(("value", "lo", "hi"), plain, strict=True)), "n": int(n), "n_events": None,
            "reason": "" if plain[0] is not None else f"fewer than {LEAST} patients, or no feature to compare",
        }  # fmt: skip

    rows = []
    for r in found.to_dict("records"):
        rows += [
            row(f"drift_{word}:{r['modality']}", r["n"], r[word])
            for word in ("typical", "stability", "stability_chance")
        ]
    for r in [] if away is None else away.to_dict("records"):
        rows.append(row(f"outside:{r['part']}", r["n"], r["outside"], r["lo"], r["hi"]))
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row a modality: its missing shares, features compared and shifted, the strongest of them.

    A feature is shifted where its difference is at least 0.2 SD and stands Bonferroni's test over the modality's
    features at .01: it holds however the features hang together. Of fewer than 20 patients nothing is said.
    """
    rows = []
    for name in dict.fromkeys(table["modality"]):
        own = table[table["modality"] == name]
        whole, each = own[own["feature"] == ""].iloc[0], own[(own["feature"] != "") & own["difference"].notna()]
        sure = each["chance"] * len(each) < LEVEL
        moved = each[sure & (each["difference"].abs() >= SMALL)]
        stable = own[own["stability"].notna()]
        top = moved.iloc[int(moved["difference"].abs().to_numpy().argmax())] if len(moved) else None
        rows.append(
            {
                "modality": name,
                "n": int(whole["n"]),
                "missing": whole["missing"],
                "missing_trained": whole["missing_trained"],
                "missing_chance": float(whole["chance"]),
                "compared": len(each),
                "shifted": len(moved),
                "typical": float(each["difference"].abs().median()) if len(each) else math.nan,
                "strongest": "" if top is None else str(top["feature"]),
                "difference": math.nan if top is None else float(top["difference"]),
                "distance": math.nan if top is None else float(top["distance"]),
                "strange": float(own["strange"].max()),
                "stability": float(stable["stability"].median()) if len(stable) else math.nan,
                "stability_chance": float(stable["stability_chance"].median()) if len(stable) else math.nan,
            }
        )
    return pd.DataFrame(rows)


def sentences(table: pd.DataFrame) -> list[str]:
    """What a reader has to know of the inputs, the strongest shift first."""
    found, told = summary(table), []
    moved = found[found["shifted"] > 0].sort_values("difference", key=abs, ascending=False, kind="stable")
    for row in moved.to_dict("records"):
        told.append(
            f"{row['modality']} is unlike that of the training patients: {row['shifted']} of {row['compared']} "
            f"features are shifted, most of all {row['strongest']} ({_signed(row['difference'])} SD)."
        )
    for row in found.to_dict("records"):
        if abs(row["missing"] - row["missing_trained"]) >= MISSING and row["missing_chance"] < LEVEL:
            told.append(
                f"{row['modality']} is missing in {_percent(row['missing'])} of the patients, in training in "
                f"{_percent(row['missing_trained'])}."
            )
    for row in table[table["strange"] > 0].to_dict("records"):
        told.append(
            f"{row['modality']}: {_percent(row['strange'])} of the patients have a value of '{row['feature']}' that no "
            "training patient had."
        )
    few = [str(r["modality"]) for r in found.to_dict("records") if 0 < r["n"] < LEAST]
    if few:
        told.append(
            f"Fewer than {LEAST} patients have {', '.join(few)}: too few to tell a shift of the features from chance."
        )
    if not told:
        told.append("No modality is told apart from that of the training patients.")
    return told


def _figure(table: pd.DataFrame, found: pd.DataFrame) -> Figure:
    """The standardised differences of all features, a row a modality; shifted modalities in colour and with a word."""
    names = [str(n) for n in found["modality"] if found.set_index("modality").loc[n, "compared"] > 0]
    height = 0.75 + 0.42 * len(names)
    with matplotlib.rc_context(RC):
        drawn = Canvas(figsize=(WIDTH, height))
        axes = drawn.add_axes((0.27, 0.5 / height, 0.7, 0.42 * len(names) / height))
        axes.axvspan(-SMALL, SMALL, color="#eef0f2", lw=0)
        axes.axvline(0, color="#c4c8cc", lw=0.9)
        told: list[str] = []
        for k, name in enumerate(names):
            y = len(names) - 1 - k
            gap = table.loc[(table["modality"] == name) & (table["feature"] != ""), "difference"].dropna().to_numpy()
            moved = bool(found.set_index("modality").loc[name, "shifted"])
            axes.scatter(gap, y + _spread(gap), s=7, lw=0, alpha=0.55, color=ORANGE if moved else GREY)
            axes.plot([np.median(gap)] * 2, [y - 0.3, y + 0.3], color=BLUE, lw=1.6)
            told.append(f"{name}: {len(gap)} features from {gap.min():.2f} to {gap.max():.2f}")
        moved_names = set(found.loc[found["shifted"] > 0, "modality"])
        axes.set_yticks(range(len(names)), [n + (" *" if n in moved_names else "") for n in reversed(names)])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set(ylim=(-0.6, len(names) - 0.4), xlabel="difference to training, SD")
        widest = max(1.0, float(table["difference"].abs().max()) * 1.08)
        axes.set_xlim(-widest, widest)
        axes.locator_params(axis="x", nbins=5)
        shown = svg(drawn, "Inputs against training", "Standardised differences. " + "; ".join(told) + ".")
    data = table.loc[(table["feature"] != "") & table["difference"].notna(), ["modality", "feature", "difference"]]
    caption = (
        "Every feature’s mean among these patients minus its mean in training, in SD of training; blue: the median "
        f"feature; grey band: below {SMALL} SD. * and orange: a modality with shifted features."
    )
    return Figure("drift", shown, data.reset_index(drop=True), caption)


def _spread(values: np.ndarray) -> np.ndarray:
    """Heights within a row, the same every time, so that points do not hide each other."""
    return (np.arange(len(values)) * 0.618 % 1 - 0.5) * 0.5


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _percent(share: float) -> str:
    return "less than 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"
