from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sksurv.metrics import (
    brier_score,
    concordance_index_censored,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.util import Surv

from nsclc_mtl.metrics import survival as s

cohorts = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 8), st.integers(0, 1)), min_size=2, max_size=25)


def columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    risk, time, event = np.array(rows, dtype=float).T
    return risk, time, event


def drawn(n: int = 150, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Continuous times without ties, about a third censored, a risk that knows something."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    t, c = rng.exponential(np.exp(-x)), rng.exponential(2, n)
    return x + rng.normal(size=n), np.minimum(t, c), (t <= c).astype(float)


def test_c_index_is_that_of_r_with_tied_times_and_risks(lung: dict[str, Any]) -> None:
    assert s.c_index(lung["risk"], lung["time"], lung["event"]) == pytest.approx(lung["c_tied"], abs=1e-12)
    assert s.c_index(lung["fine"], lung["time"], lung["event"]) == pytest.approx(lung["c_fine"], abs=1e-12)


@given(cohorts)
def test_c_index_counts_pairs_as_one_does_by_hand(rows: list[tuple[int, int, int]]) -> None:
    risk, time, event = columns(rows)
    won = pairs = 0.0
    for i in range(len(rows)):
        for j in range(len(rows)):
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                pairs += 1
                won += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    c = s.c_index(risk, time, event)
    if pairs:
        assert c == pytest.approx(won / pairs, abs=1e-12)
    else:
        assert not c.known
        assert c.reason in ("no comparable pair", f"no event among {len(rows)} patients")


@given(cohorts)
def test_c_index_laws(rows: list[tuple[int, int, int]]) -> None:
    risk, time, event = columns(rows)
    c = s.c_index(risk, time, event)
    if not c.known:
        return
    assert c + s.c_index(-risk, time, event) == pytest.approx(1)
    assert s.c_index(risk, np.exp(time) - 7, event) == pytest.approx(c)
    assert s.c_index(risk**3 + 2, time, event) == pytest.approx(c)
    order = np.random.default_rng(0).permutation(len(risk))
    assert s.c_index(risk[order], time[order], event[order]) == pytest.approx(c)


def test_c_index_of_perfect_constant_and_reversed_risks() -> None:
    time, event = np.arange(1.0, 8), np.array([1, 0, 1, 1, 0, 1, 1])
    assert s.c_index(-time, time, event) == 1
    assert s.c_index(time, time, event) == 0
    assert s.c_index(np.ones(7), time, event) == 0.5


def test_what_cannot_be_computed_is_nan_with_its_reason() -> None:
    nothing = s.c_index([1, 2], [3, 4], [0, 0])
    assert math.isnan(nothing)
    assert nothing.reason == "no event among 2 patients"
    assert s.c_index([1, 2], [5, 5], [1, 1]).reason == "no comparable pair"
    assert s.c_index([], [], []).reason == "no patients"
    assert "NaN" in s.c_index([np.nan, 2], [1, 2], [1, 1]).reason
    g = s.censoring_curve([1, 2], [1, 0])
    assert "followed" in s.brier([0.5], [9], [1], 8, g).reason
    assert "beyond" in s.auc_at([1, 2], [1, 2], [1, 1], 5, g).reason
    assert s.log_rank([1, 2], [1, 1], [0, 0])[0].reason == "one group only"


def test_patients_without_outcome_are_left_out() -> None:
    assert s.c_index([3, 2, 1, 9], [1, 2, 3, np.nan], [1, 1, 1, 1]) == 1


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    risk, time, event = drawn(300)
    whole = s.c_index(risk, time, event)
    monkeypatch.setattr(s, "_ROWS", 7)
    assert s.c_index(risk, time, event) == pytest.approx(whole, abs=1e-12)


def test_kaplan_meier_and_its_band_are_those_of_r(lung: dict[str, Any]) -> None:
    km, golden = s.kaplan_meier(lung["time"], lung["event"]), lung["km"]
    np.testing.assert_allclose(km.time, golden["time"])
    np.testing.assert_allclose(km.value, golden["surv"], atol=1e-12)
    np.testing.assert_array_equal(km.at_risk, golden["n"])
    lower, upper = (
        np.array([np.nan if v in ("NA", None) else v for v in golden[w]], float) for w in ("lower", "upper")
    )
    inside = (km.value < 1) & (km.value > 0)
    np.testing.assert_allclose(km.lo[inside], lower[inside], atol=1e-9)
    np.testing.assert_allclose(km.hi[inside], upper[inside], atol=1e-9)


def test_kaplan_meier_without_events_stays_at_one() -> None:
    assert s.kaplan_meier([1, 2, 3], [0, 0, 0]).value.tolist() == [1, 1, 1]
    assert s.kaplan_meier([2, 2], [1, 1]).at([1.9, 2.0]).tolist() == [1, 0]


def test_log_rank_is_that_of_r(lung: dict[str, Any]) -> None:
    assert s.log_rank(lung["time"], lung["event"], lung["sex"])[0] == pytest.approx(lung["logrank2"], rel=1e-9)
    chi, freedom = s.log_rank(lung["time"], lung["event"], lung["ecog"])
    assert chi == pytest.approx(lung["logrank4"], rel=1e-9)
    assert freedom == len(set(lung["ecog"])) - 1


def test_ipcw_metrics_are_those_of_scikit_survival() -> None:
    risk, time, event = drawn()
    train_risk, train_time, train_event = drawn(300, seed=2)
    del train_risk
    grid = np.quantile(time, [0.2, 0.35, 0.5, 0.65])
    curves = np.exp(-np.exp(risk)[:, None] * grid)
    train, test = Surv.from_arrays(train_event == 1, train_time), Surv.from_arrays(event == 1, time)
    g = s.censoring_curve(train_time, train_event)
    ours = [float(s.brier(curves[:, k], time, event, grid[k], g)) for k in range(4)]
    np.testing.assert_allclose(ours, brier_score(train, test, curves, grid)[1], atol=1e-10)
    assert s.integrated_brier(curves, time, event, grid, g) == pytest.approx(
        integrated_brier_score(train, test, curves, grid), abs=1e-10
    )
    theirs, _ = cumulative_dynamic_auc(train, test, risk, grid)
    np.testing.assert_allclose([float(s.auc_at(risk, time, event, t, g)) for t in grid], theirs, atol=1e-10)
    tau = float(grid[-1])
    assert s.uno_c(risk, time, event, g, tau) == pytest.approx(
        concordance_index_ipcw(train, test, risk, tau=tau)[0], abs=1e-10
    )
    assert s.c_index(risk, time, event) == pytest.approx(
        concordance_index_censored(event == 1, time, risk)[0], abs=1e-12
    )


def test_a_perfect_forecast_has_a_brier_score_of_zero_and_censored_patients_no_say() -> None:
    time, event = np.array([1.0, 2, 3, 4]), np.array([1.0, 0, 1, 1])
    g = s.censoring_curve(time, event)
    assert s.brier([0, 0.3, 1, 1], time, event, 2.5, g) == 0
    assert s.brier([0, 0.9, 1, 1], time, event, 2.5, g) == 0


@pytest.mark.realdata
def test_published_values_of_several_r_packages(real_data: Path) -> None:
    """Kaplan-Meier and Harrell's C of `survival`, AUC(t) of `survAUC`, written with four decimals."""
    folder = real_data / "survival" / "torchsurv_benchmarks"
    if not folder.is_dir():
        pytest.skip("no torchsurv benchmarks among the real data")
    for golden in json.loads((folder / "benchmark_kaplan_meier.json").read_text()):
        km = s.kaplan_meier(golden["time"], golden["status"])
        np.testing.assert_allclose(km.at(golden["times"]), golden["surv_prob_survival"], atol=6e-5)
    for golden in json.loads((folder / "benchmark_cindex.json").read_text()):
        c = s.c_index(golden["estimate"], golden["test_time"], golden["test_status"])
        assert c == pytest.approx(golden["c_Harrell_survival"][0], abs=6e-5)
    for golden in json.loads((folder / "benchmark_auc.json").read_text())[:3]:  # lung; the others have late tied times
        g = s.censoring_curve(golden["train_time"], golden["train_status"])
        ours = [
            float(s.auc_at(golden["estimate"], golden["test_time"], golden["test_status"], t, g))
            for t in golden["times"]
        ]
        np.testing.assert_allclose(ours, golden["auc_cd_survAUC"], atol=6e-5)


def test_a_log_rank_within_strata_is_that_of_r() -> None:
    gold = json.loads((Path(__file__).parent.parent / "golden" / "stratified.json").read_text())
    chi, freedom = s.log_rank(gold["time"], gold["event"], gold["sex"], gold["inst"])
    assert (chi, freedom) == (pytest.approx(gold["chi_sex_inst"], rel=1e-9), 1)
    chi, freedom = s.log_rank(gold["time"], gold["event"], gold["three"], gold["ecog"])
    assert (chi, freedom) == (pytest.approx(gold["chi_three_ecog"], rel=1e-9), 2)
    alone = s.log_rank([1, 2, 3, 4], [1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1])[0]
    assert "no stratum holds two groups" in alone.reason
