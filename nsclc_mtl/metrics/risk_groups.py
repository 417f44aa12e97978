"""Risk groups: where to cut, and how far apart the groups are (hazard ratio, restricted mean and median survival).

risk: [n], higher = worse. time: [n], any unit. event: [n], 1 = happened, 0 = censored. group: [n], 0 = lowest risk.
A patient whose time, event or risk is NaN is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc  # scipy.stats takes a second to import

from nsclc_mtl.metrics.comparison import Interval
from nsclc_mtl.metrics.follow_up import first_half
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import kaplan_meier

Z = 1.959963984540054  # of a 95 % interval
_STEPS = 50
_LARGEST = 15.0  # log hazard ratio beyond which the likelihood is taken to rise for ever
_CELLS = 2_000_000  # of a block of permutations: bounds memory at any cohort size


def quantile_cuts(risk: ArrayLike, groups: int = 2) -> np.ndarray:
    """Cut-offs between groups of equal size: the median, the tertiles, ... float [groups - 1].

    >>> quantile_cuts([1, 2, 3, 4, 5]).tolist()
    [3.0]
    """
    r = np.asarray(risk, dtype=float)
    return np.asarray(np.quantile(r[~np.isnan(r)], np.arange(1, groups) / groups))


def groups_of(risk: ArrayLike, cuts: ArrayLike) -> np.ndarray:
    """The group of each patient: how many cut-offs the risk lies above; -1 where the risk or a cut-off is NaN. int [n].

    >>> groups_of([1, 3, 5, float("nan")], [3]).tolist()
    [0, 0, 1, -1]
    """
    r, at = np.asarray(risk, dtype=float), np.asarray(cuts, dtype=float)
    return np.where(np.isnan(r) | np.isnan(at).any(), -1, np.searchsorted(at, r, side="left"))


def log_rank_scores(time: ArrayLike, event: ArrayLike) -> np.ndarray:
    """Log-rank score of each patient: event minus the Nelson-Aalen hazard up to its own time. float [n], sum 0.

    Deaths at a tied time share one risk set (Breslow). Without ties these are the scores of Hothorn and Lausen
    (Computational Statistics & Data Analysis, 2003, section 2).
    """
    t, e = np.asarray(time, dtype=float), np.asarray(event, dtype=float)
    steps, which = np.unique(t, return_inverse=True)
    deaths = np.bincount(which, weights=e, minlength=len(steps))
    leaving = np.bincount(which, minlength=len(steps))
    at_risk = len(t) - np.r_[0, np.cumsum(leaving)[:-1]] if len(steps) else np.zeros(0)
    return np.asarray(e - np.cumsum(deaths / at_risk)[which])


@dataclass(frozen=True)
class MaximalCut:
    """The cut-off that tells the two groups apart best, and how often chance alone would do as well."""

    cut: float  # patients whose risk lies above it are the high group
    statistic: float  # the largest standardised log-rank statistic
    tried: int  # cut-offs that it was chosen from
    p_asymptotic: float  # Lausen and Schumacher, 1992
    p_permuted: float  # conditional on the scores, by permutation


def maximally_selected(
    risk: ArrayLike, time: ArrayLike, event: ArrayLike, least: float = 0.1, draws: int = 1999, seed: int = 0
) -> MaximalCut | Score:
    """The cut-off with the largest log-rank statistic, its P corrected for the search; or why there is none.

    Of all cut-offs that leave at least the share `least` of the patients in each group. The asymptotic P is that of
    Lausen and Schumacher (Biometrics, 1992); the other one is the conditional distribution whose bounds Hothorn and
    Lausen (2003) give, here drawn from by permuting the scores. Where all scores are 0 (everybody whose time says
    anything had the event at one time) every cut-off parts them as badly, and there is none.
    """
    r, t, e = (np.asarray(a, dtype=float) for a in (risk, time, event))
    keep = ~(np.isnan(r) | np.isnan(t) | np.isnan(e))
    order = np.argsort(r[keep], kind="stable")
    r, t, e = r[keep][order], t[keep][order], e[keep][order]
    n = len(r)
    if not e.any():
        return Score.missing(f"no event among {n} patients")
    below = np.flatnonzero(np.diff(r) > 0) + 1  # patients at or below each cut-off
    below = below[(below >= max(1, math.floor(n * least))) & (below <= math.floor(n * (1 - least)))]
    if not len(below):
        return Score.missing(f"no cut-off leaves {least:.0%} of {n} patients on each side")
    scores = log_rank_scores(t, e)
    if np.abs(scores).max() < 1e-12:
        return Score.missing(f"the outcomes of all {n} patients are alike, so no cut-off tells them apart")
    mean = below / n * scores.sum()
    spread = np.sqrt(below * (n - below) / (n**2 * (n - 1)) * (n * (scores**2).sum() - scores.sum() ** 2))
    each = np.abs(scores.cumsum()[below - 1] - mean) / spread
    best = int(each.argmax())
    top = float(each[best])
    rng, beaten, left = np.random.default_rng(seed), 0, draws
    while left:
        rows = min(left, max(1, _CELLS // n))
        permuted = rng.permuted(np.tile(scores, (rows, 1)), axis=1).cumsum(axis=1)[:, below - 1]
        beaten += int(((np.abs(permuted - mean) / spread).max(axis=1) >= top - 1e-12).sum())
        left -= rows
    return MaximalCut(
        float(r[below[best] - 1]), top, len(below), _lausen_schumacher(top, least), (beaten + 1) / (draws + 1)
    )


def _lausen_schumacher(b: float, least: float) -> float:
    """P(maximum > b) of a Brownian bridge standardised on [least, 1 - least]; at most 1."""
    if b < 1:
        return 1.0
    density = math.exp(-b * b / 2) / math.sqrt(2 * math.pi)
    p = 4 * density / b + density * (b - 1 / b) * 2 * math.log((1 - least) / least)
    return min(1.0, p)


def hazard_ratios(group: ArrayLike, time: ArrayLike, event: ArrayLike) -> list[Interval]:
    """Hazard of each group over that of the lowest one, with Wald's 95 % interval; one for each group but the lowest.

    Cox's model with Efron's correction for ties (JASA, 1977). Groups are few and have no other covariate, so the
    partial likelihood needs their numbers at risk alone.
    """
    g, t, e = (np.asarray(a, dtype=float) for a in (group, time, event))
    keep = ~(np.isnan(g) | np.isnan(t) | np.isnan(e))
    g, t, e = g[keep], t[keep], e[keep]
    names, member = np.unique(g, return_inverse=True)
    if len(names) < 2:
        return []
    one_hot = np.eye(len(names))[member]
    events = one_hot.T @ e
    if not events.all():
        empty = "the lowest group has no event" if not events[0] else "a group has no event"
        return [Interval(math.nan, math.nan, math.nan, f"{empty}, so its hazard cannot be compared")] * (len(names) - 1)
    rows = []  # one a death: how much of each group is at risk
    for when in np.unique(t[e == 1]):
        risk = one_hot[t >= when].sum(axis=0)
        dead = one_hot[(t == when) & (e == 1)].sum(axis=0)
        d = int(dead.sum())
        rows.append(risk - np.arange(d)[:, None] / d * dead)
    at_risk = np.concatenate(rows)
    beta, information = np.zeros(len(names)), np.zeros((len(names) - 1,) * 2)
    for _ in range(_STEPS):
        share = at_risk * np.exp(beta - beta.max())
        share /= share.sum(axis=1, keepdims=True)
        slope = (events - share.sum(axis=0))[1:]
        information = (np.diag(share.sum(axis=0)) - share.T @ share)[1:, 1:]
        if np.linalg.cond(information) > 1e10 or np.abs(beta).max() > _LARGEST:
            break
        step = np.linalg.solve(information, slope)
        beta[1:] += np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            error = np.sqrt(np.diag(np.linalg.inv(information)))
            at = beta[1:]
            return [
                Interval(float(np.exp(b)), float(np.exp(b - Z * s)), float(np.exp(b + Z * s)))
                for b, s in zip(at, error, strict=True)
            ]
    reason = "the events of the groups hardly overlap in time, so no finite ratio fits them best"
    return [Interval(math.nan, math.nan, math.nan, reason)] * (len(names) - 1)


def restricted_mean(time: ArrayLike, event: ArrayLike, horizon: float) -> Interval:
    """Mean time without the event until the horizon: the area under the Kaplan-Meier curve, with its 95 % interval.

    Variance of Greenwood's form (Royston and Parmar, BMC Medical Research Methodology, 2013). NaN with a reason where
    the curve is not known up to the horizon. No interval where the variance is 0: nobody had the event before, and the
    form does not know how far the next patient would fall short.

    >>> restricted_mean([1, 2, 3], [1, 1, 1], 3).value
    2.0
    """
    return _with_error(*_area(time, event, horizon))


def restricted_mean_difference(
    lower: tuple[ArrayLike, ArrayLike], higher: tuple[ArrayLike, ArrayLike], horizon: float
) -> Interval:
    """Restricted mean of the lower risk group minus that of the higher one, each (time, event): the time lost. No
    interval where one of the two has none."""
    better, better_variance = _area(*lower, horizon)
    worse, worse_variance = _area(*higher, horizon)
    variance = better_variance + worse_variance if better_variance * worse_variance else 0.0
    return _with_error(Score(better - worse, better.reason or worse.reason), variance)


def _area(time: ArrayLike, event: ArrayLike, horizon: float) -> tuple[Score, float]:
    """Restricted mean and its variance."""
    curve = kaplan_meier(time, event)
    if not len(curve.time):
        return Score.missing("no patients"), math.nan
    if not horizon > 0:
        return Score.missing(f"the horizon is {horizon:g}, not above 0"), math.nan
    if horizon > curve.time[-1]:
        if curve.value[-1] > 0:
            return Score.missing(f"nobody is followed to {horizon:g}"), math.nan
        horizon = float(curve.time[-1])  # nothing is left to add, also up to infinity
    inside = curve.time < horizon
    at, value, n = curve.time[inside], curve.value[inside], curve.at_risk[inside]
    areas = np.r_[1.0, value] * np.diff(np.r_[0.0, at, horizon])
    after = areas[::-1].cumsum()[::-1][1:]  # from each step to the horizon
    deaths = np.round(n * (1 - value / np.r_[1.0, value[:-1]])) if len(value) else value
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = after**2 * deaths / (n * (n - deaths))
    return Score(float(areas.sum())), float(np.where((deaths > 0) & (n > deaths), terms, 0.0).sum())


def _with_error(value: Score, variance: float) -> Interval:
    if value.known and variance == 0:
        return Interval(
            float(value), math.nan, math.nan, "no event before the horizon, so that no interval can be told"
        )
    half = Z * math.sqrt(variance) if variance == variance else math.nan
    return Interval(float(value), value - half, value + half, value.reason)


def median_survival(time: ArrayLike, event: ArrayLike) -> Interval:
    """The time by which half have had the event, by Kaplan-Meier; NaN where it is not reached.

    The interval holds the times at which the log-log band of the curve covers a half (Brookmeyer and Crowley,
    Biometrics, 1982); an end that is not reached is NaN.
    """
    curve = kaplan_meier(time, event)
    middle = first_half(curve.time, curve.value)
    reason = "" if middle == middle else "fewer than half had the event" if len(curve.time) else "no patients"
    return Interval(middle, first_half(curve.time, curve.lo), first_half(curve.time, curve.hi), reason)


def chi_square_p(statistic: float, freedom: int) -> float:
    """P value of a chi-square statistic."""
    return float(chdtrc(freedom, statistic))
