"""The probe within a part: chance where there is nothing, certainty where the site is written, the ridge by others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeCV

from nsclc_mtl.baselines import site_probe


def made(n: int, sites: str, gap: float, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(seed)
    site = pd.Series(rng.choice(list(sites), n), [f"p{i:03d}" for i in range(n)])
    x = rng.standard_normal((n, 10))
    x[:, 0] += gap * site.map({s: i for i, s in enumerate(sites)}).to_numpy()
    return pd.DataFrame(x, site.index).add_prefix("x"), site


def value(cells: list[site_probe.Cell]) -> float:
    each = [float(cell.measure(np.ones((1, len(cell.label))))[0]) for cell in cells]
    return float(np.average(each, weights=[len(cell.label) for cell in cells]))


@pytest.mark.parametrize("sites", ["AB", "ABC"])
def test_told_where_there_is_something_to_tell(sites: str) -> None:
    words = {"folds": 5, "seed": [0, 0]}
    assert value(site_probe.tell_within(*made(240, sites, 6.0), **words)) > 0.95 - 0.3 * (len(sites) > 2)
    by_chance = [value(site_probe.tell_within(*made(120, sites, 0.0, seed), **words)) for seed in range(20)]
    assert np.mean(by_chance) == pytest.approx(0.5, abs=0.05)  # three standard errors


def test_everybody_is_told_once_by_a_model_of_others() -> None:
    table, site = made(100, "ABC", 1.0)
    cells = site_probe.tell_within(table, site, folds=5, seed=[1, 0])
    assert sorted(p for cell in cells for p in cell.patients) == list(site.index)
    assert 2 <= len(cells) < 5  # so few that each holds eight of every site
    again = site_probe.tell_within(table, site, folds=5, seed=[1, 0])
    assert np.array_equal(cells[0].score, again[0].score)


def test_ridge_agrees_with_another_implementation() -> None:
    rng = np.random.default_rng(0)
    x, y, new = rng.standard_normal((30, 12)), rng.standard_normal((30, 3)), rng.standard_normal((7, 12))
    y += 0.5 * x[:, :3]
    theirs = RidgeCV(alphas=np.geomspace(1e-2, 1e2, 9) * 30).fit(x, y)  # by leaving one out, one penalty for all
    assert site_probe.ridge_scores(x, y, new) == pytest.approx(theirs.predict(new), rel=1e-6)


def test_permuted_sites_are_at_chance_and_absence_may_tell() -> None:
    table, site = made(120, "AB", 3.0)
    found = site_probe.permuted([table], [site], folds=5, seed=0, times=12)
    assert found.mean() == pytest.approx(0.5, abs=0.06)
    assert found.max() < value(site_probe.tell_within(table, site, folds=5, seed=[0, 0]))
    bare, _ = made(120, "AB", 0.0)
    bare.loc[site == "A", "x3"] = np.nan
    assert value(site_probe.tell_within(bare, site, folds=5, seed=[0, 0])) > 0.95


def test_small_sites_are_left_out() -> None:
    site = pd.Series(["A"] * 9 + ["B"] * 5 + ["C"] * 3 + [""] * 6)
    assert set(site_probe.large_sites(site, 5)) == {"A", "B"}
    assert set(site_probe.large_sites(site, 1)) == {"A", "B"}  # four at least
    assert site_probe.large_sites(site, 6).empty
