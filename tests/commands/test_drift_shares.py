"""Shares of patients outside of what training saw, and the stability of categories, against their definitions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.commands.drift import _code, _features, outside_shares
from nsclc_mtl.metrics import drift
from nsclc_mtl.report.section import Evidence
from nsclc_mtl.report.sections.drift import drift as section_of
from nsclc_mtl.report.sections.drift import over_folds
from nsclc_mtl.trust.outside import Scale, rarity


def told(shift: float, seed: int = 0, folds: int = 1, n: int = 60) -> pd.DataFrame:
    """Shares of new patients, `shift` away from 99 known ones in one of three columns."""
    rng = np.random.default_rng(seed)
    models, far = {}, {}
    new = rng.normal(size=(n, 3)) + np.array([shift, 0, 0])
    for fold in range(folds):
        scale = Scale.fit(rng.normal(size=(99, 3)))
        known = scale.standard(scale.sorted)
        state = {"rate": 0.05, "known": known.tolist(), "scales": {"rna": {"sorted": scale.sorted.tolist()}}}
        models[fold] = (None, SimpleNamespace(fitted=SimpleNamespace(outside=state)))
        far[fold] = pd.DataFrame({"rarity": rarity(scale.score(new), known), "furthest": "rna"})
        far[fold]["rna"] = scale.percentile(new)
    return outside_shares(models, far)


def test_the_share_is_that_of_ranks_and_the_part_alone_agrees_with_the_flag() -> None:
    table = told(shift=2.0).set_index("part")
    assert table.loc["rna", "outside"] == table.loc["furthest", "outside"]  # one part: it is the furthest
    assert table.loc["rna", "outside"] > table.loc["rna", "band_hi"]
    assert table.loc["rna", ["n", "known", "rate"]].tolist() == [60, 99, 0.05]
    n, share = 60, table.loc["rna", "outside"]
    z = 1.959963984540054
    middle, half = share + z**2 / 2 / n, z * np.sqrt(share * (1 - share) / n + z**2 / 4 / n**2)
    assert table.loc["rna", ["lo", "hi"]].tolist() == pytest.approx(
        [(middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)]
    )


def test_patients_alike_stay_within_the_band_as_often_as_it_says() -> None:
    tables = [told(shift=0.0, seed=seed).set_index("part").loc["rna"] for seed in range(100)]
    within = np.mean([t["band_lo"] <= t["outside"] <= t["band_hi"] for t in tables])
    assert within >= 0.9
    assert np.mean([t["outside"] for t in tables]) == pytest.approx(0.05, abs=0.015)


def test_fewer_known_patients_than_a_flag_needs_say_nothing() -> None:
    state = {"rate": 0.005, "known": [0.0] * 99, "scales": {"rna": {"sorted": [0.0] * 99}}}
    models = {0: (None, SimpleNamespace(fitted=SimpleNamespace(outside=state)))}
    seen = pd.DataFrame({"rarity": [0.5], "furthest": ["rna"], "rna": [0.5]})
    assert outside_shares(models, {0: seen}).empty


def test_categories_are_bins_and_what_training_lacked_is_one_more() -> None:
    before = {"names": ["sex=f", "sex=m"], "mean": [0.25, 0.75], "measured": [80, 80]}
    values = pd.DataFrame({"sex=f": [1.0] * 10 + [0.0] * 20, "sex=m": [0.0] * 10 + [1.0] * 10 + [0.0] * 10})
    now = SimpleNamespace(values=values, strange={"sex": np.arange(30) >= 20})
    found = _code("sex", ["f", "m"], before, now)
    assert found == pytest.approx(drift.index(np.array([10, 10, 10]), np.array([20, 60, 0])))
    assert np.isnan(_code("sex", ["f", "x"], before, now)).all()  # a category too rare to be kept


def test_patients_of_whom_no_category_is_known_are_compared_without_it() -> None:
    """A single patient may lack a column: there is nothing to take a mean of, and nothing to warn of."""
    names = ["sex=f", "sex=m"]
    before = {
        "names": names, "mean": [0.25, 0.75], "sd": [0.4, 0.4], "measured": [80, 80], "read": 80,
        "deciles": np.zeros((len(drift.LEVELS), 2)).tolist(), "below": np.zeros((len(drift.LEVELS), 2)).tolist(),
    }  # fmt: skip
    now = SimpleNamespace(values=pd.DataFrame([[np.nan, np.nan]], columns=names), strange={"sex": np.zeros(0, bool)})
    found = _features("clinical", before, now, {"sex": ["f", "m"]})
    assert found.set_index("feature")["missing"].to_dict() == {"sex=f": 1.0, "sex=m": 1.0}


def test_the_page_tells_shares_and_keeps_them_as_rows() -> None:
    away = told(shift=2.0, folds=2)
    table = pd.DataFrame(
        {
            "modality": "rna", "feature": ["", "a", "b"], "n": 60.0, "trained": 99.0, "difference": [np.nan, 1.2, 0.1],
            "distance": [np.nan, 0.4, 0.1], "stability": [np.nan, 0.9, 0.1], "stability_chance": [np.nan, 0.24, 0.24],
            "chance": [1.0, 1e-9, 0.6], "missing": 0.0, "missing_trained": 0.0, "strange": np.nan,
        }
    )  # fmt: skip
    [section] = section_of(Evidence({}, pd.DataFrame(), drift=table, outside=away))
    rows = {row["metric"]: row for row in section.rows}
    mean = over_folds(away).set_index("part")
    assert rows["outside:rna"]["value"] == pytest.approx(away.query("part == 'rna'")["outside"].mean())
    assert rows["drift_stability:rna"]["value"] == pytest.approx(0.5)
    assert rows["drift_stability_chance:rna"]["value"] == pytest.approx(0.24)
    assert mean.loc["rna", "folds"] == 2
    assert f"{100 * mean.loc['rna', 'outside']:.0f} %" in section.html
    assert "by convention" in section.html
    [without] = section_of(Evidence({}, pd.DataFrame(), drift=table))
    assert "Mahalanobis" not in without.html
