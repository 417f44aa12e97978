"""Calibration of predicted survival: at a horizon, and of the whole distribution (D-calibration).

A risk is 1 - S(t), the predicted probability of the event until the horizon. Patients who are censored before it stay
in: the models of the observed risk (Kaplan-Meier, Cox) take their censoring as independent of the outcome given the
prediction. What happens after the horizon says nothing of the risk until then: follow-up ends there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2 as chi_square

from nsclc_mtl.metrics.calibration import FEW, Assessed, Observe, clipped, distances, told, unknown
from nsclc_mtl.metrics.fits import cox
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.splines import knots_of, restricted_cubic
from nsclc_mtl.metrics.survival import kaplan_meier

_LEAST, _MOST = 1e-6, 1 - 1e-12  # risks stay within before log(-log(1 - risk)): late ones come close to 1 in earnest
_CERTAIN = -np.log(1e-12) - 1e-9  # the hazard of a survival of 1e-12, to which `interpolated` lifts a lower one
_EXPECTED = 5  # patients in each bin, from which on chi-square has its distribution (Cochran, Biometrics, 1954)
NAMES = ("slope", "in_the_large", "observed_expected", "ici", "e50", "e90")


def interpolated(days: ArrayLike, survival: ArrayLike, when: ArrayLike, reach: float = 0.0) -> np.ndarray:
    """S at other times than those at which a curve was saved: the hazard is constant between them. [n] or [n, when].

    days: [day] ascending, above 0; survival: [n, day] at these; S(0) = 1. when: one time, or [n], one a patient. NaN
    beyond the last day, but for `reach` more of its last hazard.

    >>> interpolated([100.0, 200.0], [[0.8, 0.4]], 50.0).round(4).tolist()  # the root of 0.8
    [0.8944]
    """
    d = np.r_[0.0, np.asarray(days, dtype=float)]
    s = np.asarray(survival, dtype=float)
    t = np.broadcast_to(np.asarray(when, dtype=float), len(s))
    h = np.hstack([np.zeros((len(s), 1)), -np.log(np.clip(s, 1e-12, 1))])  # cumulative hazard, linear between the days
    right = np.clip(np.searchsorted(d, t, side="left"), 1, len(d) - 1)
    rows = np.arange(len(s))
    share = (t - d[right - 1]) / (d[right] - d[right - 1])
    hazard = h[rows, right - 1] + share * (h[rows, right] - h[rows, right - 1])
    return np.where(t <= d[-1] + reach, np.exp(-hazard), np.nan)


def observed_risk(time: np.ndarray, event: np.ndarray, when: float, weights: np.ndarray) -> np.ndarray:
    """1 - Kaplan-Meier at `when` of each bootstrap sample, [draw]; NaN where nobody is followed so far.

    time, event: [n]; weights: [draw, n], how often each patient was drawn.
    """
    order = np.lexsort((1 - event, time))  # events before censorings at a tied time; tied factors multiply to one step
    t, e, w = time[order], event[order], weights[:, order]
    at_risk = w[:, ::-1].cumsum(axis=1)[:, ::-1]
    here = (e == 1) & (t <= when)
    left = np.prod(1 - np.divide(w, at_risk, out=np.zeros_like(w), where=(at_risk > 0) & here), axis=1)
    drawn = w > 0
    reached = (drawn & (t >= when)).any(axis=1) | (drawn.any(axis=1) & (left < 1e-12))
    return np.where(reached, 1 - left, np.nan)


def assess_at(
    risk: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    when: float,
    weights: np.ndarray | None = None,
    grid: ArrayLike = (),
    hazard: ArrayLike | None = None,
) -> Assessed:
    """Calibration of predicted risks at the time `when`.

    slope: Cox regression of the follow-up until `when` on log(-log(1 - risk)), which is the linear predictor of a
    proportional-hazards model: 1 = calibrated, below 1 = too extreme (van Houwelingen, Statistics in Medicine, 2000).
    in_the_large: the intercept where that slope is 1, log(observed / expected events) = log(sum d / sum H), with d the
    events until `when` and H each patient's expected cumulative hazard until the end of his follow-up or `when`,
    whichever is first; above 0, predictions are too low. It is the constant of a Poisson model of d with log H as
    offset, and of a complementary log-log one in small steps of time (Crowson, Atkinson and Therneau, Statistical
    Methods in Medical Research, 2016). observed_expected: 1 - Kaplan-Meier over the mean predicted risk. ici, e50, e90:
    distance between predicted and smooth observed risk over the patients (Austin, Harrell and van Klaveren, Statistics
    in Medicine, 2020); the smooth curve is a Cox regression on a restricted cubic spline of log(-log(1 - risk)), knots
    at its 10th, 50th and 90th percentile. That paper lets follow-up run on beyond the horizon; ours ends there, so that
    a hazard that is no longer proportional later does not bend the curve. A constant risk has Kaplan-Meier as
    its curve.

    Risks below 1e-6 and above 1 - 1e-12 are clipped there, and slope and distances say how many; there is no slope
    where fewer than five events are among the others. There is no in_the_large where somebody was followed until his
    predicted survival was below 1e-12: his expected hazard is infinite.

    risk, time, event: [n]; NaN outcomes are left out. weights: [draw, n]; knots stay. grid: risks for the curve.
    hazard: [n] H = -log S(min(time, when)).
    """
    r, t, e = (np.asarray(v, dtype=float) for v in (risk, time, event))
    known = ~(np.isnan(t) | np.isnan(e))
    h = np.zeros(len(known)) if hazard is None else np.asarray(hazard, dtype=float)
    r, t, e = r[known], t[known], e[known]
    at = np.asarray(grid, dtype=float)
    w = np.ones((1, len(t))) if weights is None else np.vstack([np.ones(len(t)), weights[:, known]])
    why = "no patients" if not len(t) else "some risks are NaN" if np.isnan(r).any() else ""
    if why:
        return unknown(why, NAMES, len(w) - 1, at)
    seen, until = (e == 1) & (t <= when), np.minimum(t, when)
    observed = observed_risk(t, e, when, w)
    if np.isnan(observed[0]):
        return unknown(f"nobody is followed up to {when:g}", NAMES, len(w) - 1, at)
    expected = w @ r / w.sum(axis=1)
    found = {"observed_expected": observed / np.where(expected > 0, expected, np.nan)}
    few = f"{int(seen.sum())} events until {when:g}: at least {FEW} are needed" if seen.sum() < FEW else ""
    constant = "risks are constant" if np.ptp(r) == 0 else ""
    reasons = dict.fromkeys(NAMES, few or constant or "risks order the events perfectly: no finite fit")
    reasons["observed_expected"] = "every risk is 0"
    found["in_the_large"], reasons["in_the_large"] = _in_the_large(seen, None if hazard is None else h[known], when, w)
    inside = (r >= _LEAST) & (r <= _MOST)
    note = clipped(inside, "risks", "1e-6 or 1 - 1e-12")
    if constant:
        curve = np.repeat(observed[:, None], len(at), axis=1)
        found |= distances(np.repeat(observed[:, None], len(r), axis=1) - r, w)
    elif few:
        curve = np.full((len(w), len(at)), np.nan)
    else:
        x = _log_log(r)
        if note and (seen[inside].sum() < FEW or np.ptp(r[inside]) == 0):
            reasons["slope"] = f"{note}: the others are too few or too alike for a slope"
        else:
            found["slope"] = cox(x[:, None], until, seen * 1.0, w)[0][:, 0]
        knots = knots_of(x)
        beta, hazard = cox(restricted_cubic(x, knots), until, seen * 1.0, w)
        found |= distances(_said(beta, hazard, x, knots) - r, w)
        curve = _said(beta, hazard, _log_log(at), knots)
    notes = {} if constant else dict.fromkeys(("slope", "ici", "e50", "e90"), note)
    return told(found, reasons, NAMES, at, curve, notes)


def _in_the_large(seen: np.ndarray, hazard: np.ndarray | None, when: float, w: np.ndarray) -> tuple[np.ndarray, str]:
    """log(observed / expected events) of each bootstrap sample, [draw], and why there is none. seen, hazard: [n]."""
    if hazard is None or np.isnan(hazard).any():
        why = "are not given" if hazard is None else "are NaN for some"
        return np.full(len(w), np.nan), f"the hazards until the patients were last seen {why}"
    certain = int((hazard >= _CERTAIN).sum())
    if certain and seen.any():
        whom = f"{certain} of {len(hazard)} patients were followed until their predicted survival was 0"
        return np.full(len(w), np.nan), f"{whom}: the expected hazard is infinite"
    observed, expected = w @ (seen * 1.0), w @ hazard
    some = (observed > 0) & (expected > 0)
    ratio = np.divide(observed, expected, out=np.full(len(w), np.nan), where=some)
    why = "every expected hazard is 0" if seen.any() else f"no event until {when:g}: the intercept is infinite"
    return np.log(ratio), why


def _said(beta: np.ndarray, hazard: np.ndarray, x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # a draw without a finite fit is NaN
        return np.asarray(1 - np.exp(-hazard[:, None] * np.exp(beta @ restricted_cubic(x, knots).T)))


def _log_log(risk: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(-np.log(1 - np.clip(risk, _LEAST, _MOST))))


def risks(time: ArrayLike, event: ArrayLike, when: float) -> Observe:
    """For `calibration.groups`: 1 - Kaplan-Meier at `when` with its 95 % log-log interval; NaN beyond follow-up."""
    t, e = np.asarray(time, dtype=float), np.asarray(event, dtype=float)

    def observe(inside: np.ndarray) -> tuple[float, float, float]:
        risk = float(observed_risk(t[inside], e[inside], when, np.ones((1, int(inside.sum()))))[0])
        curve = kaplan_meier(t[inside], e[inside])
        step = int(np.searchsorted(curve.time, when, side="right")) - 1
        if np.isnan(risk) or step < 0:
            return risk, float("nan"), float("nan")
        return risk, float(1 - curve.hi[step]), float(1 - curve.lo[step])

    return observe


@dataclass(frozen=True)
class DCalibration:
    """Chi-square of the test that predicted distributions are right, its P, and the share of patients in each bin."""

    chi2: Score
    p: Score
    share: np.ndarray  # [bin], from S = 0 to S = 1


def d_calibration(survival: ArrayLike, event: ArrayLike, bins: int = 10) -> DCalibration:
    """D-calibration: S(T) should be uniform (Haider et al., JMLR, 2020, section 3.5 and appendix B).

    survival: [n], each patient's predicted S at the time when he was last seen. event: [n]; who is censored (or whose
    curve ends before his event) counts in the bins below his S in equal parts. Chi-square with bins - 1 degrees of
    freedom; spreading the censored makes bins alike, so that the test says "calibrated" more often the more there are.

    No P where fewer than 5 patients are expected in a bin: the chi-square table does not hold for them.

    >>> d_calibration([0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95] * 5, [1] * 50).p
    Score(1.0)
    """
    s, e = np.asarray(survival, dtype=float), np.asarray(event, dtype=float)
    known = ~np.isnan(e)
    s, e = s[known], e[known] == 1
    blank = np.full(bins, np.nan)
    why = "some survival probabilities are NaN" if np.isnan(s).any() else f"no event among {len(s)} patients"
    if np.isnan(s).any() or not e.any():
        return DCalibration(Score.missing(why), Score.missing(why), blank)
    number = np.minimum((s * bins).astype(int), bins - 1)
    count = np.bincount(number[e], minlength=bins).astype(float)
    low, high = np.arange(bins) / bins, np.arange(1, bins + 1) / bins
    c = s[~e][:, None]
    part = np.clip(c - low, 0, high - low)
    whole = part.sum(axis=1, keepdims=True)
    count += np.where(whole > 0, part / np.where(whole > 0, whole, 1), low == 0).sum(axis=0)
    expected = len(s) / bins
    chi = float(((count - expected) ** 2 / expected).sum())
    few = f"{expected:.1f} patients are expected in each of {bins} bins, at least {_EXPECTED} are needed"
    p = Score(float(chi_square.sf(chi, bins - 1))) if expected >= _EXPECTED else Score.missing(few)
    return DCalibration(Score(chi), p, count / len(s))
