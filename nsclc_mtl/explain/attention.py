"""Maps of a slide as pictures: scores over the H&E, and the tiles with the highest and the lowest.

Attention is a pooling weight, not influence; the caller says in `what` which of the two the scores are.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from nsclc_mtl.explain.region import OPACITY, grey, paint
from nsclc_mtl.explain.tile_scores import MAP, SCALES, Scale, checked, percentiles, span, words_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nsclc_mtl.slides.reader import Slide

SAYS = {
    "attention": "weight of a tile in the slide's embedding: where the model looked, the same for every task",
    "influence": "attention × size of the score's gradient: how much a tile can move the score, not in which direction",
}
SPLIT = "split"  # key of the PNG's text: where, as a share of its width, the slide ends and the map begins
_MID_GREY = 0.5


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
    highest: float | None = None,
) -> None:
    """PNG at `path`: the slide beside the same slide under its scores, with colour bar and scale bar.

    `thumbnail` uint8 [h, w, 3], one pixel = `level0_per_px` level-0 pixels; `coords` [tile, 2] and `size_level0` in
    level-0 pixels; `scores` [tile]. `legend` says whether ranks within the slide or raw values are shown, and the
    colour bar repeats it; raw values have the colours from 0 to `highest`, of all slides that are to be compared
    (without: of this one). `um_per_px` is the scale of the thumbnail (without: no scale bar). The PNG's text `split`
    says where the map begins. Raises DataFault if empty.
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
    norm = Normalize(*span(raw, legend, highest))
    layer = colormaps[MAP](norm(np.nan_to_num(painted, nan=0.0)))
    layer[..., 3] = np.where(np.isnan(painted), 0.0, OPACITY)

    aspect = glass.shape[1] / glass.shape[0]
    height = float(np.clip(8.0 / max(aspect, 0.35), 3.0, 7.0))
    wide = 2 * height * aspect + 1.4
    points = max(9.0, 0.8 * wide)  # letters keep their size on a page, however wide the picture is
    letters = int(0.42 * wide * 72 / (0.5 * points))  # in a line below one of the two
    figure = Figure(figsize=(wide, height + 0.5), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    for axes, below in ((left, glass), (right, grey(glass))):
        axes.imshow(below, interpolation="auto")
        axes.set_axis_off()
    left.set_title("slide", fontsize=points, loc="left")
    right.set_title(f"{words_of(what)}, {len(coords):,} tiles", fontsize=points, loc="left")
    right.imshow(layer, interpolation="nearest")
    bar = figure.colorbar(ScalarMappable(norm, _as_laid()), ax=right, fraction=0.045, pad=0.02, format="%.3g")
    bar.set_label(f"{words_of(what)}, {SCALES[legend]}", fontsize=points)
    bar.ax.tick_params(labelsize=points)
    if said := SAYS.get(what.partition(":")[0]):
        told = textwrap.fill(said, letters)
        right.text(0, -0.02, told, transform=right.transAxes, va="top", fontsize=0.9 * points, color="#4a4f55")
    if title:
        figure.suptitle(textwrap.fill(title, letters), fontsize=points, x=0.01, ha="left")
    if um_per_px:
        for axes in (left, right):
            scale_bar(axes, glass.shape[1], glass.shape[0], um_per_px, points)
    figure.draw_without_rendering()  # places are known once it is laid out
    split = (left.get_position().x1 + right.get_position().x0) / 2
    _save(figure, path, {SPLIT: f"{split:.4f}"})


def _as_laid() -> ListedColormap:
    """The colours as they look on the map: as opaque as there, over mid grey."""
    colours = colormaps[MAP](np.linspace(0, 1, 256))
    colours[:, :3] = OPACITY * colours[:, :3] + (1 - OPACITY) * _MID_GREY
    return ListedColormap(colours)


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
            axes.set_title(f"{shown[tile]:.3g} (p{rank[tile]:.0f})", fontsize=9, pad=2)
            if column == 0:
                axes.set_ylabel(word if title else f"{word} {words_of(what)}", fontsize=9)
                scale_bar(axes, tile_px, tile_px, um_per_px, fontsize=8)
    if title:
        note = "raw score (percentile within the slide)"
        figure.suptitle(f"{title}; {note}", fontsize=10, x=0.01, ha="left")
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


def _save(figure: Figure, path: Path, text: dict[str, str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    figure.savefig(aside, format="png", dpi=120, metadata=text)
    aside.replace(path)
