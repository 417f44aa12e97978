"""Selection of columns: statistics that others compute alike, and no look at patients who were not handed in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nsclc_mtl.metrics.classification import auc
from nsclc_mtl.records import DataFault, TaskSpec, UsageFault
from nsclc_mtl.tables import select
from nsclc_mtl.tables.encode import TableEncoder

BINARY = TaskSpec("response", "binary", ("no", "yes"))
ORDINAL = TaskSpec("grade", "ordinal", ("1", "2", "3"))
SURVIVAL = TaskSpec("os", "survival")


def drawn(n: int, columns: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Noise, and labels that have nothing to do with it."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.normal(size=(n, columns))).rename(columns=lambda i: f"G{i}")
    return table, pd.DataFrame({"value": rng.permutation(np.arange(n) % 2).astype(float)})


def test_cox_scores_are_log_rank_tests_of_two_groups() -> None:
    """Without ties the score test of a 0/1 column is the log-rank test (Cox, 1972); SciPy has it."""
    rng = np.random.default_rng(0)
    group = np.arange(60) % 2
    time, event = rng.permutation(60) + 1.0, (rng.random(60) < 0.7).astype(float)
    ours = select.cox_scores(group[:, None].astype(float), time, event)[0]
    sides = [stats.CensoredData.right_censored(time[group == g], event[group == g] == 0) for g in (0, 1)]
    assert ours == pytest.approx(stats.logrank(*sides).statistic ** 2, rel=1e-9)


def test_cox_scores_with_ties_are_the_derivatives_of_breslows_likelihood() -> None:
    rng = np.random.default_rng(1)
    x, time, event = rng.normal(size=30), rng.integers(1, 6, 30).astype(float), (rng.random(30) < 0.6).astype(float)

    def likelihood(beta: float) -> float:
        at_risk = [np.log(np.exp(beta * x[time >= t]).sum()) for t in time[event == 1]]
        return float((beta * x[event == 1]).sum() - np.sum(at_risk))

    h = 1e-4
    slope = (likelihood(h) - likelihood(-h)) / (2 * h)
    bend = -(likelihood(h) - 2 * likelihood(0) + likelihood(-h)) / h**2
    assert select.cox_scores(x[:, None], time, event)[0] == pytest.approx(slope**2 / bend, rel=1e-5)


@given(st.integers(0, 10_000), st.integers(8, 40))
def test_class_tests_are_those_of_scipy(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x, label = rng.integers(0, 6, (n, 3)).astype(float) + rng.normal(size=(n, 3)), np.arange(n) % 3
    np.testing.assert_allclose(
        select.anova(x, label), [stats.f_oneway(*(c[label == k] for k in range(3))).pvalue for c in x.T], rtol=1e-7
    )
    np.testing.assert_allclose(
        select.spearman(x.round(), label), [stats.spearmanr(c, label).pvalue for c in x.round().T], rtol=1e-7
    )


def test_columns_without_variance_know_nothing() -> None:
    flat = np.full((12, 1), 0.1)
    label, time = np.arange(12) % 3, np.arange(12) + 1.0
    assert select.anova(flat, label)[0] == 1
    assert select.spearman(flat, label)[0] == 1
    assert select.cox_scores(flat, time, np.ones(12))[0] == 0


def test_every_task_brings_its_own_columns() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(80, 200))
    grade, time = (x[:, 7] > 0).astype(int) + (x[:, 7] > 0.8), np.exp(-2 * x[:, 150]) * 100 + 1
    index = pd.Index([f"P{i}" for i in range(80)])
    labels = {
        "grade": (ORDINAL, pd.DataFrame({"value": grade.astype(float)}, index=index)),
        "os": (SURVIVAL, pd.DataFrame({"event": 1.0, "time_days": time}, index=index)),
    }
    assert {7, 150} <= set(select.univariate(x, labels, 2, index))
    labels["grade"][1].iloc[:40] = np.nan  # missing labels take no part
    assert {7, 150} <= set(select.univariate(x, labels, 2, index))
    names = TableEncoder.fit(pd.DataFrame(x, index=index), select="univariate", keep=2, labels=labels).numbers
    assert names == ["7", "150"]


def test_faults_are_sentences() -> None:
    table, label = drawn(12, 30, 0)
    with pytest.raises(UsageFault, match="select='best' is none of none, variance, univariate"):
        TableEncoder.fit(table, select="best", keep=3)
    with pytest.raises(UsageFault, match="select=univariate needs keep=K"):
        TableEncoder.fit(table, select="univariate", labels={"response": (BINARY, label)})
    with pytest.raises(UsageFault, match="needs the labels"):
        TableEncoder.fit(table, select="univariate", keep=3)
    with pytest.raises(UsageFault, match="top_variance and select=univariate"):
        TableEncoder.fit(table, select="univariate", keep=3, top_variance=3)
    label["value"] = 1.0
    with pytest.raises(DataFault, match="no task has two classes"):
        TableEncoder.fit(table, select="univariate", keep=3, labels={"response": (BINARY, label)})


def test_the_older_word_is_the_same_selection() -> None:
    table, _ = drawn(20, 40, 1)
    old = TableEncoder.fit(table, top_variance=5)
    assert old.state() == TableEncoder.fit(table, select="variance", keep=5).state()
    assert len(old.numbers) == 5


def judged(table: pd.DataFrame, label: pd.DataFrame, everybody: bool) -> float:
    """Mean AUC over five folds of the mean of 20 selected genes, each with its sign among the training patients."""
    values = []
    for k in range(5):
        test = np.arange(len(table)) % 5 == k
        train = table.index[~test]
        seen = table.index if everybody else train
        made = TableEncoder.fit(table.loc[seen], select="univariate", keep=20, labels={"t": (BINARY, label.loc[seen])})
        x, y = made.transform(table), label["value"].to_numpy()
        sign = np.sign((y[~test] - 0.5) @ x[~test])
        values.append(float(auc(y[test], x[test] @ sign)))
    return float(np.mean(values))


def test_selecting_on_all_patients_would_find_what_is_not_there() -> None:
    """The classical mistake (Ambroise and McLachlan, PNAS 2002) on noise, and what is done instead."""
    cohorts = [drawn(100, 3000, seed) for seed in range(4)]
    mistaken = np.mean([judged(table, label, everybody=True) for table, label in cohorts])
    ours = np.mean([judged(table, label, everybody=False) for table, label in cohorts])
    assert mistaken > 0.8
    assert abs(ours - 0.5) < 0.1
