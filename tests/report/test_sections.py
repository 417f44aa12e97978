"""The sections of a report, recomputed from the predictions by other means."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import chi2

from nsclc_mtl.commands.judging import evaluate_predictions
from nsclc_mtl.metrics.survival import kaplan_meier, log_rank
from nsclc_mtl.report import card, page, tripod
from nsclc_mtl.report.facts import facts, limits
from nsclc_mtl.report.section import Evidence
from nsclc_mtl.report.sections import SECTIONS
from nsclc_mtl.report.sections.cohort import cohort
from nsclc_mtl.report.sections.intended import intended
from nsclc_mtl.report.sections.risk import grouped, p_word, risk

from .conftest import TASKS
from .outline import Outline


@pytest.fixture(scope="module")
def evidence(toy: dict[str, Any]) -> Evidence:
    results = evaluate_predictions(toy["predictions"], TASKS, toy["manifest"], toy["splits"], draws=30)
    return Evidence(results, toy["predictions"], toy["manifest"], toy["splits"], {"primary_floor": "clinical"})


@pytest.fixture(scope="module")
def outside(evidence: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """The same patients as if they were of another cohort, predicted by the mean of the folds."""
    folder = tmp_path_factory.mktemp("trained")
    evidence.predictions.to_csv(folder / "predictions.csv", index=False)
    far = evidence.predictions[evidence.predictions["part"] == "test"].assign(fold=-1)
    far = far[~far["output"].str.startswith("surv:")]
    results = evaluate_predictions(far, TASKS, evidence.manifest, None, draws=20)
    return dataclasses.replace(
        evidence, results=results, predictions=far, splits=None, folder=folder, training=evidence.manifest
    )


@pytest.mark.parametrize(("way", "levels"), [("median", [1 / 2]), ("tertiles", [1 / 3, 2 / 3])])
def test_groups_are_cut_on_the_training_patients_of_the_fold(evidence: Evidence, way: str, levels: list[float]) -> None:
    own = evidence.predictions.query("task == 'survival' and output == 'risk'")
    cuts = own[own["part"] == "train"].groupby("fold")["value"].quantile(levels).unstack()
    test = own[own["part"] == "test"]
    group = (test["value"].to_numpy()[:, None] > cuts.loc[test["fold"]].to_numpy()).sum(axis=1)
    told = dataclasses.replace(evidence, settings={"risk_groups": way})
    [section] = risk(told)
    table = section.tables["risk-groups-survival"]
    assert table["patients"].tolist() == np.bincount(group).tolist()
    assert table["events"].tolist() == [int(test["event"][group == k].sum()) for k in range(len(levels) + 1)]
    assert section.tables["risk-cut-offs-survival"]["cut_1"].to_numpy() == pytest.approx(cuts[levels[0]].to_numpy())
    # the restricted mean is the area under the curve of the figure, on a fine grid
    horizon = table["horizon_days"].iloc[0]
    high = test[group == len(levels)]
    grid = np.linspace(0, horizon, 200_001)
    area = kaplan_meier(high["time_days"], high["event"]).at(grid[:-1]).mean() * horizon
    assert table["restricted_mean_days"].iloc[-1] == pytest.approx(area, rel=1e-3)
    rows = {row["metric"]: row for row in section.rows}
    assert rows["hazard_ratio:high_risk"]["value"] == pytest.approx(table["hazard_ratio"].iloc[-1])
    assert f"{table['hazard_ratio'].iloc[-1]:.2f}" in section.html
    assert not [name for name in rows if name.endswith("_p")]
    assert "without P" in section.html
    assert not re.search(r"\bP (=|&lt;)", section.html)
    within, _ = log_rank(test["time_days"], test["event"], group, test["fold"].astype(float))
    assert rows["log_rank_within_folds"]["value"] == pytest.approx(float(within))
    assert f"{within:.2f} compared within the folds alone" in section.html


def test_an_independent_test_set_has_a_p_value_and_the_mean_cut_off(evidence: Evidence, outside: Evidence) -> None:
    here = grouped(evidence, evidence.results["survival"])
    there = grouped(outside, outside.results["survival"])
    assert there.independent
    assert not here.independent
    assert there.cuts["cut_1"].tolist() == pytest.approx([here.cuts["cut_1"].mean()])
    assert there.cuts["patients"].tolist() == [90]
    [section] = risk(outside)
    rows = {row["metric"]: row["value"] for row in section.rows}
    chi = rows["log_rank"]
    assert rows["log_rank_p"] == pytest.approx(chi2.sf(chi, 1))
    assert f"P {p_word(rows['log_rank_p'])}".replace("<", "&lt;") in section.html
    frozen = dataclasses.replace(outside, folder=None, cutoffs={"survival": {"median": -0.25}})
    assert grouped(frozen, frozen.results["survival"]).cuts["cut_1"].tolist() == [-0.25]


def test_the_maximally_selected_cut_is_told_with_its_p(evidence: Evidence) -> None:
    [section] = risk(dataclasses.replace(evidence, settings={"risk_groups": "maxstat"}))
    cuts = section.tables["risk-cut-offs-survival"]
    own = evidence.predictions.query("task == 'survival' and output == 'risk' and part == 'train'")
    for _, row in cuts.iterrows():
        share = (own.loc[own["fold"].astype(str) == row["fold"], "value"] <= row["cut_1"]).mean()
        assert 0.1 <= share <= 0.9
        assert 0 < row["p_permuted"] <= 1
    assert "Lausen" in section.html


def test_repeats_count_a_patient_once_and_no_cut_off_means_no_groups(evidence: Evidence) -> None:
    twice = pd.concat([evidence.predictions, evidence.predictions.assign(fold=evidence.predictions["fold"] + 3)])
    results = evaluate_predictions(twice, {"survival": TASKS["survival"]}, None, None, draws=2)
    made = grouped(dataclasses.replace(evidence, predictions=twice, results=results), results["survival"])
    assert len(made.time) == 90
    bare = dataclasses.replace(evidence, predictions=twice[twice["part"] == "test"])
    [section] = risk(bare)
    assert section.figures == []
    assert "no cut-off" in section.html


def test_the_table_of_characteristics(evidence: Evidence, toy: dict[str, Any]) -> None:
    [section] = cohort(evidence)
    table = section.tables["cohort"]
    assert list(table.columns) == ["block", "variable", "level", "all", "fold 0 test", "fold 1 test", "fold 2 test"]
    cells = table.set_index(["variable", "level"])
    age = toy["manifest"].tables["clinical"]["age"]
    low, middle, high = np.percentile(age, [25, 50, 75])
    assert cells.loc[("age", ""), "all"] == f"{middle:.3g} ({low:.3g} to {high:.3g})"
    assert cells.loc[("patients", ""), "fold 1 test"] == "30"
    assert cells.loc[("radiomics", ""), "all"] == "45 (50 %)"
    grade = toy["manifest"].labels["grade"]["value"]
    assert (
        cells.loc[("grade", "G2"), "all"] == f"{(grade == 1).sum()} ({100 * (grade == 1).sum() / grade.count():.0f} %)"
    )
    assert cells.loc[("grade", "missing"), "all"] == str(grade.isna().sum())
    events = int(toy["manifest"].labels["survival"]["event"].sum())
    assert cells.loc[("survival", "events (overall survival)"), "all"] == f"{events} ({100 * events / 90:.0f} %)"
    assert "<p>90 patients from 2 sites" in section.html
    assert section.figures[0].data["n"].tolist()[-1] == 90


def test_codes_are_categories_where_they_are_declared_so(evidence: Evidence, toy: dict[str, Any]) -> None:
    manifest = toy["manifest"]
    made = manifest.tables["clinical"].assign(
        pt=np.resize(["2", "10", "1"], 90), nodes=np.resize([1234.0, 5678.0, np.nan], 90)
    )
    told = dataclasses.replace(manifest, tables={**manifest.tables, "clinical": made})
    trained = {"cohort": {"modalities": {"clinical": {"columns": {"nodes": {"type": "numeric", "unit": "mm"}}}}}}
    [section] = cohort(dataclasses.replace(evidence, manifest=told, trained=trained))
    rows = section.tables["cohort"]
    pt = rows[rows["variable"] == "pt"]
    assert pt["level"].tolist() == ["", "1", "2", "10"]
    assert set(pt["all"][1:]) == {"30 (33 %)"}
    nodes = rows[rows["variable"] == "nodes, mm"]
    assert nodes[["level", "all"]].to_numpy().tolist() == [["", "3456 (1234 to 5678)"], ["missing", "30"]]


def test_a_code_that_is_there_or_not_is_counted(evidence: Evidence, toy: dict[str, Any]) -> None:
    manifest = toy["manifest"]
    made = manifest.tables["clinical"].assign(c021=np.resize([0.0, 1.0, np.nan], 90))
    told = dataclasses.replace(manifest, tables={**manifest.tables, "clinical": made})
    [section] = cohort(dataclasses.replace(evidence, manifest=told))
    rows = section.tables["cohort"].set_index(["variable", "level"])["all"]
    assert rows[("c021 = 1", "")] == "30 (50 %)"
    assert rows[("c021 = 1", "missing")] == "30"


def test_only_the_studied_count(evidence: Evidence, toy: dict[str, Any]) -> None:
    left = set(toy["manifest"].patients.index[:30])
    splits = toy["splits"][~toy["splits"]["patient_id"].isin(left)]
    said = toy["predictions"][~toy["predictions"]["patient_id"].isin(left)]
    for other in (splits, None):
        [section] = cohort(dataclasses.replace(evidence, splits=other, predictions=said))
        assert "<p>60 patients" in section.html
        first = section.tables["cohort"].iloc[0]
        assert first.iloc[3] == "60"
        assert section.figures[0].data["n"].tolist()[0] == 90
        assert section.figures[0].data["n"].tolist()[-1] == 60


def test_external_patients_stand_beside_the_training_cohort(outside: Evidence) -> None:
    [section] = cohort(outside)
    assert list(section.tables["cohort"].columns[3:]) == ["training cohort", "evaluated"]
    [alone] = cohort(dataclasses.replace(outside, training=None, mean_of=(0, 1)))
    assert list(alone.tables["cohort"].columns[3:]) == ["evaluated"]
    assert "not at hand" in alone.html
    [held_out] = cohort(dataclasses.replace(outside, training=None, mean_of=()))  # the training's patients, elsewhere
    assert "not at hand" not in held_out.html


def test_a_page_about_other_patients_speaks_of_no_fold_of_theirs(evidence: Evidence, outside: Evidence) -> None:
    """They are predicted by the mean of all folds; the one fold that they have in the tables is nobody's."""
    there, here = (page.render(of, page.Story("told"), SECTIONS).html for of in (outside, evidence))
    assert not re.search(r">\s*-1\s*<|1 fold\b|all folds|of each fold go|with the fold|Within the folds", there)
    assert "Judged by the C-index of the mean of the folds’ predictions." in there
    assert "Fold by fold" not in there
    assert re.search(r"within each fold \(\d folds\)", here)
    assert "Fold by fold" in here


def test_a_page_of_locked_predictions_says_so(evidence: Evidence) -> None:
    told = ("Predictions locked.", "survival: 3 joined.")
    late = {"survival": "Time counts from <then>."}
    locked = dataclasses.replace(evidence, locked="2026-01-02T03:04:05Z", told=told, late=late)
    html = page.render(locked, page.Story("told"), SECTIONS).html
    assert all(sentence in html for sentence in told)
    assert html.count("Time counts from &lt;then&gt;.") == 1
    assert not any("prospective" in limit for limit in limits(facts(locked)))
    assert any("prospective" in limit for limit in limits(facts(evidence)))
    assert facts(locked).design.startswith("evaluation of predictions that were locked on 2026-01-02T03:04:05Z")


def test_what_was_not_shown_is_said(evidence: Evidence, outside: Evidence) -> None:
    [section] = intended(evidence)
    assert "Prognostic, not predictive" in section.html
    assert "Research use only" in section.html
    told = limits(facts(evidence))
    assert any("another hospital" in limit for limit in told)
    assert any("survival: " in limit and "100 are advised" in limit for limit in told)
    assert not any("another hospital" in limit for limit in limits(facts(outside)))
    assert facts(outside).external
    sites = dataclasses.replace(evidence, trained={"folds": {"sites": "leave_one_out"}})
    assert "leaves out each of 3 sites" in facts(sites).design


def test_every_anchor_of_the_checklist_is_on_the_page_and_gaps_are_seen(evidence: Evidence) -> None:
    made = page.render(evidence, page.Story("toy"), (cohort, risk, intended))
    outline = Outline()
    outline.feed(made.html)
    [section] = [s for s in made.sections if s.name == tripod.NAME]
    table = section.tables["tripod"]
    items = yaml.safe_load((Path(tripod.__file__).parent / "tripod.yaml").read_text())
    assert table["item"].tolist() == [item["item"] for item in items]
    assert {re.sub(r"\D", "", item) for item in table["item"]} == {str(k) for k in range(1, 28)}  # 27 items ...
    assert len(table) == 52  # ... with their parts
    assert set(tripod.ANSWERS) <= set(table["item"])
    anchors = {a for cell in table["anchors"] for a in cell.split()}
    assert anchors
    assert {a.removeprefix("#") for a in anchors} <= set(outline.ids)
    gaps = table[table["state"] == tripod.UNFILLED]
    assert {"2", "17", "18a", "25", "14"} <= set(gaps["item"])  # 14: no subgroups on this page
    assert (gaps["answer"] == "").all()
    rows = re.findall(r"<tr><th scope=\"row\">(\S+) .*?</tr>", section.html, flags=re.DOTALL)
    assert rows == table["item"].tolist()
    assert (
        section.html.count(f'<strong class="unfilled">{tripod.UNFILLED}</strong>') == len(gaps) + 1
    )  # and in the lead
    with_groups = tripod.filled(facts(evidence), ["subgroups-survival"])
    assert next(row for row in with_groups if row["item"] == "14")["state"] == "filled"
    alone = dataclasses.replace(facts(evidence), sites=1)
    by_site = {row["item"]: row["state"] for row in tripod.filled(alone, ["subgroups-survival"])}
    assert by_site["12d"] == by_site["23b"] == tripod.UNFILLED  # one site: subgroups there are, but not by site


def test_the_card_has_front_matter_and_the_numbers_of_the_run(evidence: Evidence, outside: Evidence) -> None:
    text = card.render(evidence, "1.2.3")
    _, front, body = text.split("---\n", 2)
    said = yaml.safe_load(front)
    assert said["license"] == "unknown"
    assert "research-use-only" in said["tags"]
    [index] = said["model-index"]
    assert [r["task"]["name"] for r in index["results"]] == list(TASKS)
    c_index = index["results"][-1]["metrics"][0]
    ours = evidence.results["survival"].metrics["c_index"]["learner"].interval()
    assert c_index["value"] == pytest.approx(ours.value, abs=1e-4)
    assert f"{ours.lo:.3f} to {ours.hi:.3f}" in c_index["name"]
    assert f"{ours.value:.3f}" in body
    assert "Research use only" in body
    assert "90 patients from 2 sites" in body
    assert "another cohort" in card.render(outside, "1.2.3", "cc-by-4.0")
    assert yaml.safe_load(card.render(outside, "1.2.3", "cc-by-4.0").split("---\n")[1])["license"] == "cc-by-4.0"


def test_p_values_read_as_they_should() -> None:
    assert [p_word(p) for p in (0.0001, 0.0123, 0.5, float("nan"))] == ["< 0.001", "= 0.012", "= 0.50", "–"]
