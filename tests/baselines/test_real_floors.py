"""Floors on a public cohort, beside what was computed elsewhere on the same folds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from nsclc_mtl.baselines import fit_floors
from nsclc_mtl.cohort import manifest
from nsclc_mtl.commands.cohort import split
from nsclc_mtl.config import compose, plain
from nsclc_mtl.report.evaluation import judge

pytestmark = pytest.mark.realdata


@pytest.mark.slow
def test_rna_of_lusc_is_worth_what_others_found(real_data: Path) -> None:
    """PCA and ridge Cox on the same folds: C = .54."""
    cfg = plain(compose("train", ["experiment=tcga_lusc", f"cohort.root={real_data / 'tcga'}", "tasks=[survival]"]))
    who = manifest.load(cfg["cohort"], Path("out"), tasks=["survival"], modalities=["rna"])
    made = fit_floors(who.tables, who.tasks, who.labels, split(cfg, who), None, 0)
    said = pd.concat([made.assign(model="learner"), made])
    at = judge(said, who.tasks, draws=200)["survival"].metrics["c_index"]["floor:rna"].interval()
    assert at.value == pytest.approx(0.54, abs=0.02)
    assert at.lo < 0.54 < at.hi
