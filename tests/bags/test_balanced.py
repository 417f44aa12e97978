"""The balanced sampler: every group alike often, everybody in turn, the same order for the same seed and epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.bags import balanced
from nsclc_mtl.bags.datamodule import Shuffled
from nsclc_mtl.records import DataFault, Manifest, TaskSpec, UsageFault


def manifest() -> Manifest:
    ids = [f"p{i}" for i in range(6)]
    tasks = {
        "grade": TaskSpec("grade", "ordinal", ("1", "2", "3")),
        "os": TaskSpec("os", "survival"),
        "rare": TaskSpec("rare", "binary", ("no", "yes")),
    }
    labels = {
        "grade": pd.DataFrame({"value": [0, 0, 2, 0, np.nan, 1.0]}, index=ids),
        "os": pd.DataFrame({"event": [1, 0, 0, 0, 0, np.nan], "time_days": [5, 6, 7, 8, np.nan, np.nan]}, index=ids),
        "rare": pd.DataFrame({"value": [0, 0, 0, 0, 0, 0.0]}, index=ids),
    }
    return Manifest("toy", pd.DataFrame({"site": ""}, index=ids), tasks, {}, labels)


def test_groups_are_classes_or_events() -> None:
    made, ids = manifest(), ["p0", "p2", "p4", "p5"]
    assert balanced.groups(made, "grade", ids).tolist() == [0, 2, -1, 1]
    assert balanced.groups(made, "os", ["p0", "p1", "p4", "p5"]).tolist() == [1, 0, -1, -1]
    with pytest.raises(UsageFault, match="trains no such task; it trains grade, os, rare"):
        balanced.groups(made, "stage", ids)
    with pytest.raises(DataFault, match="one class"):
        balanced.groups(made, "rare", ids)


@given(group=st.lists(st.integers(-1, 3), min_size=2, max_size=60), seed=st.integers(0, 99))
def test_an_epoch_is_balanced(group: list[int], seed: int) -> None:
    labels = np.array(group)
    drawn = np.array(balanced.draw(labels, torch.Generator().manual_seed(seed))) if (labels >= 0).any() else None
    if drawn is None:
        return
    assert len(drawn) == len(group)  # as many steps as ever
    times = np.bincount(drawn, minlength=len(group))
    assert (times[labels < 0] == 1).all()
    counts = [times[labels == level].sum() for level in np.unique(labels[labels >= 0])]
    assert max(counts) - min(counts) <= 1
    for level in np.unique(labels[labels >= 0]):
        assert np.ptp(times[labels == level]) <= 1  # nobody comes again before the others came
    again = balanced.draw(labels, torch.Generator().manual_seed(seed))
    assert drawn.tolist() == again


def test_chances_are_the_mean_of_many_epochs() -> None:
    labels = np.array([0] * 20 + [1] * 5 + [2] * 3 + [-1] * 4)
    times = np.zeros(len(labels))
    for seed in range(3000):
        times += np.bincount(balanced.draw(labels, torch.Generator().manual_seed(seed)), minlength=len(labels))
    assert times / 3000 == pytest.approx(balanced.chances(labels), abs=0.08)
    assert balanced.chances(labels).sum() == pytest.approx(len(labels))


class _Patients(list[int]):
    seed = epoch = 0


def test_a_fit_that_goes_on_draws_as_one_that_never_stopped() -> None:
    """The order is that of (seed, epoch) alone; the dataset is told the epoch, for its draws of tiles."""
    group, data = np.array([0, 0, 0, 0, 1, 1, -1]), _Patients(range(7))
    whole = Shuffled(data, 3, 0, group)  # type: ignore[arg-type]
    orders = [list(whole) for _ in range(3)]
    assert orders[0] != orders[1]
    assert list(Shuffled(data, 3, 2, group)) == orders[2]  # type: ignore[arg-type]
    assert (data.seed, data.epoch) == (3, 2)
    assert list(Shuffled(data, 4, 2, group)) != orders[2]  # type: ignore[arg-type]
