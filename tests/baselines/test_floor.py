from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from nsclc_mtl.baselines import fit_floors
from nsclc_mtl.baselines.design import Design
from nsclc_mtl.baselines.likelihoods import GradesLikelihood, baseline_hazard
from nsclc_mtl.baselines.model import Outcome
from nsclc_mtl.baselines.ridge import RidgePath, Rotation, newton
from nsclc_mtl.baselines.tuning import held_out
from nsclc_mtl.metrics import classification, survival
from nsclc_mtl.metrics.partial_likelihood import CoxLikelihood
from nsclc_mtl.records import Repeated, TaskSpec

TASKS = {
    "grade": TaskSpec("grade", "ordinal", ("G1", "G2", "G3")),
    "response": TaskSpec("response", "binary", ("no", "yes")),
    "type": TaskSpec("type", "multiclass", ("a", "b", "c")),
    "survival": TaskSpec("survival", "survival"),
}


@pytest.fixture(scope="module")
def lung() -> dict[str, Any]:
    return json.loads((Path(__file__).parent.parent / "golden" / "survival.json").read_text())


def study(n: int = 150, seed: int = 0, folds: int = 3) -> tuple[dict, dict, pd.DataFrame]:
    """Tables that know (`rna`, of 60 columns 5), and do not (`noise`); all outcomes follow one latent."""
    rng = np.random.default_rng(seed)
    ids = [f"P{i:03d}" for i in range(n)]
    m = rng.normal(size=n)
    rna = pd.DataFrame(rng.normal(size=(n, 60)), index=ids).add_prefix("g")
    rna.iloc[:, :5] += m[:, None]
    noise = pd.DataFrame(rng.normal(size=(n, 80)), index=ids).add_prefix("x")
    clinical = pd.DataFrame({"age": rng.normal(60, 9, n), "sex": rng.choice(["m", "f"], n)}, index=ids)
    clinical.loc[clinical.index[:9], "age"] = np.nan
    t, u = rng.exponential(900 * np.exp(-m)), rng.exponential(1500, n)
    value = {
        "grade": np.digitize(m + 0.5 * rng.normal(size=n), [-0.6, 0.6]).astype(float),
        "response": (m + rng.normal(size=n) > 0).astype(float),
        "type": np.digitize(m + 0.5 * rng.normal(size=n), [-0.6, 0.6]).astype(float),
    }
    labels = {
        name: pd.DataFrame({"value": np.where(rng.random(n) < 0.1, np.nan, v)}, index=ids) for name, v in value.items()
    }
    labels["survival"] = pd.DataFrame({"event": (t <= u) * 1.0, "time_days": np.minimum(t, u).round()}, index=ids)
    fold = rng.permutation(n) % folds
    rows = [(p, k, "test" if fold[i] == k else "train") for k in range(folds) for i, p in enumerate(ids)]
    tables = {"rna": rna.loc[rng.random(n) > 0.2], "noise": noise, "clinical": clinical}
    return tables, labels, pd.DataFrame(rows, columns=["patient_id", "fold", "part"])


def score(floors: pd.DataFrame, model: str, task: str, labels: dict[str, pd.DataFrame]) -> float:
    """Patient-weighted mean of the within-fold primary metric."""
    values, sizes = [], []
    own = floors[(floors["model"] == model) & (floors["task"] == task) & (floors["part"] == "test")]
    for _, rows in own.groupby("fold"):
        wide = rows.pivot(index="patient_id", columns="output", values="value")
        label = labels[task].loc[wide.index]
        if task == "survival":
            values.append(survival.c_index(wide["risk"], label["time_days"], label["event"]))
        else:
            proba = wide[[f"p:{c}" for c in TASKS[task].classes]].to_numpy()
            values.append(classification.ordinal_auc(label["value"], classification.expected_class(proba)))
        sizes.append(len(wide))
    return float(np.average(values, weights=sizes))


def test_cox_is_that_of_r(lung: dict[str, Any]) -> None:
    x, time, event = np.array(lung["x"]), np.array(lung["time"], float), np.array(lung["event"], float)
    likelihood = CoxLikelihood(x, time, event)
    free = newton(likelihood, np.zeros(4), 0.0, tolerance=1e-14)
    np.testing.assert_allclose(free, lung["efron"], rtol=1e-6)
    assert likelihood.value(free) == pytest.approx(lung["efron_loglik"], rel=1e-10)
    assert likelihood.value(free) == pytest.approx(likelihood(free)[0], rel=1e-12)
    np.testing.assert_allclose(
        newton(likelihood, np.zeros(4), lung["theta"], tolerance=1e-14), lung["ridge"], rtol=1e-5
    )


def test_baseline_hazard_is_that_of_r(lung: dict[str, Any]) -> None:
    risk = np.array(lung["x"]) @ np.array(lung["breslow"])
    golden = lung["basehaz"]
    ours = baseline_hazard(
        risk, np.array(lung["time"], float), np.array(lung["event"], float), np.array(golden["time"])
    )
    np.testing.assert_allclose(ours, golden["hazard"], rtol=1e-6)


def test_logistic_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(80, 6))
    y = (z[:, 0] + rng.normal(size=80) > 0.3).astype(float)
    likelihood = GradesLikelihood(z, y, 2)
    ours = newton(likelihood, likelihood.start(), 2.0, free=1, tolerance=1e-14)
    theirs = LogisticRegression(C=0.5, tol=1e-10, max_iter=10000).fit(z, y)
    np.testing.assert_allclose(ours[1:], theirs.coef_[0], atol=1e-5)
    assert -ours[0] == pytest.approx(theirs.intercept_[0], abs=1e-5)


@pytest.mark.parametrize("kind", ["grades", "cox"])
def test_slopes_and_curvatures_are_those_of_finite_differences(kind: str) -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(40, 3))
    if kind == "grades":
        likelihood: Any = GradesLikelihood(z, rng.integers(0, 4, 40).astype(float), 4)
        at = likelihood.start() + rng.normal(size=6) * 0.05
    else:
        likelihood = CoxLikelihood(z, rng.integers(1, 9, 40).astype(float), rng.integers(0, 2, 40).astype(float))
        at = rng.normal(size=3) * 0.3
    _, slope, curvature = likelihood(at)
    for j in range(len(at)):
        step = np.eye(len(at))[j] * 1e-5
        up, down = likelihood(at + step), likelihood(at - step)
        assert slope[j] == pytest.approx((up[0] - down[0]) / 2e-5, abs=1e-5)
        np.testing.assert_allclose(curvature[j], -(up[1] - down[1]) / 2e-5, atol=1e-4)


def test_rotation_keeps_the_ridge_fit_of_many_columns() -> None:
    rng = np.random.default_rng(2)
    x, other = rng.normal(size=(30, 90)), rng.normal(size=(9, 90))
    y = (x[:, 0] > 0).astype(float)
    turn = Rotation.fit(x)
    assert turn(x).shape[1] <= 30
    fits = []
    for a, b in ((x, other), (turn(x), turn(other))):
        likelihood = GradesLikelihood(a, y, 2)
        fits.append(likelihood.proba(newton(likelihood, likelihood.start(), 5.0, free=1, tolerance=1e-13), b))
    np.testing.assert_allclose(fits[0], fits[1], atol=1e-6)


def test_design_learns_from_training_patients_only() -> None:
    table = pd.DataFrame(
        {"a": [1.0, 3.0, np.nan, 2.0, 99.0], "b": ["u", "v", "u", "", "w"], "c": [np.inf, 1, 1, 1, 5]},
        index=["p1", "p2", "p3", "p4", "new"],
    )
    training = ["p1", "p2", "p3", "p4", "gone"]
    design = Design(table, training)
    changed = table.copy()
    changed.loc["new"] = [-5.0, "u", 0.0]
    np.testing.assert_array_equal(design(table, training), Design(changed, training)(table, training))
    numbers = design(table, [*training, "new", "unheard"])
    assert np.isfinite(numbers).all()
    np.testing.assert_allclose(numbers[:5].mean(axis=0), 0, atol=1e-9)
    assert np.abs(numbers).max() <= 5


@pytest.fixture(scope="module")
def fitted() -> tuple[pd.DataFrame, dict[str, pd.DataFrame], pd.DataFrame]:
    tables, labels, splits = study()
    return fit_floors(tables, TASKS, labels, splits, "grade", 0, {"survival": [365, 730]}), labels, splits


@pytest.mark.slow
def test_tables_that_know_are_told_from_those_that_do_not(fitted: Any) -> None:
    floors, labels, _ = fitted
    for task in TASKS:
        least = 0.58 if task == "survival" else 0.65  # exponential times hide more than class borders do
        assert score(floors, "floor:rna", task, labels) > least, task
        assert score(floors, "floor:all tables", task, labels) > least, task
        assert abs(score(floors, "floor:noise", task, labels) - 0.5) < 0.2, task  # SD .07 over seeds, mean .50
    assert score(floors, "floor:stage", "survival", labels) > 0.58


def test_predictions_are_complete_and_well_formed(fitted: Any) -> None:
    floors, labels, splits = fitted
    floors = floors[floors["part"] == "test"]
    assert set(floors["model"]) == {f"floor:{m}" for m in ("stage", "rna", "noise", "clinical", "all tables")}
    assert floors["value"].notna().all()
    test = splits[splits["part"] == "test"]
    for (model, task), rows in floors.groupby(["model", "task"]):
        assert set(zip(rows["patient_id"], rows["fold"], strict=True)) == set(
            zip(test["patient_id"], test["fold"], strict=True)
        ), (model, task)
        wide = rows.pivot(index="patient_id", columns="output", values="value")
        if task == "survival":
            assert (wide["surv:365"] >= wide["surv:730"]).all()
            assert wide[["surv:365", "surv:730"]].stack().between(0, 1).all()
        else:
            np.testing.assert_allclose(wide.sum(axis=1), 1)
            truth = rows.drop_duplicates("patient_id").set_index("patient_id")["target"]
            known = labels[task]["value"].reindex(truth.index)
            assert [t == "" for t in truth] == known.isna().tolist()


def test_stage_is_no_floor_of_itself(fitted: Any) -> None:
    floors, _, _ = fitted
    assert set(floors.loc[floors["model"] == "floor:stage", "task"]) == {"response", "type", "survival"}


def test_what_test_patients_went_through_changes_no_prediction() -> None:
    tables, labels, splits = study(90)
    first = splits[splits["fold"] == 0]
    spoiled = {name: frame.copy() for name, frame in labels.items()}
    test = first.loc[first["part"] == "test", "patient_id"]
    for name, frame in spoiled.items():
        frame.loc[test] = [[1, 1.0]] * len(test) if name == "survival" else [[1.0]] * len(test)
    tasks = {name: TASKS[name] for name in ("grade", "response", "survival")}
    once, again = (fit_floors(tables, tasks, who, first, None, 0) for who in (labels, spoiled))
    np.testing.assert_array_equal(once["value"], again["value"])
    reordered = first.sample(frac=1, random_state=1)
    np.testing.assert_array_equal(once["value"], fit_floors(tables, tasks, labels, reordered, None, 0)["value"])


def test_a_floor_sees_the_robust_columns_alone() -> None:
    tables, labels, splits = study(60)
    rng = np.random.default_rng(1)
    noise = np.where(np.arange(60) < 20, 0.05, 50.0)
    masks = {f"mask {i}": tables["rna"] + noise * rng.normal(size=tables["rna"].shape) for i in range(3)}
    again = pd.concat(masks, names=["perturbation", "patient_id"]).swaplevel()
    once = splits[splits["fold"] == 0]
    ours = fit_floors({"rna": tables["rna"]}, TASKS, labels, once, None, 0, repeated={"rna": Repeated(again, 0.75)})
    alone = fit_floors({"rna": tables["rna"].iloc[:, :20]}, TASKS, labels, once, None, 0)
    np.testing.assert_array_equal(ours["value"], alone["value"])


def test_shuffled_labels_come_out_at_one_half() -> None:
    means = []
    tasks = {name: TASKS[name] for name in ("response", "survival")}
    for seed in range(6):
        tables, labels, splits = study(120, seed)
        rng = np.random.default_rng(100 + seed)
        for name in tasks:
            labels[name] = pd.DataFrame(
                rng.permutation(labels[name].to_numpy()), labels[name].index, labels[name].columns
            )
        floors = fit_floors(tables, tasks, labels, splits, None, seed, only=["rna", "clinical"])
        means += [score(floors, m, t, labels) for m in ("floor:rna", "floor:clinical") for t in tasks]
    assert np.mean(means) == pytest.approx(0.5, abs=0.04)


def test_what_cannot_be_fitted_is_nan_not_a_guess() -> None:
    tables, labels, splits = study(60)
    labels["survival"]["event"] = 0.0
    labels["response"]["value"] = 1.0
    tasks = {name: TASKS[name] for name in ("response", "survival")}
    floors = fit_floors(tables, tasks, labels, splits, None, 0, only=["clinical"])
    assert floors["value"].isna().all()


def test_a_table_of_nothing_and_no_tables() -> None:
    _, labels, splits = study(60)
    empty = pd.DataFrame({"flat": 1.0, "blank": ""}, index=splits["patient_id"].unique())
    floors = fit_floors({"empty": empty}, {"response": TASKS["response"]}, labels, splits, None, 0)
    for _, rows in floors[floors["part"] == "test"].groupby(["fold", "output"]):
        assert rows["value"].nunique() == 1
    assert fit_floors({}, TASKS, labels, splits, None, 0).empty


def test_thresholds_can_be_found_on_patients_whom_the_fit_did_not_see() -> None:
    tables, labels, splits = study(n=90, folds=2)
    made = fit_floors(
        {"noise": tables["noise"]}, {"response": TASKS["response"], "grade": TASKS["grade"]}, labels, splits, None, 0
    )
    before = made[made["part"] == "train"]
    assert set(before["task"]) == {"response"}
    for fold, rows in before[before["output"] == "p:yes"].groupby("fold"):
        others = splits.loc[(splits["fold"] == fold) & (splits["part"] != "test"), "patient_id"]
        assert sorted(rows["patient_id"]) == sorted(labels["response"]["value"].reindex(others).dropna().index)
        # 80 columns part 40 patients in sample, whatever they hold; not patients who were held out
        assert classification.auc(rows["target"] == "yes", rows["value"]) < 0.75
    assert before.groupby(["fold", "patient_id"])["value"].sum().to_numpy() == pytest.approx(1)


def test_a_held_out_probability_does_not_know_its_own_outcome() -> None:
    rng = np.random.default_rng(0)
    z, y, inner = rng.normal(size=(30, 4)), np.arange(30) % 2, np.arange(30) // 2 % 5
    path = RidgePath(np.array([3.0, 1.0]))
    ours = held_out(path, z, Outcome(y, np.zeros(30), 2, True), 1, inner)
    turned = np.where(np.arange(30) == 7, 1 - y, y)
    theirs = held_out(path, z, Outcome(turned, np.zeros(30), 2, True), 1, inner)
    same = inner == inner[7]
    assert theirs[same] == pytest.approx(ours[same], abs=1e-12)
    assert np.abs(theirs[~same] - ours[~same]).min() > 0
    alone = held_out(path, z, Outcome(y, np.zeros(30), 2, True), 1, y)  # the others are of one class
    assert np.isnan(alone).all()
