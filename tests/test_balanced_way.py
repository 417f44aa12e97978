"""Heads, weights and samplers through `mtl train` and `mtl predict`, on a phantom of forty patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from test_way import Way

WORDS = ["ordinal=corn", "modalities=[clinical]", "audit=0", "optim.sampler=balanced"]


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    """A working folder in which two folds were trained on patients drawn by their response."""
    made = Way(tmp_path_factory.mktemp("balanced"))
    assert made.train("whole", *WORDS, "optim.sampler_task=response", "parts.tasks.ordinal.weights=balanced") == 0
    return made


def test_probabilities_come_back_to_the_training_prevalence(way: Way) -> None:
    table = way.table()
    rows = table[(table["task"] == "response") & (table["output"] == "p:" + _positive(way.folder()))]
    known = rows[rows["target"] != ""]
    shares = (known["target"] == _positive(way.folder())).mean()
    # two steps of training say little yet: what is predicted is the prevalence of the training patients
    assert known["value"].mean() == pytest.approx(shares, abs=0.12)
    sums = table[table["output"].str.startswith("p:")].groupby(["patient_id", "task", "fold", "part"])["value"].sum()
    assert np.allclose(sums, 1, atol=1e-5)


def _positive(folder: Path) -> str:
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    return str(settings["cohort"]["tasks"]["response"]["classes"][1])


def test_a_loaded_fold_predicts_as_it_did(way: Way) -> None:
    assert way.predict("again") == 0
    keys = ["patient_id", "task", "output"]
    was = way.table()
    was = was[was["part"] == "test"].set_index(keys)["value"].sort_index()
    now = way.table("predict", "again").set_index(keys)["value"].sort_index()
    pd.testing.assert_series_equal(was, now, rtol=1e-4, atol=1e-6)


def test_words_that_name_nothing_are_refused(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    assert way.train("none", *WORDS) == 2
    assert "optim.sampler_task=NAME" in capsys.readouterr().err
    assert way.train("none", *WORDS, "optim.sampler_task=stages") == 2
    assert "trains no such task" in capsys.readouterr().err
    assert way.train("none", *WORDS, "optim.sampler_task=response", "parts.tasks.binary.weights={ja: 2}") == 2
    assert "'ja' is no class of a binary task" in capsys.readouterr().err
