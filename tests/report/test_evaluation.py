"""Every number recomputed from the predictions, by other means than those that made it."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import metrics as sk
from sksurv.metrics import concordance_index_censored, integrated_brier_score
from sksurv.util import Surv

from nsclc_mtl.baselines import fit_floors
from nsclc_mtl.commands.judging import evaluate_predictions, with_others
from nsclc_mtl.metrics import survival
from nsclc_mtl.records import DataFault
from nsclc_mtl.report import card, page
from nsclc_mtl.report.evaluation import metric_rows, shares
from nsclc_mtl.report.fold import Fold
from nsclc_mtl.report.section import Evidence
from nsclc_mtl.report.survival_measures import last_day

from .conftest import DAYS, TASKS


@pytest.fixture(scope="module")
def floors(toy: dict[str, Any]) -> pd.DataFrame:
    manifest = toy["manifest"]
    return fit_floors(manifest.tables, TASKS, manifest.labels, toy["splits"], "grade", 0, {"survival": DAYS})


@pytest.fixture(scope="module")
def results(toy: dict[str, Any], floors: pd.DataFrame) -> Any:
    return evaluate_predictions(
        with_others(toy["predictions"], floors), TASKS, toy["manifest"], toy["splits"], draws=200, seed=1
    )


@pytest.fixture(scope="module")
def rows(results: Any) -> pd.DataFrame:
    return pd.DataFrame(metric_rows(results))


def by_hand(table: pd.DataFrame, task: str, metric: str, splits: pd.DataFrame) -> tuple[list[float], list[int]]:
    """The metric of each fold from the rows of a predictions table, with scikit-learn and scikit-survival."""
    spec, values, sizes = TASKS[task], [], []
    for fold, own in table[(table["task"] == task) & (table["part"] == "test")].groupby("fold"):
        wide = own.pivot(index="patient_id", columns="output", values="value")
        truth = own.drop_duplicates("patient_id").set_index("patient_id").loc[wide.index]
        if task == "survival":
            late = truth["time_days"] > 1500  # scikit-survival wants test times inside the training follow-up
            test = Surv.from_arrays((truth["event"] == 1) & ~late, truth["time_days"].clip(upper=1500))
            if metric == "c_index":
                values.append(concordance_index_censored(truth["event"] == 1, truth["time_days"], wide["risk"])[0])
            else:
                before = splits[(splits["fold"].astype(str) == str(fold)) & (splits["part"] != "test")]["patient_id"]
                rest = table[(table["task"] == task)].drop_duplicates("patient_id").set_index("patient_id").loc[before]
                train = Surv.from_arrays(rest["event"] == 1, rest["time_days"])
                curves = wide[[f"surv:{d:g}" for d in DAYS]].to_numpy()
                values.append(integrated_brier_score(train, test, curves, DAYS))
        else:
            keep = truth["target"] != ""
            p = wide.loc[keep, [f"p:{c}" for c in spec.classes]].to_numpy()
            y = np.array([spec.classes.index(c) for c in truth.loc[keep, "target"]])
            if metric == "ordinal_auc":
                s = p @ np.arange(3)
                higher = y[:, None] > y
                values.append(((s[:, None] > s) + 0.5 * (s[:, None] == s))[higher].mean())
            elif metric == "balanced_accuracy":
                values.append(sk.balanced_accuracy_score(y, p.argmax(1)))
            elif metric == "brier":
                hot = ((p - np.eye(len(spec.classes))[y]) ** 2).sum(1).mean()
                values.append(hot / 2 if spec.kind == "binary" else hot)
            elif spec.kind == "binary":
                values.append(sk.roc_auc_score(y, p[:, 1]))
            else:
                values.append(sk.roc_auc_score(y, p / p.sum(1, keepdims=True), multi_class="ovr"))
            truth = truth[keep]
        sizes.append(len(truth))
    return values, sizes


MEASURED = [
    ("grade", "ordinal_auc"), ("grade", "brier"), ("grade", "balanced_accuracy"), ("response", "auc"),
    ("response", "brier"), ("type", "auc"), ("type", "balanced_accuracy"), ("survival", "c_index"), ("survival", "ibs"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "metric"), MEASURED)
@pytest.mark.parametrize("model", ["learner", "floor:clinical", "floor:all tables"])
def test_metrics_are_recomputed_from_the_tables(
    task: str, metric: str, model: str, toy: dict[str, Any], floors: pd.DataFrame, rows: pd.DataFrame
) -> None:
    table = toy["predictions"] if model == "learner" else floors[floors["model"] == model]
    if model != "learner" and metric == "ibs":
        table = pd.concat([table, toy["predictions"][toy["predictions"]["part"] != "test"]])
    values, sizes = by_hand(table, task, metric, toy["splits"])
    own = rows[(rows["task"] == task) & (rows["metric"] == metric) & (rows["model"] == model)].set_index("fold")
    for k, value in enumerate(values):
        assert own.loc[str(k), "value"] == pytest.approx(value, abs=2e-6)
        assert own.loc[str(k), "n"] == sizes[k]
    assert own.loc["all", "value"] == pytest.approx(np.average(values, weights=sizes), abs=2e-6)
    assert own.loc["all", "lo"] < own.loc["all", "value"] < own.loc["all", "hi"]


@pytest.mark.parametrize("model", ["learner", "floor:clinical", "floor:all tables"])
def test_rates_and_kappa_are_recomputed_with_the_threshold_of_training_patients(
    model: str, toy: dict[str, Any], floors: pd.DataFrame, rows: pd.DataFrame
) -> None:
    table = toy["predictions"] if model == "learner" else floors[floors["model"] == model]
    own = table[(table["task"] == "response") & (table["output"] == "p:yes") & (table["target"] != "")]
    grades = table[(table["task"] == "grade") & (table["target"] != "") & (table["part"] == "test")]
    ours = rows[rows["model"] == model].set_index(["task", "metric", "fold"])["value"]
    for fold, said in own.groupby("fold"):
        train, test = (said[said["part"] == part] for part in ("train", "test"))
        fpr, tpr, cuts = sk.roc_curve(train["target"] == "yes", train["value"], drop_intermediate=False)
        youden = np.round(tpr - fpr, 12)
        best = cuts[np.flatnonzero(youden == youden.max())[-1]]  # the lowest of those that are as good
        below = train.loc[train["value"] < best, "value"].max()
        called = test["value"] >= (best + below) / 2
        known = test["target"] == "yes"
        mine = ours["response"][:, str(fold)]
        assert mine["sensitivity"] == pytest.approx(called[known].mean())
        assert mine["specificity"] == pytest.approx(1 - called[~known].mean())
        both = sk.balanced_accuracy_score(known, called)
        assert mine["balanced_accuracy_at_threshold"] == pytest.approx(both)
        assert mine["average_precision"] == pytest.approx(sk.average_precision_score(known, test["value"]))
        wide = grades[grades["fold"] == fold].pivot(index="patient_id", columns="output", values="value")
        truth = grades[grades["fold"] == fold].drop_duplicates("patient_id").set_index("patient_id")["target"]
        answer = wide[["p:G1", "p:G2", "p:G3"]].to_numpy().argmax(axis=1)
        kappa = sk.cohen_kappa_score(truth[wide.index].map({"G1": 0, "G2": 1, "G3": 2}), answer, weights="quadratic")
        assert ours["grade", "quadratic_kappa", str(fold)] == pytest.approx(kappa)


def test_survival_has_its_other_metrics_and_one_tau(results: Any, rows: pd.DataFrame) -> None:
    folds = results["survival"].folds
    tau = last_day(folds)
    assert all(f.censoring.before(tau) >= 0.1 for f in folds)
    assert tau == min(f.censoring.time[-1] for f in folds)  # nowhere is a tenth reached
    leaving = Fold("0", [], np.zeros(0), np.zeros(0), censoring=survival.censoring_curve(range(1, 21), [0] * 20))
    assert last_day([*folds, leaving]) == 19  # the first day with G below a tenth
    assert np.isnan(last_day([]))
    own = rows[(rows["task"] == "survival") & (rows["fold"] == "all")].set_index(["metric", "model"])
    for metric in ("uno_c", "antolini_c", "ipa", "brier_1y"):
        for model in ("learner", "floor:clinical"):
            row = own.loc[(metric, model)]
            assert row["lo"] <= row["value"] <= row["hi"]
    for f in folds:
        days = np.array([d for d in DAYS if d < f.label.max()])
        curves = f.said["learner"][[f"surv:{d:g}" for d in days]].to_numpy()
        ipa = survival.accuracy_index(curves, f.label, f.event, days, f.censoring, f.survival)
        one = rows[(rows["metric"] == "ipa") & (rows["model"] == "learner") & (rows["fold"] == f.fold)]
        assert one["value"].item() == pytest.approx(ipa)
    curve = own.loc[("brier_3y", "learner")]  # which ends after two years
    assert np.isnan(curve["value"])
    assert curve["reason"] == "the learner writes no survival near 1095.75 days"
    assert ("brier_3y", "floor:clinical") not in own.index


def test_differences_are_learner_minus_floor(rows: pd.DataFrame) -> None:
    for task, metric in (("grade", "ordinal_auc"), ("survival", "c_index"), ("survival", "ibs")):
        own = rows[(rows["task"] == task) & (rows["fold"] == "all")].set_index(["metric", "model"])["value"]
        for model in ("floor:clinical", "floor:all tables"):
            gap = own[metric, "learner"] - own[metric, model]
            assert own[f"difference:{metric}", model] == pytest.approx(gap, abs=1e-9)


def test_rows_have_the_public_columns_and_are_json(results: Any) -> None:
    rows = metric_rows(results)
    assert {tuple(r) for r in rows} == {
        ("task", "metric", "part", "fold", "model", "value", "lo", "hi", "n", "n_events", "reason")
    }
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert all(r["reason"] for r in rows if r["value"] is None)


def test_stage_is_compared_where_it_is_no_target(results: Any) -> None:
    assert "floor:stage" in results["survival"].metrics["c_index"]
    assert results["grade"].metrics["ordinal_auc"].get("floor:stage") is None or np.isnan(
        results["grade"].metrics["ordinal_auc"]["floor:stage"].value
    )


def test_shares_are_what_they_say(toy: dict[str, Any]) -> None:
    predictions = toy["predictions"]
    ours = predictions[predictions["part"] == "test"].drop_duplicates(["task", "fold", "patient_id"])
    ours = ours[ours["task"] == "response"]
    truth = (ours["target"] == "yes").astype(float)
    rng = np.random.default_rng(0)
    top = ours.assign(model="oracle:attainable", output="score", value=truth + 0.3 * rng.normal(size=len(ours)))
    low = ours.assign(model="oracle:additive", output="score", value=truth + 3 * rng.normal(size=len(ours)))
    results = evaluate_predictions(with_others(predictions, top, low), {"response": TASKS["response"]}, None, None, 100)
    own = {(r["metric"], r["model"]): r["value"] for r in metric_rows(results) if r["fold"] == "all"}
    m, a, d = (own["auc", x] for x in ("learner", "oracle:attainable", "oracle:additive"))
    assert own["share", "learner"] == pytest.approx((m - 0.5) / (a - 0.5))
    assert own["fusion_share", "learner"] == pytest.approx((m - d) / (a - d))
    same = with_others(predictions, top, top.assign(model="oracle:additive"))
    rows = metric_rows(evaluate_predictions(same, {"response": TASKS["response"]}, None, None, 100))
    [none] = [r for r in rows if r["metric"] == "fusion_share"]
    assert none["value"] is None
    told = "nothing beyond the sum of the modalities was there to be learnt (attainable minus additive 0.000)"
    assert none["reason"] == told


def test_a_margin_below_zero_has_a_minus_and_no_hyphen(toy: dict[str, Any]) -> None:
    predictions = toy["predictions"]
    ours = predictions[predictions["part"] == "test"].drop_duplicates(["task", "fold", "patient_id"])
    ours = ours[ours["task"] == "response"].assign(output="score")
    truth = (ours["target"] == "yes").astype(float)
    top, low = (ours.assign(model=f"oracle:{w}", value=v) for w, v in (("attainable", -truth), ("additive", truth)))
    both = with_others(predictions, top, low)
    found = shares(evaluate_predictions(both, {"response": TASKS["response"]}, None, None, 20)["response"])
    assert found["fusion_share"].reason.endswith("(attainable minus additive −1.000)")


def test_no_share_of_a_ceiling_that_has_no_value_or_hardly_a_margin(toy: dict[str, Any]) -> None:
    predictions = toy["predictions"]
    ours = predictions[predictions["part"] == "test"].drop_duplicates(["task", "fold", "patient_id"])
    ours = ours[ours["task"] == "response"].assign(output="score")
    for value, told in (
        (np.nan, "the model gives no output here"),
        (1.0, "nothing was there to be known (attainable minus chance 0.000)"),
    ):
        top, low = (ours.assign(model=f"oracle:{word}", value=value) for word in ("attainable", "additive"))
        both = with_others(predictions, top, low)
        result = evaluate_predictions(both, {"response": TASKS["response"]}, None, None, 20)["response"]
        assert shares(result)["share"].reason == told
        assert np.isnan(shares(result)["share"].value)


def test_a_share_that_all_resamples_agree_on_has_no_interval(toy: dict[str, Any]) -> None:
    """Of a learner whose predictions do not vary; and a ceiling below chance has no *next to nothing* of a margin."""
    test = toy["predictions"]["part"] == "test"
    same = toy["predictions"][test & (toy["predictions"]["task"] == "response")].assign(value=0.5)
    truth = (same["target"] == "yes").astype(float)
    for sign, reason in ((1, "all resamples agree: no interval can be told"), (-1, "nothing was there to be known")):
        top = same.drop_duplicates(["fold", "patient_id"]).assign(model="oracle:attainable", output="score")
        top["value"] = sign * truth.loc[top.index]
        results = evaluate_predictions(with_others(same, top), {"response": TASKS["response"]}, None, None, 100)
        share = shares(results["response"])["share"]
        assert share.reason.startswith(reason)
        assert np.isnan([share.lo, share.hi]).all()
        assert (share.value == 0) == (sign == 1)


def test_a_fold_of_one_class_is_named_and_left_out(toy: dict[str, Any]) -> None:
    predictions = toy["predictions"].copy()
    first = (predictions["fold"] == 0) & (predictions["task"] == "response") & (predictions["part"] == "test")
    predictions.loc[first & (predictions["target"] != ""), "target"] = "yes"
    rows = metric_rows(evaluate_predictions(predictions, {"response": TASKS["response"]}, None, None, 50))
    auc = {r["fold"]: r for r in rows if r["metric"] == "auc"}
    assert auc["0"]["value"] is None
    assert auc["0"]["reason"] == "one class only"
    assert auc["all"]["value"] is not None
    assert "1 of 3 folds left out" in auc["all"]["reason"]


def test_no_events_at_all_leaves_no_number(toy: dict[str, Any]) -> None:
    predictions = toy["predictions"].copy()
    predictions["event"] = predictions["event"].where(predictions["event"].isna(), 0.0)
    rows = metric_rows(evaluate_predictions(predictions, {"survival": TASKS["survival"]}, None, None, 50))
    [row] = [r for r in rows if r["metric"] == "c_index" and r["fold"] == "all"]
    assert row["value"] is None
    assert "no event among 30 patients" in row["reason"]
    assert row["n_events"] == 0


def test_predictions_of_no_task_are_refused(toy: dict[str, Any]) -> None:
    with pytest.raises(DataFault, match="no test-part rows"):
        evaluate_predictions(toy["predictions"].assign(part="validation"), TASKS, None, None, 10)


def test_a_task_without_a_known_outcome_has_a_reason_for_no_number(toy: dict[str, Any]) -> None:
    predictions = toy["predictions"].copy()
    predictions.loc[predictions["task"] == "response", "target"] = None
    rows = metric_rows(evaluate_predictions(predictions, TASKS, None, None, 10))
    [row] = [r for r in rows if (r["task"], r["metric"], r["fold"]) == ("response", "auc", "all")]
    assert row["value"] is None
    assert row["reason"]


def test_evaluation_repeats_itself(toy: dict[str, Any], results: Any) -> None:
    once = evaluate_predictions(toy["predictions"], TASKS, toy["manifest"], toy["splits"], draws=200, seed=1)
    ours, theirs = once["grade"].metrics["brier"]["learner"], results["grade"].metrics["brier"]["learner"]
    assert ours.interval() == theirs.interval()


def test_the_learner_has_a_row_of_every_metric_and_the_reason_where_it_has_no_value(toy: dict[str, Any]) -> None:
    predictions = toy["predictions"].copy()
    graded = predictions["task"] == "grade"
    predictions.loc[graded & (predictions["target"] != ""), "target"] = "G1"
    predictions.loc[(predictions["task"] == "response") & (predictions["output"] == "p:yes"), "value"] = 0.4
    predictions.loc[(predictions["task"] == "response") & (predictions["output"] == "p:no"), "value"] = 0.6
    two = {name: TASKS[name] for name in ("grade", "response")}
    rows = metric_rows(evaluate_predictions(predictions, two, None, None, 20))
    whole = {(r["task"], r["metric"]): r for r in rows if r["fold"] == "all"}
    for metric in ("ordinal_auc", "auc_above_G1", "auc_above_G2", "balanced_accuracy", "quadratic_kappa"):
        assert whole["grade", metric]["value"] is None
        assert whole["grade", metric]["reason"] == "one class only"
        assert whole["grade", metric]["n"] > 0
    for metric in ("sensitivity", "specificity", "balanced_accuracy_at_threshold"):
        assert whole["response", metric]["value"] is None
        assert "no threshold" in whole["response", metric]["reason"]


def test_a_number_of_some_folds_counts_their_patients_and_says_so(toy: dict[str, Any]) -> None:
    predictions = toy["predictions"].copy()
    first = (predictions["fold"] == 0) & (predictions["task"] == "response") & (predictions["part"] == "test")
    predictions.loc[first & (predictions["target"] != ""), "target"] = "yes"
    floor = predictions[predictions["part"] == "test"].assign(model="floor:clinical")
    floor["value"] += 0.1 * np.random.default_rng(0).normal(size=len(floor))
    results = evaluate_predictions(with_others(predictions, floor), {"response": TASKS["response"]}, None, None, 50)
    found = {(r["metric"], r["fold"], r["model"]): r for r in metric_rows(results)}
    part = [found["auc", str(k), "learner"] for k in (1, 2)]
    for metric, model in (("auc", "learner"), ("auc", "floor:clinical"), ("difference:auc", "floor:clinical")):
        row = found[metric, "all", model]
        assert row["n"] == sum(r["n"] for r in part) < results["response"].n
        assert row["n_events"] == sum(r["n_events"] for r in part)
    assert found["brier", "all", "learner"]["n"] == results["response"].n
    evidence = Evidence(results, predictions, settings={"primary_floor": "clinical", "bootstrap": 50, "seed": 0})
    told = "1 of 3 folds left out: one class only"
    html = page.render(evidence, page.Story("toy", primary_floor="floor:clinical")).html
    line = re.search(r'<tr><th scope="row">balanced accuracy</th>.*?</tr>', html, flags=re.S)
    assert line is not None
    assert f'<br><span class="soft">{told}</span>' in line[0]
    front = yaml.safe_load(card.render(evidence, "1").split("---\n")[1])
    names = {m["type"]: m["name"] for m in front["model-index"][0]["results"][0]["metrics"]}
    assert names["auc"].endswith(f"; {told})")
    assert "left out" not in names["brier"]
