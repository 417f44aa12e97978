"""How the scores of a slide's tiles are spread: over few tiles or many, in patches or scattered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from nsclc_mtl.metrics.score import Score

REACH = 1.25  # of a grid step: sizes in level-0 pixels are rounded, and the rows of a hexagonal grid are nearer
_BLOCK = 32  # permutations at once


def entropy(weights: np.ndarray) -> Score:
    """Shannon's entropy of the weights' shares divided by its largest value, log n: 0 one tile has all, 1 all alike.

    >>> float(entropy(np.array([1.0, 1.0, 1.0, 1.0]))), float(entropy(np.array([2.0, 0.0])))
    (1.0, 0.0)
    """
    share = _shares(weights)
    if isinstance(share, Score):
        return share
    if len(share) < 2:
        return Score.missing("one tile only")
    some = share[share > 0]
    return Score(abs(float(-(some * np.log(some)).sum() / np.log(len(share)))))


def effective_tiles(weights: np.ndarray) -> Score:
    """How many tiles of equal weight would be as concentrated: 1 / sum of squared shares (Hill, Ecology 1973, order 2).

    >>> float(effective_tiles(np.array([1.0, 1.0, 0.0])))
    2.0
    """
    share = _shares(weights)
    return share if isinstance(share, Score) else Score(float(1.0 / (share**2).sum()))


@dataclass(frozen=True)
class Moran:
    """Moran's I of the scores, what it is expected to be without any pattern, and how often chance reaches it."""

    value: Score
    expected: float  # -1 / (n - 1), of one slide
    p: Score  # one-sided, for neighbours that are alike: (1 + permutations at least as large) / (1 + permutations)


def neighbours(coords: np.ndarray) -> np.ndarray:
    """int64 [pair, 2]: tiles of the grid that touch, by an edge or a corner (8 of a square grid, 6 of a hexagonal one).

    `coords` [tile, 2] in level-0 pixels. The step of the grid is the median distance to the nearest tile, so that tiles
    that overlap have the neighbours of their own grid. Tiles of the same place are no neighbours of one another.
    """
    coords = np.asarray(coords, np.int64)
    places = np.unique(coords, axis=0)
    if len(places) < 2:
        return np.zeros((0, 2), np.int64)
    nearest = cKDTree(places).query(places, k=2, p=np.inf)[0][:, 1]
    reach = REACH * float(np.median(nearest))
    pairs = cKDTree(coords).query_pairs(reach, p=np.inf, output_type="ndarray").astype(np.int64)
    return pairs[(coords[pairs[:, 0]] != coords[pairs[:, 1]]).any(axis=1)]


def moran(
    scores: np.ndarray, pairs: np.ndarray, permutations: int = 199, seed: int = 0, slide: np.ndarray | None = None
) -> Moran:
    """Moran's I (Biometrika 1950) of scores [tile] over pairs of neighbours [pair, 2], each pair with the weight 1.

    I = n / (2 m) * sum over ordered pairs of (x_i - mean)(x_j - mean) / sum of (x_i - mean)^2, with m pairs. Without a
    pattern it is -1 / (n - 1) on average; P from permuting the scores over the tiles.

    slide: [tile] numbers of the slides on which several slides' tiles lie: I is pooled within them, each mean that of
    the slide and scores permuted within it, so that slides which differ in level make no pattern. Slides without a pair
    are left out. Without a pattern it is -n / m * sum of m_s V_s / (n_s (n_s - 1)) / sum of V_s on average, with V_s
    the sum of squares of a slide.
    """
    x = np.asarray(scores, float)
    if slide is not None and len(pairs):
        some = np.isin(slide, slide[pairs[:, 0]])
        x, slide, pairs = x[some], slide[some], (np.cumsum(some) - 1)[pairs]
    of = np.zeros(len(x), np.int64) if slide is None else np.unique(slide, return_inverse=True)[1]
    blocks = [np.flatnonzero(of == k) for k in np.unique(of)]
    n, m = len(x), len(pairs)
    centred = x.copy()
    for block in blocks:
        centred[block] -= x[block].mean()
    spread = float(centred @ centred)
    expected = -1.0 / (n - 1) if n > 1 and len(blocks) == 1 else float("nan")
    if m == 0 or not spread > 1e-24 * max(1e-300, float(x @ x)):
        reason = "no tile has a neighbour" if m == 0 else "all scores are the same"
        return Moran(Score.missing(reason), expected, Score.missing(reason))
    near = sparse.csr_matrix((np.ones(m), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    scale = n / (m * spread)  # ordered pairs are twice the pairs, above and below
    value = scale * float(centred @ (near @ centred))
    if len(blocks) > 1:
        within = np.bincount(of[pairs[:, 0]], minlength=len(blocks))
        each = zip(within, blocks, strict=True)
        expected = -float(scale * sum(k * (centred[b] ** 2).sum() / (len(b) * (len(b) - 1)) for k, b in each))
    rng = np.random.Generator(np.random.PCG64([seed, 501]))
    reached = 0
    for start in range(0, permutations, _BLOCK):
        many = min(_BLOCK, permutations - start)
        mixed = np.empty((n, many))
        for order in range(many):
            for block in blocks:
                mixed[block, order] = rng.permutation(centred[block])
        by_chance = scale * np.einsum("tp,tp->p", mixed, near @ mixed)
        reached += int((by_chance >= value - 1e-12).sum())
    p = Score((1 + reached) / (1 + permutations)) if permutations else Score.missing("no permutations")
    return Moran(Score(value), expected, p)


def _shares(weights: np.ndarray) -> np.ndarray | Score:
    weights = np.asarray(weights, float)
    total = float(weights.sum())
    if not total > 0 or (weights < 0).any():
        return Score.missing("no tile has a weight")
    return weights / total
