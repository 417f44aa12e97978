"""Words of a declaration: what is misspelt is refused with the nearest word, what is shipped is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nsclc_mtl.cohort import manifest, words
from nsclc_mtl.config.wiring import conf_root
from nsclc_mtl.records import UsageFault

SOUND = {
    "patients": {"file": "patients.csv"},
    "tasks": {"os": {"kind": "survival", "time": "t", "unit": "days", "event": "e", "events": {"dead": 1}}},
    "modalities": {"rna": {"kind": "omics", "file": "rna.csv"}},
}


@pytest.mark.parametrize("file", sorted((conf_root() / "cohort").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_words_of_shipped_cohorts_are_known(file: Path) -> None:
    words.refuse_unknown(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"never_input": ["x"]}, "cohort has no word 'never_input'; did you mean 'never_inputs'"),
        ({"patients": {"file": "patients.csv", "sites": "s"}}, "cohort.patients has no word 'sites'; did you mean"),
        ({"tasks": {"os": {**SOUND["tasks"]["os"], "zeros": "drop"}}}, "cohort.tasks.os has no word 'zeros'; did you"),
        ({"modalities": {"rna": {"kind": "omics", "exlude": ["x"]}}}, "did you mean 'exclude'"),
        ({"modalities": {"rna": {"kind": "omics", "qqq": 1}}}, "has no word 'qqq'; take it out"),
    ],
)
def test_a_word_that_nobody_reads_is_refused(change: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match=sentence):
        manifest.load({**SOUND, "root": str(tmp_path), **change}, tmp_path)
