"""Columns that know too much, and names that smell."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from toy_cohort import OMICS, cohort, findings

from nsclc_mtl.cohort import lint
from nsclc_mtl.cohort.lint import alarms
from nsclc_mtl.records import Manifest, TaskSpec


def test_a_column_that_knows_too_much() -> None:
    manifest = cohort()
    survival = manifest.labels["survival"]
    noise = np.random.default_rng(1).normal(0, 200, len(survival))
    manifest.tables["clinical"]["visits"] = survival["time_days"].fillna(500) + noise
    (found,) = [f for f in findings(manifest) if f.rule == "alarm"]
    assert found.level == "warning"
    assert "'visits' alone gives C 0." in found.sentence
    assert not [f for f in findings(manifest, limits=lint.Limits(level=0.99)) if f.rule == "alarm"]
    assert not [f for f in findings(manifest, limits=lint.Limits(patients=500)) if f.rule == "alarm"]


def test_many_columns_of_noise_in_few_patients_raise_no_alarm() -> None:
    rng = np.random.default_rng(3)
    index = pd.Index([f"P{i}" for i in range(32)])
    value = np.r_[np.zeros(8), np.ones(24)]
    manifest = Manifest(
        "toy", pd.DataFrame({"site": ""}, index=index), {"y": TaskSpec("y", "binary", ("a", "b"))}, {"rna": OMICS},
        {"y": pd.DataFrame({"value": value}, index=index)},
        tables={"rna": pd.DataFrame(rng.normal(size=(32, 3000)), index=index)},
    )  # fmt: skip
    found, best = alarms.alarms(manifest, [list(index)], level=0.85, certain=0.98, patients=30, alpha=0.01)
    assert best["value"].max() > 0.85
    assert found == []


@pytest.mark.parametrize(
    ("column", "smelt"),
    [
        ("vital_status", True), ("tumor_status", True), ("daysToLastFollowup", True), ("recurrence", True),
        ("days_to_birth", True), ("last_contact", True), ("OS_time", True), ("smoking_status", False),
        ("hpv_status", False), ("resection_status", False), ("primarily_metastasis", False), ("lung_metastasis", True),
        ("OSdays", True), ("PFS.event", True), ("smoking_status_at_last_contact", True),
        ("lymphocytes", False), ("closest_margin", False), ("position", False),
    ],
)  # fmt: skip
def test_names_that_smell(column: str, smelt: bool) -> None:
    manifest = cohort(40)
    manifest.tables["clinical"][column] = np.random.default_rng(0).normal(size=40)
    assert [f.rule for f in alarms.smells(manifest)] == ["name"] * smelt


def told_apart(hazard_ratio: float, seed: int = 0) -> tuple[Manifest, pd.Series]:
    """Sixty patients of each kind, hazards in this ratio, a third censored."""
    rng = np.random.default_rng(seed)
    manifest = cohort()
    kind = np.arange(120) % 2
    time = rng.exponential(1000 / np.where(kind == 1, hazard_ratio, 1.0))
    end = rng.exponential(1500, 120)
    manifest.labels["survival"]["event"] = (time <= end) * 1.0
    manifest.labels["survival"]["time_days"] = np.minimum(time, end)
    return manifest, pd.Series(kind, manifest.patients.index)


@pytest.mark.parametrize(("hazard_ratio", "alarmed"), [(2, False), (4, False), (60, True)])
def test_a_word_that_orders_nearly_all_pairs_it_tells_apart(hazard_ratio: float, alarmed: bool) -> None:
    """Its C stays below the alarm, because it ties most pairs: so it goes with tumour status in TCGA."""
    manifest, kind = told_apart(hazard_ratio)
    manifest.tables["clinical"]["disease"] = kind.map({0: "tumour free", 1: "with tumour"})
    said = [f for f in findings(manifest) if f.rule == "alarm" and "survival" in f.sentence]
    assert bool(said) is alarmed
    if alarmed:
        assert [(f.level, f.column) for f in said] == [("warning", "disease")]
        assert "of the pairs that it tells apart" in said[0].sentence


def test_blanks_that_know_the_event() -> None:
    """A date of the last visit that is blank for nearly everybody who died: no value of it knows anything."""
    manifest = cohort()
    event = manifest.labels["survival"]["event"]
    visits = pd.Series(np.random.default_rng(0).normal(size=120), event.index).mask(event == 1)
    visits[event.index[event == 1][:4]] = [0.0, 1.0, 2.0, 3.0]  # not exactly: that would be a copy
    manifest.tables["clinical"]["visit"] = visits
    (said,) = [f for f in findings(manifest) if f.column == "visit"]
    assert (said.level, said.rule) == ("warning", "alarm")
    assert "'visit=(blank)' alone gives AUC 0.9" in said.sentence
    assert "in the other folds" in said.sentence


def test_what_is_all_but_the_outcome_is_an_error() -> None:
    manifest = cohort()
    days = manifest.labels["survival"]["time_days"]
    manifest.tables["clinical"]["weeks"] = days / 7 + np.random.default_rng(1).normal(0, 1.5, len(days))
    (said,) = [f for f in findings(manifest) if f.column == "weeks"]
    assert (said.level, said.rule) == ("error", "alarm")
    assert [f.level for f in findings(manifest, limits=lint.Limits(certain=1.1)) if f.column == "weeks"] == ["warning"]
