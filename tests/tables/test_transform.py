"""Kinds of values: counts and TPM at their logarithm, what is declared wrongly refused, nothing guessed."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables.encode import TableEncoder
from nsclc_mtl.tables.transform import Transform, doubts, raw_counts

COUNTS = pd.DataFrame(
    [[10.0, 90, 900], [0, 50, 450], [1000, 2000, 7000], [3, 30, 67]], index=list("abcd"), columns=["A", "B", "C"]
)


@pytest.mark.parametrize(
    ("values", "log", "made"),
    [
        ("counts", "auto", np.log2(1e6 * 90 / 1000 + 1)),
        ("counts", "log1p", np.log(1e6 * 90 / 1000 + 1)),
        ("counts", "none", 90),
        ("tpm", "auto", np.log2(91)),
        ("log", "auto", 90),
        ("z", "auto", 90),
        ("other", "log2p1", np.log2(91)),
        (None, "auto", 90),
        (None, "log1p", np.log(91)),
    ],
)
def test_the_scale_follows_from_what_is_declared(values: str | None, log: str, made: float) -> None:
    assert Transform.of(values, log, list(COUNTS))(COUNTS).loc["a", "B"] == pytest.approx(made, rel=1e-12)


def test_counts_are_judged_by_the_whole_library_also_after_selection() -> None:
    """Depth alone changes nothing: ten times the reads of everything is the same patient."""
    made = TableEncoder.fit(COUNTS, values="counts", select="variance", keep=1)
    loaded = TableEncoder.load(json.loads(json.dumps(made.state())))
    assert len(made.numbers) == 1
    assert made.library == ["A", "B", "C"]
    np.testing.assert_allclose(loaded.transform(COUNTS * 10), made.transform(COUNTS), rtol=1e-6)
    with pytest.raises(DataFault, match="lacks 1 column"):
        made.transform(COUNTS.drop(columns="A"))


def test_missing_counts_and_an_empty_library_are_imputed() -> None:
    table = COUNTS.copy()
    table.loc["a", "B"] = np.nan
    table.loc["d"] = 0.0
    made = TableEncoder.fit(table, values="counts")
    told = made.transform(table)
    assert np.isfinite(told).all()
    assert made.names == ["A", "B", "C", "A missing", "B missing", "C missing"]


def test_a_logarithm_of_negative_values_is_refused() -> None:
    with pytest.raises(DataFault, match=r"column 'B' holds -1 \(patient b\).*no logarithm"):
        TableEncoder.fit(COUNTS - np.array([0, 51, 0]), log="log1p")
    with pytest.raises(UsageFault, match="log='ln' is none of auto"):
        TableEncoder.fit(COUNTS, log="ln")
    with pytest.raises(UsageFault, match="values='fpkm' is none of counts"):
        TableEncoder.fit(COUNTS, values="fpkm")


def test_raw_counts_are_told_and_never_changed_in_silence() -> None:
    (told,) = doubts(COUNTS, None, "rna")
    assert "look like raw counts (whole numbers from 0 to 7000)" in told
    assert "values: counts" in told
    assert not doubts(COUNTS, "counts", "rna")
    assert not doubts(COUNTS, "other", "rna")
    assert "no logarithm was taken" in doubts(COUNTS + 0.5, None, "rna")[0]
    assert "is it a logarithm" in doubts(COUNTS, "log", "rna")[0]
    assert "is it a z-score" in doubts(COUNTS, "z", "rna")[0]
    assert not raw_counts(np.array([[-2.0, 150]]))  # copy numbers
    assert not raw_counts(np.array([[0.0, 1, np.nan]]))  # mutations
    assert not raw_counts(np.full((2, 2), np.nan))


def test_values_that_are_not_what_is_declared_are_refused() -> None:
    with pytest.raises(DataFault, match=r"rna: declared as values: counts, but holds -40 \(column 'A', patient a\)"):
        doubts(COUNTS - 50, "counts", "rna")
    with pytest.raises(DataFault, match=r"declared as values: binary, but holds 10"):
        doubts(COUNTS, "binary", "mut")


def test_scalings() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(3, 2, (400, 2)), columns=["a", "b"])
    table["rare"] = (np.arange(400) < 20) * 1.0  # an IQR of 0: the SD stands in
    table.loc[0, "a"] = 1e6
    robust = TableEncoder.fit(table, scaling="robust").transform(table)
    assert robust[1:, 0].std() == pytest.approx(1, abs=0.15)  # one outlier changes nothing
    assert robust[0, 0] == 5
    assert robust[:, 2].max() == pytest.approx(1 / table["rare"].std(ddof=0))
    plain = TableEncoder.fit(table, scaling="none")
    np.testing.assert_allclose(plain.transform(table), table.to_numpy(np.float32))
    with pytest.raises(UsageFault, match="scaling='minmax' is none of standard, robust, none"):
        TableEncoder.fit(table, scaling="minmax")


def test_indicators_may_be_left_out() -> None:
    table = COUNTS.where(COUNTS > 5)
    assert TableEncoder.fit(table).names == ["A", "B", "C", "A missing"]
    assert TableEncoder.fit(table, missing_indicators=False).names == ["A", "B", "C"]
