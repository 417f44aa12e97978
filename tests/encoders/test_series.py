"""Attention over visits: packing, order and company are nothing; time and blanks are what they say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nsclc_mtl.bags.series import SeriesScale, Visits, pack
from nsclc_mtl.encoders.series import TimeAttention

COLUMNS = 3


def encoder(seed: int = 0) -> TimeAttention:
    torch.manual_seed(seed)
    return TimeAttention(COLUMNS, 5).eval()


def visits(seed: int, count: int) -> Visits:
    rng = np.random.Generator(np.random.PCG64(seed))
    measured = (rng.random((count, COLUMNS)) < 0.7).astype(np.float32)
    values, time = rng.normal(size=(count, COLUMNS)).astype(np.float32), np.sort(rng.normal(size=count))
    return values * measured, measured, time.astype(np.float32)


def vectors(of: TimeAttention, patients: list[Visits | None]) -> torch.Tensor:
    with torch.no_grad():
        return of(pack(patients, COLUMNS)).vector


@settings(max_examples=40)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(0, 99))
def test_company_changes_nothing(counts: list[int], seed: int) -> None:
    """Packed together or alone, with longer and shorter series, or with patients who have none."""
    of = encoder()
    patients = [visits(seed + i, n) if n else None for i, n in enumerate(counts)]
    together = vectors(of, patients)
    alone = torch.cat([vectors(of, [p]) for p in patients])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert torch.isfinite(together).all()


@settings(max_examples=40)
@given(st.integers(2, 7), st.integers(0, 99))
def test_the_order_of_rows_is_nothing_and_time_is_not(count: int, seed: int) -> None:
    of = encoder()
    values, measured, time = visits(seed, count)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(count)
    same = vectors(of, [(values[order], measured[order], time[order])])
    torch.testing.assert_close(vectors(of, [(values, measured, time)]), same)
    full = np.ones_like(measured)
    values = np.arange(count * COLUMNS, dtype=np.float32).reshape(count, COLUMNS) / count
    rising, falling = vectors(of, [(values, full, time)]), vectors(of, [(values, full, -time)])
    assert not torch.allclose(rising, falling)


@given(st.integers(1, 5), st.floats(-9, 9), st.integers(0, 99))
def test_a_blank_cell_is_no_value(count: int, wrong: float, seed: int) -> None:
    of = encoder()
    values, measured, time = visits(seed, count)
    with torch.no_grad():
        of.content.weight[:, :COLUMNS], of.gate.weight[:, :COLUMNS] = 0, 0  # the scores do not look at values
    torch.testing.assert_close(
        vectors(of, [(values, measured, time)]),
        vectors(of, [(values + np.float32(wrong) * (1 - measured), measured, time)]),
    )


def test_attention_sums_to_one_and_absence_is_finite() -> None:
    of = encoder()
    patients = [visits(1, 4), None, visits(2, 1)]
    made = of(pack(patients, COLUMNS))
    assert made.vector.shape == (3, 5)
    assert made.attention is not None
    attention = made.attention.detach()
    assert [float(a.sum()) for a in (attention[:4], attention[4:])] == pytest.approx([1, 1])
    made.vector.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in of.parameters() if p.grad is not None)
    nobody = of(pack([None, None], COLUMNS))
    assert torch.isfinite(nobody.vector).all()


def frame(rows: list[tuple[str, float, float, float]]) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples([(p, d) for p, d, *_ in rows], names=["patient_id", "days"])
    return pd.DataFrame([row[2:] for row in rows], index=index, columns=["a", "b"])


def test_scales_weigh_patients_alike() -> None:
    table = frame([("p", 0, 1, 5), ("p", 10, 3, 5), ("p", 20, 5, np.nan), ("q", 0, 10, 5)])
    scale = SeriesScale.fit(table, "ctdna")
    assert scale.columns == ["a"]  # `b` never varies
    assert scale.mean == [pytest.approx((3 + 10) / 2)]
    assert SeriesScale.load(scale.state()).state() == scale.state()
    values, measured, time = scale(table.loc["p"].iloc[::-1])
    assert np.all(np.diff(time) > 0)  # in the order of time, whatever the order of the rows
    assert measured.min() == 1
    assert values[:, 0].tolist() == sorted(values[:, 0].tolist())
