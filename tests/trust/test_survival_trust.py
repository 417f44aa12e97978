"""Calibration of survival curves and lower bounds, on times whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import censoring_curve
from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.trust import survival_bounds as bounds
from nsclc_mtl.trust import survival_calibration as calibration

DAYS = np.array([182.5, 365.0, 730.0, 1095.0, 1460.0, 1825.0])


def drawn(n: int, seed: int, censored: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """True curves [n, day], follow-up, events and true times: exponential, with a hazard of each patient's own."""
    rng = np.random.default_rng(seed)
    hazard = np.exp(rng.normal(0, 0.8, n)) / 1000
    death = rng.exponential(1 / hazard)
    end = rng.uniform(100, 2500, n) if censored else np.full(n, np.inf)
    return np.exp(-hazard[:, None] * DAYS), np.minimum(death, end), (death <= end).astype(float), death


def test_hazards_between_the_days_are_exact_for_a_constant_hazard() -> None:
    curve, time, _, _ = drawn(50, 0)
    hazard = -np.log(curve[:, 0]) / DAYS[0]
    expected = hazard * np.minimum(time, DAYS[-1])
    np.testing.assert_allclose(calibration.cumulative_hazard(curve, DAYS, time), expected, rtol=1e-5)


@pytest.mark.parametrize(("power", "slope"), [(0.5, 1.0), (2.0, 1.0), (1.5, 0.5), (1.0, 1.6)])
def test_the_calibration_undoes_what_was_done_to_the_curves(power: float, slope: float) -> None:
    curve, time, event, _ = drawn(6000, 1)
    lp = np.log(-np.log(curve[:, 3]))
    wrong = curve ** (power * np.exp((slope - 1) * (lp - lp.mean())))[:, None]
    made = calibration.fit(wrong, DAYS, time, event, 1095.0)
    assert made["slope"] == pytest.approx(1 / slope, rel=0.08)
    told = calibration.scaled(wrong, DAYS, made["shift"], made["slope"], made["centre"], 1095.0)
    assert told[:, 3].mean() == pytest.approx(curve[:, 3].mean(), abs=0.015)
    again = calibration.fit(told, DAYS, time, event, 1095.0)
    assert again["shift"] == pytest.approx(0, abs=0.01)
    assert again["slope"] == pytest.approx(1, abs=0.01)


def test_the_level_is_observed_over_expected() -> None:
    curve, time, event, _ = drawn(40, 2)
    few = np.where(np.cumsum(event) <= 6, event, 0.0)  # too few events for a slope
    made = calibration.fit(curve, DAYS, time, few, 1825.0)
    expected = calibration.cumulative_hazard(curve, DAYS, time).sum()
    happened = (few * (time <= 1825)).sum()
    assert made["slope"] == 1.0
    assert made["shift"] == pytest.approx(np.log(happened / expected))
    with pytest.raises(DataFault, match="none of 40"):
        calibration.fit(curve, DAYS, time, np.zeros(40), 1095.0)


@given(st.integers(0, 200), st.floats(-2, 2), st.floats(0.05, 4))
def test_calibrated_curves_never_rise_and_keep_the_order_at_the_horizon(seed: int, shift: float, slope: float) -> None:
    curve, *_ = drawn(20, seed)
    told = calibration.scaled(curve, DAYS, shift, slope, -0.3, 1095.0)
    assert (np.diff(told, axis=1) <= 1e-12).all()
    assert ((told >= 0) & (told <= 1)).all()
    assert (np.diff(told[np.argsort(curve[:, 3]), 3]) >= -1e-12).all()


def test_without_censoring_the_level_is_that_of_split_conformal_prediction() -> None:
    curve, time, event, death = drawn(39, 3, censored=False)
    fallen = np.sort(1 - np.exp(-calibration.cumulative_hazard(curve, DAYS, death)))
    made = bounds.fit(curve, DAYS, time, event, censoring_curve(time, event), 0.1)
    assert made["level"] == pytest.approx(fallen[3])  # the floor(40 x .1) = 4th smallest
    assert bounds.fit(curve[:8], DAYS, time[:8], event[:8], censoring_curve(time, event), 0.1)["level"] == 0.0
    assert (bounds.bounds(curve, DAYS, 0.0) == 0).all()
    with pytest.raises(UsageFault, match=r"trust\.miss"):
        bounds.fit(curve, DAYS, time, event, censoring_curve(time, event), 1.0)


@pytest.mark.parametrize("wrong", [1.0, 3.0])
def test_bounds_hold_against_true_times_whatever_the_model_says(wrong: float) -> None:
    truly, weighted = [], []
    for seed in range(120):
        curve, time, event, death = drawn(400, seed)
        said = curve**wrong
        g = censoring_curve(time[:150], event[:150])
        until = bounds.followed_until(time[:150])
        cal = slice(150, 250)
        made = bounds.fit(said[cal], DAYS, time[cal], event[cal], g, 0.2, until)
        bound = bounds.bounds(said[250:], DAYS, made["level"], until)
        truly.append((death[250:] >= bound).mean())
        terms = bounds.covered(bound, time[250:], event[250:], g)
        assert not isinstance(terms, Score)
        weighted.append(terms.mean())
    assert 0.79 <= np.mean(truly) <= 0.83
    assert np.mean(weighted) == pytest.approx(np.mean(truly), abs=0.015)  # what can be measured is what is true


def test_nobody_is_promised_more_than_was_followed() -> None:
    curve = np.full((30, 6), 0.999)
    time, event = np.full(30, 50.0), np.zeros(30)
    made = bounds.fit(curve, DAYS, time, event, censoring_curve(time, event), 0.1, until=40.0)
    assert (bounds.bounds(curve, DAYS, made["level"], 40.0) <= 40).all()
    late = bounds.covered([100.0], [60.0], [1.0], censoring_curve([10.0, 20.0], [0, 0]))
    assert isinstance(late, Score)
    assert "censoring" in late.reason
