"""A site with a look of its own, through `mtl train`: its patients are called unlike, those of known sites are not."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

from nsclc_mtl.config import execute


@pytest.mark.slow
def test_a_shifted_site_is_told_and_named(tmp_path: Path) -> None:
    words = ["cohort.level=features", "cohort.n=160", "cohort.site=shift", "folds.workers=0", "folds.validation=0.3",
             "trainer.max_epochs=2", "optim.min_steps=1", "audit=0", "device=cpu", "logger=none",
             f"paths.out={tmp_path / 'out'}", f"paths.runs={tmp_path / 'runs'}"]  # fmt: skip
    shares = {}
    for name, more in (("unseen", ["folds.external={column: site, values: [C]}"]), ("known", ["folds.n=2", "fold=0"])):
        body = import_module("nsclc_mtl.commands.train").body
        assert execute("train", [f"name={name}", *words, *more], lambda body=body: body) == 0
        told = pd.read_csv(tmp_path / "runs" / "train" / name / "trust.csv", dtype=str, keep_default_na=False)
        shares[name] = (told.loc[told["what"] == "flag:outside", "value"] == "1").mean()
        if name == "unseen":
            assert (told.loc[told["what"] == "flag:site", "value"] == "1").all()
            why = told.loc[told["what"] == "reason", "value"]
            assert (why == "site C was not among those of the training").any()
            assert why.str.contains("unlike the training patients in .*rna").any()
    assert shares["unseen"] > 0.8
    assert shares["known"] < 0.25  # beta-binomial of 80 patients and 24 known ones: P < .005
