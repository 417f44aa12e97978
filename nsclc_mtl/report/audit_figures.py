"""Figures of the modality audit: losses by modality and mode, Shapley values, shares of patients' predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from nsclc_mtl.explain.audit import NULL_BOUND
from nsclc_mtl.report.curves import BLUE, GREEN, GREY, INK, ORANGE, RC, WIDTH, svg
from nsclc_mtl.report.fold import once_rows
from nsclc_mtl.report.section import Figure

MARKS = {"permute": ("o", BLUE, "permuted"), "mean": ("D", ORANGE, "training mean"), "drop": ("s", GREEN, "left out")}
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_FAINT = "#c4c8cc"


def losses(name: str, rows: Sequence[Mapping[str, Any]], modalities: Sequence[str], title: str, metric: str) -> Figure:
    """Loss of the metric by modality and mode with 95 % intervals, and the bound below which a loss is nothing."""
    shown = [row for row in rows if row["mode"] in MARKS and row["loss"] is not None]
    with matplotlib.rc_context(RC):
        height = 1.05 + 0.5 * len(modalities)
        drawn = Canvas(figsize=(WIDTH, height))
        axes = drawn.add_axes((0.23, 0.5 / height, 0.52, (height - 0.92) / height))
        told = []
        for mode, (marker, colour, word) in MARKS.items():
            axes.plot([], [], marker, color=colour, ms=5, label=word)
            for row in shown:
                if row["mode"] == mode:
                    y = len(modalities) - 1 - modalities.index(row["modality"]) - 0.22 * (list(MARKS).index(mode) - 1)
                    if row["lo"] is not None:
                        axes.plot([row["lo"], row["hi"]], [y, y], color=colour, lw=1.6, solid_capstyle="butt")
                    axes.plot([row["loss"]], [y], marker, color=colour, ms=4.5)
                    told.append(f"{row['modality']} {word} {row['loss']:+.3f}")
        axes.axvline(0, color=_FAINT, lw=0.9, zorder=0)
        axes.axvline(NULL_BOUND, color=INK, lw=0.8, ls=(0, (4, 3)), zorder=0)
        verdicts = {row["modality"]: str(row["verdict"]) for row in shown if row["mode"] == "permute"}
        for k, modality in enumerate(modalities):
            word = verdicts.get(modality, "").replace("equivalent to", "equivalent\nto")
            axes.text(1.03, len(modalities) - 1 - k, word, transform=axes.get_yaxis_transform(), fontsize=8.5,
                      va="center", weight="bold" if word == "needed" else "normal")  # fmt: skip
        _modalities(axes, modalities)
        axes.set_xlabel(f"loss of the {metric}")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.44, 1.0), frameon=False, ncols=3, handletextpad=0.1,
                    columnspacing=1.0, fontsize=8.5)  # fmt: skip
        picture = svg(drawn, title, f"Losses of the {metric}. {'; '.join(told)}.")
    columns = ["modality", "mode", "loss", "lo", "hi", "verdict"]
    caption = (
        f"What the {metric} loses, with 95 % intervals. Dashed: {NULL_BOUND}; a modality whose interval ends below "
        "it is equivalent to nothing. Words: when permuted."
    )
    return Figure(
        name, picture, pd.DataFrame([{c: row[c] for c in columns} for row in shown], columns=columns), caption
    )


def contributions(
    name: str, rows: Sequence[Mapping[str, Any]], modalities: Sequence[str], title: str, metric: str,
    weights: Mapping[str, float] | None = None,
) -> Figure:  # fmt: skip
    """Shapley value of each modality in the metric as bars with intervals; mean weights of the fusion beside them."""
    found = {row["modality"]: row for row in rows if row["mode"] == "shapley" and row["loss"] is not None}
    weights = weights or {}
    with matplotlib.rc_context(RC):
        height = 0.85 + 0.34 * len(modalities)
        drawn = Canvas(figsize=(WIDTH, height))
        bottom, tall = 0.5 / height, (height - 0.65) / height
        axes = drawn.add_axes((0.23, bottom, 0.45 if weights else 0.72, tall))
        beside = drawn.add_axes((0.74, bottom, 0.23, tall)) if weights else None
        table = []
        for k, modality in enumerate(modalities):
            y, row = len(modalities) - 1 - k, found.get(modality, {"loss": np.nan, "lo": None, "hi": None})
            axes.barh(y, row["loss"], height=0.6, color=BLUE, alpha=0.75)
            if row["lo"] is not None:
                axes.plot([row["lo"], row["hi"]], [y, y], color=INK, lw=1.2)
            if beside is not None:
                beside.barh(y, weights.get(modality, np.nan), height=0.6, color="none", edgecolor=ORANGE, hatch="////")
            table.append((modality, row["loss"], row["lo"], row["hi"], weights.get(modality, np.nan)))
        axes.axvline(0, color="#9aa0a6", lw=0.9)
        _modalities(axes, modalities)
        axes.set_xlabel(f"adds to the {metric}")
        if beside is not None:
            _modalities(beside, [""] * len(modalities))
            beside.set_xlim(0, None)
            beside.set_xlabel("mean weight")
        told = "; ".join(f"{m} {v:+.3f}" for m, v, *_ in table if v == v)
        picture = svg(drawn, title, f"Shapley values of the {metric}. {told}.")
    caption = (
        f"Shapley values: what each modality adds to the {metric} on the average of all orders in which modalities may "
        "come, from 0.5 (nothing known of anybody) up to the model’s own. Lines: 95 % intervals."
        + (" Hatched: mean weight in the fusion." if weights else "")
    )
    return Figure(name, picture, pd.DataFrame(table, columns=["modality", "shapley", "lo", "hi", "weight"]), caption)


def shares(name: str, values: pd.DataFrame, modalities: Sequence[str], title: str) -> Figure:
    """Of how much of a patient's prediction each modality is the source: quantiles over the patients who have it.

    values: rows of `shapley.csv` of one task. A share is |value| over the sum of the patient's, outputs added up: it
    has no unit, so that folds may be shown together; of several repeats the first.
    """
    values = once_rows(values)
    size = values.assign(size=values["value"].abs()).groupby(["fold", "patient_id", "modality"])["size"].sum()
    whole = size.groupby(level=[0, 1]).transform("sum")
    part = (size / whole.where(whole > 0)).dropna()
    with matplotlib.rc_context(RC):
        height = 0.85 + 0.34 * len(modalities)
        drawn = Canvas(figsize=(WIDTH, height))
        axes = drawn.add_axes((0.23, 0.5 / height, 0.72, (height - 0.65) / height))
        table = []
        for k, modality in enumerate(modalities):
            mine = part[part.index.get_level_values("modality") == modality]
            if not len(mine):
                continue
            y, q = len(modalities) - 1 - k, np.quantile(mine, QUANTILES)
            axes.plot([q[0], q[4]], [y, y], color=GREY, lw=1.0)
            axes.plot([q[1], q[3]], [y, y], color=BLUE, lw=7, alpha=0.55, solid_capstyle="butt")
            axes.plot([q[2]], [y], "o", color=INK, ms=4)
            table.append((modality, len(mine), *q))
        _modalities(axes, modalities)
        axes.set(xlim=(0, 1), xlabel="share of a patient’s prediction")
        told = "; ".join(f"{row[0]} median {row[4]:.2f}" for row in table)
        picture = svg(drawn, title, f"Shares of patients’ predictions by modality. {told}.")
    caption = (
        "Patient by patient: the share of the moves of the score away from the training mean that comes from each "
        "modality, among test patients who have it. Dot: median; bar: half of them; line: nine in ten."
    )
    return Figure(
        name, picture, pd.DataFrame(table, columns=["modality", "patients", *(f"q{q:g}" for q in QUANTILES)]), caption
    )


def _modalities(axes: Any, modalities: Sequence[str]) -> None:
    axes.set_yticks(range(len(modalities)), [_short(word) for word in reversed(modalities)])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-0.6, len(modalities) - 0.4)


def _short(word: str, most: int = 15) -> str:
    return word if len(word) <= most else word[: most - 1] + "…"
