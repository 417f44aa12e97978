"""Figures of the report as inline SVG: ROC, Kaplan-Meier with numbers at risk, the learner beside the floor.

Colours are Okabe and Ito's, and never the only sign: lines differ in style and carry their name.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.metrics.roc import GRID, Roc
from nsclc_mtl.metrics.survival import kaplan_meier
from nsclc_mtl.report.section import Figure
from nsclc_mtl.report.words import told as value_told

BLUE, ORANGE, GREEN, PINK, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7a7f87", "#22262b"
STYLES: tuple[tuple[str, Any], ...] = (
    (BLUE, "-"),
    (ORANGE, (0, (5, 2))),
    (GREEN, (0, (1.5, 1.5))),
    (PINK, (0, (6, 2, 1.5, 2))),
    (INK, (0, (8, 3))),
)
_MARKERS = ("", "o", "s", "^", "D", "v")  # of the first five lines, the second five, ...
DAYS_PER_MONTH = 30.4375
_UNITS = (  # of the time axis: name, days, steps between its ticks; each as far as 120 of it
    ("days", 1.0, (1, 2, 7, 14, 30)),
    ("months", DAYS_PER_MONTH, (1, 2, 3, 6, 12, 24)),
    ("years", 365.25, (1, 2, 5, 10, 20)),
)
_LETTERS = 18  # of a group's name beside the numbers at risk
_CROWD = 150  # so many censored times merge into a line if their ticks are not thin
WIDTH = 4.7  # inches: two stand side by side on a desk, and one is still readable on a phone
RC: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "-apple-system", "Segoe UI", "Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa0a6",
    "axes.labelcolor": INK,
    "xtick.color": "#4a4f55",
    "ytick.color": "#4a4f55",
    "text.color": INK,
    "svg.hashsalt": "nsclc_mtl",
    "text.parse_math": False,  # a class named "$x$" is a name
}


def style(k: int) -> dict[str, Any]:
    """Colour, dashes and marker of line `k` of a figure, as matplotlib takes them: the first five are `STYLES`, and of
    thirty no two are alike."""
    again, at = divmod(k, len(STYLES))
    dashes = STYLES[(at + again) % len(STYLES)][1]  # a colour comes again with other dashes
    marker = _MARKERS[again % len(_MARKERS)]
    return {"color": STYLES[at][0], "ls": dashes, "marker": marker, "markevery": 0.12, "ms": 4.5}


def roc_figure(name: str, curves: Sequence[Roc], title: str, caption: str = "") -> Figure:
    """ROC curves: bold = mean over folds, thin = each fold (for the first curve)."""
    with matplotlib.rc_context(RC):
        drawn = Canvas(figsize=(WIDTH, 4.3))
        axes = drawn.add_axes((0.12, 0.12, 0.85, 0.85))
        axes.plot([0, 1], [0, 1], color="#c4c8cc", lw=0.8)
        for own in curves[0].folds if curves else ():
            axes.plot(GRID, own, color=STYLES[0][0], lw=0.6, alpha=0.35)
        for k, curve in enumerate(curves):
            axes.plot(GRID, curve.mean, **style(k), lw=1.8, label=curve.name)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="1 − specificity", ylabel="sensitivity", aspect="equal")
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.legend(loc="lower right", frameon=False, handlelength=3, fontsize=9.5 if len(curves) <= 8 else 7)
        named = ", ".join(c.name for c in curves)
        shown = svg(drawn, title, f"Receiver operating characteristic: {named}.")
    lines = [(curve.name, "mean of the folds", curve.mean) for curve in curves]
    lines += [(curves[0].name, f"fold {k}", own) for k, own in enumerate(curves[0].folds if curves else ())]
    told = [pd.DataFrame({"curve": c, "of": of, "fpr": GRID, "tpr": tpr}) for c, of, tpr in lines]
    return Figure(name, shown, pd.concat(told) if told else pd.DataFrame(), caption)


def scatter_figure(
    name: str, folds: Sequence[tuple[np.ndarray, np.ndarray]], title: str, unit: str = "", caption: str = ""
) -> Figure:
    """Known numbers against predicted ones, a sign a fold. folds: (known [n], predicted [n]) each."""
    with matplotlib.rc_context(RC):
        drawn = Canvas(figsize=(WIDTH, 4.3))
        axes = drawn.add_axes((0.15, 0.12, 0.82, 0.85))
        there = [(y[~np.isnan(p)], p[~np.isnan(p)]) for y, p in folds]
        whole = np.concatenate([np.r_[y, p] for y, p in there] or [np.zeros(0)])
        low, high = (whole.min(), whole.max()) if len(whole) else (0.0, 1.0)
        axes.plot([low, high], [low, high], color="#c4c8cc", lw=0.8)
        for k, (known, said) in enumerate(there):
            axes.scatter(said, known, s=9, color=STYLES[k % len(STYLES)][0], marker="os^Dv"[k % 5], alpha=0.6, lw=0)
        of = f", {unit}" if unit else ""
        axes.set(xlabel=f"predicted{of}", ylabel=f"known{of}")
        count = sum(len(known) for known, _ in there)
        shown = svg(drawn, title, f"Known against predicted numbers of {count} test patients.")
    told = [pd.DataFrame({"fold": k, "known": known, "predicted": said}) for k, (known, said) in enumerate(there)]
    return Figure(name, shown, pd.concat(told) if told else pd.DataFrame(), caption)


def kaplan_meier_figure(
    name: str,
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]],
    title: str,
    label: str = "survival",
    caption: str = "",
) -> Figure:
    """Survival by risk group with 95 % bands and numbers at risk. groups: {name: (time_days, event)}."""
    rows = max(0, len(groups) - len(STYLES))
    height = 4.3 + 0.215 * rows  # more groups have more rows below, and the curves as much room
    share = 4.3 / height
    with matplotlib.rc_context(RC):
        drawn = Canvas(figsize=(WIDTH, height))
        names = {group: group if len(group) <= _LETTERS else group[: _LETTERS - 1] + "…" for group in groups}
        low = (0.11 + 0.05 * len(groups)) * share
        digits = len(str(max(len(t) for t, _ in groups.values())))  # names stand beside the numbers
        left = max(0.12, 0.02 + 0.0155 * max(len(name) for name in names.values()) + 0.009 * digits)
        axes = drawn.add_axes((left, low + 0.04 * share, 0.97 - left, 0.99 - low - 0.04 * share))
        longest = max(float(t.max()) for t, _ in groups.values())
        unit, days, wanted = next(u for u in _UNITS if longest <= 120 * u[1] or u is _UNITS[-1])
        end = longest / days
        step = next((s for s in wanted if end / s <= 7), end)
        ticks = np.arange(0, end + step * 0.01, step)
        told: list[str] = []
        steps: list[pd.DataFrame] = []
        for k, (group, (time, event)) in enumerate(groups.items()):
            curve = kaplan_meier(time, event)
            x = np.r_[0, curve.time / days]
            looks = style(k)
            colour, dashes = looks["color"], looks.pop("ls")
            line = axes.step(x, np.r_[1, curve.value], where="post", **looks, lw=1.8, label=group)[0]
            line.set_linestyle(dashes)
            lo, hi = np.r_[np.nan, curve.lo], np.r_[np.nan, curve.hi]
            axes.fill_between(x, lo, hi, step="post", color=colour, alpha=0.13, lw=0)
            censored = np.unique(time[event == 0])
            thin = 0.8 if len(censored) < _CROWD else 0.3
            axes.plot(censored / days, curve.at(censored), "|", color=colour, ms=4, mew=thin)
            # numbers at risk, one row a group under the time axis
            y = low - (0.105 + 0.05 * k) * share
            drawn.text(0.005, y, names[group], color=colour, fontsize=8.5, va="center", weight="bold")
            for tick in ticks:
                at = left + (0.97 - left) * tick / end
                count = int((time >= tick * days).sum())
                drawn.text(at, y, str(count), fontsize=8.5, ha="center", va="center")
            told.append(f"{group}: {len(time)} patients, {int(event.sum())} events")
            steps.append(
                pd.DataFrame(
                    {
                        "group": group,
                        "time_days": np.r_[0, curve.time],
                        "at_risk": [int((time >= day).sum()) for day in np.r_[0, curve.time]],
                        "value": np.r_[1, curve.value],
                        "lo": lo,
                        "hi": hi,
                    }
                )
            )
        drawn.text(0.005, low - 0.055 * share, "at risk", fontsize=8.5, va="center", color="#4a4f55")
        axes.set(xlim=(0, end), ylim=(0, 1.02), ylabel=label)
        axes.set_xlabel(unit, labelpad=1)
        axes.set_xticks(ticks)
        if len(groups) > 1:  # one group's name stands beside its numbers at risk
            axes.legend(loc="best", frameon=False, handlelength=3)
        shown = svg(drawn, title, "Kaplan-Meier curves. " + "; ".join(told) + ".")
    return Figure(name, shown, pd.concat(steps) if steps else pd.DataFrame(), caption)


def interval_figure(
    name: str,
    rows: Sequence[tuple[str, Interval]],
    title: str,
    label: str,
    reference: float | None,
    caption: str = "",
) -> Figure:
    """Values with their intervals, one row each; the first row is the learner, drawn in full."""
    with matplotlib.rc_context(RC):
        drawn = Canvas(figsize=(WIDTH, 0.75 + 0.3 * len(rows)))
        height = 0.75 + 0.3 * len(rows)
        axes = drawn.add_axes((0.34, 0.5 / height, 0.63, 0.3 * len(rows) / height))
        told = []
        for k, (word, at) in enumerate(rows):
            y = len(rows) - 1 - k
            oracle = word.startswith("ceiling")
            colour, marker = (BLUE, "o") if k == 0 else ((ORANGE, "D") if oracle else (GREY, "s"))
            axes.plot([at.lo, at.hi], [y, y], color=colour, lw=2.2 if k == 0 else 1.4, solid_capstyle="butt")
            axes.plot([at.value], [y], marker, color=colour, ms=6 if k == 0 else 4.5)
            told.append(f"{word} {value_told(at)}")
        if reference is not None:
            axes.axvline(reference, color="#c4c8cc", lw=0.9, zorder=0)
        if rows and np.isfinite(rows[0][1].value):
            axes.axvline(rows[0][1].value, color=BLUE, lw=0.7, ls=(0, (2, 3)), zorder=0)
        axes.set_yticks(range(len(rows)), [word for word, _ in reversed(rows)])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel(label)
        shown = svg(drawn, title, f"{label} with 95 % intervals. " + "; ".join(told) + ".")
    data = pd.DataFrame([(word, at.value, at.lo, at.hi) for word, at in rows], columns=["row", "value", "lo", "hi"])
    return Figure(name, shown, data, caption)


def above(axes: Any) -> None:
    """Sets the legend above the axes, two names a row, where it covers no curve; it takes 0.4 inches for four names."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.2, frameon=False, handlelength=3, ncols=2,
        columnspacing=1.5, fontsize=9,
    )  # fmt: skip


def svg(drawn: Canvas, title: str, description: str) -> str:
    """The figure as an SVG element of its own ids, with a title and a description for screen readers."""
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    mark = "f" + hashlib.sha256((title + description).encode()).hexdigest()[:8]
    # several figures share one page: their ids must not collide
    text = re.sub(r'\bid="', f'id="{mark}-', text)
    text = re.sub(r"url\(#", f"url(#{mark}-", text)
    text = re.sub(r'href="#', f'href="#{mark}-', text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    opening, rest = text.split(">", 1)
    opening = re.sub(r'\s(width|height)="[^"]*"', "", opening)
    return (
        f'{opening} role="img" aria-labelledby="{mark}-title {mark}-desc">'
        f'<title id="{mark}-title">{html.escape(title)}</title>'
        f'<desc id="{mark}-desc">{html.escape(description)}</desc>{rest}'
    )
