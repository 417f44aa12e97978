"""The record of a split: a hash that knows the table and nothing else, and a split that is another one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_cohort import cohort

from nsclc_mtl.cohort import split_files, split_record, splits
from nsclc_mtl.records import IntegrityFault


@given(order=st.permutations(range(12)))
def test_the_hash_knows_no_order(order: list[int]) -> None:
    rows = [(f"p{i % 6}", i // 6, "test" if i % 6 == i // 6 else "train") for i in range(12)]
    table = pd.DataFrame(rows, columns=["patient_id", "fold", "part"])
    assert split_record.digest(table.iloc[order]) == split_record.digest(table)
    other = table.copy()
    other.loc[order[0], "part"] = "validation"
    assert split_record.digest(other) != split_record.digest(table)


def test_the_hash_is_what_the_docs_say() -> None:
    table = pd.DataFrame({"patient_id": ["é", "a"], "fold": [0, 0], "part": ["test", "train"]})
    text = '[[0,"a","train"],[0,"é","test"]]'
    assert split_record.digest(table) == hashlib.sha256(text.encode()).hexdigest()


def test_what_the_record_holds() -> None:
    manifest = cohort()
    dealt = splits.k_fold(manifest.labels, manifest.ids, folds=3, seed=0)
    said = split_record.record(dealt, manifest, {"n": 3, "seed": 0}, [{"why": "rows", "patients": ["x"]}], {1: "B"})
    assert json.loads(json.dumps(said)) == said
    assert said["sha256"] == split_record.digest(dealt)
    assert said["patients"] == sum(said["strata"].values()) == sum(said["sites"].values()) == 120
    assert [fold["name"] for fold in said["folds"]] == ["", "B", ""]
    survival = manifest.labels["survival"].dropna()
    tested = [fold["parts"]["test"]["survival"] for fold in said["folds"]]
    assert sum(part["events"] for part in tested) == survival["event"].sum()
    assert sum(part["known"] for part in tested) == len(survival)
    assert set(said["folds"][0]["parts"]["train"]["grade"]) == {"G1", "G2", "G3"}


def test_a_given_split_must_be_the_promised_one(tmp_path: Path) -> None:
    manifest = cohort(40)
    dealt = splits.k_fold(manifest.labels, manifest.ids, folds=2, seed=0)
    file = tmp_path / "splits.csv"
    dealt.to_csv(file, index=False)
    right = split_record.digest(dealt)
    few = manifest.ids[:35]  # who is no longer in the cohort still counts in the hash of the file
    assert set(split_files.from_csv(file, few, right)["patient_id"]) == set(few)
    with pytest.raises(IntegrityFault, match=r"'splits.csv' hashes to .*folds.sha256 promises 0000") as caught:
        split_files.from_csv(file, manifest.ids, "0" * 64)
    assert caught.value.exit_code == 5
    record = tmp_path / "splits.json"
    record.write_text(json.dumps({"sha256": right, "folds": []}))
    split_files.from_csv(file, manifest.ids)
    file.write_text(file.read_text().replace(",0,test", ",0,validation", 1))
    with pytest.raises(IntegrityFault, match=r"'splits.json' beside it promises"):
        split_files.from_csv(file, manifest.ids)
    record.write_text('{"colour": "red"}')  # somebody's other file
    split_files.from_csv(file, manifest.ids)
    record.write_text("{")
    with pytest.raises(IntegrityFault, match="no JSON"):
        split_files.from_csv(file, manifest.ids)
