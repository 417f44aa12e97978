"""Names that the network cannot bear are refused when the cohort is opened, not in the middle of training."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from torch import nn

from nsclc_mtl.cohort import manifest, names
from nsclc_mtl.records import DataFault

COHORT = {
    "name": "toy",
    "patients": {"file": "patients.csv", "id": "patient_id"},
    "tasks": {"grade": {"kind": "binary", "column": "grade", "classes": ["1", "2"]}},
    "modalities": {"clinical": {"kind": "clinical", "file": "patients.csv", "columns": {"age": "numeric"}}},
}


def test_every_word_of_torch_is_known() -> None:
    words = {*dir(nn.ModuleDict()), *dir(nn.ParameterDict())}
    assert {word for word in words if not word.startswith("_")} <= names.TAKEN
    with pytest.raises(KeyError):
        nn.ModuleDict({"type": nn.Identity()})


@pytest.mark.parametrize("word", ["type", "forward", "training", "keys", "_modules", "a.b", "a/b", "", "loss"])
def test_a_name_that_cannot_be_borne_is_exit_3(tmp_path: Path, word: str) -> None:
    (tmp_path / "patients.csv").write_text("patient_id,age,grade\nA,60,1\nB,70,2\n")
    for group, own in (("tasks", "grade"), ("modalities", "clinical")):
        cohort = {**copy.deepcopy(COHORT), "root": str(tmp_path)}
        cohort[group] = {word: cohort[group][own]}  # type: ignore[index]
        if word == "loss" and group == "modalities":
            assert word in manifest.load(cohort, tmp_path).modalities
            continue
        with pytest.raises(DataFault, match="another name") as caught:
            manifest.load(cohort, tmp_path)
        assert caught.value.exit_code == 3
        assert f"'{word}'" in str(caught.value)


def test_a_name_that_is_not_used_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("patient_id,age,grade\nA,60,1\nB,70,2\n")
    cohort = {**copy.deepcopy(COHORT), "root": str(tmp_path)}
    cohort["tasks"] = {**cohort["tasks"], "type": cohort["tasks"]["grade"]}  # type: ignore[dict-item, index]
    assert list(manifest.load(cohort, tmp_path, tasks=["grade"]).tasks) == ["grade"]
