"""The linter of a cohort: what is planted must be found, what is not there must not."""

from __future__ import annotations

import numpy as np
import pytest
from toy_cohort import cohort, findings

from nsclc_mtl.cohort import splits
from nsclc_mtl.cohort.lint import counts, plausible


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
