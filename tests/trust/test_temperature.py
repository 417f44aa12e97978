from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.records import DataFault
from nsclc_mtl.trust import temperature

Draw = Callable[[int, int, int], tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize("too_sure", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_the_model_too_sure(drawn: Draw, too_sure: float) -> None:
    p, y = drawn(20_000, 3, 0)
    assert temperature.fit(temperature.scaled(p, 1 / too_sure), y) == pytest.approx(too_sure, rel=0.05)


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_probabilities_sum_to_one_and_keep_their_order(drawn: Draw, seed: int, warmth: float) -> None:
    p, _ = drawn(7, 4, seed)
    made = temperature.scaled(p, warmth)
    assert made.sum(1) == pytest.approx(1)
    assert (made.argsort(1) == p.argsort(1)).all()


def test_certainty_and_a_single_patient_stay_finite() -> None:
    assert np.isfinite(temperature.scaled([[1.0, 0.0]], 0.05)).all()
    assert np.isfinite(temperature.fit([[1.0, 0.0]], [1]))
    with pytest.raises(DataFault, match="no patient"):
        temperature.fit(np.zeros((0, 2)), [])
