"""Maps of a slide as pictures: scores over the H&E, and the tiles with the highest and the lowest.

Attention is a pooling weight, not influence; the caller says in `what` which of the two the scores are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from nsclc_mtl.explain.region import OPACITY, grey, paint
from nsclc_mtl.explain.tile_scores import MAP, Scale, checked, percentiles, words_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nsclc_mtl.slides.reader import Slide

SAYS = {
    "attention": "weight of a tile in the slide's embedding: where the model looked, the same for every task",
    "influence": "attention × size of the score's gradient: how much a tile can move the score, not in which direction",
}


def heatmap(
    thumbnail: np.ndarray,
    coords: np.ndarray,
    scores: np.ndarray,
    size_level0: int,
    level0_per_px: float,
    path: Path,
    title: str = "",
    legend: Scale = "percentile",
    what: str = "attention",
    um_per_px: float | None = None,
) -> None:
    """PNG at `path`: the slide beside the same slide under its scores, with colour bar and scale bar.

    `thumbnail` uint8 [h, w, 3], one pixel = `level0_per_px` level-0 pixels; `coords` [tile, 2] and `size_level0` in
    level-0 pixels; `scores` [tile]. `legend` says whether ranks within the slide or raw values are shown, and the
    colour bar repeats it. `um_per_px` is the scale of the thumbnail (without: no scale bar). Raises DataFault if empty.
    """
    coords, raw = checked(coords, scores)
    shown = percentiles(raw) if legend == "percentile" else raw
    # The picture keeps to the tiles and some glass around them: most of a slide can be empty.
    h, w = thumbnail.shape[:2]
    margin = 0.04 * max(np.ptp(coords, axis=0).max() + size_level0, 4 * size_level0)
    x0, y0 = np.floor((coords.min(axis=0) - margin) / level0_per_px).astype(int).clip(0)
    x1, y1 = np.ceil((coords.max(axis=0) + size_level0 + margin) / level0_per_px).astype(int)
    x1, y1 = min(int(x1), w), min(int(y1), h)
    glass = thumbnail[y0:y1, x0:x1]
    painted = paint((h, w), coords / level0_per_px, shown, size_level0 / level0_per_px)[y0:y1, x0:x1]
    norm = Normalize(0, 100) if legend == "percentile" else Normalize(float(shown.min()), float(shown.max()) or 1.0)
    layer = colormaps[MAP](norm(np.nan_to_num(painted, nan=0.0)))
    layer[..., 3] = np.where(np.isnan(painted), 0.0, OPACITY)

    aspect = glass.shape[1] / glass.shape[0]
    height = float(np.clip(8.0 / max(aspect, 0.35), 3.0, 7.0))
    figure = Figure(figsize=(2 * height * aspect + 1.4, height + 0.5), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    for axes, below in ((left, glass), (right, grey(glass))):
        axes.imshow(below, interpolation="auto")
        axes.set_axis_off()
    left.set_title("slide", fontsize=9, loc="left")
    right.set_title(f"{words_of(what)}, {len(coords):,} tiles", fontsize=9, loc="left")
    right.imshow(layer, interpolation="nearest")
    scale = "percentile of the slide's tiles" if legend == "percentile" else "raw score"
    bar = figure.colorbar(ScalarMappable(norm, MAP), ax=right, fraction=0.045, pad=0.02)
    bar.set_label(f"{words_of(what)}, {scale}", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    if said := SAYS.get(what.partition(":")[0]):
        figure.supxlabel(said, fontsize=8, x=0.01, ha="left", color="#4a4f55")
    if title:
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    if um_per_px:
        for axes in (left, right):
            scale_bar(axes, glass.shape[1], glass.shape[0], um_per_px)
    _save(figure, path)


def top_tiles(
    slide: Slide,
    coords: np.ndarray,
    scores: np.ndarray,
    size_level0: int,
    path: Path,
    k: int = 8,
    tile_px: int = 224,
    what: str = "attention",
    title: str = "",
) -> None:
    """PNG at `path`: the `k` tiles with the highest scores over the `k` with the lowest, each with its score."""
    coords, shown = checked(coords, scores)
    rank = percentiles(shown)
    order = np.argsort(-shown, kind="stable")
    k = min(k, max(1, (len(order) + 1) // 2)) if len(order) > 1 else 1
    rows = [("highest", order[:k]), ("lowest", order[::-1][:k])] if len(order) > 1 else [("only", order)]
    figure = Figure(figsize=(1.35 * k + 0.3, 1.6 * len(rows) + 0.1), layout="constrained", facecolor="white")
    grid = np.asarray(figure.subplots(len(rows), k, squeeze=False))
    um_per_px = size_level0 * slide.mpp / tile_px
    for row, (word, chosen) in enumerate(rows):
        for column in range(k):
            axes = grid[row, column]
            axes.set_xticks([])
            axes.set_yticks([])
            if column >= len(chosen):
                axes.set_axis_off()
                continue
            tile = int(chosen[column])
            x, y = (int(v) for v in coords[tile])
            axes.imshow(slide.read(x, y, size_level0, tile_px))
            axes.set_title(f"{shown[tile]:.3g} (p{rank[tile]:.0f})", fontsize=7, pad=2)
            if column == 0:
                axes.set_ylabel(word if title else f"{word} {words_of(what)}", fontsize=8)
                scale_bar(axes, tile_px, tile_px, um_per_px, fontsize=6)
    if title:
        note = "raw score (percentile within the slide)"
        figure.suptitle(f"{title}; {note}", fontsize=8.5, x=0.01, ha="left")
    _save(figure, path)


def scale_bar(axes: Axes, width_px: int, height_px: int, um_per_px: float, fontsize: float = 8) -> None:
    """Draws a bar of a round length (1, 2 or 5 times a power of ten) with its length in um or mm, lower left."""
    wanted = 0.25 * width_px * um_per_px
    power = 10.0 ** np.floor(np.log10(wanted))
    length_um = power * max(step for step in (1, 2, 5) if step * power <= wanted)
    text = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    x, y = 0.04 * width_px, 0.96 * height_px
    end = x + length_um / um_per_px
    for colour, thick in (("white", 5.0), ("black", 2.5)):
        axes.plot([x, end], [y, y], color=colour, linewidth=thick, solid_capstyle="butt")
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0}
    axes.text((x + end) / 2, y - 0.02 * height_px, text, ha="center", va="bottom", fontsize=fontsize, bbox=box)
    axes.set_xlim(-0.5, width_px - 0.5)
    axes.set_ylim(height_px - 0.5, -0.5)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    figure.savefig(aside, format="png", dpi=120)
    aside.replace(path)
