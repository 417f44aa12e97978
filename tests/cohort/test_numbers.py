"""A number as an outcome: declared, read, dealt over the folds by fifths, and judged by the checks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nsclc_mtl.cohort.enough import enough
from nsclc_mtl.cohort.lint.alarms import _knows
from nsclc_mtl.cohort.lint.associations import p_values as associated
from nsclc_mtl.cohort.splits import k_fold, levels
from nsclc_mtl.records import DataFault, Manifest, TaskSpec, UsageFault
from nsclc_mtl.tables import outcomes
from nsclc_mtl.tables.select import p_values

SPEC = TaskSpec("ki67", "regression", (), ("ki67",), unit="%")
DECLARED = {"kind": "regression", "column": "ki67", "unit": "%", "map": {"not done": None}}


def test_a_declaration_is_read() -> None:
    assert outcomes.task_spec("ki67", DECLARED) == SPEC
    table = pd.DataFrame({"ki67": ["12.5", " 3e1", "", "NA", "not done", "-4"]}, index=list("abcdef"))
    made = outcomes.labels(SPEC, DECLARED, table, "patients.csv")
    assert made["value"].tolist() == pytest.approx([12.5, 30, np.nan, np.nan, np.nan, -4], nan_ok=True)
    for wrong in ("high", "12,5", "inf"):
        with pytest.raises(DataFault, match="no numbers"):
            outcomes.labels(SPEC, DECLARED, pd.DataFrame({"ki67": [wrong]}, index=["a"]), "patients.csv")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"column": None}, "no `column`"),
        ({"classes": ["a", "b"]}, "declares classes"),
        ({"map": {"x": 1}}, "a meaning"),
    ],
)
def test_a_declaration_that_is_wanting_is_refused(more: dict[str, object], told: str) -> None:
    with pytest.raises(UsageFault, match=told):
        outcomes.task_spec("ki67", {**DECLARED, **more})


def labels(n: int = 100, seed: int = 0) -> pd.DataFrame:
    value = np.random.default_rng(seed).exponential(20, n)
    value[::10] = np.nan
    return pd.DataFrame({"value": value}, index=[f"p{i:03d}" for i in range(n)])


def test_numbers_are_dealt_by_their_fifths() -> None:
    frame = labels()
    fifth = levels(frame, list(frame.index))
    assert fifth.isna().sum() == 10
    assert fifth.value_counts().tolist() == [18] * 5
    assert (
        frame.groupby(fifth)["value"].max().to_numpy()[:-1] < frame.groupby(fifth)["value"].min().to_numpy()[1:]
    ).all()
    splits = k_fold({"ki67": frame}, list(frame.index), folds=3, seed=0)
    tested = splits[splits["part"] == "test"].set_index("patient_id")["fold"]
    counts = pd.crosstab(fifth.dropna(), tested)
    assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()
    whole = pd.DataFrame({"value": np.arange(100.0) % 7}, index=frame.index)  # a score counts value by value
    assert levels(whole, list(frame.index)).equals(whole["value"])


def manifest(frame: pd.DataFrame) -> Manifest:
    return Manifest("toy", pd.DataFrame({"site": ""}, index=frame.index), {"ki67": SPEC}, {}, {"ki67": frame})


def test_too_few_values_are_told() -> None:
    frame = labels()
    splits = k_fold({"ki67": frame}, list(frame.index), folds=2, seed=0)
    enough(manifest(frame), splits, {"train": 5, "test": 5})
    some = frame.where(np.arange(100)[:, None] < 4)
    with pytest.raises(DataFault, match=r"different values among the (train|test) patients of fold"):
        enough(manifest(some), splits, {"train": 5, "test": 5})
    alike = frame.mask(frame.notna(), 3.0)
    with pytest.raises(DataFault, match="1 different values among the train patients of fold"):
        enough(manifest(alike), splits, {})


def test_columns_are_judged_by_rank() -> None:
    frame = labels()
    value = frame["value"].to_numpy()
    draw = np.random.default_rng(1)
    column = np.nan_to_num(value) + draw.normal(0, 10, 100)
    p = p_values(column[:, None], SPEC, frame)
    known = ~np.isnan(value)
    assert p is not None
    assert p[0] == pytest.approx(stats.spearmanr(column[known], value[known]).pvalue, rel=1e-6)
    assert p_values(column[:, None], SPEC, frame.mask(frame.notna(), 3.0)) is None
    ((metric, score, spread),) = _knows(SPEC, frame[known], column[known])
    tau = stats.kendalltau(column[known], value[known]).statistic
    assert metric == "concordance"
    assert score == pytest.approx((1 + tau) / 2, rel=1e-6)
    chance = [
        (1 + stats.kendalltau(draw.normal(size=90), draw.normal(size=90)).statistic) / 2 for _ in range(300)
    ]  # the deviation where a column knows nothing
    assert spread == pytest.approx(np.std(chance), rel=0.15)


def test_sites_are_compared_by_rank() -> None:
    frame = labels()
    site = pd.Series(np.where(np.arange(100) < 50, "A", "B"), index=frame.index)
    known = frame.dropna()
    (p,) = associated(SPEC, frame, site)
    of = [known["value"][site.loc[known.index] == s] for s in "AB"]
    assert p == pytest.approx(stats.kruskal(*of).pvalue)
