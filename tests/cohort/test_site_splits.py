"""Splits by site: whole sites, balanced nearly as well as can be; one site left out; an external part."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nsclc_mtl.cohort import site_splits
from nsclc_mtl.records import DataFault, UsageFault


def cohort(sizes: list[int], seed: int = 0) -> tuple[dict[str, pd.DataFrame], list[str], np.ndarray]:
    """Labels, ids and sites; sites differ in how often the event happens."""
    rng = np.random.default_rng(seed)
    site = np.repeat([f"S{k}" for k in range(len(sizes))], sizes)
    ids = [f"p{i:04d}" for i in range(len(site))]
    risk = rng.uniform(0.1, 0.9, len(sizes))[np.repeat(np.arange(len(sizes)), sizes)]
    event = (rng.random(len(site)) < risk) * 1.0
    grade = np.where(rng.random(len(site)) < 0.2, np.nan, rng.integers(0, 3, len(site)))
    labels = {
        "os": pd.DataFrame({"event": event, "time_days": rng.exponential(500, len(site))}, index=ids),
        "grade": pd.DataFrame({"value": grade}, index=ids),
    }
    return labels, ids, site


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 25), min_size=8, max_size=20), folds=st.integers(2, 4), seed=st.integers(0, 5))
def test_every_site_is_whole_and_tested_once(sizes: list[int], folds: int, seed: int) -> None:
    labels, ids, site = cohort(sizes, seed)
    try:
        made = site_splits.preserve(labels, ids, site, folds=folds, seed=seed, validation=0.2).splits
    except DataFault:  # one site as large as all the others together: too few are left for the parts
        assume(False)
    where = made.assign(site=made["patient_id"].map(dict(zip(ids, site, strict=True))))
    assert (where.groupby(["fold", "site"])["part"].nunique() == 1).all()
    tested = made.loc[made["part"] == "test", "patient_id"]
    assert sorted(tested) == ids
    assert set(made["part"]) == {"train", "validation", "test"}
    again = site_splits.preserve(labels, ids, site, folds=folds, seed=seed, validation=0.2).splits
    pd.testing.assert_frame_equal(made, again)


@pytest.mark.parametrize("seed", range(6))
def test_sites_are_dealt_as_well_as_by_trying_everything(seed: int) -> None:
    """Against the best of all ways of dealing eight sites to three piles."""
    labels, ids, site = cohort([5, 40, 12, 7, 23, 9, 30, 18], seed)
    names, number = np.unique(site, return_inverse=True)
    weight = np.zeros((len(names), site_splits.columns(labels, ids).shape[1]))
    np.add.at(weight, number, site_splits.columns(labels, ids))
    share = np.ones(3) / 3

    def cost(pile: np.ndarray) -> float:
        counts = np.stack([weight[pile == k].sum(axis=0) for k in range(3)])
        return site_splits.imbalance(counts, share)

    everything = [np.array(p) for p in product(range(3), repeat=8) if len(set(p)) == 3]
    best = min(map(cost, everything))
    ours = site_splits.deal_whole(weight, share, np.random.default_rng(seed))
    assert cost(ours) <= 1.02 * best
    assert best < np.quantile([cost(p) for p in everything[:: len(everything) // 500]], 0.05)


def test_no_pile_stays_empty_and_too_few_sites_are_refused() -> None:
    labels, ids, site = cohort([100, 1, 1])
    made = site_splits.preserve(labels, ids, site, folds=3, seed=0, validation=0.1).splits
    assert (made.groupby(["fold", "part"]).size() > 0).all()
    assert made.groupby("fold")["part"].nunique().tolist() == [3, 3, 3]
    with pytest.raises(DataFault, match=r"3 sites cannot be dealt into 4 folds; set folds.n to at most 3"):
        site_splits.preserve(labels, ids, site, folds=4, seed=0)
    with pytest.raises(DataFault, match=r"too few for the parts train, validation, calibration"):
        site_splits.preserve(labels, ids, site, folds=3, seed=0, validation=0.1, calibration=0.1)
    with pytest.raises(UsageFault, match="must leave some to train"):
        site_splits.preserve(labels, ids, site, folds=2, seed=0, validation=1.0)


def test_one_site_is_left_out_at_a_time() -> None:
    labels, ids, site = cohort([20, 30, 4, 3])
    words = {"seed": 0, "least": 10, "validation": 0.2}
    with pytest.raises(DataFault, match=r"2 of 4 sites are too small .*S2 \(4 patients\), S3 \(3 patients\)"):
        site_splits.leave_one_out(labels, ids, site, **words)
    pooled = site_splits.leave_one_out(labels, ids, site, small="pool", **words)
    assert pooled.names == {0: "S0", 1: "S1", 2: "S2 + S3"}
    tested = pooled.splits[pooled.splits["part"] == "test"]
    assert sorted(tested["patient_id"]) == ids
    assert tested.groupby("fold").size().tolist() == [20, 30, 7]
    assert "S3 (3 patients)" in pooled.notes[0]
    trained = site_splits.leave_one_out(labels, ids, site, small="train", **words)
    assert set(trained.names.values()) == {"S0", "S1"}
    small = set(np.array(ids)[np.isin(site, ["S2", "S3"])])
    assert small.isdisjoint(trained.splits.loc[trained.splits["part"] == "test", "patient_id"])
    with pytest.raises(UsageFault, match=r"folds.small_sites='drop'"):
        site_splits.leave_one_out(labels, ids, site, small="drop", **words)


def test_a_site_without_events_is_small_where_events_are_asked_for() -> None:
    labels, ids, site = cohort([20, 30, 25])
    labels["os"].loc[np.array(ids)[site == "S1"], "event"] = 0.0
    with pytest.raises(DataFault, match=r"S1 \(30 patients, 0 events of os\)"):
        site_splits.leave_one_out(labels, ids, site, seed=0, least=10, min_events=1)


def test_named_patients_are_the_test_part_of_the_one_fold() -> None:
    labels, ids, site = cohort([20, 30, 25])
    made = site_splits.external(labels, ids, site == "S2", seed=0, name="site=S2", validation=0.2)
    assert made.names == {0: "site=S2"}
    assert set(made.splits["fold"]) == {0}
    assert made.splits["part"].value_counts().to_dict() == {"train": 40, "test": 25, "validation": 10}
    assert set(made.splits.loc[made.splits["part"] == "test", "patient_id"]) == set(np.array(ids)[site == "S2"])
    unit = np.arange(len(ids))
    unit[-1] = unit[0]
    with pytest.raises(DataFault, match=r"p0074 \(external\) and p0000 \(not\) belong together"):
        site_splits.external(labels, ids, site == "S2", seed=0, name="site=S2", unit=unit)
    with pytest.raises(DataFault, match="75 of 75 patients are external"):
        site_splits.external(labels, ids, site != "", seed=0, name="all")
