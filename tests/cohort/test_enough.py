"""Parts that hold too little are refused by name, with what would do: found by trying, never guessed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.cohort import enough, splits
from nsclc_mtl.records import DataFault, Manifest, NoEvents, OneClass, TaskSpec


def cohort(n: int, events: int, rare: int = 0) -> Manifest:
    """A survival task with so many events and, where asked for, a binary task with so many of the second class."""
    ids = [f"p{i:03d}" for i in range(n)]
    index = pd.Index(ids)
    happened = np.r_[np.ones(events), np.zeros(n - events)]
    labels = {"os": pd.DataFrame({"event": happened, "time_days": np.arange(1.0, n + 1)}, index=index)}
    tasks = {"os": TaskSpec("os", "survival")}
    if rare:
        labels["response"] = pd.DataFrame({"value": np.r_[np.ones(rare), np.zeros(n - rare)]}, index=index)
        tasks["response"] = TaskSpec("response", "binary", ("no", "yes"))
    return Manifest("toy", pd.DataFrame({"site": ""}, index=index), tasks, {}, labels)


def dealt(manifest: Manifest, n: int) -> pd.DataFrame:
    return splits.k_fold(manifest.labels, manifest.ids, folds=n, seed=0, validation=0.2)


def refuse(manifest: Manifest, folds: int, **least: int) -> None:
    enough.enough(manifest, dealt(manifest, folds), least, deal=lambda n: dealt(manifest, n), folds=folds)


def test_forty_patients_and_five_events() -> None:
    """12 % events: ten folds leave test parts without one; the proposal is the nearest number of folds that works."""
    manifest = cohort(40, 5)
    with pytest.raises(NoEvents, match=r"task os: 0 events among the test patients of fold \d+ .*1 asked") as caught:
        refuse(manifest, 10, test=1)
    assert caught.value.exit_code == 3
    proposed = int(str(caught.value).split("set folds.n=")[1].split(",")[0])
    refuse(manifest, proposed, test=1)  # it does
    for n in range(proposed + 1, 10):
        with pytest.raises(NoEvents):
            refuse(manifest, n, test=1)
    refuse(manifest, 10)  # not asked for: a metric is NaN there


def test_training_needs_more_folds_not_fewer() -> None:
    manifest = cohort(60, 12)
    with pytest.raises(NoEvents, match=r"among the train patients of fold") as caught:
        refuse(manifest, 2, train=7)
    proposed = int(str(caught.value).split("set folds.n=")[1].split(",")[0])
    assert proposed > 2
    refuse(manifest, proposed, train=7)


def test_where_nothing_works_the_sentence_says_what_would_be_kept() -> None:
    with pytest.raises(NoEvents, match=r"no number of folds up to 20 has enough: find more patients, or ask for less"):
        refuse(cohort(40, 3), 4, train=10)
    manifest = cohort(40, 3, rare=15)
    with pytest.raises(NoEvents, match=r"leave the task out \(tasks=\[response\]\)") as caught:
        refuse(manifest, 4, train=10)
    lower = int(str(caught.value).split("folds.min_events=")[1].split(")")[0])
    refuse(manifest, 4, train=lower)
    with pytest.raises(NoEvents):
        refuse(manifest, 4, train=lower + 1)


def test_one_class_alone() -> None:
    manifest = cohort(40, 20, rare=3)
    with pytest.raises(OneClass, match=r"task response: the test patients of fold \d hold 1 of 2 classes") as caught:
        refuse(manifest, 8, test=1)
    assert "set folds.n=3" in str(caught.value)
    manifest.labels["response"]["value"] = 0.0
    with pytest.raises(OneClass, match=r"the train patients of fold 0 hold 1 of 2 classes"):
        refuse(manifest, 4)


def test_given_folds_have_no_other_number() -> None:
    manifest = cohort(40, 4)
    with pytest.raises(NoEvents) as caught:
        enough.enough(manifest, dealt(manifest, 4), {"train": 4}, deal=None, folds=5)
    assert "folds.n" not in str(caught.value)
    assert isinstance(caught.value, DataFault)
