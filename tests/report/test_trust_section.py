"""Abstention, coverage and flags: every number again by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.metrics.survival import censoring_curve
from nsclc_mtl.records import TaskSpec
from nsclc_mtl.report import evaluation
from nsclc_mtl.report.section import Evidence, save
from nsclc_mtl.report.sections.abstention import abstention
from nsclc_mtl.report.sections.trust import bound_coverage, flags_by_site, set_coverage, trust
from nsclc_mtl.trust.conformal import coverage_band


@pytest.fixture(scope="module")
def evidence(toy: dict[str, Any]) -> Evidence:
    """The toy's learner with sets of every class beyond .2, bounds of 30 days, and one patient of site B far out."""
    predictions, splits, manifest = toy["predictions"], toy["splits"], toy["manifest"]
    tasks = {name: task for name, task in manifest.tasks.items() if name != "type"}
    training = {
        "survival": {
            str(k): manifest.labels["survival"].loc[list(rows.loc[rows["part"] != "test", "patient_id"])]
            for k, rows in splits.groupby("fold")
        }
    }
    results = evaluation.judge(predictions, tasks, training, draws=40)
    rows: list[tuple[str, str, str, str, str]] = []
    test = predictions[predictions["part"] == "test"]
    for (patient, fold, task), said in test.groupby(["patient_id", "fold", "task"]):
        of = said.set_index("output")["value"]
        if task not in tasks:
            continue
        if tasks[task].classes:
            p = {c: of[f"p:{c}"] for c in tasks[task].classes}
            words = "|".join(c for c, v in p.items() if v > 0.2 or v == max(p.values()))
            rows += [(patient, fold, task, "confidence", f"{max(p.values()):.6g}"), (patient, fold, task, "set", words)]
            rows += [(patient, fold, task, "flag:several", str(int("|" in words)))]
        else:
            rows += [(patient, fold, task, "confidence", f"{max(of['surv:730'], 1 - of['surv:730']):.6g}")]
            rows += [(patient, fold, task, "set", "30 days or more"), (patient, fold, task, "lower_bound_days", "30")]
    for fold in splits["fold"].unique():
        for task in tasks:
            rows += [("", fold, task, "n_calibration", "20"), ("", fold, task, "miss", "0.1")]
            rows += [("", fold, task, "members", "1")]
        rows += [
            ("", fold, "grade", "n_calibration:class:G1", "12"),
            ("", fold, "grade", "n_calibration:class:G2", "5"),
        ]
        rows += [("", fold, "", "outside:rate", "0.05"), ("", fold, "", "outside:reference", "held out")]
        rows += [("", fold, "", "outside:n", "40")]
    far = manifest.patients.index[manifest.patients["site"] == "B"][0]
    rows += [(p, "0", "", "flag:outside", str(int(p == far))) for p in manifest.patients.index]
    table = pd.DataFrame(rows, columns=["patient_id", "fold", "task", "what", "value"]).astype(str)
    return Evidence(results, predictions, manifest, splits, {"bootstrap": 40, "seed": 0}, trust=table)


def test_the_curve_is_the_metric_of_those_who_are_kept(evidence: Evidence) -> None:
    sections = {s.task: s for s in abstention(evidence)}
    assert set(sections) == {"grade", "response", "survival"}
    table = sections["response"].tables["response-abstention"]
    result = evidence.results["response"]
    auc = table[table["metric"] == "auc"].set_index("kept")
    assert auc["value"].loc[1.0] == pytest.approx(float(result.metrics["auc"]["learner"].value))
    value, size = [], []
    right = []
    for fold in result.folds:
        p = fold.said["learner"]["p:yes"].to_numpy()
        keep = np.argsort(-np.round(np.maximum(p, 1 - p), 6), kind="stable")[: int(np.ceil(0.5 * len(p)))]
        pos, neg = p[keep][fold.label[keep] == 1], p[keep][fold.label[keep] == 0]
        value.append(((pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)).mean())
        right.append(((p[keep] > 0.5) == fold.label[keep]).mean())
        size.append(len(keep))
    assert auc["value"].loc[0.5] == pytest.approx(np.average(value, weights=size))
    accuracy = table[table["metric"] == "accuracy"].set_index("kept")
    assert accuracy["value"].loc[0.5] == pytest.approx(np.average(right, weights=size))
    assert (auc["random_lo"] <= auc["random_hi"]).all()
    assert auc["random_lo"].loc[1.0] == pytest.approx(auc["value"].loc[1.0])  # nobody is left out


def test_coverage_is_counted_and_stands_beside_its_band(evidence: Evidence) -> None:
    found = set_coverage(evidence.results["grade"], evidence.trust)
    everybody = {r["fold"]: r for r in found if not r["group"]}
    sets = evidence.trust.query("task == 'grade' and what == 'set'").set_index("patient_id")["value"]
    hits = 0
    for fold in evidence.results["grade"].folds:
        words = [("G1", "G2", "G3")[int(k)] for k in fold.label]
        hit = [w in sets[p].split("|") for w, p in zip(words, fold.patients, strict=True)]
        hits += sum(hit)
        row = everybody[fold.fold]
        assert row["covered"] == pytest.approx(np.mean(hit))
        assert (row["low"], row["high"]) == coverage_band(20, len(hit), 0.1)
    assert everybody["all"]["covered"] == pytest.approx(hits / everybody["all"]["n"])
    groups = {r["group"] for r in found} - {""}
    assert groups == {"class G1"}  # five patients of G2 promise nothing
    assert set_coverage(evidence.results["survival"], evidence.trust) == []


def test_bounds_are_judged_by_the_probability_of_censoring(evidence: Evidence, toy: dict[str, Any]) -> None:
    row = bound_coverage(evidence.results["survival"], evidence.trust, 40, 0)
    assert row is not None
    label, splits = toy["manifest"].labels["survival"], toy["splits"]
    total = []
    for k, rows in splits.groupby("fold"):
        train = label.loc[list(rows.loc[rows["part"] != "test", "patient_id"])]
        g = censoring_curve(train["time_days"], train["event"])
        own = label.loc[list(rows.loc[rows["part"] == "test", "patient_id"])]
        early = (own["event"] == 1) & (own["time_days"] < 30)
        total += list(1 - early / g.before(own["time_days"]))
        assert len(own) == len(evidence.results["survival"].folds[int(k)].patients)
    assert row["covered"] == pytest.approx(np.mean(total))
    assert row["lo"] <= row["covered"] <= row["hi"]


def test_the_promise_of_a_vote_is_that_of_a_vote(evidence: Evidence) -> None:
    assert evidence.trust is not None
    own = evidence.trust[evidence.trust["what"].isin(["set", "lower_bound_days"])].drop_duplicates(
        ["patient_id", "fold", "task"]
    )
    rows = pd.concat([evidence.trust, own.assign(what="sets", value="3")])
    [section] = trust(replace(evidence, trust=rows))
    sets = section.tables["trust-sets"]
    assert set(sets["promised"]) == {0.8}
    assert sets["low"].isna().all()
    text = " ".join(section.html.split())
    assert "the sets of 3 folds vote; a vote is sure to hold the truth for 0.80 only" in text
    assert "each fold’s own set does for 0.90" in text
    assert "80 % of the patients were to outlive their bound" in text
    assert "by a vote of the bounds of 3 folds, each of which promises 90 %" in text
    assert "vote" not in trust(evidence)[0].html


def test_flags_are_counted_by_site(evidence: Evidence) -> None:
    table = flags_by_site(evidence, evidence.trust).set_index("site")
    assert table.loc["all", "patients"] == 90
    assert table.loc["A", "unlike the training"] == 0
    assert table.loc["B", "unlike the training"] == pytest.approx(1 / table.loc["B", "patients"])


def test_the_section_says_what_there_is_and_what_is_lacking(evidence: Evidence, tmp_path: Any) -> None:
    sections = [*abstention(evidence), *trust(evidence)]
    save(sections, [], tmp_path)
    assert (tmp_path / "figures" / "trust-coverage.csv").is_file()
    assert (tmp_path / "tables" / "trust-sets.csv").is_file()
    html = str(sections[-1].html)
    assert "Each fold has one member" in html
    assert "Nobody was set aside" not in html
    assert {r["metric"] for r in sections[-1].rows} == {"set_coverage", "set_size", "bound_coverage"}
    bare = evidence.trust[~evidence.trust["what"].str.contains("n_calibration|miss|set|bound")]
    lacking = str(trust(Evidence(evidence.results, evidence.predictions, trust=bare))[0].html)
    assert "Nobody was set aside for calibration" in lacking
    assert trust(Evidence(evidence.results, evidence.predictions)) == []


def test_a_number_is_left_out_by_the_spread_of_its_members() -> None:
    rng = np.random.default_rng(0)
    n = 60
    known = rng.normal(size=n)
    noise = np.linspace(0.05, 3, n)
    frame = pd.DataFrame({
        "patient_id": [f"p{i}" for i in range(n)], "task": "ki67", "fold": 0, "part": "test", "output": "value",
        "value": known + noise * rng.normal(size=n), "target": known.astype(str), "event": np.nan, "time_days": np.nan,
    })  # fmt: skip
    task = TaskSpec("ki67", "regression")
    results = evaluation.judge(frame, {"ki67": task}, draws=20)
    rows = pd.DataFrame({
        "patient_id": frame["patient_id"], "fold": "0", "task": "ki67", "what": "spread", "value": noise.astype(str),
    })  # fmt: skip
    [section] = abstention(Evidence(results, frame, trust=rows))
    assert ", better than at random.</p>" in section.html
    off = np.abs(known) - np.abs(frame["value"] - known)  # those of the middle who are far off are the surest
    turned = rows.assign(value=off.rank().astype(str))
    assert ", worse than at random.</p>" in abstention(Evidence(results, frame, trust=turned))[0].html
    table = section.tables["ki67-abstention"].set_index("kept")
    assert table.loc[0.5, "value"] > table.loc[0.5, "random_hi"]
    assert abstention(Evidence(results, frame, trust=rows.assign(what="other"))) == []
