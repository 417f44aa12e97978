"""Training with the linear skip: before the network has learned anything, the model says what the line says."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from nsclc_mtl.commands import outputs, train
from nsclc_mtl.commands.cohort import open_cohort
from nsclc_mtl.commands.fold_files import load_fold
from nsclc_mtl.config import compose, execute, plain

WORDS = [
    "cohort.level=features", "cohort.n=120", "skip=linear", "fold=0", "folds.n=2", "folds.workers=0", "audit=0",
    "optim.optimizer.lr=1e-9", "trainer.max_epochs=1", "optim.min_steps=1", "modalities=[radiomics,rna,clinical]",
]  # fmt: skip


@pytest.mark.slow
def test_untrained_with_a_skip_is_the_line_and_a_saved_one_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert execute("train", ["name=run", *WORDS], lambda: train.body) == 0
    run = tmp_path / "runs" / "train" / "run"
    told = pd.read_csv(run / "predictions.csv", dtype={"patient_id": str})
    test = told[(told["part"] == "test") & (told["task"] == "survival") & (told["output"] == "risk")]
    settings = plain(compose("train", WORDS))
    manifest = open_cohort(settings)
    members, fitted, _, _ = load_fold(settings, run / "fold0")
    data = type("Data", (), {"fitted": fitted, "cache": None})
    again = outputs.predict(members, manifest, list(test["patient_id"]), data)["survival"]["risk"]
    assert again.to_numpy() == pytest.approx(test["value"].to_numpy(), abs=1e-5)
    skip = members[0].skip
    assert skip is not None
    rows = {name: fitted.rows(manifest, name, list(test["patient_id"])) for name in ("clinical",)}
    assert rows["clinical"].shape[1] == skip.inputs["clinical"]
    genes = fitted.tables["rna"]
    assert skip.inputs["rna"] == fitted.rows(manifest, "rna", []).shape[1] == len(genes.numbers) > 100
    assert genes.narrow.dim == 16  # what the encoder sees of them
    assert test["value"].std() > 0.05  # a head alone starts at the base rate, the same for everybody
