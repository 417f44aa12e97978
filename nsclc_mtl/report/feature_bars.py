"""The columns of a patient's tables that moved a prediction the most, as bars: to the right up, to the left down."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from nsclc_mtl.report.curves import BLUE, GREY, ORANGE, RC, WIDTH, svg
from nsclc_mtl.report.section import Figure

STRONGEST = 10


def figure(name: str, table: pd.DataFrame, title: str, unit: str = "score", strongest: int = STRONGEST) -> Figure:
    """The `strongest` rows of (modality, feature, value, attribution), and the sum of the others.

    unit: what the score is that they moved.
    """
    table = table.reset_index(drop=True)
    order = table["attribution"].abs().sort_values(ascending=False, kind="stable").index
    shown, rest = table.loc[order[:strongest]], table.loc[order[strongest:]]
    cells = zip(*(shown[name] for name in ("feature", "value", "modality", "attribution")), strict=True)
    rows = [(_label(what, value), str(of), float(moved)) for what, value, of, moved in cells]
    if len(rest):
        rows.append((f"{len(rest)} others together", "", float(rest["attribution"].sum())))
    with matplotlib.rc_context(RC):
        height = 0.85 + 0.27 * len(rows)
        drawn = Canvas(figsize=(WIDTH, height))
        axes = drawn.add_axes((0.46, 0.5 / height, 0.51, (height - 0.55) / height))
        for k, (label, modality, moved) in enumerate(rows):
            y = len(rows) - 1 - k
            colour = GREY if not modality else ORANGE if moved > 0 else BLUE
            axes.barh(y, moved, height=0.62, color=colour)
            axes.text(-0.03, y + (0.16 if modality else 0), label, ha="right", va="center", fontsize=8.5,
                      transform=axes.get_yaxis_transform())  # fmt: skip
            axes.text(-0.03, y - 0.24, modality, ha="right", va="center", fontsize=6.5, color=GREY,
                      transform=axes.get_yaxis_transform())  # fmt: skip
        axes.axvline(0, color="#9aa0a6", lw=0.9)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, -0.02 * high), max(high, -0.02 * low))
        axes.set_yticks([])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(f"moved by: {unit[:1].lower()}{unit[1:]}", loc="right", fontsize=8.5)
        told = "; ".join(f"{label} {moved:+.3f}" for label, _, moved in rows)
        drawn_svg = svg(drawn, title, f"Attributions by integrated gradients. {told}.")
    return Figure(name, drawn_svg, pd.DataFrame(rows, columns=["row", "modality", "attribution"]))


def _label(what: object, value: object) -> str:
    """`column = value` in at most 28 signs. Of a long name the end, which tells more than how it begins; of one of
    several words (Leukocytes [#/volume] in Blood) the beginning."""
    said, word = _value(value), str(what)
    most = 25 - len(said)
    if len(word) > most:
        word = word[: most - 1].rstrip(" [(") + "…" if " " in word else "…" + word[1 - most :]
    return f"{word} = {said}"


def _value(text: object, most: int = 9) -> str:
    """A number with four digits, a short word as it is."""
    word = str(text)
    try:
        return f"{float(word):.4g}".replace("-", "−")
    except ValueError:
        return word if len(word) <= most else word[: most - 1] + "…"
