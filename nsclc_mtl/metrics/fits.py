"""Small logistic and Cox regressions of many bootstrap samples at once.

A sample is how often each patient was drawn: weights [draw, n], whole numbers. All samples are fitted together by
Newton's method; a row of NaN says that a sample has no finite maximum (one outcome only, perfectly separated).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

_STEPS = 100
_SMALL = 1e-10  # a step below this, in standard deviations of the covariates, is the end
_FAR = 1e4  # no step is longer, in standard deviations: columns that are almost alike need long ones
_CERTAIN = 35.0  # logit of a probability that is 0 or 1 in double precision
_HELD = 1e-9  # information per patient, along the least known direction, of a fit that has a finite maximum
_OVERSHOT = 0.5  # a step after which the likelihood falls by more than this share of its first slope is halved
_CELLS = 1_000_000  # samples times patients fitted at once: bounds memory at any cohort size
_FLAT = 1e-14  # information per patient below which the likelihood has no curvature left: probabilities are 0 and 1


def logistic(x: np.ndarray, y: np.ndarray, weights: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
    """Maximum-likelihood coefficients of a logistic regression, [draw, q].

    x: [n, q], its own constant among the columns; y: [n] of 0 and 1; weights: [draw, n]; offset: [n], of coefficient 1.
    """
    if len(weights) > 1 and np.size(weights) > _CELLS:
        return np.concatenate([logistic(x, y, part, offset) for part in _parts(weights)])
    z, turn = _orthogonal(x)
    squares = (z[:, :, None] * z[:, None, :]).reshape(len(z), -1)
    w = np.asarray(weights, dtype=float)
    extra = 0.0 if offset is None else offset

    def move(beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        said = 1 / (1 + np.exp(-np.clip(beta @ z.T + extra, -_CERTAIN, _CERTAIN)))
        information = (w * said * (1 - said)) @ squares
        return (w * (y - said)) @ z, information.reshape(len(w), z.shape[1], z.shape[1])

    near = turn @ logistic(x, y, w[:1], offset)[0] if len(w) > 1 else np.zeros(z.shape[1])
    beta = _newton(move, near, w.sum(axis=1))
    certain = (np.abs(beta @ z.T + extra) * (w > 0)).max(axis=1) >= _CERTAIN
    if certain.any():  # a patient far out may be certain in a fit that the others hold
        held = np.linalg.eigvalsh(move(np.nan_to_num(beta))[1])[certain]
        beta[certain] = np.where((held[:, 0] < _HELD * w[certain].sum(axis=1))[:, None], np.nan, beta[certain])
    return np.linalg.solve(turn, beta.T).T


def cox(x: np.ndarray, time: np.ndarray, event: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients [draw, q] of a Cox regression and the cumulative hazard [draw] of x = 0 at the last time.

    Ties by Efron's method (JASA, 1977), in the likelihood and in the hazard, as R's `coxph` and `survfit`; who was
    drawn twice counts as two patients with the same time. x: [n, q]; time, event: [n]; weights: [draw, n].
    """
    if len(weights) > 1 and np.size(weights) > _CELLS:
        every = [cox(x, time, event, part) for part in _parts(weights)]
        return np.concatenate([b for b, _ in every]), np.concatenate([h for _, h in every])
    centre, scale = x.mean(axis=0), _spread(x)
    order = np.argsort(-time, kind="stable")
    z, t, e = ((x - centre) / scale)[order], time[order], event[order] == 1
    w = np.asarray(weights, dtype=float)[:, order]
    draws, q = len(w), z.shape[1]
    if not e.any():
        return np.full((draws, q), np.nan), np.full(draws, np.nan)
    dead = np.flatnonzero(e)
    starts = np.flatnonzero(np.r_[True, np.diff(t[dead]) != 0])  # first death of each distinct time, among the deaths
    ends = np.searchsorted(-t, -t[dead][starts], side="right") - 1  # last row of each risk set: all with time >= t
    deaths = np.add.reduceat(w[:, dead], starts, axis=1)
    most = int(deaths.max(initial=0))
    ones = np.ones((len(z), 1))
    pairs = (z[:, :, None] * z[:, None, :]).reshape(len(z), -1)
    terms = np.concatenate([ones, z, pairs], axis=1).T  # 1, x and x x': of all three sums are taken
    drawn_x = w[:, dead] @ z[dead]

    def sums(beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        e_eta = w * np.exp(np.clip(beta @ z.T, -35, 35))
        weighted = e_eta[:, None, :] * terms
        return weighted.cumsum(axis=2)[:, :, ends], np.add.reduceat(weighted[:, :, dead], starts, axis=2)

    def leaving(beta: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For the first, second, ... death at each time: the sums over who is still there; the first of them apart."""
        whole, own = sums(beta)
        for k in range(most):
            there = deaths > k
            some = there.any(axis=0)
            share = np.divide(k, deaths[:, some], out=np.zeros((draws, int(some.sum()))), where=there[:, some])
            left = whole[:, :, some] - share[:, None, :] * own[:, :, some] if k else whole[:, :, some]
            left[:, 0][~there[:, some]] = np.inf  # a death that is none adds nothing
            yield left[:, 0], left

    def move(beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope, information = drawn_x.copy(), np.zeros((draws, q, q))
        for left0, left in leaving(beta):
            mean = left[:, 1 : 1 + q] / left0[:, None, :]
            slope -= mean.sum(axis=2)
            information += (left[:, 1 + q :] / left0[:, None, :]).sum(axis=2).reshape(draws, q, q)
            information -= mean @ mean.transpose(0, 2, 1)
        return slope, information

    near = cox(x, time, event, weights[:1])[0][0] * scale if draws > 1 else np.zeros(q)
    beta = _newton(move, near, deaths.sum(axis=1))
    hazard = np.zeros(draws)
    for left0, _ in leaving(np.nan_to_num(beta)):
        hazard += (1 / left0).sum(axis=1)
    beta = beta / scale
    with np.errstate(over="ignore"):
        return beta, np.where(np.isnan(beta[:, 0]), np.nan, hazard * np.exp(-(beta @ centre)))


Move = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # beta -> gradient [draw, q], information [draw, q, q]


def _newton(move: Move, near: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Where the gradients vanish, [draw, q]; NaN where they do not. near: [q], where to begin (the first sample's).

    counts: [draw], patients or events.
    """
    beta = np.tile(np.nan_to_num(near), (len(counts), 1))
    done = np.zeros(len(counts), dtype=bool)
    step, promised = np.zeros_like(beta), np.zeros(len(counts))  # the last one, and the slope along it where it began
    for _ in range(_STEPS):
        gradient, information = move(beta)
        over = np.einsum("dj,dj->d", gradient, step) < -_OVERSHOT * promised
        flat = ~over & (np.linalg.eigvalsh(information)[:, 0] < _FLAT * np.maximum(counts, 1))
        ahead = np.einsum("dij,dj->di", np.linalg.pinv(information, hermitian=True), gradient)
        size = np.abs(ahead).max(axis=1)
        ahead *= np.minimum(1, _FAR / np.maximum(size, 1e-300))[:, None]
        step = np.where(over[:, None], -step / 2, ahead)  # half of the way back from beyond the maximum
        beta = np.where((done | flat)[:, None], beta, beta + step)
        done |= (size < _SMALL * np.maximum(1, np.abs(beta).max(axis=1))) & ~flat & ~over
        if (done | flat).all():
            break
        promised = np.where(over, promised / 2, np.einsum("dj,dj->d", gradient, ahead))
        step = np.where(over[:, None], -step, step)
    beta[~done] = np.nan
    return beta


def _parts(weights: np.ndarray) -> list[np.ndarray]:
    """The samples in parts that are fitted one after the other."""
    rows = max(1, _CELLS // weights.shape[1])
    return [weights[start : start + rows] for start in range(0, len(weights), rows)]


def _orthogonal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(z, turn): orthogonal columns z that say what those of x say, z @ turn = x, with a mean square of one.

    Splines of probabilities that hardly differ are almost the constant beside them; Newton's steps in x itself would be
    lost in rounding. Where a column of x is a sum of others, z is x in standard deviations.
    """
    n, q = x.shape
    if n >= q:
        made, turn = np.linalg.qr(x)
        size = np.abs(np.diag(turn))
        if size.min(initial=np.inf) > 1e-12 * np.abs(x).max(initial=0):
            return made * np.sqrt(n), turn / np.sqrt(n)
    scale = _spread(x)
    return x / scale, np.diag(scale)


def _spread(x: np.ndarray) -> np.ndarray:
    """Standard deviation of each column, 1 where it is constant."""
    spread = x.std(axis=0)
    return np.where(spread > 1e-12 * np.maximum(np.abs(x).max(axis=0, initial=0), 1), spread, 1.0)
