"""A patient's fold depends on the cohort, its declared tasks and the seed, not on what a run picks of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nsclc_mtl.cohort.split_record import digest
from nsclc_mtl.commands import check as command
from nsclc_mtl.commands import splitting
from nsclc_mtl.commands.cohort import open_cohort
from nsclc_mtl.config import compose, execute, plain
from nsclc_mtl.phantom.cohort import make
from nsclc_mtl.records import DataFault, Manifest, NoEvents

WAYS: dict[str, dict[str, Any]] = {
    "by patient": {},
    "repeats": {"repeats": 2, "calibration": 0.1},
    "whole sites": {"sites": "preserve", "n": 3},
    "sites left out": {"sites": "leave_one_out", "site_patients": 5},
    "external": {"external": {"column": "site", "values": ["C"]}},
}
PICKED = ("tasks=[grade]", "modalities=[rna]", "model=abmil", "tasks=[survival,grade] modalities=[clinical,rna]")
# of everything, dealt by the code before single tasks and modalities had the folds of the whole
BEFORE = {
    ("by patient", 0): "0480010c18094de6535093b56efddca11da95f49c284d91d5feb8c84f02790ad",
    ("by patient", 1): "2ea2d5aa92fb7dee17dcd4294919866f1e67a96db6b604f16559c03f45af3f17",
    ("by patient", 2): "18c6efe0731e4b115a2ed2a7e7d724373869edb928d55313b7b12c7f63826f3f",
    ("repeats", 0): "a45a1b21c7849673a48fcbbaadd90624aaed6804a0bf5d3a59111e6a0cd56ec8",
    ("whole sites", 0): "1d107d0e95e97ae0c3bea438f58f99d4529fa61fec169e134d266bc92ec7bed8",
    ("sites left out", 0): "a4fd5c52167daff3ef682734c88bddd1921f6da033eeb06bff684a9b62f20f5c",
    ("external", 0): "8f0a33899bea9bc2a649cbd57a2f3a191ec9722e6269fdafc4faa301e21371d0",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("phantom") / "data", level="features", n=60)


@cache
def composed(words: tuple[str, ...]) -> tuple[dict[str, Any], Manifest]:
    cfg = plain(compose("train", list(words)))
    return cfg, open_cohort(cfg)


def opened(data: Path, *words: str, **folds: Any) -> tuple[dict[str, Any], Manifest]:
    """The settings with these options of `folds`, and the cohort."""
    cfg, manifest = composed((f"cohort.root={data}", "cohort.level=features", "cohort.n=60", *words))
    return {**cfg, "folds": {**cfg["folds"], **folds}}, replace(manifest, notes=[])


def split(data: Path, *words: str, **folds: Any) -> splitting.Split:
    return splitting.split(*opened(data, *words, **folds))


def of(table: pd.DataFrame, ids: list[str]) -> pd.DataFrame:
    return table[table["patient_id"].isin(ids)].reset_index(drop=True)


def usable(manifest: Manifest) -> list[str]:
    """Who has a modality and a label, told anew."""
    able = {p for who in manifest.holders().values() for p in who}
    known = {p for frame in manifest.labels.values() for p in frame.dropna().index}
    return sorted(able & known)


@pytest.mark.parametrize(("way", "seed"), BEFORE)
def test_the_folds_of_everything_are_what_they_were(data: Path, way: str, seed: int) -> None:
    assert digest(split(data, seed=seed, **WAYS[way]).table) == BEFORE[way, seed]


@pytest.mark.parametrize("way", WAYS)
def test_a_part_of_the_tasks_or_modalities_has_the_folds_of_all(data: Path, way: str) -> None:
    everything = split(data, **WAYS[way]).table
    for picked in PICKED:
        cfg, manifest = opened(data, *picked.split(), **WAYS[way])
        made = splitting.split(cfg, manifest)
        pd.testing.assert_frame_equal(made.table, of(everything, usable(manifest)))
        assert any("the folds are those of the whole cohort: 60 patients" in note for note in manifest.notes)


def test_columns_of_folds_have_the_validation_part_of_all(data: Path, tmp_path: Path) -> None:
    ids = list(pd.read_csv(data / "patients.csv", dtype=str)["patient_id"])
    pd.DataFrame(zip(ids[:30], ids[30:], strict=True), columns=["train", "val"]).to_csv(tmp_path / "s_0.csv")
    words = {"columns": f"{tmp_path}/s_*.csv", "calibration": 0.2}
    everything = split(data, **words).table
    for picked in PICKED:
        _, manifest = opened(data, *picked.split())
        able = [p for p in manifest.ids if p in {p for who in manifest.holders().values() for p in who}]
        pd.testing.assert_frame_equal(split(data, *picked.split(), **words).table, of(everything, able))


def test_the_order_of_the_tasks_is_nothing(data: Path) -> None:
    turned = split(data, "tasks=[survival,response,grade,stage]")
    pd.testing.assert_frame_equal(turned.table, split(data).table)


def test_a_comparator_that_brings_a_modality_of_its_own_has_the_folds_too(data: Path) -> None:
    own = "+cohort.modalities.tnm={kind: clinical, file: patients.csv, columns: {age: numeric}}"
    pd.testing.assert_frame_equal(split(data, own, "modalities=[tnm]").table, split(data).table)


def test_optional_tasks_count_where_they_are_asked_for(data: Path) -> None:
    words = ["+cohort.tasks.stage.optional=true"]
    without = split(data, *words).table
    pd.testing.assert_frame_equal(
        split(data, *words, "tasks=[grade]").table, of(without, usable(opened(data, *words, "tasks=[grade]")[1]))
    )
    both = split(data, *words, "tasks=[grade,stage,response,survival]").table
    stage = split(data, *words, "tasks=[stage]").table
    pd.testing.assert_frame_equal(stage, of(both, list(stage["patient_id"])))
    assert digest(both) == BEFORE["by patient", 0]


def test_what_the_run_does_not_pick_may_be_faulty(data: Path, tmp_path: Path) -> None:
    """A value that no class is, a column and a file that are not there: left out of the folds, with a note."""
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    patients = pd.read_csv(broken / "patients.csv", dtype=str, keep_default_na=False)
    patients.assign(stage="Z").drop(columns="os_days").to_csv(broken / "patients.csv", index=False)
    (broken / "proteomics.csv").unlink()
    both = [opened(broken, "tasks=[grade]", f"modalities=[{name}]") for name in ("rna", "clinical")]
    rna, clinical = (splitting.split(*each).table for each in both)
    pd.testing.assert_frame_equal(rna, of(clinical, list(rna["patient_id"])))
    notes = " ".join(both[0][1].notes)
    for name in ("the task 'stage'", "the task 'survival'", "the modality 'proteomics'"):
        assert f"the folds are dealt without {name}, which this run does not" in notes
    assert "balanced over grade, response" in notes
    assert not {"stage", "survival"} & set(both[0][1].labels)


def test_where_the_whole_cannot_be_dealt_the_run_is(data: Path, tmp_path: Path) -> None:
    """Sites without a name, of patients whom the run has no use for."""
    nameless = tmp_path / "data"
    shutil.copytree(data, nameless)
    with_rna = set(pd.read_csv(data / "rna.csv", dtype=str)["patient_id"])
    patients = pd.read_csv(nameless / "patients.csv", dtype=str, keep_default_na=False)
    patients["site"] = patients["site"].where(patients["patient_id"].isin(with_rna), "")
    patients.to_csv(nameless / "patients.csv", index=False)
    cfg, manifest = opened(nameless, "modalities=[rna]", **WAYS["whole sites"])
    made = splitting.split(cfg, manifest)
    assert set(made.table["patient_id"]) == with_rna
    assert "the whole cohort cannot be dealt, so the folds are of this run's own" in " ".join(manifest.notes)
    with pytest.raises(DataFault, match="14 patients have no site"):
        split(nameless, **WAYS["whole sites"])


def test_a_site_that_is_small_in_the_run_alone_is_seen(data: Path) -> None:
    """The policy for small sites is asked of the patients of the run, as before."""
    ids = opened(data, "modalities=[rna]")[1]
    size = ids.patients.loc[usable(ids), "site"].value_counts()
    words = {"sites": "leave_one_out", "site_patients": int(size.min()) + 1}
    with pytest.raises(DataFault, match="1 of 3 sites are too small to be a test part"):
        split(data, "modalities=[rna]", **words)
    assert split(data, "modalities=[rna]", **words, small_sites="train").table["fold"].nunique() == 2


def few(data: Path, tmp_path: Path, keep: list[str]) -> Path:
    """The same cohort, where these patients alone have RNA."""
    made = tmp_path / "few"
    shutil.copytree(data, made)
    rna = pd.read_csv(made / "rna.csv", dtype=str)
    rna[rna["patient_id"].isin(keep)].to_csv(made / "rna.csv", index=False)
    return made


def test_a_fold_that_nobody_of_the_run_is_tested_in_is_refused(data: Path, tmp_path: Path) -> None:
    everything = split(data).table
    tested = everything[(everything["part"] == "test") & (everything["fold"] > 0)]
    with_rna = set(pd.read_csv(data / "rna.csv", dtype=str)["patient_id"])
    poor = few(data, tmp_path, [p for p in tested["patient_id"] if p in with_rna])
    with pytest.raises(
        DataFault, match=r"fold 0 of the whole cohort \(60 patients\) has none in part 'test' with a mod"
    ):
        split(poor, "modalities=[rna]")


def test_too_few_events_of_the_run_are_refused_with_a_proposal_of_its_folds(data: Path) -> None:
    words = ["modalities=[rna]", "tasks=[survival]"]
    cfg, manifest = opened(data, *words, n=6, min_test=2)
    with pytest.raises(NoEvents, match=r"set folds.n=\d+, the nearest number of folds that has enough") as told:
        splitting.sound(cfg, manifest, splitting.split(cfg, manifest))
    better = str(told.value).split("set folds.n=")[1].split(",")[0]
    cfg, manifest = opened(data, *words, n=int(better), min_test=2)
    splitting.sound(cfg, manifest, splitting.split(cfg, manifest))


def test_the_record_says_what_the_folds_are_balanced_over(data: Path) -> None:
    cfg, manifest = opened(data, "tasks=[grade]")
    said = splitting.record(cfg, manifest, splitting.split(cfg, manifest))
    assert (said["tasks"], said["balanced"]) == (["grade"], ["grade", "stage", "response", "survival"])
    assert all(len(stratum.split("|")) == 4 for stratum in said["strata"])


@pytest.mark.slow
def test_check_shows_the_folds_that_training_has(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"cohort.root={data}", "cohort.level=features", "cohort.n=60", "modalities=[rna]", "tasks=[grade]"]
    assert execute("check", [*words, "name=it"], lambda: command.body) == 0
    said = json.loads(Path("runs/check/it/check.json").read_text())
    assert said["splits"]["sha256"] == digest(split(data, *words[3:]).table)
