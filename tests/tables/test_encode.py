"""The table encoder: fitted on training patients alone, never NaN, and plain JSON."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nsclc_mtl.encoders.tabular import Projected
from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.tables.encode import TableEncoder

COLUMNS = {"age": "numeric", "sex": "categorical", "smoking": ["never", "former", "current"]}
CLINICAL = pd.DataFrame(
    {
        "age": ["60", "", "70", "80"],
        "sex": ["f", "m", "NA", "f"],
        "smoking": ["never", "current", "former", "unheard"],
    },
    index=list("abcd"),
)
TABLES = hnp.arrays(
    float, st.tuples(st.integers(1, 8), st.integers(1, 6)), elements=st.floats(allow_nan=True, allow_infinity=False)
)


def test_numbers_categories_and_orders() -> None:
    made = TableEncoder.fit(CLINICAL, COLUMNS)
    assert made.names == ["age", "smoking", "age missing", "smoking missing", "sex=f", "sex=m"]
    told = made.transform(CLINICAL)
    assert told.dtype == np.float32
    assert told.shape == (4, made.dim)
    age = np.array([60, 70, 70, 80])  # the missing one at the median
    np.testing.assert_allclose(told[:, 0], (age - age.mean()) / age.std(), rtol=1e-6)
    assert told[0, 1] < told[2, 1] < told[1, 1]
    np.testing.assert_array_equal(told[:, 2:], [[0, 0, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 1, 0]])


def test_a_table_of_nobody_has_its_columns_still() -> None:
    columns, strange = TableEncoder.fit(CLINICAL, COLUMNS).before_imputation(CLINICAL.iloc[:0])
    assert columns.shape == (0, 4)
    assert set(strange) == {"sex", "smoking"}


def test_an_unknown_category_is_nothing_and_no_row_can_change_the_state() -> None:
    made = TableEncoder.fit(CLINICAL, COLUMNS)
    before = json.dumps(made.state())
    strange = pd.DataFrame({"age": ["1e6"], "sex": ["x"], "smoking": [""]}, index=["z"])
    told = made.transform(strange)
    assert told[0, 0] == 5  # clipped
    assert told[0, 4:].tolist() == [0, 0]
    assert json.dumps(made.state()) == before
    np.testing.assert_array_equal(made.transform(pd.concat([strange, CLINICAL]))[1:], made.transform(CLINICAL))


@settings(max_examples=60, deadline=None)
@given(values=TABLES, other=TABLES, components=st.sampled_from([None, 1, 2]), top=st.sampled_from([None, 2]))
def test_never_nan_and_the_same_after_a_round_trip(
    values: np.ndarray, other: np.ndarray, components: int | None, top: int | None
) -> None:
    names = [f"g{i}" for i in range(values.shape[1])]
    train = pd.DataFrame(values, columns=names)
    made = TableEncoder.fit(train, top_variance=top, components=components)
    loaded = TableEncoder.load(json.loads(json.dumps(made.state(), allow_nan=False)))
    wide = np.resize(other, (len(other), len(names)))
    for rows in (train, pd.DataFrame(wide, columns=names)):
        told = made.transform(rows)
        assert told.shape == (len(rows), made.dim)
        assert np.isfinite(told).all()
        np.testing.assert_array_equal(told, loaded.transform(rows))


def test_only_what_varies_is_kept() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    table = pd.DataFrame(rng.normal(size=(30, 5)) * [1, 9, 0, 4, 2], columns=list("abcde"))
    table["f"] = np.nan
    assert TableEncoder.fit(table).numbers == list("abde")
    assert TableEncoder.fit(table, top_variance=2).numbers == list("bd")


def test_principal_components_are_those_of_the_scaled_columns() -> None:
    rng = np.random.Generator(np.random.PCG64(2))
    table = pd.DataFrame(rng.normal(size=(40, 3)) @ rng.normal(size=(3, 12))).rename(columns=lambda i: f"g{i}")
    made = TableEncoder.fit(table, components=3)
    told = made.transform(table).astype(float)
    assert made.names == ["component 1", "component 2", "component 3"]
    cov = np.cov(told.T)
    np.testing.assert_allclose(cov - np.diag(np.diag(cov)), 0, atol=1e-4)  # uncorrelated, largest first
    assert (np.diff(np.diag(cov)) < 0).all()
    assert np.var(told, axis=0).mean() == pytest.approx(1, abs=1e-3)
    scaled = ((table - table.mean()) / table.std(ddof=0)).to_numpy()
    rest = scaled - told @ np.linalg.lstsq(told, scaled, rcond=None)[0]
    assert np.abs(rest).max() < 1e-3  # three dimensions of signal are three components


def test_a_table_of_categories_alone() -> None:
    made = TableEncoder.fit(CLINICAL, {"sex": "categorical"})
    np.testing.assert_array_equal(made.transform(CLINICAL), [[1, 0], [0, 1], [0, 0], [1, 0]])


def test_faults_are_sentences() -> None:
    made = TableEncoder.fit(CLINICAL, COLUMNS)
    for name in COLUMNS:
        with pytest.raises(DataFault, match=f"lacks 1 column.*{name}"):
            made.transform(CLINICAL.drop(columns=name))
    with pytest.raises(DataFault, match="column 'sex': 3 value"):
        TableEncoder.fit(CLINICAL, {"sex": "numeric"})
    with pytest.raises(UsageFault, match=r"'age' is declared as 'number'; .*numeric, categorical"):
        TableEncoder.fit(CLINICAL, {"age": "number"})


def test_a_wide_table_of_text_is_encoded_like_its_numbers() -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    values = rng.normal(size=(40, 2000))
    values[rng.random(values.shape) < 0.01] = np.nan
    table = pd.DataFrame(values).rename(columns=lambda i: f"g{i}")
    encoded = TableEncoder.fit(table).transform(table)
    assert encoded.shape == (40, 2000 + int((np.isnan(values).any(0)).sum()))
    text = table.astype(str)
    np.testing.assert_array_equal(TableEncoder.fit(text).transform(text), encoded)


def test_a_wide_table_is_reduced_by_the_learner_to_the_same_numbers() -> None:
    rng = np.random.default_rng(3)
    table = pd.DataFrame(rng.normal(size=(40, 12)), columns=[f"g{i}" for i in range(12)])
    table.iloc[::7, 3] = np.nan
    wide = TableEncoder.fit(table, components=4, wide=True)
    plain = TableEncoder.fit(table, components=4)
    assert wide.dim == 13
    assert wide.narrow == plain
    assert wide.loadings is not None
    seen = Projected(wide.loadings, torch.nn.Identity())(torch.from_numpy(wide.transform(table)))
    assert np.allclose(np.asarray(seen), plain.transform(table), atol=1e-5)
    assert TableEncoder.load(wide.state()) == wide
