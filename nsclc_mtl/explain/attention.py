"""Where on the slide the model looked: a map over the H&E, its highest and lowest tiles, files for QuPath and tables.

Attention is a pooling weight, not influence; the caller says in `what` which of the two the scores are.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from nsclc_mtl.records import DataFault
from nsclc_mtl.slides import geojson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nsclc_mtl.slides.reader import Slide

MAP = "cividis"  # perceptually uniform, and the same to readers with a colour vision deficiency (Nunez et al. 2018)
Scale = Literal["percentile", "raw"]


def percentiles(scores: np.ndarray) -> np.ndarray:
    """float64 [tile]: rank of each score within the slide, 0 lowest to 100 highest, ties share their mean.

    >>> percentiles(np.array([.1, .9, .4])).tolist()
    [0.0, 100.0, 50.0]
    """
    values, inverse, counts = np.unique(np.asarray(scores, float), return_inverse=True, return_counts=True)
    if len(values) == 1:
        return np.full(len(scores), 50.0)
    middle = np.cumsum(counts) - (counts + 1) / 2
    return (100.0 * middle / (len(scores) - 1))[inverse]


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
    coords, shown = _checked(coords, scores, legend)
    # The picture keeps to the tiles and some glass around them: most of a slide can be empty.
    h, w = thumbnail.shape[:2]
    margin = 0.04 * max(np.ptp(coords, axis=0).max() + size_level0, 4 * size_level0)
    x0, y0 = np.floor((coords.min(axis=0) - margin) / level0_per_px).astype(int).clip(0)
    x1, y1 = np.ceil((coords.max(axis=0) + size_level0 + margin) / level0_per_px).astype(int)
    x1, y1 = min(int(x1), w), min(int(y1), h)
    glass = thumbnail[y0:y1, x0:x1]
    painted = _paint((h, w), coords / level0_per_px, shown, size_level0 / level0_per_px)[y0:y1, x0:x1]
    norm = Normalize(0, 100) if legend == "percentile" else Normalize(float(shown.min()), float(shown.max()) or 1.0)
    layer = colormaps[MAP](norm(np.nan_to_num(painted, nan=0.0)))
    layer[..., 3] = np.where(np.isnan(painted), 0.0, 0.55)

    aspect = glass.shape[1] / glass.shape[0]
    height = float(np.clip(8.0 / max(aspect, 0.35), 3.0, 7.0))
    figure = Figure(figsize=(2 * height * aspect + 1.4, height + 0.5), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.imshow(glass, interpolation="auto")
        axes.set_axis_off()
    left.set_title("slide", fontsize=9, loc="left")
    right.set_title(f"{what}, {len(coords)} tiles", fontsize=9, loc="left")
    right.imshow(layer, interpolation="nearest")
    label = f"{what} ({'percentile within the slide' if legend == 'percentile' else 'raw'})"
    bar = figure.colorbar(ScalarMappable(norm, MAP), ax=right, fraction=0.045, pad=0.02)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
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
) -> None:
    """PNG at `path`: the `k` tiles with the highest scores over the `k` with the lowest, each with its score."""
    coords, shown = _checked(coords, scores, "raw")
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
                axes.set_ylabel(f"{word} {what}", fontsize=8)
                scale_bar(axes, tile_px, tile_px, um_per_px, fontsize=6)
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


def qupath(path: Path, coords: np.ndarray, scores: np.ndarray, size_level0: int, what: str = "attention") -> None:
    """GeoJSON at `path`: every tile as a QuPath tile with its raw score and percentile, coloured by percentile."""
    coords, shown = _checked(coords, scores, "raw")
    rank = percentiles(shown)
    colours = (colormaps[MAP](rank / 100.0)[:, :3] * 255).round().astype(int)
    tiles = []
    for (x, y), score, percentile, (red, green, blue) in zip(
        coords.tolist(), shown.tolist(), rank.tolist(), colours.tolist(), strict=True
    ):
        numbers = {what: score, f"{what} percentile": round(percentile, 2)}
        tiles.append(geojson.tile(x, y, size_level0, numbers, (red, green, blue)))
    geojson.write(path, tiles)


def table(path: Path, coords: np.ndarray, scores: np.ndarray, size_level0: int, what: str = "attention") -> None:
    """CSV at `path`: x, y and size in level-0 pixels, raw score and percentile, one row a tile."""
    coords, shown = _checked(coords, scores, "raw")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["x", "y", "size_level0", what, f"{what}_percentile"])
        for (x, y), score, rank in zip(coords.tolist(), shown.tolist(), percentiles(shown).tolist(), strict=True):
            writer.writerow([x, y, size_level0, f"{score:.9g}", f"{rank:.2f}"])
    aside.replace(path)


def _checked(coords: np.ndarray, scores: np.ndarray, legend: str) -> tuple[np.ndarray, np.ndarray]:
    coords, scores = np.asarray(coords), np.asarray(scores, float).ravel()
    if len(coords) == 0 or len(coords) != len(scores):
        raise DataFault(f"a map needs one score a tile, not {len(scores)} scores for {len(coords)} tiles")
    if not np.isfinite(scores).all():
        raise DataFault(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} tile scores are NaN or Inf; no map is drawn"
        )
    return coords, percentiles(scores) if legend == "percentile" else scores


def _paint(shape: tuple[int, int], corners: np.ndarray, values: np.ndarray, size: float) -> np.ndarray:
    """float64 [h, w]: mean of the tiles that cover each pixel, NaN where none does."""
    total, count = np.zeros(shape), np.zeros(shape)
    for (x, y), value in zip(corners, values, strict=True):
        place = np.s_[
            max(0, round(y)) : max(round(y) + 1, round(y + size)), max(0, round(x)) : max(round(x) + 1, round(x + size))
        ]
        total[place] += value
        count[place] += 1
    return np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    figure.savefig(aside, format="png", dpi=120)
    aside.replace(path)
