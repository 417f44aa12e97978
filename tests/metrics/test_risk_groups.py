"""Risk groups against R's survival and maxstat, and the laws that they obey."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsclc_mtl.metrics import risk_groups as rg
from nsclc_mtl.metrics.score import Score
from nsclc_mtl.metrics.survival import log_rank


@pytest.fixture(scope="module")
def gold() -> dict[str, Any]:
    path = Path(__file__).parent.parent / "golden" / "risk_groups.json"
    return dict(json.loads(path.read_text()))


def test_groups_are_those_of_r(gold: dict[str, Any]) -> None:
    for name, groups in (("two", 2), ("three", 3)):
        assert rg.groups_of(gold["risk"], rg.quantile_cuts(gold["risk"], groups)).tolist() == gold[name]


@pytest.mark.parametrize(("name", "ratios"), [("two", "hr2"), ("three", "hr3")])
def test_hazard_ratios_are_those_of_coxph(gold: dict[str, Any], name: str, ratios: str) -> None:
    made = rg.hazard_ratios(gold[name], gold["time"], gold["event"])
    assert [(m.value, m.lo, m.hi) for m in made] == [pytest.approx(row, rel=1e-8) for row in gold[ratios]]


@pytest.mark.parametrize("horizon", [500, 1000])
def test_restricted_means_are_those_of_survfit(gold: dict[str, Any], horizon: int) -> None:
    time, event, two = (np.array(gold[k], float) for k in ("time", "event", "two"))
    pairs = []
    for k in (0, 1):
        mean = rg.restricted_mean(time[two == k], event[two == k], horizon)
        value, error = gold[f"rmst{horizon}"][k]
        assert (mean.value, (mean.hi - mean.lo) / 2 / rg.Z) == (pytest.approx(value), pytest.approx(error))
        half = rg.median_survival(time[two == k], event[two == k])
        assert [half.value, half.lo, half.hi] == gold["median"][k]
        pairs.append((time[two == k], event[two == k]))
    lost = rg.restricted_mean_difference(pairs[0], pairs[1], horizon)
    (low, low_error), (high, high_error) = gold[f"rmst{horizon}"]
    assert lost.value == pytest.approx(low - high)
    assert (lost.hi - lost.lo) / 2 / rg.Z == pytest.approx(math.hypot(low_error, high_error))


def test_log_rank_p_and_scores_are_those_of_r(gold: dict[str, Any]) -> None:
    chi, freedom = log_rank(gold["time"], gold["event"], gold["three"])
    assert chi == pytest.approx(gold["chi3"])
    assert rg.chi_square_p(chi, freedom) == pytest.approx(gold["p3"])
    scores = rg.log_rank_scores(gold["time"], gold["event"])
    assert scores == pytest.approx(gold["scores"], abs=1e-9)
    assert scores.sum() == pytest.approx(0, abs=1e-9)


def test_the_maximally_selected_cut_is_that_of_maxstat(gold: dict[str, Any]) -> None:
    own = gold["maxstat"]
    made = rg.maximally_selected(own["marker"], own["time"], own["event"])
    assert isinstance(made, rg.MaximalCut)
    assert made.statistic == pytest.approx(own["statistic"], rel=1e-9)
    assert made.cut == own["cut"]
    assert made.p_asymptotic == pytest.approx(own["p92"], rel=1e-6)
    assert made.p_permuted <= 0.0015
    narrow = rg.maximally_selected(own["marker"], own["time"], own["event"], least=0.25, draws=99)
    assert isinstance(narrow, rg.MaximalCut)
    assert (narrow.statistic, narrow.p_asymptotic) == (
        pytest.approx(own["statistic25"]),
        pytest.approx(own["p92_25"], rel=1e-6),
    )
    apart = np.r_[60:120, 0:60]
    weak = rg.maximally_selected(own["marker"], np.array(own["time"])[apart], np.array(own["event"])[apart])
    assert isinstance(weak, rg.MaximalCut)
    assert weak.statistic == pytest.approx(own["weak_statistic"])
    error = math.sqrt(own["weak_p_mc"] * (1 - own["weak_p_mc"]) / 1999)
    assert weak.p_permuted == pytest.approx(own["weak_p_mc"], abs=4 * error)


def test_the_corrected_p_holds_its_level_where_the_plain_one_does_not() -> None:
    rng = np.random.default_rng(0)
    corrected, plain = [], []
    for seed in range(200):
        risk, time, event = rng.normal(size=60), rng.exponential(size=60), (rng.random(60) < 0.7) * 1.0
        made = rg.maximally_selected(risk, time, event, draws=199, seed=seed)
        assert isinstance(made, rg.MaximalCut)
        chi, _ = log_rank(time, event, risk > made.cut)
        corrected.append(made.p_permuted)
        plain.append(rg.chi_square_p(chi, 1))
    assert 0.02 <= np.mean(np.array(corrected) <= 0.05) <= 0.10  # 95 % of 200 draws at .05 are .02 to .085
    assert np.mean(np.array(plain) <= 0.05) > 0.25


def test_what_cannot_be_had_says_why() -> None:
    [none] = rg.hazard_ratios([0, 0, 1, 1], [1, 2, 3, 4], [0, 0, 1, 1])
    assert math.isnan(none.value)
    assert "lowest group has no event" in none.reason
    [apart] = rg.hazard_ratios([0, 0, 1, 1], [1, 2, 3, 4], [1, 1, 1, 1])
    assert math.isnan(apart.value)
    assert "hardly overlap" in apart.reason
    assert rg.hazard_ratios([1, 1], [1, 2], [1, 1]) == []
    assert "nobody is followed to 9" in rg.restricted_mean([1, 2], [1, 0], 9).reason
    assert rg.restricted_mean([1, 3], [1, 1], 9).value == 2  # all had the event: known for ever
    assert "fewer than half" in rg.median_survival([1, 2, 3], [1, 0, 0]).reason
    for made in (rg.maximally_selected([1, 2], [1, 2], [0, 0]), rg.maximally_selected([1, 1], [1, 2], [1, 1])):
        assert isinstance(made, Score)
        assert made.reason


patients = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 12), st.booleans()), min_size=12, max_size=40)


@given(patients)
@settings(max_examples=60)
def test_laws(drawn: list[tuple[int, int, bool]]) -> None:
    risk, time, event = (np.array(column, float) for column in zip(*drawn, strict=True))
    cuts = rg.quantile_cuts(risk, 3)
    group = rg.groups_of(risk, cuts)
    assert (np.diff(group[np.argsort(risk)]) >= 0).all()  # groups follow the risk
    made = rg.maximally_selected(risk, time, event, draws=19)
    if isinstance(made, rg.MaximalCut):
        same = rg.maximally_selected(np.exp(risk / 5), time**3, event, draws=19)  # ranks alone matter
        assert isinstance(same, rg.MaximalCut)
        assert same.statistic == pytest.approx(made.statistic)
        assert 0 < made.p_permuted <= 1
        high = risk > made.cut
        [ratio] = rg.hazard_ratios(high, time, event)
        [turned] = rg.hazard_ratios(~high, time, event)
        if ratio.reason == "":
            assert ratio.value * turned.value == pytest.approx(1)
    whole = rg.restricted_mean(time, event, float(time.min()))
    assert whole.value == pytest.approx(time.min())  # nobody leaves before
    assert math.isnan(whole.lo)


def test_a_mean_of_a_group_without_an_event_has_no_interval() -> None:
    """Greenwood's variance is 0 there; of a difference it would leave out what that group does not know."""
    calm, other = ([5.0, 6.0, 7.0], [0, 0, 0]), ([1.0, 3.0, 6.0, 7.0], [1, 1, 0, 0])
    alone = rg.restricted_mean(*calm, 5)
    assert (alone.value, alone.reason) == (5, "no event before the horizon, so that no interval can be told")
    assert math.isnan(alone.lo)
    for pair in ((calm, other), (other, calm), (calm, calm)):
        lost = rg.restricted_mean_difference(*pair, 5)
        assert lost.value == lost.value
        assert math.isnan(lost.lo)
        assert "no event before" in lost.reason
    known = rg.restricted_mean_difference(other, other, 5)
    assert known.lo < known.value < known.hi
    assert rg.restricted_mean_difference(([5.0], [0]), ([], []), 5).reason == "no patients"
