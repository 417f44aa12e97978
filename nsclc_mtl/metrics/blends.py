"""Weighted sums of the concordances of many scores on the same patients, each as one `Measure`.

The pairs that count do not depend on the score, so a sum of concordances is one quadratic form like each of them: an
average over a hundred permutations, or a Shapley value over 64 coalitions, costs a bootstrap no more than one AUC.
"""

from __future__ import annotations

import numpy as np

from nsclc_mtl.metrics.comparison import Measure

_ROWS = 512


def blends(scores: np.ndarray, mix: np.ndarray, compared: np.ndarray) -> list[Measure]:
    """sum_k mix[m, k] * concordance of scores[k], one measure a row of `mix`; ties in a score count 1/2.

    scores [k, n]; mix [m, k]; compared [n, n], true (or a weight) where i must score above j. A NaN score is never
    above another: patients without one belong to no pair of `compared`.
    """
    total, n = scores.shape
    won = np.zeros((len(mix), n, n), dtype=np.float32)
    mix = mix.astype(np.float32)
    for start in range(0, n, _ROWS):
        rows = slice(start, start + _ROWS)
        for k in range(total):
            mine = scores[k, rows, None]
            above = (mine > scores[k]) + np.float32(0.5) * (mine == scores[k])
            for m in np.flatnonzero(mix[:, k]):
                won[m, rows] += mix[m, k] * above
    pairs = compared.astype(np.float32)
    won *= pairs
    return [_quotient(own, pairs) for own in won]


def _quotient(won: np.ndarray, pairs: np.ndarray) -> Measure:
    def measure(weights: np.ndarray) -> np.ndarray:
        w = weights.astype(np.float32)
        # in float64: sums of n^2 pair counts outgrow float32
        top = np.einsum("bi,bi->b", (w @ won).astype(float), weights)
        bottom = np.einsum("bi,bi->b", (w @ pairs).astype(float), weights)
        return np.divide(top, bottom, out=np.full(len(w), np.nan), where=bottom > 0)

    return measure
