from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar

from nsclc_mtl.metrics import calibration as c
from nsclc_mtl.metrics import survival_calibration as sc
from nsclc_mtl.metrics.fits import cox, logistic
from nsclc_mtl.metrics.splines import knots_of, restricted_cubic
from nsclc_mtl.phantom.truth import WEIBULL_SCALE_DAYS, WEIBULL_SHAPE, draw, log_hazard, response_logit

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads((GOLDEN / "calibration.json").read_text())


@pytest.mark.parametrize("data", ["asah", "drawn"])
def test_calibration_of_a_class_is_that_of_r(golden: dict[str, Any], data: str) -> None:
    r = golden[data]
    values = c.assess(r["y"], r["p"]).values
    assert [values[k] for k in ("slope", "intercept", "in_the_large", "observed_expected")] == pytest.approx(
        [r["slope"], r["intercept"], r["large"], r["oe"]], abs=1e-6
    )
    assert list(c.integrated_index(r["y"], r["p"])) == pytest.approx(r["near"], abs=1e-6)
    assert c.in_the_large(r["y"], r["p"]) == values["in_the_large"]
    assert c.assess(r["y"], r["p"], grid=r["p"]).curve == pytest.approx(r["smooth"], abs=1e-6)
    # rms::val.prob: slope and intercept are ours; its Eavg and E90 are of lowess, near ours and not the same
    assert [values["intercept"], values["slope"]] == pytest.approx(
        [r["val.prob"]["Intercept"], r["val.prob"]["Slope"]], abs=1e-4
    )
    assert values["ici"] == pytest.approx(r["val.prob"]["Eavg"], abs=0.02)
    assert values["ici"] == pytest.approx(r["loess"][0], abs=0.02)


@pytest.mark.parametrize("data", ["asah", "pbc", "lung", "heavy"])
def test_groups_are_those_of_r(golden: dict[str, Any], data: str) -> None:
    r = golden[data]
    if data == "asah":
        made = c.groups(r["p"], c.rates(r["y"]), 5)
    else:
        made = c.groups(r["risk"], sc.risks(r["time"], r["event"], r["when"]), 5)
    assert [g.n for g in made] == r["groups"]["n"]
    for name in ("predicted", "observed", "lo", "hi"):
        theirs = [np.nan if v == "NA" or v is None else v for v in r["groups"][name]]
        assert [getattr(g, name) for g in made] == pytest.approx(theirs, abs=1e-9, nan_ok=True)


def test_groups_are_those_of_riskregression(golden: dict[str, Any]) -> None:
    r = golden["pbc"]
    made = c.groups(r["risk"], sc.risks(r["time"], r["event"], r["when"]), 5)
    theirs = golden["riskRegression"]
    assert [g.predicted for g in made] == pytest.approx([g["Pred"] for g in theirs], abs=1e-6)
    assert [g.observed for g in made] == pytest.approx([g["Obs"] for g in theirs], abs=1e-6)


@pytest.mark.parametrize("data", ["pbc", "lung", "heavy"])
def test_calibration_at_a_horizon_is_that_of_r(golden: dict[str, Any], data: str) -> None:
    r = golden[data]
    made = sc.assess_at(r["risk"], r["time"], r["event"], r["when"], grid=r["risk"])
    assert made.values["slope"] == pytest.approx(r["slope"], abs=1e-6)
    assert made.values["observed_expected"] == pytest.approx(r["oe"], abs=1e-9)
    assert made.curve == pytest.approx(r["smooth"], abs=1e-6)
    assert [made.values[k] for k in ("ici", "e50", "e90")] == pytest.approx(r["near"], abs=1e-6)
    # follow-up that runs on beyond the horizon: another model, near ours where hazards are proportional
    assert made.values["ici"] == pytest.approx(r["near_whole"][0], abs=0.03)


@pytest.mark.parametrize("data", ["dcal", "dcal_lung"])
def test_d_calibration_is_that_of_a_loop_in_r(golden: dict[str, Any], data: str) -> None:
    r = golden[data]
    made = sc.d_calibration(r["s"], r["event"])
    assert made.share == pytest.approx(r["share"], abs=1e-12)
    assert [made.chi2, made.p] == pytest.approx([r["chi2"], r["p"]], abs=1e-9)


def test_a_sample_drawn_by_weights_is_the_sample_written_out(golden: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    r = golden["lung"]  # many tied times
    risk, time, event = (np.array(r[k], dtype=float) for k in ("risk", "time", "event"))
    w = rng.multinomial(len(risk), np.full(len(risk), 1 / len(risk)), size=3)
    cumulative = -np.log(1 - risk) * np.minimum(time, r["when"]) / r["when"]
    made = sc.assess_at(risk, time, event, r["when"], w, hazard=cumulative)
    x = np.log(-np.log(1 - risk))
    for k in range(3):
        again = np.repeat(np.arange(len(risk)), w[k])
        alone = sc.assess_at(risk[again], time[again], event[again], r["when"], hazard=cumulative[again])
        for name in ("slope", "in_the_large", "observed_expected"):
            assert made.draws[name][k] == pytest.approx(alone.values[name], abs=1e-9)
        knots = knots_of(x)  # of the whole sample: draws keep them
        until, seen = np.minimum(time, r["when"]), event * (time <= r["when"])
        beta, hazard = cox(restricted_cubic(x, knots)[again], until[again], seen[again], np.ones((1, len(again))))
        gap = 1 - np.exp(-hazard * np.exp(restricted_cubic(x, knots)[again] @ beta[0])) - risk[again]
        near = [np.abs(gap).mean(), *np.quantile(np.abs(gap), [0.5, 0.9])]
        assert [made.draws[n][k] for n in ("ici", "e50", "e90")] == pytest.approx(near, abs=1e-9)
    y = (time < 12).astype(float)
    drawn = c.assess(y, risk, w)
    again = np.repeat(np.arange(len(risk)), w[0])
    alone = c.assess(y[again], risk[again])
    for name in ("slope", "intercept", "in_the_large", "observed_expected"):
        assert drawn.draws[name][0] == pytest.approx(alone.values[name], abs=1e-9)


@given(st.integers(0, 10_000), st.floats(0.3, 3), st.floats(-1, 1))
@settings(max_examples=15, deadline=None)
def test_a_logit_that_is_stretched_has_the_inverse_slope(seed: int, stretch: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=120)
    y = (rng.random(120) < 1 / (1 + np.exp(-x))).astype(float)
    slope, intercept = c.calibration_slope(y, 1 / (1 + np.exp(-x)))
    other, moved = c.calibration_slope(y, 1 / (1 + np.exp(-(x * stretch + shift))))
    assert other == pytest.approx(slope / stretch, abs=1e-6)
    assert moved == pytest.approx(intercept - other * shift, abs=1e-6)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_what_happens_after_the_horizon_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    risk, time = rng.uniform(0.05, 0.9, 60), rng.integers(1, 9, 60) * 1.0
    event = (rng.random(60) < 0.7).astype(float)
    later = time + np.where(time > 4, rng.uniform(0, 9, 60), 0)
    flipped = np.where(time > 4, 1 - event, event)
    a, b = sc.assess_at(risk, time, event, 4), sc.assess_at(risk, later, flipped, 4)
    assert list(a.values.values()) == pytest.approx(list(b.values.values()), abs=1e-9, nan_ok=True)


def test_edges_of_classes_are_right_or_say_why() -> None:
    y = np.array([0, 1] * 20, dtype=float)
    constant = c.assess(y, np.full(40, 0.3)).values
    assert "constant" in constant["slope"].reason
    assert constant["ici"] == pytest.approx(0.2)
    assert constant["e90"] == pytest.approx(0.2)
    assert constant["in_the_large"] == pytest.approx(np.log(0.5 / 0.5) - np.log(0.3 / 0.7))
    none = c.assess(np.zeros(40), np.linspace(0.1, 0.9, 40)).values
    assert none["observed_expected"] == 0
    assert "one outcome only" in none["in_the_large"].reason
    assert "at least 5" in none["ici"].reason
    apart = c.assess(np.repeat([0, 1], 20), np.linspace(0.1, 0.9, 40)).values
    assert "separated" in apart["slope"].reason
    assert "separated" in apart["ici"].reason
    assert c.assess([], []).values["ici"].reason == "no patients"
    assert "NaN" in c.assess(y, np.full(40, np.nan)).values["ici"].reason
    two = np.repeat([0.2, 0.7], 20)  # two values: the curve is the observed rate of each
    rates = [y[:20].mean(), y[20:].mean()]
    assert c.assess(y, two, grid=[0.2, 0.7]).curve == pytest.approx(rates, abs=1e-9)


@pytest.mark.parametrize("data", ["pbc", "lung", "heavy"])
def test_the_intercept_at_a_horizon_is_that_of_a_poisson_model(golden: dict[str, Any], data: str) -> None:
    """The hazard of these risks is taken as constant; the model is fitted by its likelihood, and day by day."""
    r = golden[data]
    risk, time, event = (np.array(r[k], dtype=float) for k in ("risk", "time", "event"))
    until, seen = np.minimum(time, r["when"]), event * (time <= r["when"])
    hazard = -np.log(1 - risk) * until / r["when"]
    made = sc.assess_at(risk, time, event, r["when"], hazard=hazard).values["in_the_large"]

    def lost(a: float) -> float:  # minus the log likelihood of Poisson with log(hazard) as offset
        return float((np.exp(a) * hazard - seen * (a + np.log(hazard))).sum())

    assert made == pytest.approx(minimize_scalar(lost, bounds=(-5, 5), method="bounded").x, abs=1e-4)
    # binary, complementary log-log link, each patient's follow-up cut into 400 steps: the same in the limit

    def score(a: float) -> float:
        step = np.exp(a) * hazard / 400
        last = seen * step * np.exp(-step) / -np.expm1(-step)
        return float((last - (400 - seen) * step).sum())

    assert made == pytest.approx(brentq(score, -5, 5), abs=5e-3)


def test_hazards_that_are_a_multiple_of_the_true_ones_have_its_log_as_intercept() -> None:
    assert sc.assess_at([0.5, 0.5], [1, 2], [1, 0], 2, hazard=[0.2, 0.3]).values["in_the_large"] == pytest.approx(
        np.log(1 / 0.5)
    )
    rng = np.random.default_rng(2)
    lp = rng.normal(size=8000)
    t, u = rng.exponential(np.exp(-lp)), rng.exponential(1.5, 8000)
    time, event = np.minimum(t, u), (t <= u) * 1.0
    for times in (0.5, 1.0, 2.0):
        own = times * np.exp(lp)
        hazard = own * np.minimum(time, 1.0)
        found = sc.assess_at(1 - np.exp(-own), time, event, 1.0, hazard=hazard).values
        assert found["in_the_large"] == pytest.approx(-np.log(times), abs=0.05)
        assert found["slope"] == pytest.approx(1, abs=0.06)


def test_an_intercept_at_a_horizon_that_cannot_be_had_says_why() -> None:
    rng = np.random.default_rng(0)
    risk, time, event = rng.uniform(0.1, 0.9, 60), rng.uniform(1, 9, 60), np.ones(60)

    def found(event: np.ndarray, hazard: Any, risk: np.ndarray = risk) -> Any:
        return sc.assess_at(risk, time, event, 5, hazard=hazard).values["in_the_large"]

    assert "no event until 5" in found(event * 0, risk).reason
    assert "not given" in found(event, None).reason
    assert "NaN" in found(event, risk * np.nan).reason
    assert "every expected hazard is 0" in found(event, risk * 0).reason
    constant = found(event, np.minimum(time, 5) * 0.1, np.full(60, 0.4))  # has no slope, but an intercept
    assert constant == pytest.approx(np.log((time <= 5).sum() / (np.minimum(time, 5) * 0.1).sum()))
    few = (np.arange(60) == np.argmin(time)) * 1.0  # one event
    assert found(few, np.full(60, 0.1)) == pytest.approx(np.log(1 / 6))


def test_edges_of_survival_are_right_or_say_why() -> None:
    rng = np.random.default_rng(0)
    time, event, risk = rng.uniform(1, 9, 60), np.ones(60), rng.uniform(0.1, 0.9, 60)
    constant = sc.assess_at(np.full(60, 0.3), time, event, 5).values
    dead = (time <= 5).mean()
    assert "constant" in constant["slope"].reason
    assert constant["ici"] == pytest.approx(abs(dead - 0.3))
    assert constant["observed_expected"] == pytest.approx(dead / 0.3)
    none = sc.assess_at(risk, time, np.zeros(60), 5).values
    assert none["observed_expected"] == 0
    assert "0 events until 5" in none["slope"].reason
    early = sc.assess_at(risk, time / 9, np.zeros(60), 5).values  # all censored before the horizon
    assert {v.reason for v in early.values()} == {"nobody is followed up to 5"}
    gone = sc.assess_at(risk, time / 9, event, 5).values  # all had the event before it
    assert gone["observed_expected"] == pytest.approx(1 / risk.mean())
    assert sc.assess_at([], [], [], 5).values["ici"].reason == "no patients"
    assert "perfectly" in sc.assess_at(1 - time / 10, time, event, 20).values["slope"].reason
    assert "no event" in sc.d_calibration(risk, np.zeros(60)).p.reason
    assert "NaN" in sc.d_calibration(risk * np.nan, event).p.reason
    assert sc.d_calibration([0.0, 0.5], [0, 1]).share.sum() == pytest.approx(1)


def test_curves_between_their_days_have_a_constant_hazard() -> None:
    days, s = [100.0, 200.0], np.exp(-np.array([[0.1, 0.4], [0.0, 2.0]]))
    assert sc.interpolated(days, s, 150.0) == pytest.approx(np.exp([-0.25, -1.0]))
    assert sc.interpolated(days, s, [0.0, 200.0]) == pytest.approx([1, np.exp(-2)])
    assert np.isnan(sc.interpolated(days, s, 201.0)).all()
    assert sc.interpolated(days, s, 201.0, reach=2.0) == pytest.approx(np.exp([-0.403, -2.02]))


def test_true_risks_are_calibrated_and_the_test_holds_its_level() -> None:
    rng = np.random.default_rng(1)
    n, rejected = 4000, 0
    x = rng.normal(size=n)
    t, u = rng.exponential(np.exp(-x)), rng.exponential(2, n)
    time, event = np.minimum(t, u), (t <= u) * 1.0
    values = sc.assess_at(1 - np.exp(-np.exp(x)), time, event, 1.0).values
    assert values["slope"] == pytest.approx(1, abs=0.06)
    assert values["observed_expected"] == pytest.approx(1, abs=0.03)
    assert values["ici"] < 0.02
    for k in range(20):
        some = slice(k * 200, (k + 1) * 200)
        rejected += sc.d_calibration(np.exp(-time * np.exp(x))[some], event[some]).p < 0.05
    assert rejected <= 3
    assert sc.d_calibration(np.exp(-2 * time * np.exp(x)), event).p < 1e-6


def test_the_truth_of_the_phantom_is_calibrated() -> None:
    true = draw(4000, 5)
    told = c.assess(true.outcomes["response"], 1 / (1 + np.exp(-response_logit(true.latents)))).values
    assert told["slope"] == pytest.approx(1, abs=0.1)
    assert told["in_the_large"] == pytest.approx(0, abs=0.1)
    days, event = (true.outcomes[c].to_numpy(dtype=float) for c in ("os_days", "os_event"))
    for years in (1, 3, 5):
        hazard = (365.25 * years / WEIBULL_SCALE_DAYS) ** WEIBULL_SHAPE * np.exp(log_hazard(true.latents))
        own = (np.minimum(days, 365.25 * years) / WEIBULL_SCALE_DAYS) ** WEIBULL_SHAPE
        own = own * np.exp(log_hazard(true.latents))
        told = sc.assess_at(1 - np.exp(-hazard), days, event, 365.25 * years, hazard=own).values
        assert told["in_the_large"] == pytest.approx(0, abs=0.06)
        assert told["slope"] == pytest.approx(1, abs=0.1)
        assert told["observed_expected"] == pytest.approx(1, abs=0.03)
        assert told["ici"] < 0.02


def test_small_fits_are_nan_where_there_is_no_maximum() -> None:
    x = np.arange(8.0)[:, None]
    w = np.array([[1] * 8, [1, 1, 1, 1, 0, 0, 0, 0]])
    y = np.array([0, 1, 0, 1, 0, 1, 1, 1.0])
    beta = logistic(np.hstack([x, np.ones((8, 1))]), y * [1, 1, 1, 1, 1, 0, 1, 1], w)
    assert np.isfinite(beta).all()
    assert np.isnan(logistic(x, np.ones(8), w)).all()
    assert np.isnan(cox(x, np.arange(8.0), np.zeros(8), w)[0]).all()


def test_probabilities_of_0_and_1_tell_no_intercept() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200) * 1.0
    for p in (y, 1 - y, np.zeros(200), np.ones(200)):
        large = c.assess(y, p).values["in_the_large"]
        assert large.reason == "200 of 200 probabilities clipped at 1e-6: the intercept is infinite"
        assert not large.known
    assert c.assess(y, y).values["observed_expected"] == 1
    bold = np.where(rng.random(200) < 0.2, 1 - y, y)  # says 0 or 1 to everybody, and is wrong now and then
    made = c.assess(y, bold).values
    assert not made["in_the_large"].known
    assert not made["slope"].known
    assert not made["intercept"].known
    assert made["slope"].reason.startswith("200 of 200 probabilities clipped at 1e-6: the others are too few")
    assert made["ici"] == pytest.approx(np.mean(bold != y), abs=0.02)  # the rates at 0 and at 1 need no logit
    assert made["ici"].reason == "200 of 200 probabilities clipped at 1e-6"


def test_some_probabilities_of_0_and_1_are_counted_beside_the_values() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=150)
    y, p = (rng.random(150) < 1 / (1 + np.exp(-x))) * 1.0, 1 / (1 + np.exp(-x))
    right = np.r_[np.zeros(6), np.ones(4)]
    made, without = c.assess(np.r_[y, right], np.r_[p, right]).values, c.assess(y, p).values
    for name in ("slope", "intercept", "in_the_large"):  # who is certain, and right, tells nothing
        assert made[name] == pytest.approx(without[name], abs=1e-4)
        assert made[name].reason == "10 of 160 probabilities clipped at 1e-6"
        assert without[name].reason == ""
    assert made["observed_expected"].reason == ""
    alone = c.assess(np.r_[y[:4], np.zeros(60), np.ones(60)], np.r_[p[:4], np.zeros(60), np.ones(60)]).values
    assert not alone["slope"].known  # four others are too few
    weights = np.vstack([np.r_[np.ones(150), np.zeros(10)], np.r_[np.zeros(150), np.ones(10) * 16]])
    drawn = c.assess(np.r_[y, right], np.r_[p, right], weights).draws["in_the_large"]
    assert drawn[0] == pytest.approx(without["in_the_large"])
    assert np.isnan(drawn[1])  # a draw of those alone who are certain


def test_risks_of_0_and_1_tell_no_slope_and_a_certain_death_that_was_none_no_intercept() -> None:
    rng = np.random.default_rng(0)
    time, event = rng.exponential(5, 200), (rng.random(200) < 0.7) * 1.0
    for risk in (np.zeros(200), np.ones(200)):
        own = -np.log(np.clip(1 - risk, 1e-12, 1))
        large = sc.assess_at(risk, time, event, 3, hazard=own).values["in_the_large"]
        assert not large.known
        assert large.reason == (
            "200 of 200 patients were followed until their predicted survival was 0: the expected hazard is infinite"
            if risk[0]
            else "every expected hazard is 0"
        )
    bold = rng.integers(0, 2, 200) * 1.0
    made = sc.assess_at(bold, time, event, 3, hazard=np.where(bold == 1, 0.8, 0.1)).values
    assert made["slope"].reason.startswith("200 of 200 risks clipped at 1e-6 or 1 - 1e-12: the others are too few")
    assert made["in_the_large"].known
    assert made["ici"].reason == "200 of 200 risks clipped at 1e-6 or 1 - 1e-12"
    some = np.where(np.arange(200) < 7, 0.0, rng.uniform(0.1, 0.9, 200))
    told = sc.assess_at(some, time, event, 3).values
    assert told["slope"].known
    assert told["slope"].reason == "7 of 200 risks clipped at 1e-6 or 1 - 1e-12"


def test_d_calibration_of_few_patients_has_no_p() -> None:
    s, event = np.random.default_rng(0).uniform(size=50), np.ones(50)
    assert sc.d_calibration(s, event).p.known
    made = sc.d_calibration(s[:24], event[:24])
    assert made.p.reason == "2.4 patients are expected in each of 10 bins, at least 5 are needed"
    assert made.chi2.known
