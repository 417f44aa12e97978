"""The flow of patients as a picture: who is kept, who is left out and why."""

from __future__ import annotations

import html
from collections.abc import Sequence

import pandas as pd

from nsclc_mtl.cohort.lint.attrition import Step
from nsclc_mtl.report.section import Figure

_BOX, _GAP, _SIDE, _LINE = 280, 46, 300, 19  # px


def flow_figure(steps: Sequence[Step], name: str = "study-flow", caption: str = "") -> Figure:
    """The trunk as CONSORT draws it: boxes of who is kept, beside the arrows who is left out and why."""
    kept: list[Step] = []
    out: list[list[Step]] = []
    for step in steps:
        if step.kind == "kept":
            kept.append(step)
            out.append([])
        else:
            out[-1].append(step)
    parts, y = [], 1.0
    tall = 2 * _LINE + 16
    for k, step in enumerate(kept):
        parts.append(_box(1, y, _BOX, [f"{step.n} patients", step.what], bold=True))
        y += tall
        if k + 1 == len(kept):
            break
        reasons = out[k]
        lines = [f"{sum(s.n for s in reasons)} left out", *(f"{s.n} {s.what}" for s in reasons)] if reasons else []
        height = max(_GAP, len(lines) * _LINE + 16 + 20 if lines else 0)
        middle = 1 + _BOX / 2
        parts.append(_arrow(middle, y, middle, y + height))
        if lines:
            top = y + (height - len(lines) * _LINE - 16) / 2
            parts.append(_arrow(middle, y + height / 2, _BOX + 40, y + height / 2))
            parts.append(_box(_BOX + 40, top, _SIDE, lines))
        y += height
    told = "; ".join(f"{s.n} {s.what}" for s in steps)
    wide = _BOX + 2 + (40 + _SIDE if any(out) else 0)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {y + 2:.0f}" role="img" class="flow" '
        f'style="max-width: {wide}px" '
        'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="13" fill="#22262b" '
        'aria-labelledby="flow-title flow-desc"><title id="flow-title">Flow of patients</title>'
        f'<desc id="flow-desc">{html.escape(told)}</desc>'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="#5c636b"/></marker></defs>{"".join(parts)}</svg>'
    )
    return Figure(
        name, svg, pd.DataFrame([(s.kind, s.what, s.n) for s in steps], columns=["kind", "what", "n"]), caption
    )


def _box(x: float, y: float, width: float, lines: Sequence[str], bold: bool = False) -> str:
    text = "".join(
        f'<text x="{x + 12:.0f}" y="{y + 8 + _LINE * (i + 0.72):.1f}" font-weight="{650 if bold and i == 0 else 400}">'
        f"{html.escape(_cut(line, width))}</text>"
        for i, line in enumerate(lines)
    )
    height = len(lines) * _LINE + 16
    fill = "#f5f6f7" if bold else "#fff"
    return f'<rect x="{x}" y="{y:.1f}" width="{width}" height="{height}" rx="4" fill="{fill}" stroke="#9aa0a6"/>{text}'


def _cut(line: str, width: float) -> str:
    most = int((width - 24) / 6.6)  # px a letter at 13 px
    return line if len(line) <= most else line[: most - 1] + "…"


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#5c636b" stroke-width="1.2" '
        'marker-end="url(#tip)"/>'
    )
