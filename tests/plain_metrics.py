"""Metrics as their definitions read: loops over patients and pairs, nothing of `nsclc_mtl`. For `test_recount.py`.

Resampled patients stand in the arrays as often as they were drawn. NaN: cannot be computed on these patients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.stats import chi2, norm
from sklearn.metrics import average_precision_score, cohen_kappa_score, roc_curve

Steps = list[tuple[float, float]]  # of a curve that starts at 1: (time, value from then on)
NAN = float("nan")


def divided(top: float, bottom: float) -> float:
    return float(top / bottom) if bottom > 0 else NAN


# ----------------------------------------------------------------------------------------------------------- classes


def in_order(label: np.ndarray, score: np.ndarray) -> float:
    """Share of the pairs of unequal labels that the scores put in order, ties a half."""
    if np.isnan(score).any():
        return NAN
    pairs = label[:, None] > label
    won = (score[:, None] > score) + 0.5 * (score[:, None] == score)
    return divided((pairs * won).sum(), pairs.sum())


def balanced(label: np.ndarray, proba: np.ndarray, classes: Sequence[float]) -> float:
    said = proba.argmax(axis=1)
    own = [label == k for k in classes]
    return float(np.mean([(said[o] == k).mean() for k, o in zip(classes, own, strict=True)])) if all(
        o.any() for o in own) else NAN  # fmt: skip


def kappa(label: np.ndarray, proba: np.ndarray) -> float:
    said = proba.argmax(axis=1)
    if len({*label, *said}) == 1:
        return NAN
    labels = list(range(proba.shape[1]))
    return float(cohen_kappa_score(label.astype(int), said, weights="quadratic", labels=labels))


def precision(label: np.ndarray, score: np.ndarray) -> float:
    return float(average_precision_score(label, score)) if label.any() else NAN


def squared(label: np.ndarray, proba: np.ndarray) -> float:
    """Brier score: of two classes that of the second, of more the sum over the classes."""
    if proba.shape[1] == 2:
        return float(np.mean((proba[:, 1] - label) ** 2))
    hot = np.eye(proba.shape[1])[label.astype(int)]
    return float(np.mean(((proba - hot) ** 2).sum(axis=1)))


def threshold(label: np.ndarray, score: np.ndarray) -> float:
    """The lowest threshold midway between two scores with the largest sensitivity + specificity."""
    if len(set(label)) < 2 or len(set(score)) < 2:
        return NAN
    false, true, at = roc_curve(label, score, drop_intermediate=False)
    gain = (true - false)[1:-1]  # everybody and nobody are no thresholds
    best = at[1:-1][gain > gain.max() - 1e-9].min()
    return float((best + score[score < best].max()) / 2)


# ---------------------------------------------------------------------------------------------------------- survival


def kaplan_meier(time: np.ndarray, event: np.ndarray) -> Steps:
    out, value = [], 1.0
    for t in sorted(set(time)):
        value *= 1 - ((time == t) & (event == 1)).sum() / (time >= t).sum()
        out.append((float(t), float(value)))
    return out


def censoring(time: np.ndarray, event: np.ndarray) -> Steps:
    """Probability of being uncensored; who had the event at a time cannot be censored at it."""
    out, value = [], 1.0
    for t in sorted(set(time)):
        here = time == t
        n = (time >= t).sum() - (here & (event == 1)).sum()
        value *= 1 - (here & (event == 0)).sum() / n if n else 1.0
        out.append((float(t), float(value)))
    return out


def at(curve: Steps, when: float) -> float:
    return next((v for t, v in reversed(curve) if t <= when), 1.0)


def before(curve: Steps, when: np.ndarray) -> np.ndarray:
    return np.array([next((v for t, v in reversed(curve) if t < w), 1.0) for w in when])


def earlier(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """[i, j]: i had the event before j was last seen."""
    later = (time > time[:, None]) | ((time == time[:, None]) & (event == 0))
    return np.asarray(later & (event == 1)[:, None])


def concordance(risk: np.ndarray, time: np.ndarray, event: np.ndarray, weight: np.ndarray | None = None) -> float:
    if np.isnan(risk).any():
        return NAN
    pairs = earlier(time, event) * (1.0 if weight is None else weight[:, None])
    won = (risk[:, None] > risk) + 0.5 * (risk[:, None] == risk)
    return divided((pairs * won).sum(), pairs.sum())


def inverse(g: np.ndarray, power: int = 1) -> np.ndarray:
    return np.asarray(1 / np.where(g > 0, g, np.nan) ** power)


def uno(risk: np.ndarray, time: np.ndarray, event: np.ndarray, g: np.ndarray, tau: float) -> float:
    inside = (event == 1) & (time < tau)
    if (g[inside] <= 0).any():
        return NAN
    return concordance(risk, time, event, np.where(inside, inverse(g, 2), 0.0))


def dynamic_auc(risk: np.ndarray, time: np.ndarray, event: np.ndarray, g: np.ndarray, when: float) -> float:
    if np.isnan(risk).any():
        return NAN
    dead, alive = (time <= when) & (event == 1), time > when
    pairs = np.where(dead, inverse(g), 0.0)[:, None] * alive
    won = (risk[:, None] > risk) + 0.5 * (risk[:, None] == risk)
    return divided((pairs * won).sum(), pairs.sum())


def antolini(curves: np.ndarray, days: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    s = np.stack([np.interp(time, np.r_[0, days], np.r_[1, c]) for c in curves], axis=1)  # [when, patient]
    pairs, mine = earlier(time, event), np.diagonal(s)[:, None]
    # straight lines drawn twice differ in the last digit
    tied = np.isclose(s, mine, rtol=1e-12, atol=0)
    return divided((pairs * (((s > mine) & ~tied) + 0.5 * tied)).sum(), pairs.sum())


def graf(
    survival: np.ndarray, time: np.ndarray, event: np.ndarray, g: np.ndarray, curve: Steps, when: float
) -> np.ndarray:
    """What each patient adds to the Brier score of survival at a time.

    NaN where whoever was seen last was censored by then: what became of him and his like is not known.
    """
    last = max(zip(time, event == 0, strict=True))
    if last[0] <= when and last[1]:
        return np.full(len(time), NAN)
    out = []
    for s, t, e, w in zip(survival, time, event, g, strict=True):
        if t > when:
            out.append((1 - s) ** 2 / at(curve, when))
        else:
            out.append(s**2 / w if e == 1 else 0.0)
    return np.array(out) if when <= curve[-1][0] else np.full(len(time), NAN)


def integrated(
    curves: np.ndarray, days: np.ndarray, time: np.ndarray, event: np.ndarray, g: np.ndarray, curve: Steps
) -> np.ndarray:
    each = np.stack([graf(curves[:, k], time, event, g, curve, float(d)) for k, d in enumerate(days)])
    return np.asarray(np.trapezoid(each, days, axis=0) / (days[-1] - days[0]))


def happened_by(time: np.ndarray, event: np.ndarray, when: float) -> float:
    """1 - Kaplan-Meier at a day; NaN where nobody is followed so far."""
    if not len(time):
        return NAN
    left = at(kaplan_meier(time, event), when)
    return 1 - left if (time >= when).any() or left < 1e-12 else NAN


def poisson_constant(seen: np.ndarray, survival: np.ndarray) -> float:
    """The constant of a Poisson model of the events with log(-log S) as offset, by Newton's method; NaN of no event."""
    hazard = np.array([-math.log(s) for s in survival])
    if not seen.any() or not hazard.any():
        return NAN
    a = 0.0
    for _ in range(200):
        said = float((math.exp(a) * hazard).sum())
        step = max(-1.0, min(1.0, (float(seen.sum()) - said) / said))
        a += step
        if abs(step) < 1e-12:
            break
    return a


def between(curves: np.ndarray, days: np.ndarray, when: np.ndarray, reach: float = 0.0) -> np.ndarray:
    """S at a day of each patient's own: the hazard is constant between two saved days."""
    out = []
    for curve, t in zip(curves, when, strict=True):
        knots, hazard = np.r_[0.0, days], np.r_[0.0, -np.log(np.clip(curve, 1e-12, 1))]
        slope = (hazard[-1] - hazard[-2]) / (knots[-1] - knots[-2])
        beyond = hazard[-1] + slope * (t - knots[-1])
        found = beyond if t > knots[-1] else np.interp(t, knots, hazard)
        out.append(math.exp(-found) if t <= knots[-1] + reach else NAN)
    return np.array(out)


def log_rank(time: np.ndarray, event: np.ndarray, high: np.ndarray) -> float:
    from sksurv.compare import compare_survival
    from sksurv.util import Surv

    return float(compare_survival(Surv.from_arrays(event == 1, time), high)[0])


def log_rank_within(time: np.ndarray, event: np.ndarray, high: np.ndarray, stratum: np.ndarray) -> float:
    """Mantel's statistic of two groups, observed and expected summed over the strata."""
    excess = variance = 0.0
    for k in set(stratum):
        inside = stratum == k
        for t in set(time[inside & (event == 1)]):
            there, dead = inside & (time >= t), inside & (time == t) & (event == 1)
            n, d, worse = int(there.sum()), int(dead.sum()), int((there & high).sum())
            excess += int((dead & high).sum()) - d * worse / n
            variance += d * (n - d) / (n - 1) * worse / n * (1 - worse / n) if n > 1 else 0.0
    return excess**2 / variance if variance else math.nan


def restricted_mean(time: np.ndarray, event: np.ndarray, horizon: float) -> tuple[float, float]:
    """Area under Kaplan-Meier, and Greenwood's variance of it."""
    steps = [(t, v) for t, v in kaplan_meier(time, event) if t < horizon]
    knots = [0.0, *(t for t, _ in steps), horizon]
    values = [1.0, *(v for _, v in steps)]
    area = [v * (b - a) for v, a, b in zip(values, knots[:-1], knots[1:], strict=True)]
    variance = 0.0
    for k, (t, _) in enumerate(steps):
        d, n = ((time == t) & (event == 1)).sum(), (time >= t).sum()
        variance += sum(area[k + 1 :]) ** 2 * d / (n * (n - d)) if 0 < d < n else 0.0
    return sum(area), float(variance)


# ------------------------------------------------------------------------------------------------------- regressions


def cox_terms(
    beta: np.ndarray, x: np.ndarray, time: np.ndarray, event: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray, float]:
    """Efron's log partial likelihood, its gradient and information, and the cumulative hazard of x = 0 at the end."""
    q = x.shape[1]
    value, gradient, information, hazard = 0.0, np.zeros(q), np.zeros((q, q)), 0.0
    risk = np.exp(x @ beta)
    for t in sorted(set(time[event == 1])):
        there, dead = time >= t, (time == t) & (event == 1)
        d = int(dead.sum())
        value += float((x[dead] @ beta).sum())
        gradient += x[dead].sum(axis=0)
        for k in range(d):
            w = risk * (there - k / d * dead)
            mean = w @ x / w.sum()
            value -= math.log(w.sum())
            gradient -= mean
            information += (x.T * w) @ x / w.sum() - np.outer(mean, mean)
            hazard += 1 / w.sum()
    return value, gradient, information, hazard


def cox(x: np.ndarray, time: np.ndarray, event: np.ndarray, strata: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Newton's method on standardised columns. NaN where there is no finite maximum."""
    part = np.zeros(len(time)) if strata is None else strata
    scale, centre = x.std(axis=0), x.mean(axis=0)
    z, beta = (x - centre) / scale, np.zeros(x.shape[1])
    nothing = {"beta": beta * NAN, "hazard": np.array(NAN), "value": np.array(NAN), "error": beta * NAN}
    if not event.any():
        return nothing
    step, last = beta, -math.inf
    for _ in range(200):
        each = [cox_terms(beta, z[part == s], time[part == s], event[part == s]) for s in sorted(set(part))]
        value, gradient, information, hazard = (sum(e[k] for e in each) for k in range(4))
        if value < last - 1e-9:  # too far
            step = step / 2
            beta = beta - step
            continue
        if np.linalg.eigvalsh(information)[0] < 1e-14 * event.sum():
            return nothing
        step = np.linalg.solve(information, gradient)
        if np.abs(step).max() < 1e-10 * max(1, np.abs(beta).max()):
            if np.abs(z @ beta).max() > 35:
                return nothing
            error = np.sqrt(np.diag(np.linalg.inv(information))) / scale
            zero = hazard * np.exp(-(beta / scale) @ centre)
            return {"beta": beta / scale, "hazard": np.array(zero), "value": np.array(value), "error": error}
        last, step = value, step * min(1, 1e4 / np.abs(step).max())
        beta = beta + step
    return nothing


def logistic(x: np.ndarray, y: np.ndarray, offset: np.ndarray | float = 0.0) -> np.ndarray:
    """Newton's method on standardised columns. NaN where there is no finite maximum."""
    scale = np.where(x.std(axis=0) > 1e-12, x.std(axis=0), 1.0)
    z, beta = x / scale, np.zeros(x.shape[1])
    step, last = beta, -math.inf
    for _ in range(200):
        eta = z @ beta + offset
        value = float((y * eta - np.logaddexp(0, eta)).sum())
        if value < last - 1e-9:  # too far
            step = step / 2
            beta = beta - step
            continue
        p = 1 / (1 + np.exp(-np.clip(eta, -35, 35)))
        information = (z.T * (p * (1 - p))) @ z
        if np.linalg.eigvalsh(information)[0] < 1e-14 * len(y):
            return np.full(x.shape[1], NAN)
        step = np.linalg.solve(information, z.T @ (y - p))
        if np.abs(step).max() < 1e-10 * max(1, np.abs(beta).max()):
            # probabilities beyond 1e-15 of 0 and 1, and nobody who holds the fit in some direction: no finite one
            apart = np.linalg.qr(z)[0]
            held = np.linalg.eigvalsh((apart.T * (p * (1 - p))) @ apart)[0]
            return np.asarray(beta / scale) if np.abs(eta).max() < 35 or held > 1e-9 else np.full(x.shape[1], NAN)
        last, step = value, step * min(1, 1e4 / np.abs(step).max())
        beta = beta + step
    return np.full(x.shape[1], NAN)


def proportional_odds(x: np.ndarray, label: np.ndarray) -> float:
    """The largest log likelihood of the proportional-odds model."""
    grades = sorted(set(label))
    y, m = np.searchsorted(grades, label), len(grades) - 1

    def minus(theta: np.ndarray) -> float:
        cuts = np.cumsum(np.r_[theta[0], np.exp(theta[1:m])])
        above = np.c_[
            np.ones(len(y)), 1 / (1 + np.exp(cuts - (x @ theta[m:])[:, None])), np.zeros(len(y))
        ]  # P(Y >= grade)
        p = above[np.arange(len(y)), y] - above[np.arange(len(y)), y + 1]
        return -float(np.log(np.maximum(p, 1e-300)).sum())

    shares = np.array([(y <= k).mean() for k in range(m)])
    cuts = np.log(shares / (1 - shares))
    best = np.r_[cuts[0], np.log(np.diff(cuts)), np.zeros(x.shape[1])]
    for _ in range(3):  # each begins anew where the last ended
        best = minimize(minus, best, method="BFGS", jac="3-point", options={"gtol": 1e-10}).x
    return -minus(best)


def spline(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Harrell's restricted cubic basis."""
    if len(knots) < 3:
        return x[:, None]
    a, b, c = knots

    def cubed(v: float) -> np.ndarray:
        return np.clip(x - v, 0, None) ** 3

    bent = cubed(a) - cubed(b) * (c - a) / (c - b) + cubed(c) * (b - a) / (c - b)
    return np.c_[x, bent / (c - a) ** 2]


def knots_of(x: np.ndarray) -> np.ndarray:
    found = np.unique(np.quantile(x, [0.1, 0.5, 0.9]))
    return found if len(found) == 3 else np.zeros(0)


# -------------------------------------------------------------------------------------------------------- comparisons


def delong_terms(label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """What each patient adds to the error of the (ordinal) AUC; NaN where a class has one patient."""
    pairs = label[:, None] > label
    won = pairs * ((score[:, None] > score) + 0.5 * (score[:, None] == score)) / pairs.sum()
    share = won.sum(axis=1) + won.sum(axis=0)
    out = np.zeros(len(label))
    for k in set(label):
        own = label == k
        n = own.sum()
        out[own] = (share[own] - share[own].mean()) * math.sqrt(n / (n - 1)) if n > 1 else NAN
    return out


def two_sided(z: float) -> float:
    return float(2 * norm.sf(abs(z)))


def rarer_side(draws: np.ndarray) -> float:
    """P of the bootstrap: twice the rarer side of 0, one draw added to either."""
    good = draws[~np.isnan(draws)]
    if len(good) < max(20, len(draws) / 2):
        return NAN
    if not good.any():
        return 1.0
    return float(min(1.0, 2 * (1 + min((good <= 0).sum(), (good >= 0).sum())) / (1 + len(good))))


def spread(draws: np.ndarray) -> float:
    good = draws[~np.isnan(draws)]
    return float(np.std(good, ddof=1)) if len(good) >= max(20, len(draws) / 2) else NAN


def holm(p: Sequence[float]) -> list[float]:
    order = sorted(range(len(p)), key=lambda i: p[i])
    out, highest = [NAN] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, p[i] * (len(p) - rank)))
        out[i] = highest
    return out


def cochran(values: Sequence[float], errors: Sequence[float]) -> float:
    """P that independent estimates are equal."""
    pairs = [(v, e) for v, e in zip(values, errors, strict=True) if math.isfinite(v) and math.isfinite(e) and e > 0]
    if len(pairs) < 2:
        return NAN
    middle = sum(v / e**2 for v, e in pairs) / sum(1 / e**2 for _, e in pairs)
    return float(chi2.sf(sum((v - middle) ** 2 / e**2 for v, e in pairs), len(pairs) - 1))
