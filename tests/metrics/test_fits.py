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
