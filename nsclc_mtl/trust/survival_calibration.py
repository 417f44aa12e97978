"""Survival curves that promise as many events as there are, up to a stated horizon."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nsclc_mtl.records import DataFault

EVENTS_FOR_SLOPE = 10  # fewer events than this: only the level is fitted (Peduzzi et al., J Clin Epidemiol 1995)
_FLATTEST, _STEEPEST = 0.05, 20.0
_EDGE = 1e-7


def cumulative_hazard(curve: ArrayLike, days: ArrayLike, when: ArrayLike) -> np.ndarray:
    """-log S at each patient's own day, [n], with a constant hazard between the days at which the curve is written.

    curve: S(t) [n, day], never rising. days: [day], ascending, above 0. when: [n]; beyond the last day as at it.

    >>> cumulative_hazard([[0.5, 0.25]], [100, 200], [150]).round(4).tolist()
    [1.0397]
    """
    s, d = np.asarray(curve, dtype=float), np.asarray(days, dtype=float)
    steps = np.concatenate([np.zeros((len(s), 1)), -np.log(np.clip(s, _EDGE, 1.0))], axis=1)
    grid = np.concatenate([[0.0], d])
    t = np.clip(np.asarray(when, dtype=float), 0.0, grid[-1])
    at = np.clip(np.searchsorted(grid, t, side="right") - 1, 0, len(d) - 1)
    share = (t - grid[at]) / (grid[at + 1] - grid[at])
    rows = np.arange(len(s))
    return np.asarray(steps[rows, at] * (1 - share) + steps[rows, at + 1] * share)


def fit(curve: ArrayLike, days: ArrayLike, time: ArrayLike, event: ArrayLike, horizon: float) -> dict[str, float]:
    """Level and slope of the calibration up to `horizon`, {shift, slope, centre, horizon_days, events}.

    curve: predicted S(t) [n, day] of patients whom training did not see. time, event: [n]. With x the complementary
    log-log of S(horizon), log(-log S), and m its mean (`centre`), the calibrated curve is
    S(t) ** exp(shift + (slope - 1) (x - m)): one power a patient, so that curves keep their shape and patients their
    order. Events until the horizon are Poisson with the cumulative hazard at the end of each follow-up as the offset
    (Crowson, Atkinson and Therneau, "Assessing calibration of prognostic risk scores", Stat Methods Med 2016, section
    3), which needs no weights for censoring. Fewer than 10 events give the level alone (slope 1); without one, or with
    a horizon before the first day, DataFault is raised.

    >>> fit([[0.5]] * 4, [100], [100, 100, 100, 100], [1, 0, 0, 0], 100)["shift"].__round__(3)
    -1.02
    """
    s, d = np.asarray(curve, dtype=float), np.asarray(days, dtype=float)
    t, e = np.asarray(time, dtype=float), np.asarray(event, dtype=float)
    happened = e * (t <= horizon)
    if not happened.any():
        raise DataFault(f"none of {len(t)} calibration patients had the event within {horizon:g} days")
    expected = np.maximum(cumulative_hazard(s, d, np.minimum(t, horizon)), _EDGE)
    x = np.log(np.maximum(cumulative_hazard(s, d, np.full(len(s), horizon)), _EDGE))
    centre = float(x.mean())
    shift, slope = float(np.log(happened.sum() / expected.sum())), 1.0
    if happened.sum() >= EVENTS_FOR_SLOPE and np.ptp(x) > 1e-6:
        found = _poisson(x - centre, happened, np.log(expected), shift)
        slope = float(np.clip(found + 1.0, _FLATTEST, _STEEPEST))
        # the level that belongs to the slope: as many events as expected
        shift = float(np.log(happened.sum() / (expected * np.exp((slope - 1) * (x - centre))).sum()))
    told = {"shift": shift, "slope": slope, "centre": centre, "horizon_days": float(horizon)}
    return {**told, "events": int(happened.sum())}


def scaled(curve: ArrayLike, days: ArrayLike, shift: float, slope: float, centre: float, horizon: float) -> np.ndarray:
    """Calibrated S(t) [n, day] of predicted curves, with what `fit` found.

    >>> scaled([[0.5, 0.25]], [100, 200], float(np.log(2)), 1.0, 0.0, 100).round(4).tolist()
    [[0.25, 0.0625]]
    """
    s, d = np.asarray(curve, dtype=float), np.asarray(days, dtype=float)
    x = np.log(np.maximum(cumulative_hazard(s, d, np.full(len(s), horizon)), _EDGE))
    return np.asarray(np.clip(s, 0.0, 1.0) ** np.exp(shift + (slope - 1) * (x - centre))[:, None])


def _poisson(x: np.ndarray, events: np.ndarray, offset: np.ndarray, start: float) -> float:
    """Slope of log-linear Poisson regression with an offset, by Newton's method with halved steps."""
    design = np.stack([np.ones(len(x)), x], axis=1)
    beta = np.array([start, 0.0])

    def loss(b: np.ndarray) -> float:
        eta = np.clip(design @ b + offset, -50, 50)
        return float(np.exp(eta).sum() - events @ eta)

    for _ in range(50):
        mean = np.exp(np.clip(design @ beta + offset, -50, 50))
        step = np.linalg.solve((design * mean[:, None]).T @ design + 1e-9 * np.eye(2), design.T @ (events - mean))
        while loss(beta + step) > loss(beta) + 1e-12 and np.abs(step).max() > 1e-10:
            step = step / 2
        beta = beta + step
        if np.abs(step).max() < 1e-10:
            break
    return float(beta[1])
