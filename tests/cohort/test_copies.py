"""Copies of outcomes among the inputs: planted ones are found, what chance can do is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from toy_cohort import OMICS, cohort, findings

from nsclc_mtl.cohort.lint import copies
from nsclc_mtl.records import Manifest, TaskSpec


def copied(manifest: Manifest, kind: str) -> pd.Series:
    survival, grade = manifest.labels["survival"], manifest.labels["grade"]["value"]
    return {
        "classes in other words": grade.map({0: "well", 1: "moderate", 2: "poor"}).fillna(""),
        "classes the other way round": -grade,
        "time in months": survival["time_days"] / 30.4,
        "minus the logarithm of time": -np.log(survival["time_days"] + 1),
        "days to death": survival["time_days"].where(survival["event"] == 1),
        "whole years": (survival["time_days"] / 120).round(),
        "a last visit of the censored": pd.Series("2020", grade.index).where(survival["event"] == 0, ""),
        "vital words": survival["event"].map({0: "alive", 1: "dead"}).fillna("NA"),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("classes in other words", "'grade'"),
        ("classes the other way round", "'grade'"),
        ("time in months", "'survival' (time)"),
        ("minus the logarithm of time", "'survival' (time)"),
        ("days to death", "'survival' (time)"),
        ("whole years", "'survival' (time)"),
        ("a last visit of the censored", "'survival' (event)"),
        ("vital words", "'survival' (event)"),
    ],
)
def test_a_copy_of_an_outcome_is_an_error(kind: str, part: str) -> None:
    manifest = cohort()
    manifest.tables["clinical"]["x"] = copied(manifest, kind)
    if kind == "vital words":
        manifest.tables["clinical"].iloc[:3, 2] = "NA"  # not known here, though the task knows it
    found = findings(manifest)
    assert [(f.level, f.rule, f.where) for f in found if f.level == "error"] == [("error", "copy", "clinical")]
    assert part in found[0].sentence
    assert not [f for f in found if f.rule == "alarm" and "'x'" in f.sentence]  # said once


def test_a_copy_of_any_of_competing_events_is_an_error() -> None:
    manifest = cohort()
    labels = manifest.labels["survival"]
    labels["cause"] = labels["event"]
    dead = labels.index[labels["event"] == 1][::3]  # of another cause, which censors the first one
    labels.loc[dead, "event"], labels.loc[dead, "cause"] = 0.0, 2.0
    manifest.tasks["survival"] = TaskSpec("survival", "survival", columns=("os_status", "os_days"), causes=("a", "b"))
    manifest.tables["clinical"]["x"] = (labels["cause"] > 0).map({True: "dead", False: "alive"})
    found = [f.sentence for f in findings(manifest) if f.level == "error"]
    assert len(found) == 1
    assert "'survival', any cause (event)" in found[0]


def test_a_copy_by_name() -> None:
    manifest = cohort()
    manifest.tables["clinical"]["OS_Days "] = 1.0 * np.arange(120)
    assert [f.rule for f in findings(manifest) if f.level == "error"] == ["copy"]


def test_what_chance_can_do_is_no_copy() -> None:
    """Ten patients with a label: some of ten thousand mutations agree with it by themselves."""
    rng = np.random.default_rng(5)
    index = pd.Index([f"P{i}" for i in range(10)])
    value = np.repeat([0.0, 1.0], 5)
    mutations = pd.DataFrame(rng.integers(0, 2, (10, 10_000)) * 1.0, index=index)
    assert (value == mutations.to_numpy().T).all(axis=1).any()
    manifest = Manifest(
        "toy", pd.DataFrame({"site": ""}, index=index), {"y": TaskSpec("y", "binary", ("a", "b"))}, {"rna": OMICS},
        {"y": pd.DataFrame({"value": value}, index=index)}, tables={"rna": mutations},
    )  # fmt: skip
    assert copies.copies(manifest, copies.outcome_parts(manifest)) == []


def test_a_component_that_is_no_label() -> None:
    """The cause of death stands in the patients table, is declared as a part of the task, and comes back renamed."""
    manifest = cohort()
    event = manifest.labels["survival"]["event"].fillna(0)
    cause = pd.Series(np.random.default_rng(0).choice(["tumour", "heart"], 120), event.index).where(event == 1, "alive")
    manifest.patients["cause"] = cause
    manifest.tables["clinical"]["note"] = cause.map({"tumour": "t", "heart": "h", "alive": "a"})
    task = manifest.tasks["survival"]
    manifest.tasks["survival"] = TaskSpec(task.name, task.kind, columns=(*task.columns, "cause"))
    (said,) = [f for f in findings(manifest) if f.level == "error"]
    assert said.column == "note"
    assert "the component 'cause' of the task 'survival'" in said.sentence


def test_outcomes_that_are_asked_for_as_inputs_are_all_named() -> None:
    cohort_of = {
        "modalities": {
            "clinical": {"columns": {"age": "numeric", "os_days": "numeric", "centre": "categorical"}},
            "late": {"columns": {"os_status": "categorical"}},
            "rna": {"match": "x"},
        },
        "never_inputs": ["centre"],
    }
    said = copies.declared(cohort_of, {"survival": TaskSpec("survival", "survival", columns=("os_status", "os_days"))})
    assert [(f.where, f.column) for f in said] == [
        ("clinical", "os_days"),
        ("clinical", "centre"),
        ("late", "os_status"),
    ]
    rest = copies.without(cohort_of, said)["modalities"]
    assert rest == {"clinical": {"columns": {"age": "numeric"}}, "rna": {"match": "x"}}
