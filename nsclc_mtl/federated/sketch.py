"""Where values lie, told by counts of which none stands on fewer patients than agreed.

A site lays its values on a grid that all sites share, and joins neighbouring cells until each stands on at least
`least` patients. Quantiles of all sites' values, and a made-up sample that is spread like them, follow from the sums.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

CELLS = 128


def normal_grid(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Edges [cell + 1, column] of cells that a normal of this mean and SD fills alike; the outer ones end at 6 SD."""
    inner = norm.ppf(np.arange(1, CELLS) / CELLS)
    edges = np.concatenate([[-6.0], inner, [6.0]])
    return np.asarray(mean) + edges[:, None] * np.maximum(np.asarray(sd), 1e-12)


def even_grid(last: float) -> np.ndarray:
    """Edges [cell + 1] of equal cells from 0 to `last`."""
    return np.linspace(0.0, float(last), CELLS + 1)


def joined(values: np.ndarray, edges: np.ndarray, least: int) -> np.ndarray:
    """Values a cell, float [cell]: neighbours joined until they hold `least`, and their number spread evenly over them.

    Values beyond the edges count in the outer cells. All 0 where there are fewer than `least` values, so that the sum
    is the number of values or 0.

    >>> joined(np.array([0.5, 0.6, 2.5]), np.arange(5.0), 3).tolist()
    [0.75, 0.75, 0.75, 0.75]
    >>> joined(np.array([0.5, 0.6]), np.arange(5.0), 3).tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    cells = len(edges) - 1
    at = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, cells - 1)
    count = np.bincount(at, minlength=cells).astype(float)
    if count.sum() < least:
        return np.zeros(cells)
    starts, held = [0], 0.0
    for cell in range(cells):
        held += count[cell]
        if held >= least and count[cell + 1 :].sum() >= least:
            starts.append(cell + 1)
            held = 0.0
    out = np.zeros(cells)
    for begin, end in zip(starts, [*starts[1:], cells], strict=True):
        out[begin:end] = count[begin:end].sum() / (end - begin)
    return out


def quantile(edges: np.ndarray, counts: np.ndarray, share: float) -> float:
    """The value below which this share lies, values of a cell lying evenly in it; NaN without any."""
    total = counts.sum()
    if total <= 0:
        return float("nan")
    below = np.concatenate([[0.0], np.cumsum(counts)])
    cell = int(np.clip(np.searchsorted(below, share * total, side="right") - 1, 0, len(counts) - 1))
    while counts[cell] <= 0 and cell > 0:
        cell -= 1
    inside = (share * total - below[cell]) / counts[cell]
    return float(edges[cell] + np.clip(inside, 0.0, 1.0) * (edges[cell + 1] - edges[cell]))


def sample(edges: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """As many values as were counted, spread as the counts say: what is fitted to labels is fitted to these."""
    n = round(float(counts.sum()))
    return np.array([quantile(edges, counts, (i + 0.5) / n) for i in range(n)])
