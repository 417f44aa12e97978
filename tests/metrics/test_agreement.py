"""ICC(3,1) against pingouin, and its laws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nsclc_mtl.metrics.agreement import icc_consistency

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.mark.parametrize("number", range(5))
def test_golden_values(number: int) -> None:
    told = json.loads((GOLDEN / "icc.json").read_text())[number]
    icc, lower, upper = icc_consistency(np.array([told["values"]]))
    assert icc[0] == pytest.approx(told["icc"], abs=1e-8)
    assert lower[0] == pytest.approx(told["lower"], abs=1e-8)
    assert upper[0] == pytest.approx(told["upper"], abs=1e-8)


def test_an_offset_of_a_rater_and_the_scale_change_nothing() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    values = rng.normal(size=(1, 9, 1)) + 0.4 * rng.normal(size=(1, 9, 4))
    offset = values * 1e6 + np.array([0, 5e6, -3e6, 1e7])
    for a, b in zip(icc_consistency(values), icc_consistency(offset), strict=True):
        assert a == pytest.approx(b, rel=1e-9)


def test_perfect_none_and_nothing() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    subjects = rng.normal(1e5, 1e3, size=(6, 1))
    perfect = subjects + np.array([0.0, 7.0, -3.0])
    flat = np.full((6, 3), 2.0)
    missing = perfect.copy()
    missing[0, 0] = np.nan
    icc, lower, upper = icc_consistency(np.stack([perfect, flat, missing]))
    assert (icc[0], lower[0], upper[0]) == (1, 1, 1)
    assert np.isnan([icc[1], lower[1], icc[2], lower[2]]).all()
    assert np.isnan(icc_consistency(np.zeros((2, 2, 3)))[0]).all()  # two subjects
    noise = rng.normal(size=(1, 200, 3))
    assert abs(icc_consistency(noise)[0][0]) < 0.15


def test_features_do_not_see_each_other() -> None:
    rng = np.random.Generator(np.random.PCG64(2))
    values = rng.normal(size=(5, 7, 3))
    together = icc_consistency(values)
    alone = [icc_consistency(values[i : i + 1]) for i in range(5)]
    for part in range(3):
        assert together[part] == pytest.approx(np.concatenate([a[part] for a in alone]))
