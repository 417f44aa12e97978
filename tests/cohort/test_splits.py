"""Splits: by patient, balanced, the same for the same seed, and refused where a patient stands in two parts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsclc_mtl.cohort import split_files, splits
from nsclc_mtl.records import DataFault, UsageFault


def cohort(n: int, seed: int = 0) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Labels of a class task and a survival task, with blanks."""
    rng = np.random.Generator(np.random.PCG64(seed))
    ids = [f"{i:05d}" for i in range(n)]
    value = np.where(rng.random(n) < 0.2, np.nan, rng.integers(0, 3, n))
    event = np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, 2, n))
    labels = {
        "grade": pd.DataFrame({"value": value}, index=ids),
        "survival": pd.DataFrame({"event": event, "time_days": rng.exponential(500, n)}, index=ids),
    }
    return labels, ids


@settings(max_examples=40, deadline=None)
@given(n=st.integers(12, 80), folds=st.integers(2, 5), seed=st.integers(0, 9), calibration=st.sampled_from([0, 0.2]))
def test_every_patient_is_tested_once_and_stands_in_one_part_of_a_fold(
    n: int, folds: int, seed: int, calibration: float
) -> None:
    labels, ids = cohort(n, seed)
    made = splits.k_fold(labels, ids, folds=folds, seed=seed, validation=0.2, calibration=calibration)
    assert Counter(made.loc[made["part"] == "test", "patient_id"]) == Counter(ids)
    assert (made.groupby("fold")["patient_id"].agg(sorted) == pd.Series([ids] * folds)).all()
    assert set(made["part"]) == {"train", "validation", "test"} | ({"calibration"} if calibration else set())
    pd.testing.assert_frame_equal(
        made, splits.k_fold(labels, ids, folds=folds, seed=seed, validation=0.2, calibration=calibration)
    )


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6), piles=st.integers(2, 5), seed=st.integers(0, 9))
def test_every_stratum_is_spread_evenly(sizes: list[int], piles: int, seed: int) -> None:
    stratum = np.repeat([f"s{i}" for i in range(len(sizes))], sizes)
    dealt = splits.deal(stratum, [1.0] * piles, np.random.Generator(np.random.PCG64(seed)))
    counts = pd.crosstab(stratum, dealt).reindex(columns=range(piles), fill_value=0).to_numpy()
    assert (counts.max(1) - counts.min(1) <= 2).all()
    assert np.ptp(counts.sum(0)) <= 1


def test_shares_are_kept_and_seeds_differ() -> None:
    labels, ids = cohort(200)
    made = splits.k_fold(labels, ids, folds=4, seed=0, validation=0.2, calibration=0.1)
    parts = made[made["fold"] == 0]["part"].value_counts()
    assert parts.to_dict() == {"train": 105, "test": 50, "validation": 30, "calibration": 15}
    other = splits.k_fold(labels, ids, folds=4, seed=1, validation=0.2, calibration=0.1)
    assert not made.equals(other)


def test_shares_that_leave_nobody_to_train_are_refused() -> None:
    labels, ids = cohort(20)
    with pytest.raises(UsageFault, match=r"folds.validation=0.7 and folds.calibration=0.4"):
        splits.k_fold(labels, ids, folds=2, seed=0, validation=0.7, calibration=0.4)
    with pytest.raises(DataFault, match=r"20 patients cannot be dealt into 11 folds"):
        splits.k_fold(labels, ids, folds=11, seed=0)


def written(path: Path, text: str) -> Path:
    path.write_text("patient_id,fold,part\n" + text)
    return path


def test_folds_from_a_file(tmp_path: Path) -> None:
    file = written(tmp_path / "f.csv", "007,1,test\n008,1,train\n007,0,train\n008,0,test\nX,0,train\n")
    made = split_files.from_csv(file, ["007", "008"])
    assert made.to_numpy().tolist() == [
        ["007", 0, "train"], ["008", 0, "test"], ["008", 1, "train"], ["007", 1, "test"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,0,train\na,0,test\nb,0,test\n", r"patient a is in test and train of fold 0"),
        ("a,0,train\na,0,train\nb,0,test\n", r"patient a is in train and train of fold 0"),
        ("a,0,train\nb,0,val\n", r"part 'val' is none of train, validation"),
        ("a,x,train\n", "no whole numbers"),
        ("a,-1,train\nb,-1,test\n", "no whole numbers"),
        ("a,0,train\nb,0,train\n", "fold 0 has no patient in part 'test'"),
        ("A,0,train\nB,0,test\n", r"none of its 2 patients is in the cohort"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DataFault, match=told):
        split_files.from_csv(written(tmp_path / "f.csv", text), ["a", "b"])


def tcga_like(folder: Path, ids: list[str], k: int = 3) -> list[Path]:
    """Files with a row number, `train` and `val`, the shorter column filled up with blanks."""
    for fold in range(k):
        val = ids[fold::k]
        train = [p for p in ids if p not in val]
        frame = pd.DataFrame({"train": train, "val": val + [""] * (len(train) - len(val))})
        frame.to_csv(folder / f"splits_{fold}.csv")
    return sorted(folder.glob("splits_*.csv"))


def test_folds_from_columns(tmp_path: Path) -> None:
    labels, ids = cohort(30)
    paths = tcga_like(tmp_path, [*ids, "stranger"])
    made = split_files.from_columns(paths, ids, labels, seed=0, validation=0.2)
    assert Counter(made.loc[made["part"] == "test", "patient_id"]) == Counter(ids)
    for fold, rows in made.groupby("fold"):
        given = pd.read_csv(paths[int(fold)], dtype=str)
        assert set(rows.loc[rows["part"] == "test", "patient_id"]) == set(given["val"].dropna()) - {"stranger"}
        assert (rows["part"] == "validation").sum() == 4
        assert rows["patient_id"].is_unique
    with pytest.raises(DataFault, match=r"'splits_0.csv' has no columns 'train' and 'test'"):
        split_files.from_columns(paths, ids, labels, seed=0, test="test")
    paths[1].write_text("train,val\n00000,00000\n00001,00002\n")
    with pytest.raises(DataFault, match="patient 00000 is in 'train' and in 'val'"):
        split_files.from_columns(paths, ids, labels, seed=0)


def test_strata_name_what_is_unknown() -> None:
    labels = {
        "a": pd.DataFrame({"value": [1.0, np.nan]}, index=["x", "y"]),
        "b": pd.DataFrame({"event": [0.0, 1.0], "time_days": [3.0, 4.0]}, index=["x", "y"]),
    }
    assert splits.strata(labels, ["y", "x"]).tolist() == ["?|1", "1|0"]


def test_repeats_deal_anew_and_count_on() -> None:
    ids = [f"p{i}" for i in range(25)]
    labels = {"t": pd.DataFrame({"value": [1.0] * 8 + [0.0] * 17}, index=ids)}
    made = splits.k_fold(labels, ids, folds=4, seed=3, validation=0.2, repeats=3)
    once = splits.k_fold(labels, ids, folds=4, seed=3, validation=0.2)
    pd.testing.assert_frame_equal(made[made["fold"] < 4].reset_index(drop=True), once)
    tested = made[made["part"] == "test"]
    assert sorted(tested["fold"].unique()) == list(range(12))
    assert set(tested["patient_id"].value_counts()) == {3}
    first, second = (tested[tested["fold"] // 4 == r].sort_values("patient_id")["fold"].to_numpy() % 4 for r in (0, 1))
    assert (first != second).any()
    for wrong in (0, 1.5):
        with pytest.raises(UsageFault, match=r"folds\.repeats"):
            splits.k_fold(labels, ids, folds=4, seed=3, repeats=wrong)
