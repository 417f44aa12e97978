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
        ("hpv_status", False), ("lymphocytes", False), ("closest_margin", False), ("position", False),
    ],
)  # fmt: skip
def test_names_that_smell(column: str, smelt: bool) -> None:
    manifest = cohort(40)
    manifest.tables["clinical"][column] = np.random.default_rng(0).normal(size=40)
    assert [f.rule for f in alarms.smells(manifest)] == ["name"] * smelt
