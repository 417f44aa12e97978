"""Pictures of a federation: each way of training by site, and the rounds of a fold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.report.curves import BLUE, GREEN, GREY, INK, ORANGE, RC, STYLES, WIDTH, above, svg
from nsclc_mtl.report.federated.ways import CENTRALISED, FEDERATED, LOCAL
from nsclc_mtl.report.section import Figure
from nsclc_mtl.report.words import told as value_told

SIGNS = {FEDERATED: (BLUE, "o"), CENTRALISED: (ORANGE, "s"), LOCAL: (GREEN, "^")}
_MANY = 40  # points beyond which a line has no dots
_LETTERS = 18  # of a site's name in a picture


def short(name: str) -> str:
    """A name that fits into a picture."""
    return name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…"


def ways_figure(
    name: str, lines: Mapping[str, Mapping[str, Interval]], title: str, label: str, chance: float | None, caption: str
) -> Figure:
    """Values with intervals, a block of rows a site. lines: site -> way -> value."""
    height = 0.95 + 0.5 * len(lines)
    with matplotlib.rc_context(RC):
        drawn = Canvas(figsize=(WIDTH, height))
        left = 0.05 + 0.0155 * max(len(short(site)) for site in lines)
        axes = drawn.add_axes((left, 0.5 / height, 0.97 - left, 0.5 * len(lines) / height))
        told, seen, data = [], [], []
        for k, (site, each) in enumerate(lines.items()):
            for j, (way, at) in enumerate(each.items()):
                data.append((site, way, at.value, at.lo, at.hi))
                if not math.isfinite(at.value):
                    continue
                colour, marker = SIGNS[way]
                y = len(lines) - 1 - k + 0.24 * ((len(each) - 1) / 2 - j)
                axes.plot([at.lo, at.hi], [y, y], color=colour, lw=1.6, solid_capstyle="butt")
                axes.plot([at.value], [y], marker, color=colour, ms=5.5, label=None if way in seen else way)
                seen.append(way)
                told.append(f"{site}, {way}: {value_told(at)}")
        if chance is not None:
            axes.axvline(chance, color="#c4c8cc", lw=0.9, zorder=0)
        axes.set_yticks(range(len(lines)), [short(site) for site in reversed(list(lines))])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.5, len(lines) - 0.5)
        axes.set_xlabel(label)
        if seen:
            axes.legend(
                loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.2, frameon=False, ncols=3,
                handletextpad=0.2, columnspacing=1.2, fontsize=9,
            )  # fmt: skip
        shown = svg(drawn, title, f"{label} with 95 % intervals. " + "; ".join(told) + ".")
    return Figure(name, shown, pd.DataFrame(data, columns=["site", "way", "value", "lo", "hi"]), caption)


def rounds_figure(fold: Mapping[str, Any], name: str) -> Figure | None:
    """Training loss of each site over the rounds, and below it how far the model moved; None where there was no round.

    fold: `number`, `rounds` (their numbers), `loss` (site -> a number or None for each round), `moved` (one for each).
    """
    loss: Mapping[str, Sequence[float | None]] = fold["loss"]
    moved = np.array(fold["moved"], float)
    known = {s: np.array([math.nan if v is None else v for v in of], float) for s, of in loss.items()}
    known = {site: values for site, values in known.items() if np.isfinite(values).any()}
    number = np.array(fold["rounds"])
    if not len(moved):
        return None
    upper = 1.9 if known else 0.0
    legend = 0.22 * math.ceil(len(known) / 2) if 0 < len(known) <= len(STYLES) else 0.0
    height = 0.5 + 1.1 + (0.3 + upper + legend + 0.05 if known else 0.1)
    wide = 0.82 if legend or not known else 0.55  # beside more lines than a legend can tell apart stand two names
    with matplotlib.rc_context(RC):
        drawn = Canvas(figsize=(WIDTH, height))
        low = drawn.add_axes((0.15, 0.5 / height, wide, 1.0 / height))
        low.plot(number, moved, color=INK, lw=1.2, marker="." if len(moved) < _MANY else "", ms=4)
        low.set(xlabel="round", ylabel="model moved", ylim=(0, None))
        low.set_xlim(number[0] - 0.5, number[-1] + 0.5)
        low.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if known:
            top = drawn.add_axes((0.15, 1.85 / height, wide, upper / height))
            _losses(top, number, known)
            top.set_xlim(*low.get_xlim())
            top.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            top.set(ylabel="training loss")
            top.tick_params(labelbottom=False)
        ends = [f"{site} from {_first(of):.3g} to {_last(of):.3g}" for site, of in known.items()]
        told = f"Training loss: {'; '.join(ends)}. " if ends else ""
        title = f"Rounds of fold {fold['number']}"
        shown = svg(drawn, title, f"{told}The model moved by {moved[0]:.3g} first and {moved[-1]:.3g} last.")
    data = pd.DataFrame({"round": number, "moved": moved, **{f"loss:{site}": of for site, of in known.items()}})
    return Figure(name, shown, data, f"Fold {fold['number']}.")


def _losses(axes: Any, number: np.ndarray, known: Mapping[str, np.ndarray]) -> None:
    dot = "." if len(number) < _MANY else ""  # a site that answered once has a point and no line
    if len(known) <= len(STYLES):
        for (site, values), (colour, style) in zip(known.items(), STYLES, strict=False):
            (line,) = axes.plot(number, values, color=colour, ls=style, lw=1.6, marker=dot, ms=4)
            # matplotlib leaves out a name that begins with _
            line.set_label(f" {short(site)}" if site.startswith("_") else short(site))
        above(axes)
        return
    for values in known.values():
        axes.plot(number, values, color=GREY, lw=0.8, alpha=0.7, marker=dot, ms=3)
    last = {site: _last(values) for site, values in known.items()}
    for site in (max(last, key=lambda s: last[s]), min(last, key=lambda s: last[s])):
        axes.plot(number, known[site], color=BLUE, lw=1.4)
        axes.annotate(f" {short(site)}", (1.0, last[site]), xycoords=("axes fraction", "data"), va="center",
                      fontsize=8.5, color=BLUE)  # fmt: skip


def _first(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)][0])


def _last(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)][-1])
