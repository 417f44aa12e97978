"""The linter of a cohort: what is planted must be found, what is not there must not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_cohort import cohort, findings

from nsclc_mtl.cohort import splits
from nsclc_mtl.cohort.lint import attrition, counts, plausible
from nsclc_mtl.cohort.manifest import load
from nsclc_mtl.records import Manifest, TaskSpec


def test_a_sound_cohort_has_no_findings() -> None:
    assert findings(cohort()) == []


def test_twins_and_columns_that_say_nothing() -> None:
    manifest = cohort()
    rna = manifest.tables["rna"]
    rna.iloc[5] = rna.iloc[7]
    rna["zero"], rna["void"] = 0.0, np.nan
    found = {f.rule: f for f in findings(manifest)}
    assert set(found) >= {"duplicate"}
    assert all(patient in found["duplicate"].sentence for patient in (rna.index[5], rna.index[7]))
    told = [f.sentence for f in findings(manifest) if f.rule == "constant"]
    assert told == ["1 of 42 columns without any value: void", "1 of 42 columns with one value only: zero"]
    # equal age and sex are no twins
    assert not [f for f in findings(manifest) if f.where == "clinical"]


@pytest.mark.parametrize(("factor", "told"), [(1 / 30.4, True), (1, False), (30.4, True)])
def test_a_wrong_unit_shows_in_the_follow_up(factor: float, told: bool) -> None:
    manifest = cohort()
    manifest.labels["survival"]["time_days"] *= factor
    assert [f.rule for f in plausible.follow_up(manifest)] == ["follow_up"] * told


def test_counts_add_up() -> None:
    manifest = cohort()
    table = counts.per_site(manifest)
    assert (table.drop(columns="all").sum(axis=1) == table["all"]).all()
    assert table.loc["patients", "all"] == 120
    assert table.loc["has rna", "all"] == len(manifest.tables["rna"])
    dealt = splits.k_fold(manifest.labels, manifest.ids, folds=3, seed=0)
    parts = counts.per_part(manifest, dealt)
    assert (parts.groupby("fold")["patients"].sum() == 120).all()
    assert (parts.groupby("fold")["survival events"].sum() == table.loc["survival events", "all"]).all()


def known(manifest: Manifest, name: str, days: list[float], event: list[float]) -> None:
    """A survival task of the first patients, the others unknown."""
    frame = pd.DataFrame({"event": np.nan, "time_days": np.nan}, index=manifest.patients.index)
    frame.iloc[: len(days)] = np.c_[event, days]
    manifest.tasks[name] = TaskSpec(name, "survival", endpoint="overall survival" if name == "os" else name)
    manifest.labels[name] = frame


def test_a_map_the_wrong_way_round_and_days_that_are_months() -> None:
    manifest = cohort()
    given = {"kind": "survival", "unit": "days", "time": "os_days", "events": {"deceased": 0, "alive": 1, "lost": 0}}
    manifest.labels["survival"]["time_days"] += 0.25
    said = plausible.directions({"tasks": {"survival": given}}, manifest)
    assert [f.rule for f in said] == ["events", "events", "follow_up"]
    assert "counts 'deceased' as no event" in said[0].sentence
    assert "100% of the times are no whole days" in said[2].sentence
    right = {**given, "unit": "months", "events": {"deceased": 1, "alive": 0, "tumour free": 0, "not recurred": None}}
    assert plausible.directions({"tasks": {"survival": right}}, manifest) == []


def test_nothing_lasts_longer_than_the_overall_survival() -> None:
    manifest = cohort()
    del manifest.tasks["survival"]
    days = np.linspace(100, 2000, 100)
    known(manifest, "os", list(days), [1.0, 0.0] * 50)
    known(manifest, "pfs", list(days * 0.8), [1.0, 1.0] * 50)
    assert plausible.orders({}, manifest) == []
    known(manifest, "pfs", list(days * 1.5), [1.0, 1.0] * 50)
    (said,) = plausible.orders({}, manifest)
    assert said.where == "pfs"
    assert "longer than 'os' in 100 of 100 patients" in said.sentence


def test_parts_that_cannot_be_judged() -> None:
    """All censored, no comparable pair, one class: each is named with its folds, and none is an error."""
    manifest = cohort()
    ids = manifest.ids
    rows = [(p, fold, "test" if i % 3 == fold else "train") for fold in range(3) for i, p in enumerate(ids)]
    dealt = pd.DataFrame(rows, columns=["patient_id", "fold", "part"])
    assert plausible.unjudged(manifest, dealt) == []
    inside = [p for i, p in enumerate(ids) if i % 3 == 1]
    survival = manifest.labels["survival"]
    survival.loc[inside, "event"] = 0.0
    manifest.labels["response"].loc[inside, "value"] = 1.0
    last = [p for i, p in enumerate(ids) if i % 3 == 2]
    survival.loc[last, "event"] = 0.0
    survival.loc[survival.loc[last, "time_days"].idxmax(), "event"] = 1.0  # nobody outlives the only event
    said = {f.where: f for f in plausible.unjudged(manifest, dealt)}
    assert set(said) == {"survival", "response"}
    assert "test part of folds 1, 2 holds no comparable pair" in said["survival"].sentence
    assert "test part of fold 1 holds fewer than two classes" in said["response"].sentence
    assert {f.level for f in said.values()} == {"warning"}


def test_the_flow_adds_up() -> None:
    manifest = cohort(site="none")
    first = manifest.ids[:3]
    manifest.tables = {name: table[~table.index.isin(first)] for name, table in manifest.tables.items()}
    for frame in manifest.labels.values():
        frame.loc[manifest.ids[2:5]] = np.nan
    inside = pd.DataFrame({"patient_id": manifest.ids[10:], "fold": 0, "part": "train"})
    inside.loc[:20, "part"] = "test"
    for dealt in (None, inside):
        steps = attrition.attrition(manifest, dealt)
        for branch in {step.branch for step in steps}:
            own = [step for step in steps if step.branch == branch]
            if len(own) > 1:
                assert own[0].n - sum(s.n for s in own if s.kind == "left out") == own[-1].n
                assert all(s.n == sum(s.per_site.values()) for s in own)
        trunk = {step.what: step.n for step in steps if not step.branch}
        assert trunk["no modality"] == 2
        assert trunk["no known label"] == 2
        assert trunk["no modality and no known label"] == 1
    assert trunk["usable, but in no fold"] == 5


def test_the_reasons_of_the_flow(tmp_path: Path) -> None:
    """Blank, mapped to nothing, negative, zero; rows of strangers and further rows of a patient."""
    text = "patient_id,e,t,g\na,dead,5,G1\nb,,6,G2\nc,lost,7,GX\nd,alive,,\ne,dead,-2,G1\nf,alive,0,G2\ng,alive,9,G1\n"
    (tmp_path / "p.csv").write_text(text)
    (tmp_path / "x.csv").write_text("patient_id,v\na,1\na,2\nb,3\nstranger,4\n")
    declared = {
        "name": "toy",
        "root": str(tmp_path),
        "patients": {"file": "p.csv", "id": "patient_id"},
        "tasks": {
            "os": {"kind": "survival", "time": "t", "unit": "days", "event": "e", "zero": "drop", "negative": "drop",
                   "events": {"dead": 1, "alive": 0, "lost": None}},
            "grade": {"kind": "binary", "column": "g", "classes": ["G1", "G2"],
                      "map": {"G1": "G1", "G2": "G2", "GX": None}},
        },
        "modalities": {"x": {"kind": "omics", "file": "x.csv", "duplicates": "first"}},
    }  # fmt: skip
    manifest = load(declared, tmp_path / "out")
    steps = attrition.attrition(manifest, None, declared, tmp_path)
    told = {
        branch: [(s.what, s.n) for s in steps if s.branch == branch]
        for branch in ("modality x", "task os", "task grade")
    }
    assert told["modality x"] == [
        ("rows of x.csv", 4), ("rows of no patient of the cohort", 1), ("further rows of a patient", 1),
        ("patients who have it", 2),
    ]  # fmt: skip
    assert told["task os"] == [
        ("patients", 7), ("'e' is blank", 1), ("'e' is mapped to not known", 1), ("'t' is blank", 1),
        ("'t' is negative: before the index date", 1), ("'t' is zero", 1), ("label known, 1 events", 2),
    ]  # fmt: skip
    assert told["task grade"] == [
        ("patients", 7), ("'g' is blank", 1), ("'g' is mapped to not known", 1), ("label known", 5),
    ]  # fmt: skip


def test_the_flow_of_an_outcome_by_dates(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(
        "patient_id,start,e,t\na,2020-01-01,dead,2021-01-01\nb,2020-01-01,,2021-01-01\nc,2020-01-01,alive,\n"
        "d,2020-01-01,alive,2022-01-01\n"
    )
    (tmp_path / "x.csv").write_text("patient_id,v\na,1\nb,2\nc,3\nd,4\n")
    declared = {
        "name": "toy",
        "root": str(tmp_path),
        "patients": {"file": "p.csv", "id": "patient_id"},
        "index_date": {"column": "start", "event": "surgery"},
        "tasks": {
            "os": {"kind": "survival", "time": {"date": "t"}, "unit": "days", "event": "e",
                   "events": {"dead": 1, "alive": 0}},
        },
        "modalities": {"x": {"kind": "omics", "file": "x.csv"}},
    }  # fmt: skip
    steps = attrition.attrition(load(declared, tmp_path / "out"), None, declared, tmp_path)
    assert [(s.what, s.n) for s in steps if s.branch == "task os" and s.n] == [
        ("patients", 4), ("'e' is blank", 1), ("'t' is blank", 1), ("label known, 1 events", 2),
    ]  # fmt: skip
