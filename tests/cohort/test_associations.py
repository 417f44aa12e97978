"""Absence and outcomes by site and by outcome."""

from __future__ import annotations

from math import comb, erfc, sqrt

import numpy as np
import pandas as pd
import pytest
from toy_cohort import cohort

from nsclc_mtl.cohort.lint import associations
from nsclc_mtl.records import TaskSpec


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


def test_absence_by_site() -> None:
    manifest = cohort(200, site="none")
    site = manifest.patients["site"]
    largest = site.value_counts().index[0]
    manifest.tables["rna"] = manifest.tables["rna"].drop(index=site.index[site == largest], errors="ignore")
    (said,) = associations.missing_by_site(manifest, alpha=0.01)
    assert said.where == "rna"
    assert "absence goes with the site" in said.sentence
    assert associations.missing_by_site(cohort(200), alpha=0.01) == []


@pytest.mark.parametrize(("table", "test"), [([[20, 30], [35, 15]], "chi-square"), ([[6, 40], [5, 3]], "Fisher")])
def test_p_values_by_hand(table: list[list[int]], test: str) -> None:
    """Chi-square without correction is n (ad - bc)^2 / (product of the margins); Fisher's sums hypergeometric terms."""
    (a, b), (c, d) = table
    group = np.repeat([0, 0, 1, 1], [a, b, c, d])
    value = np.repeat([0.0, 1.0, 0.0, 1.0], [a, b, c, d])
    index = pd.Index([f"p{i}" for i in range(len(group))])
    (p,) = associations.p_values(
        TaskSpec("y", "binary", ("n", "y")), pd.DataFrame({"value": value}, index=index), pd.Series(group, index=index)
    )
    n, rows, columns = a + b + c + d, (a + b, c + d), (a + c, b + d)
    if test == "chi-square":
        statistic = n * (a * d - b * c) ** 2 / (rows[0] * rows[1] * columns[0] * columns[1])
        assert p == pytest.approx(erfc(sqrt(statistic / 2)))
    else:
        chance = [
            comb(rows[0], k) * comb(rows[1], columns[0] - k) / comb(n, columns[0])
            for k in range(max(0, columns[0] - rows[1]), min(rows[0], columns[0]) + 1)
        ]
        seen = chance[a - max(0, columns[0] - rows[1])]
        assert p == pytest.approx(sum(c for c in chance if c <= seen * (1 + 1e-9)))


def test_holm_by_hand() -> None:
    """Three tests: .004 x 3, .02 x 2, and the third at least as large as the second."""
    tests = [("a", 0.02), ("b", 0.004), ("c", 0.03)]
    assert [(t[0], round(p, 6)) for t, p in associations.significant(tests, 0.05)] == [
        ("b", 0.012),
        ("a", 0.04),
        ("c", 0.04),
    ]
    assert [t[0] for t, _ in associations.significant(tests, 0.035)] == ["b"]
