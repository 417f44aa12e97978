"""Concordance over pairs of patients for every bootstrap draw, exact, in bounded memory.

Two groups, or few grades, are counted by ranks: cumulative sums of the weights in the order of the scores, O(n) a draw.
Pairs of survivors are counted in blocks of events: who has been outlived is a suffix of the patients sorted by time,
so each block of comparisons (0, 1/2 or 1) is multiplied with the weights of all draws at once. Products of such numbers
with whole weights are exact in single precision up to 2^22 patients; sums over blocks are in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nsclc_mtl.metrics.measure import Measure, grouped, in_parts, levels

_BLOCK = 4_000_000  # comparisons held at a time
_DRAWS = 4_000_000  # weights held at a time
_GRADES = 16  # as many classes are counted by ranks, more by blocks
_EXACT = 2**22


def classes_in_order(label: np.ndarray, score: np.ndarray) -> Measure:
    """Ordinal AUC (with two classes: the AUC). label, score: [n]; ties in the score count 1/2."""
    grades = np.unique(label)
    if len(grades) > _GRADES:
        return survivors_in_order(score, -label, np.ones(len(label)))
    return _by_ranks(score, [((label == k).astype(float), (label < k).astype(float)) for k in grades[1:]])


def two_in_order(score: np.ndarray, high: np.ndarray, low: np.ndarray) -> Measure:
    """Share of pairs in which who counts as `high` scores above who counts as `low`; ties count 1/2.

    high, low: [n] weights, not negative; nobody has both.
    """
    return _by_ranks(score, [(high, low)])


def survivors_in_order(
    risk: np.ndarray, time: np.ndarray, event: np.ndarray, weight: np.ndarray | None = None
) -> Measure:
    """Harrell's C, or Uno's with its weights of the events. risk, time, event, weight: [n]."""
    if np.isnan(risk).any():
        return _nothing
    rank = np.unique(risk, return_inverse=True)[1].astype(np.float32)

    def won(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return _won(rank[rows][:, None], rank[columns])

    return _by_blocks(time, event, np.ones(len(time)) if weight is None else weight, won)


def curves_in_order(survival: np.ndarray, days: np.ndarray, time: np.ndarray, event: np.ndarray) -> Measure:
    """Antolini's C: what `concordance.antolini_c` says. survival: [n, days], no day twice; time, event: [n]."""
    if np.isnan(survival).any():
        return _nothing
    knots, curves = np.r_[0.0, days], np.c_[np.ones(len(survival)), survival]
    right = np.clip(np.searchsorted(knots, time, side="left"), 1, len(days))
    share = np.clip((time - knots[right - 1]) / (knots[right] - knots[right - 1]), 0.0, 1.0)

    def won(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        def at(who: np.ndarray) -> np.ndarray:  # survival at the times of the rows: [row, who]
            before, after = curves[who][:, right[rows] - 1], curves[who][:, right[rows]]
            return np.asarray(((1 - share[rows]) * before + share[rows] * after).T)  # at a knot ties stay ties

        return _won(at(columns), np.diagonal(at(rows))[:, None])

    return _by_blocks(time, event, np.ones(len(time)), won)


def _won(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """1 where mine is above theirs, 1/2 where they are equal, else 0. float32."""
    return ((mine > theirs).astype(np.float32) + (mine >= theirs)) * np.float32(0.5)


def _nothing(weights: np.ndarray) -> np.ndarray:
    return np.full(len(weights), np.nan)


def _by_ranks(score: np.ndarray, sides: Sequence[tuple[np.ndarray, np.ndarray]]) -> Measure:
    """Pairs of high and low, summed over the (high, low) of `sides`."""
    if np.isnan(score).any():
        return _nothing
    order, starts = levels(score)
    ordered = [(high[order], low[order]) for high, low in sides]

    def some(weights: np.ndarray) -> np.ndarray:
        drawn = weights[:, order].astype(float)
        top, bottom = np.zeros(len(drawn)), np.zeros(len(drawn))
        for high, low in ordered:
            under = grouped(drawn * low, starts)
            over = grouped(drawn * high, starts)
            reached = np.cumsum(under, axis=1)
            bottom += over.sum(axis=1) * reached[:, -1]
            reached -= under / 2  # a tie is half a win
            top += np.einsum("bg,bg->b", over, reached)
        return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)

    return lambda weights: in_parts(some, weights)


def _by_blocks(
    time: np.ndarray,
    event: np.ndarray,
    weight: np.ndarray,
    won: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Measure:
    """Weighted share of comparable pairs that are won. won: patients [row], [column] -> float32 [row, column]."""
    n = len(time)
    order = np.lexsort((1 - event, time))  # at a tied time events come first: the censored outlived them
    when, happened = time[order], event[order] == 1
    # what an event is compared with: everybody from here on
    deaths = when[happened]
    begins = np.searchsorted(when, when, "left") + (
        np.searchsorted(deaths, when, "right") - np.searchsorted(deaths, when, "left")
    )
    rows = np.flatnonzero(happened & (weight[order] > 0) & (begins < n))
    height = max(16, _BLOCK // max(n, 1))

    def some(weights: np.ndarray) -> np.ndarray:
        drawn = np.ascontiguousarray(weights[:, order].T)
        top, bottom = np.zeros(len(weights)), np.zeros(len(weights))
        whole = drawn.dtype.kind in "iu" or np.array_equal(drawn, np.rint(drawn))
        whole = whole and drawn.sum(axis=0).max(initial=0) < _EXACT
        kind = np.dtype(np.float32 if whole else np.float64)
        counted = drawn.astype(kind)
        left = np.zeros((n + 1, len(weights)))
        left[:n] = np.cumsum(drawn[::-1], axis=0)[::-1]
        for k in range(0, len(rows), height):
            here = rows[k : k + height]
            first = begins[here[0]]
            block = won(order[here], order[first:])
            block *= np.arange(first, n) >= begins[here][:, None]
            mine = drawn[here] * weight[order[here]][:, None]
            with np.errstate(all="ignore"):  # both are finite; BLAS may leave flags of lanes that it only pads with
                ahead: np.ndarray = np.matmul(block.astype(kind, copy=False), counted[first:])
            top += np.einsum("rb,rb->b", mine, ahead)
            bottom += np.einsum("rb,rb->b", mine, left[begins[here]])
        return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)

    def measure(weights: np.ndarray) -> np.ndarray:
        return in_parts(some, weights, _DRAWS)

    return measure
