"""Absence and outcomes by site and by outcome."""

from __future__ import annotations

import numpy as np
import pytest
from toy_cohort import cohort

from nsclc_mtl.cohort.lint import associations


@pytest.mark.parametrize(("missing", "warned"), [("mcar", False), ("mnar", True)])
def test_absence_by_outcome(missing: str, warned: bool) -> None:
    for seed in range(3):
        found = associations.missing_by_outcome(cohort(400, seed, missing), alpha=0.01)
        assert bool(found) is warned
        assert all(f.where == "rna" for f in found)


@pytest.mark.slow
def test_absence_by_chance_is_reported_as_often_as_alpha_says() -> None:
    alarms = [bool(associations.missing_by_outcome(cohort(400, seed), alpha=0.05)) for seed in range(300)]
    assert np.mean(alarms) < 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 300)  # Holm keeps it below; 99 % of the time


def test_site_by_label() -> None:
    found = associations.label_by_site(cohort(400, site="confounded"), alpha=0.01)
    assert "grade" in {f.where for f in found}
    assert associations.label_by_site(cohort(400), alpha=0.01) == []
