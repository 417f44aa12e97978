"""The numbers behind the maps of a slide, all of them in one file: CSV for tables, GeoJSON for QuPath.

A map is called `attention` (a pooling weight: where the model looked) or `influence:<task>` (how far a small change of
the tile would move the task's score).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib import colormaps

from nsclc_mtl.records import DataFault
from nsclc_mtl.slides import geojson

MAP = "cividis"  # perceptually uniform, and the same to readers with a colour vision deficiency (Nunez et al. 2018)
Scale = Literal["percentile", "raw"]
SCALES: dict[Scale, str] = {
    "percentile": "percentile of the slide's tiles",
    "raw": "raw score, from 0 to the highest of the patient's slides",
}
"""What the colours of a map say, in words."""


def words_of(what: str) -> str:
    """The name of a map as a reader takes it.

    >>> words_of("influence:grade"), words_of("attention")
    ('influence on grade', 'attention')
    """
    kind, _, task = what.partition(":")
    return f"{kind} on {task}" if task else kind


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


def span(scores: np.ndarray, legend: Scale, highest: float | None = None) -> tuple[float, float]:
    """The values that have the first and the last colour. Raw scores begin at 0, so that those which are nearly alike
    look alike, and end with `highest`, one for all slides that are to be compared (without: of these scores).

    >>> span(np.array([0.02, 0.03]), "raw"), span(np.array([0.02, 0.03]), "raw", highest=0.05)
    ((0.0, 0.03), (0.0, 0.05))
    """
    if legend == "percentile":
        return 0.0, 100.0
    most = float(scores.max()) if highest is None else float(highest)
    return 0.0, most if most > 0 else 1.0


def checked(coords: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates [tile, 2] and scores float64 [tile]. Raises DataFault where they do not match or are NaN."""
    coords, scores = np.asarray(coords), np.asarray(scores, float).ravel()
    if len(coords) == 0 or len(coords) != len(scores):
        raise DataFault(f"a map needs one score a tile, not {len(scores)} scores for {len(coords)} tiles")
    if not np.isfinite(scores).all():
        raise DataFault(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} tile scores are NaN or Inf; no map is drawn"
        )
    return coords, scores


def table(path: Path, coords: np.ndarray, size_level0: int, maps: Mapping[str, np.ndarray]) -> None:
    """CSV at `path`, one row a tile: x, y and size in level-0 pixels, then every map raw and as percentile."""
    coords, columns = _columns(coords, maps)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["x", "y", "size_level0", *(name for what in columns for name in (what, f"{what}_percentile"))])
        numbers = np.stack([part for pair in columns.values() for part in pair], axis=1).tolist()
        form = ",".join(["%.9g,%.2f"] * len(columns))
        for (x, y), row in zip(coords.tolist(), numbers, strict=True):
            file.write(f"{x},{y},{size_level0},{form % tuple(row)}\n")
    aside.replace(path)


def qupath(path: Path, coords: np.ndarray, size_level0: int, maps: Mapping[str, np.ndarray]) -> None:
    """GeoJSON at `path`: every tile as a QuPath tile with the score and percentile of every map as its measurements.

    It is coloured by the percentile of the first map; QuPath's measurement maps show any of them.
    """
    coords, columns = _columns(coords, maps)
    _, first = next(iter(columns.values()))
    colours = (colormaps[MAP](first / 100.0)[:, :3] * 255).round().astype(int).tolist()
    names = [name for what in map(words_of, columns) for name in (what, f"{what} percentile")]
    numbers = np.stack([part for pair in columns.values() for part in pair], axis=1)
    numbers[:, 1::2] = numbers[:, 1::2].round(2)
    geojson.write(
        path,
        (
            geojson.tile(x, y, size_level0, dict(zip(names, row, strict=True)), (red, green, blue))
            for (x, y), row, (red, green, blue) in zip(coords.tolist(), numbers.tolist(), colours, strict=True)
        ),
    )


def _columns(
    coords: np.ndarray, maps: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Coordinates, and the raw scores and percentiles of each map."""
    columns = {}
    for what, scores in maps.items():
        coords, raw = checked(coords, scores)
        columns[what] = raw, percentiles(raw)
    return coords, columns
