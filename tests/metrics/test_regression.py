"""Metrics of numbers against scikit-learn and SciPy; the weighted forms against the patients written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from nsclc_mtl.metrics import regression
from nsclc_mtl.metrics.comparison import classes_in_order

PLAIN = {
    "mae": (regression.mae, metrics.mean_absolute_error),
    "rmse": (regression.rmse, metrics.root_mean_squared_error),
    "r2": (regression.r2, metrics.r2_score),
    "spearman": (regression.spearman, lambda y, p: stats.spearmanr(y, p).statistic),
}
WEIGHTED = {
    "mae": regression.absolute_error,
    "rmse": regression.squared_error_root,
    "r2": regression.explained,
    "spearman": regression.rank_correlation,
}


def numbers(seed: int, n: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    value = draw.normal(50, 12, n)
    said = value + draw.normal(0, 9, n)
    return (value.round(-1), said.round(-1)) if ties else (value, said)


@pytest.mark.parametrize("name", sorted(PLAIN))
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(5, 60), ties=st.booleans())
def test_metrics_agree_with_others(name: str, seed: int, n: int, ties: bool) -> None:
    value, said = numbers(seed, n, ties)
    ours, theirs = PLAIN[name]
    if np.ptp(value) == 0 or np.ptp(said) == 0:
        return
    assert ours(value, said) == pytest.approx(theirs(value, said), rel=1e-9, abs=1e-12)
    blank = np.r_[value, np.nan]  # an unknown outcome counts for nothing
    assert ours(blank, np.r_[said, 3.0]) == ours(value, said)


@pytest.mark.parametrize("name", sorted(WEIGHTED))
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), ties=st.booleans())
def test_a_draw_is_the_patients_written_out(name: str, seed: int, ties: bool) -> None:
    value, said = numbers(seed, 25, ties)
    weights = np.random.default_rng(seed).multinomial(25, np.full(25, 1 / 25), size=4)
    made = WEIGHTED[name](value, said)(weights.astype(float))
    for k, w in enumerate(weights):
        y, p = np.repeat(value, w), np.repeat(said, w)
        if np.ptp(y) > 0 and np.ptp(p) > 0:
            assert made[k] == pytest.approx(PLAIN[name][1](y, p), rel=1e-7, abs=1e-10)


def test_concordance_is_kendalls_tau_without_ties() -> None:
    value, said = numbers(3, 80, False)
    found = classes_in_order(value, said)(np.ones((1, 80)))[0]
    assert found == pytest.approx((1 + stats.kendalltau(value, said).statistic) / 2, rel=1e-6)


def test_what_cannot_be_computed_says_why() -> None:
    assert regression.r2([2, 2, 2], [1, 2, 3]).reason == "the outcome does not vary"
    assert regression.spearman([1, 2, 3], [2, 2, 2]).reason == "the prediction does not vary"
    assert regression.mae([np.nan], [1.0]).reason == "no patients"
    assert "NaN" in regression.mae([1.0], [np.nan]).reason
    with pytest.raises(ValueError, match="2 outcomes but 1"):
        regression.mae([1, 2], [1])
