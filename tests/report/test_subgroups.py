"""Subgroups: who is in which, what the learner is worth there, and what is not told of a few patients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.commands.judging import evaluate_predictions
from nsclc_mtl.metrics.classification import auc
from nsclc_mtl.records import Manifest, ModalitySpec, UsageFault
from nsclc_mtl.report.section import Evidence
from nsclc_mtl.report.sections.subgroups import subgroups as section_of
from nsclc_mtl.report.subgroup import asked_for, subgroups

from .conftest import TASKS


def manifest(**columns: list[str]) -> Manifest:
    n = len(next(iter(columns.values())))
    patients = pd.DataFrame(columns, index=[f"p{i}" for i in range(n)])
    return Manifest("toy", patients, {}, {}, {})


def parted(made: Manifest, wanted: list[str] | None = None) -> dict[str, dict[str, int]]:
    found = subgroups(made, made.ids, wanted)
    return {one.column: {level: len(who) for level, who in one.members.items()} for one in found}


def test_usual_columns_by_their_names() -> None:
    made = manifest(
        site=["A", "A", "B", "B", "B", ""],
        Gender=["m", "f", "f", "m", "NA", "f"],
        age_at_diagnosis=["50", "60", "61", "70", "71", "80"],
        ajcc_stage=["Stage IIIA", "Stage IB", "IV", "", "Stage IIIB", "Stage X"],
        pT_stage=["T1a", "pT2", "T1b", "T4", "TX", "T2"],
        days_to_treatment=["1", "2", "3", "4", "5", "6"],
        adjuvant_therapy=["yes", "no", "yes", "no", "no", "no"],
        package=["a", "b", "a", "b", "a", "b"],
        smoking=["x", "x", "x", "x", "x", "x"],
    )
    assert parted(made) == {
        "site": {"A": 2, "B": 3},
        "Gender": {"f": 3, "m": 2},
        "age_at_diagnosis": {"up to 65.5": 3, "above 65.5": 3},
        "ajcc_stage": {"I": 1, "III": 2, "IV": 1},
        "pT_stage": {"T1": 2, "T2": 2, "T4": 1},
        "adjuvant_therapy": {"no": 4, "yes": 2},
    }
    assert parted(made, ["package"]) == {"package": {"a": 3, "b": 3}}
    assert parted(made, []) == {}
    assert parted(made, ["smoking"]) == {}  # one level
    with pytest.raises(UsageFault, match=r"no clinical column 'genders'.*near: Gender"):
        asked_for(made, ["genders"])


def test_codes_beside_a_missing_one_are_whole() -> None:
    made = manifest(stage_code=["1.0", "2.0", "", "1.0", "3.0", "2.0"], site=["A", "A", "B", "B", "B", "A"])
    assert parted(made, ["stage_code"]) == {"stage_code": {"1": 2, "2": 2, "3": 1}}


def test_many_levels_are_joined_and_outcomes_are_none() -> None:
    made = manifest(site=[f"S{i // 2:02d}" for i in range(24)], treatment=["a", "b"] * 12)
    assert list(parted(made)["site"]) == [f"S{i:02d}" for i in range(8)] + ["other"]
    assert parted(made)["site"]["other"] == 8
    outcome = replace(TASKS["response"], columns=("treatment",))
    made.tasks = {"response": outcome}
    assert "treatment" not in parted(made)
    made.modalities["clinical"] = ModalitySpec("clinical", "clinical")
    made.tables["clinical"] = pd.DataFrame({"sex": [0.0, 1.0] * 4}, index=made.ids[:8])
    assert parted(made)["sex"] == {"0": 4, "1": 4}


def test_codes_are_no_numbers_where_the_cohort_says_so() -> None:
    made = manifest(site=["A"] * 12)
    made.tables["clinical"] = pd.DataFrame({"pT_stage": [str(i % 6) for i in range(12)]}, index=made.ids)
    made.modalities["clinical"] = ModalitySpec("clinical", "clinical")
    assert parted(made) == {"pT_stage": {"up to 2.5": 6, "above 2.5": 6}}
    made.modalities["clinical"] = ModalitySpec("clinical", "clinical", {"columns": {"pT_stage": "categorical"}})
    assert parted(made) == {"pT_stage": {str(i): 2 for i in range(6)}}


@pytest.fixture(scope="module")
def given(toy: dict[str, Any]) -> Evidence:
    patients = toy["manifest"].patients.assign(sex=np.where(np.arange(90) < 5, "rare", np.tile(["f", "m"], 45)))
    some = {name: TASKS[name] for name in ("grade", "response", "survival")}
    results = evaluate_predictions(toy["predictions"], some, None, None, 100)
    whole = replace(toy["manifest"], patients=patients)
    return Evidence(results, toy["predictions"], whole, toy["splits"], {"bootstrap": 100, "seed": 0, "subgroups": None})


def test_the_metric_of_a_subgroup_from_the_predictions(given: Evidence) -> None:
    sections = {s.task: s for s in section_of(given)}
    data = sections["response"].figures[0].data.set_index(["column", "level"])
    own = given.predictions.query("task == 'response' and part == 'test' and output == 'p:yes' and target != ''")
    ids = given.manifest.patients.index[given.manifest.patients["site"] == "A"]
    values, sizes = [], []
    for _, f in own[own["patient_id"].isin(ids)].groupby("fold"):
        values.append(float(auc((f["target"] == "yes").astype(float), f["value"])))
        sizes.append(len(f))
    assert data.loc[("site", "A"), "value"] == pytest.approx(np.average(values, weights=sizes))
    assert data.loc[("site", "A"), "patients"] == sum(sizes)
    assert data.loc[("site", "A"), "lo"] < data.loc[("site", "A"), "value"] < data.loc[("site", "A"), "hi"]
    assert 0 < data.loc[("site", "A"), "p_interaction"] <= 1
    assert data.loc[("sex", "rare"), "reason"] == "fewer than 10 patients"
    assert np.isnan(data.loc[("sex", "rare"), "value"])
    assert "age" in sections["survival"].html  # of the clinical table
    rows = {r["metric"]: r for r in sections["response"].rows}
    assert rows["auc|site=A"]["n"] == sum(sizes)
    assert rows["p_interaction:auc|site"]["value"] == pytest.approx(data.loc[("site", "A"), "p_interaction"])


def test_few_events_have_a_reason(given: Evidence) -> None:
    time = given.predictions["task"] == "survival"
    calm = given.predictions.assign(event=given.predictions["event"].where(~time, 0.0))
    first = given.manifest.ids[::9]
    calm.loc[time & calm["patient_id"].isin(first), "event"] = 1.0
    results = evaluate_predictions(calm, {"survival": TASKS["survival"]}, None, None, 30)
    [section] = section_of(replace(given, results=results, predictions=calm))
    data = section.figures[0].data
    few = data[data["events"] < 5]
    assert len(few) > 1
    assert (few["reason"].isin(["fewer than 5 events", "fewer than 10 patients"])).all()
    assert few["value"].isna().all()
    assert "not tested" in section.html


def test_the_least_number_is_of_the_folds_that_have_a_value(given: Evidence) -> None:
    """Of 18 patients 12 stand in folds where all of them have one outcome: what six of them show is no number."""
    rows = given.predictions.query("task == 'response' and part == 'test' and target != ''")
    people = rows.drop_duplicates("patient_id").set_index("patient_id")
    ends = ((0, "yes"), (1, "no"))
    alike = [people.index[(people["fold"] == k) & (people["target"] == word)][:6] for k, word in ends]
    last = people[people["fold"] == 2]
    mixed = [last.index[last["target"] == word][:3] for word in ("yes", "no")]
    chosen = np.concatenate([*alike, *mixed])
    patients = given.manifest.patients.assign(sex="others")
    patients.loc[chosen, "sex"] = "few"
    evidence = replace(given, manifest=replace(given.manifest, patients=patients))
    [section] = [s for s in section_of(evidence) if s.task == "response"]
    data = section.figures[0].data.set_index(["column", "level"])
    assert data.loc[("sex", "few"), "patients"] == len(chosen) == 18
    assert np.isnan(data.loc[("sex", "few"), "value"])
    assert data.loc[("sex", "few"), "reason"] == "fewer than 10 patients in the folds that have a value"
    rows = {r["metric"]: r for r in section.rows}
    assert rows["auc|sex=few"]["reason"] == data.loc[("sex", "few"), "reason"]
    assert rows["auc|sex=few"]["n"] == 18
    assert data.loc[("sex", "others"), "value"] > 0


def test_without_a_manifest_or_columns_there_is_nothing(given: Evidence) -> None:
    assert section_of(replace(given, manifest=None)) == []
    assert section_of(replace(given, settings={**given.settings, "subgroups": []})) == []
