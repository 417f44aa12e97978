"""Blends of concordances: the same numbers as one concordance after the other."""

from __future__ import annotations

import numpy as np
import pytest

from nsclc_mtl.metrics import comparison
from nsclc_mtl.metrics.blends import blends
from nsclc_mtl.metrics.survival import comparable


@pytest.mark.parametrize("n", [1, 40, 600])
def test_a_blend_is_the_sum_of_its_concordances(n: int) -> None:
    rng = np.random.default_rng(0)
    time, event = rng.integers(1, 30, n).astype(float), rng.random(n) < 0.6
    scores = rng.integers(0, 9, (4, n)) * 1.0  # with ties
    mix = np.array([[1, -0.5, -0.5, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 0, 1]])
    weights = rng.multinomial(n, np.full(n, 1 / n), size=50)
    each = [comparison.survivors_in_order(score, time, event)(weights) for score in scores]
    made = [measure(weights) for measure in blends(scores, mix, comparable(time, event))]
    np.testing.assert_allclose(made, mix @ np.array(each), atol=2e-6)


def test_who_is_never_compared_may_lack_a_score() -> None:
    label, score = np.array([0, 1, 0, 1, 1]), np.array([[0.2, 0.6, 0.7, 0.5, np.nan]])
    whose = ~np.isnan(score[0])
    compared = (label[:, None] > label) & whose & whose[:, None]
    (measure,) = blends(score, np.ones((1, 1)), compared)
    assert measure(np.ones((1, 5)))[0] == pytest.approx(2 / 4)
