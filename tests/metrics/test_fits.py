"""Fits of many samples at once are the fits of each alone, wherever Newton's method begins."""

from __future__ import annotations

import numpy as np
import pytest

from nsclc_mtl.metrics.fits import logistic
from nsclc_mtl.metrics.splines import knots_of, restricted_cubic


@pytest.mark.parametrize("seed", [1, 13, 30, 36])
def test_a_sample_is_fitted_alike_alone_and_among_others(seed: int) -> None:
    """A spline of two heaps of predictions: plain Newton steps overshoot here, and end where the start has them."""
    n, rng = 16, np.random.default_rng(seed)
    p = np.r_[rng.normal(0, 0.002, n // 2), rng.normal(0.15, 0.002, n // 2)]
    y = (rng.random(n) < 0.6) * 1.0
    x = np.column_stack([np.ones(n), restricted_cubic(p, knots_of(p))])
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=40).astype(float)
    together = logistic(x, y, weights)
    alone = np.concatenate([logistic(x, y, one[None]) for one in weights])
    np.testing.assert_array_equal(np.isnan(together), np.isnan(alone))
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    fitted = ~np.isnan(together[:, 0])
    assert fitted.any()
    said = 1 / (1 + np.exp(-together[fitted] @ x.T))
    score = (weights[fitted] * (y - said)) @ (x / np.abs(x).max(axis=0))
    np.testing.assert_allclose(score, 0, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_columns_that_are_almost_the_constant_reach_the_maximum(seed: int) -> None:
    """Probabilities that hardly differ, few negatives: what they say of each sample is the same in other columns."""
    rng = np.random.default_rng(seed)
    n = 57
    p = rng.uniform(0.8757, 0.8765, n)
    x = np.log(p / (1 - p))
    y = np.ones(n)
    y[rng.choice(n, 7, replace=False)] = 0
    raw = np.c_[np.ones(n), x, x**2]
    apart = np.linalg.qr(raw - np.c_[np.zeros(n), np.full((n, 2), raw[:, 1:].mean(axis=0))])[0]
    weights = rng.multinomial(n, np.full(n, 1 / n), 40).astype(float)

    def likelihood(columns: np.ndarray, beta: np.ndarray) -> np.ndarray:
        known = ~np.isnan(beta[:, 0])
        eta = np.where(known[:, None], beta, 0) @ columns.T
        return np.where(known, (weights * (y * eta - np.logaddexp(0, eta))).sum(axis=1), np.nan)

    ours, theirs = likelihood(raw, logistic(raw, y, weights)), likelihood(apart, logistic(apart, y, weights))
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    assert np.isfinite(ours).sum() > 30
    np.testing.assert_allclose(ours, theirs, atol=1e-7)


def test_a_patient_far_out_is_no_separation() -> None:
    """One logit of a fit below -35: the maximum is finite, as another optimiser finds it."""
    from scipy.optimize import minimize

    x = np.r_[-40.0, np.linspace(-1, 1, 30)]
    y = np.r_[0.0, np.tile([0.0, 0.0, 1.0], 10)]
    y[-10:] = 1
    y[-4] = 0
    columns = np.c_[np.ones(31), x]
    ours = logistic(columns, y, np.ones((1, 31)))[0]
    assert (columns @ ours).min() < -35
    theirs = minimize(lambda b: np.logaddexp(0, columns @ b).sum() - y @ (columns @ b), np.zeros(2), tol=1e-12).x
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    group = np.r_[np.ones(10), np.zeros(21)]  # nobody of the group has the event: no finite fit
    y[:10] = 0
    assert np.isnan(logistic(np.c_[columns, group], y, np.ones((1, 31)))).all()
