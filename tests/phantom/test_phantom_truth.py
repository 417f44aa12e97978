"""The laws of the phantom's truth: what a model can know of it, and what is missing from it."""

from __future__ import annotations

import numpy as np
import pytest

from nsclc_mtl.metrics.classification import auc, ordinal_auc
from nsclc_mtl.metrics.survival import c_index
from nsclc_mtl.phantom import truth

N = 5000
SEEDS = (101, 102)  # not those that models are trained on


@pytest.fixture(scope="module")
def cohorts() -> list[truth.Truth]:
    return [truth.draw(N, seed) for seed in SEEDS]


def reached(drawn: truth.Truth) -> dict[str, dict[str, float]]:
    """AUC or C of each ceiling, {ceiling: {task: value}}."""
    out = drawn.outcomes
    value: dict[str, dict[str, float]] = {}
    for name, scores in truth.ceilings(drawn).items():
        value[name] = {task: float(ordinal_auc(out[task], scores[task])) for task in ("grade", "stage", "response")}
        value[name]["survival"] = float(c_index(scores["survival"], out["os_days"], out["os_event"]))
    return value


def test_true_latents_predict_well_but_not_perfectly(cohorts: list[truth.Truth]) -> None:
    for drawn in cohorts:
        latent = reached(drawn)["latent"]
        for task in ("grade", "stage", "response"):
            assert 0.75 <= latent[task] <= 0.90
        assert 0.72 <= latent["survival"] <= 0.78


def test_what_is_attainable_lies_below_the_latents_and_above_addition(cohorts: list[truth.Truth]) -> None:
    for drawn in cohorts:
        value = reached(drawn)
        for task in ("grade", "stage", "response", "survival"):
            assert 0.55 < value["attainable"][task] < value["latent"][task]
        # the response is an interaction, which no additive model finds
        assert value["attainable"]["response"] > value["additive"]["response"] + 0.05
        assert value["attainable"]["survival"] >= value["additive"]["survival"]


def test_attainable_score_is_calibrated(cohorts: list[truth.Truth]) -> None:
    drawn = cohorts[0]
    p = truth.ceilings(drawn)["attainable"]["response"]
    y = drawn.outcomes["response"].to_numpy()
    for low, high in ((0.0, 0.45), (0.45, 0.55), (0.55, 1.0)):
        rows = (p >= low) & (p < high)
        assert abs(p[rows].mean() - y[rows].mean()) < 4 * np.sqrt(0.25 / rows.sum())


def test_latents_are_standard_normal_with_the_stated_correlation(cohorts: list[truth.Truth]) -> None:
    for drawn in cohorts:
        assert np.allclose(drawn.latents.mean(0), 0, atol=0.06)
        assert np.allclose(np.cov(drawn.latents.T), truth._COVARIANCE, atol=0.08)


def test_statistics_have_the_stated_reliability(cohorts: list[truth.Truth]) -> None:
    for drawn in cohorts:
        for i in range(3):
            reliability = np.corrcoef(drawn.latents[:, i], drawn.statistics[:, i])[0, 1] ** 2
            assert reliability == pytest.approx(truth.RELIABILITY, abs=0.02)


def test_two_in_five_are_censored(cohorts: list[truth.Truth]) -> None:
    for drawn in cohorts:
        assert 1 - drawn.outcomes["os_event"].mean() == pytest.approx(0.40, abs=0.03)


def test_missing_at_random_has_the_stated_rates(cohorts: list[truth.Truth]) -> None:
    for drawn in cohorts:
        assert 1 - drawn.has["ct_volume"].mean() == pytest.approx(0.25, abs=0.025)
        assert 1 - drawn.has["rna"].mean() == pytest.approx(0.20, abs=0.025)
        for known in drawn.known.values():
            assert 1 - known.mean() == pytest.approx(0.15, abs=0.025)
        for name, numbers in (("age", drawn.age_z), ("grade", drawn.outcomes["grade"])):
            assert abs(np.corrcoef(drawn.has["ct_volume"], numbers)[0, 1]) < 0.05, name
        assert set(np.unique(drawn.slides)) == {1, 2}


def test_mar_depends_on_age_and_site_but_not_on_the_outcome_given_them() -> None:
    drawn = truth.draw(N, SEEDS[0], missing="mar")
    gone = ~drawn.has["ct_volume"]
    at_c = (drawn.patients["site"] == "C").to_numpy()
    assert auc(gone, drawn.age_z) > 0.60
    assert gone[at_c].mean() > gone[~at_c].mean() + 0.12
    assert abs(float(auc(gone, drawn.outcomes["grade"])) - 0.5) < 0.03


def test_mnar_depends_on_the_outcome() -> None:
    drawn = truth.draw(N, SEEDS[0], missing="mnar")
    gone, out = ~drawn.has["ct_volume"], drawn.outcomes
    assert gone[out["os_event"] == 1].mean() > gone[out["os_event"] == 0].mean() + 0.15
    assert gone[out["grade"] == 2].mean() > gone[out["grade"] == 0].mean() + 0.12


def test_confounded_look_goes_with_grade_and_the_other_way_round_at_the_third_site() -> None:
    drawn = truth.draw(N, SEEDS[0], site="confounded")
    worn_a = (drawn.patients["look"] == "A").to_numpy()
    third = (drawn.patients["site"] == "C").to_numpy()
    grade = drawn.outcomes["grade"].to_numpy()
    assert grade[~third & worn_a].mean() > grade[~third & ~worn_a].mean() + 0.5
    assert grade[third & worn_a].mean() < grade[third & ~worn_a].mean() - 0.5


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match="none of mcar, mar, mnar"):
        truth.draw(5, 0, missing="sometimes")
    with pytest.raises(ValueError, match="none of none, shift, confounded"):
        truth.draw(5, 0, site="moon")
