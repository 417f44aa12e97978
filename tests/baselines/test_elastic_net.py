"""The elastic net against scikit-survival (GPL, for tests only) and scikit-learn, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from nsclc_mtl.baselines import fit_floors
from nsclc_mtl.baselines.elastic_net import ElasticNet, elastic_net
from nsclc_mtl.baselines.likelihoods import GradesLikelihood
from nsclc_mtl.baselines.model import Outcome, Space
from nsclc_mtl.metrics.partial_likelihood import CoxLikelihood
from nsclc_mtl.records import UsageFault


def survivors(n: int, p: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three of p columns matter; no two times are equal, where Efron's and Breslow's ties agree."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, p))
    z[:, 3] += z[:, 0]
    death = rng.exponential(np.exp(-(z[:, 0] - z[:, 1] + 0.5 * z[:, 2])))
    ends = rng.exponential(1.5, n)
    return (z - z.mean(0)) / z.std(0), np.minimum(death, ends), (death <= ends).astype(float)


@pytest.mark.parametrize(("n", "p"), [(120, 10), (60, 200)])
@pytest.mark.parametrize("ratio", [0.2, 0.9, 1.0])
def test_cox_is_that_of_scikit_survival(n: int, p: int, ratio: float) -> None:
    linear = pytest.importorskip("sksurv.linear_model", reason="the extra `dev` is not installed")
    z, time, event = survivors(n, p, 0)
    likelihood = CoxLikelihood(z, time, event)
    path = ElasticNet([ratio], steps=6, weakest=0.2).paths(Space(z, z), Outcome(time, event, 0, False))[0]
    outcome = np.array(list(zip(event == 1, time, strict=True)), dtype=[("event", bool), ("time", float)])
    theirs = linear.CoxnetSurvivalAnalysis(alphas=path.penalties, l1_ratio=ratio, tol=1e-14, max_iter=1_000_000)
    coefficients = theirs.fit(z, outcome).coef_
    at = likelihood.start()
    for k, penalty in enumerate(path.penalties):
        at = elastic_net(likelihood, at, penalty, ratio)
        np.testing.assert_allclose(at, coefficients[:, k], atol=1e-4)
        assert set(np.flatnonzero(at)) == set(np.flatnonzero(coefficients[:, k]))
    assert not coefficients[:, 0].any()
    assert coefficients[:, -1].any()


def test_logistic_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(90, 30))
    y = (z[:, 0] - z[:, 1] + rng.normal(size=90) > 0.4).astype(int)
    likelihood = GradesLikelihood(z, y, 2)
    ours = elastic_net(likelihood, likelihood.start(), 0.05, 0.5)
    theirs = LogisticRegression(C=1 / (90 * 0.05), l1_ratio=0.5, solver="saga", tol=1e-10, max_iter=100_000).fit(z, y)
    np.testing.assert_allclose(ours[1:], theirs.coef_[0], atol=1e-5)
    assert -ours[0] == pytest.approx(theirs.intercept_[0], abs=1e-5)
    assert 0 < (ours[1:] == 0).sum() < 30


@pytest.mark.parametrize("kind", ["cox", "grades"])
def test_no_small_step_is_better(kind: str) -> None:
    """With ties and grades, where nobody else's code stands beside: the subgradient holds zero at the fit."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=(70, 90))
    risk = z[:, 0] + z[:, 1]
    if kind == "cox":
        likelihood: CoxLikelihood | GradesLikelihood = CoxLikelihood(
            z, np.ceil(5 * np.exp(-risk / 3)), (rng.random(70) < 0.7).astype(float)
        )
        free = 0
    else:
        likelihood, free = GradesLikelihood(z, np.digitize(risk, [-1, 0, 1]), 4), 3
    penalty, ratio = 0.08, 0.6
    at = elastic_net(likelihood, likelihood.start(), penalty, ratio)
    beta, slope = at[free:], likelihood.slopes(at) / 70
    used = beta != 0
    assert 0 < used.sum() < 90
    kept = slope - penalty * (1 - ratio) * beta
    np.testing.assert_allclose(kept[used], penalty * ratio * np.sign(beta[used]), atol=1e-5)
    assert (np.abs(slope[~used]) <= penalty * ratio + 1e-5).all()
    value, gradient, _ = likelihood(at)
    np.testing.assert_allclose(gradient[:free], 0, atol=1e-3)
    assert likelihood.value(at) == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(gradient[free:] / 70, slope, atol=1e-10)


def test_floors_of_every_kind_of_task() -> None:
    from test_floor import TASKS, score, study

    tables, labels, splits = study(120, folds=2)
    model = ElasticNet([0.9], steps=8, weakest=0.05, inner=3)
    floors = fit_floors(tables, TASKS, labels, splits, None, 0, {"survival": [365]}, model=model)
    assert set(floors["model"]) == {f"floor:{m}" for m in ("rna", "noise", "clinical", "all tables")}
    assert floors["value"].notna().all()
    for task in TASKS:
        assert score(floors, "floor:all tables", task, labels) > (0.56 if task == "survival" else 0.62), task
    proba = floors[floors["task"] == "type"].pivot_table(
        index=["model", "patient_id"], columns="output", values="value"
    )
    np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_its_words() -> None:
    with pytest.raises(UsageFault, match="0 is floor=ridge"):
        ElasticNet([0.0, 0.5])
