"""Survival metrics against R (tests/golden/make/metrics.R): data that ship with R, tied months, 90 % censored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsclc_mtl.metrics import survival as s
from nsclc_mtl.metrics.risk_groups import hazard_ratios, restricted_mean

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
COHORTS = ("lung", "veteran", "pbc", "ties", "heavy")


@pytest.fixture(scope="module")
def every() -> dict[str, Any]:
    return json.loads((GOLDEN / "metrics.json").read_text())["survival"]


@pytest.fixture(params=COHORTS)
def r(request: pytest.FixtureRequest, every: dict[str, Any]) -> dict[str, Any]:
    """Arrays and R's answers of one cohort; G is that of the patients themselves, as R has it."""
    told = {k: np.array(v, dtype=float) if isinstance(v, list) else v for k, v in every[request.param].items()}
    return told | {"g": s.censoring_curve(told["time"], told["event"])}


def test_concordance_is_that_of_survival(r: dict[str, Any]) -> None:
    outcome = r["risk"], r["time"], r["event"]
    assert s.c_index(*outcome) == pytest.approx(r["c"], abs=1e-12)
    assert s.uno_c(*outcome, r["g"], np.inf) == pytest.approx(r["c_uno"], abs=1e-12)
    assert s.uno_c(*outcome, r["g"], r["tau"]) == pytest.approx(r["c_uno_tau"], abs=1e-12)


def test_auc_at_a_time_is_that_of_riskregression(r: dict[str, Any]) -> None:
    ours = [s.auc_at(r["risk"], r["time"], r["event"], t, r["g"]) for t in r["times"]]
    np.testing.assert_allclose(ours, r["auc"], atol=1e-12)


def test_brier_scores_are_those_of_riskregression_and_pec(r: dict[str, Any]) -> None:
    """IBS: R sums steps (the score holds until the next time), ours are trapezoids; both come from the same scores."""
    outcome, times = (r["time"], r["event"]), r["times"]
    km = s.kaplan_meier(*outcome)
    same = np.tile(km.at(times), (len(r["time"]), 1))
    for curves, at, steps, pec in (
        (r["survival"], "brier", "ibs_steps", "pec"),
        (same, "brier_km", "ibs_steps_km", "pec_km"),
    ):
        ours = np.array([s.brier(curves[:, k], *outcome, t, r["g"]) for k, t in enumerate(times)])
        np.testing.assert_allclose(ours, r[at], atol=1e-12)
        np.testing.assert_allclose(ours, r[pec][1:], atol=1e-12)
        widths = np.diff(times)
        stepwise = (
            np.r_[0, np.cumsum(ours[:-1] * widths)] / times
        )  # R begins at 0, with a score of 0 until the first time
        np.testing.assert_allclose(stepwise, r[steps], atol=1e-9)
        trapezoid = ((ours[1:] + ours[:-1]) / 2 @ widths) / widths.sum()
        assert s.integrated_brier(curves, *outcome, times, r["g"]) == pytest.approx(trapezoid, abs=1e-12)
    ipa = [s.accuracy_index(r["survival"][:, [k]], *outcome, times[[k]], r["g"], km) for k in range(len(times))]
    np.testing.assert_allclose(ipa, r["ipa"], atol=1e-9)
    whole = s.accuracy_index(r["survival"], *outcome, times, r["g"], km)
    model, reference = (s.integrated_brier(c, *outcome, times, r["g"]) for c in (r["survival"], same))
    assert whole == pytest.approx(1 - model / reference, abs=1e-12)


def test_restricted_mean_and_its_error_are_those_of_survfit(r: dict[str, Any]) -> None:
    mean = restricted_mean(r["time"], r["event"], r["tau"])
    assert mean.value == pytest.approx(r["rmean"], rel=1e-9)
    assert (mean.hi - mean.value) / 1.959963984540054 == pytest.approx(r["rmean_se"], rel=1e-9)


def test_groups_are_told_apart_as_survdiff_and_coxph_do(r: dict[str, Any]) -> None:
    time, event, group = r["time"], r["event"], r["group"]
    chi, freedom = s.log_rank(time, event, group)
    assert chi == pytest.approx(r["log_rank"], rel=1e-9)
    assert freedom == len(np.unique(group)) - 1
    ours = [(h.value, h.lo, h.hi) for h in hazard_ratios(group, time, event)]
    np.testing.assert_allclose(ours, np.reshape(r["hr"], (-1, 3)), rtol=1e-7)


def test_brute_force_of_our_definitions_at_ties(every: dict[str, Any]) -> None:
    """Patient by patient, in plain words: events before censorings at a tied time, G just before the event."""
    data = every["ties"]
    time, event, risk = (np.array(data[k], dtype=float) for k in ("time", "event", "risk"))
    n, tau = len(time), 11.0

    def g_before(t: float) -> float:
        value = 1.0
        for u in sorted({x for x, e in zip(time, event, strict=True) if not e and x < t}):
            at_risk = sum(1 for x, e in zip(time, event, strict=True) if x > u or (x == u and not e))
            value *= 1 - sum(1 for x, e in zip(time, event, strict=True) if x == u and not e) / at_risk
        return value

    g = s.censoring_curve(time, event)
    np.testing.assert_allclose(g.before(np.unique(time)), [g_before(t) for t in np.unique(time)], atol=1e-12)
    won = pairs = 0.0
    for i in range(n):
        for j in range(n):
            if event[i] and time[i] < tau and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                pairs += 1 / g_before(time[i]) ** 2
                won += (float(risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j])) / g_before(time[i]) ** 2
    assert s.uno_c(risk, time, event, g, tau) == pytest.approx(won / pairs, abs=1e-12)


@pytest.mark.realdata
def test_packages_that_let_the_censored_leave_first(real_data: Path) -> None:
    """Uno's C of survC1 and Brier(t) of SurvMetrics: ours, once censored times are put just before the events."""
    folder = real_data / "survival" / "torchsurv_benchmarks"
    if not folder.is_dir():
        pytest.skip("no torchsurv benchmarks among the real data")
    uno, brier, auc = (
        json.loads((folder / f"benchmark_{n}.json").read_text()) for n in ("cindex", "brier_score", "auc")
    )
    for golden in uno:
        event, seen = (np.array(golden[k], dtype=float) for k in ("test_status", "test_time"))
        g = s.kaplan_meier(seen, 1 - event)  # just before the event, as ours
        c = s.uno_c(golden["estimate"], seen - 1e-6 * (event == 0), event, g, max(golden["times"]))
        assert c == pytest.approx(golden["c_Uno_survC1"][0], abs=6e-5)
    for golden in brier:
        event = np.array(golden["test_status"], dtype=float)
        time = np.array(golden["test_time"], dtype=float) - 1e-6 * (event == 0)
        g, said = s.censoring_curve(time, event), np.array(golden["estimate"], dtype=float)
        ours = [s.brier(said[:, k], time, event, t, g) for k, t in enumerate(golden["times"])]
        np.testing.assert_allclose(ours, golden["brier_score_survMetrics"], atol=6e-5)
    for golden in auc:
        time, event = golden["test_time"], golden["test_status"]
        g = s.censoring_curve(time, event)
        ours = [s.auc_at(golden["estimate"], time, event, t, g) for t in golden["times"]]
        np.testing.assert_allclose(ours, golden["auc_cd_Uno_riskRegression"], atol=6e-5)
        if len(time) > 300:  # the smaller ones were drawn with other weights
            ours = [s.auc_at(golden["estimate"], time, event, t, g) for t in golden["times_se"]]
            np.testing.assert_allclose(ours, golden["auc_cd_Uno_timeROC"], atol=6e-5)
