"""Visits read by a GRU or a transformer: packing, company and order of rows are nothing, time is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nsclc_mtl.bags.series import Visits, pack
from nsclc_mtl.encoders.recurrent import Laid, VisitGRU, VisitTransformer
from nsclc_mtl.records import UsageFault

COLUMNS = 3
KINDS = {"gru": VisitGRU, "transformer": VisitTransformer}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def encoder(kind: str, seed: int = 0, columns: int = COLUMNS, **words: Any) -> nn.Module:
    torch.manual_seed(seed)
    return KINDS[kind](columns, 5, **words).eval()


def visits(seed: int, count: int) -> Visits:
    rng = np.random.Generator(np.random.PCG64(seed))
    measured = (rng.random((count, COLUMNS)) < 0.7).astype(np.float32)
    values, time = rng.normal(size=(count, COLUMNS)).astype(np.float32), np.sort(rng.normal(size=count))
    return values * measured, measured, time.astype(np.float32)


def vectors(of: nn.Module, patients: list[Visits | None]) -> torch.Tensor:
    with torch.no_grad():
        return of(pack(patients, COLUMNS)).vector


@settings(max_examples=25)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(0, 99), st.sampled_from(sorted(KINDS)))
def test_company_changes_nothing(counts: list[int], seed: int, kind: str) -> None:
    """Packed together or alone, with longer and shorter series, or with patients who have none."""
    of = encoder(kind)
    patients = [visits(seed + i, n) if n else None for i, n in enumerate(counts)]
    together = vectors(of, patients)
    torch.testing.assert_close(together, torch.cat([vectors(of, [p]) for p in patients]), atol=1e-5, rtol=1e-4)
    assert torch.isfinite(together).all()


@settings(max_examples=25)
@given(st.integers(2, 7), st.integers(0, 99), st.sampled_from(sorted(KINDS)))
def test_the_order_of_rows_is_nothing_and_time_is_not(count: int, seed: int, kind: str) -> None:
    of = encoder(kind)
    values, measured, time = visits(seed, count)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(count)
    same = vectors(of, [visits(7, 2), (values[order], measured[order], time[order]), None])
    torch.testing.assert_close(vectors(of, [visits(7, 2), (values, measured, time), None]), same, atol=1e-6, rtol=1e-4)
    full = np.ones_like(measured)
    values = np.arange(count * COLUMNS, dtype=np.float32).reshape(count, COLUMNS) / count
    rising, falling = vectors(of, [(values, full, time)]), vectors(of, [(values, full, -time)])
    assert not torch.allclose(rising, falling)


def test_a_blank_cell_is_no_value(kind: str) -> None:
    of = encoder(kind)
    values, measured, time = visits(3, 5)
    wrong = vectors(of, [(values + 9 * (1 - measured), measured, time)])
    torch.testing.assert_close(vectors(of, [(values, measured, time)]), wrong)
    zero = (values * 0, measured, time)
    assert not torch.allclose(vectors(of, [zero]), vectors(of, [(values * 0, 1 - measured, time)]))  # nor is it a zero


def test_who_has_no_visit_gets_the_bias_alone(kind: str) -> None:
    of = encoder(kind)
    bias = of.out[-1].bias.detach()
    torch.testing.assert_close(vectors(of, [visits(1, 4), None])[1], bias)
    torch.testing.assert_close(vectors(of, [None, None]), bias.expand(2, -1))
    of.train()
    said = of(pack([visits(1, 4), None, visits(2, 1)], COLUMNS))
    assert said.vector.shape == (3, 5)
    said.vector.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in of.parameters())


def test_attention_of_the_transformer_stands_at_its_visits() -> None:
    of, patients = encoder("transformer"), [visits(1, 4), None, visits(2, 1)]
    attention = of(pack(patients, COLUMNS)).attention.detach()
    assert [float(a.sum()) for a in (attention[:4], attention[4:])] == pytest.approx([1, 1])
    values, measured, time = patients[0]
    back = of(pack([(values[::-1].copy(), measured[::-1].copy(), time[::-1].copy())], COLUMNS)).attention.detach()
    torch.testing.assert_close(back.flip(0), attention[:4])
    with pytest.raises(UsageFault, match="even"):
        VisitTransformer(COLUMNS, 5, width=9, heads=3)


@settings(max_examples=25)
@given(st.integers(1, 7), st.integers(0, 99))
def test_ages_are_those_of_a_loop(count: int, seed: int) -> None:
    """Che et al. (2018), equation 2: the interval, added up over the visits at which a column was not measured."""
    values, measured, time = visits(seed, count)
    laid = Laid.of(pack([visits(seed + 1, 3), (values, measured, time)], COLUMNS))
    gap, age = laid.ages()
    want = np.zeros((count, COLUMNS))
    for t in range(1, count):
        step = time[t] - time[t - 1]
        want[t] = np.where(measured[t - 1] > 0, step, step + want[t - 1])
        assert float(gap[1, t]) == pytest.approx(step, abs=1e-6)
    np.testing.assert_allclose(age[1, :count].numpy(), want, atol=1e-5)
    assert (age[1, count:] == 0).all()
    assert (age[0, 3:] == 0).all()


def test_the_spread_within_a_patient_scales_values(kind: str) -> None:
    """Of the course: what the patient's mean tells does not depend on it."""
    values, measured, time = visits(4, 5)
    values = (values - values.sum(0) / measured.sum(0)) * measured
    half, plain = encoder(kind, within=[0.5] * COLUMNS), encoder(kind)
    torch.testing.assert_close(
        vectors(half, [(values, measured, time)]), vectors(plain, [(2 * values, measured, time)])
    )


def test_a_course_is_found(kind: str) -> None:
    """Who rises and who falls: levels tell nothing, times differ from patient to patient, cells are blank."""
    rng = np.random.Generator(np.random.PCG64(0))
    patients: list[Visits | None] = []
    slope = rng.normal(size=400)
    for own in slope:
        time = np.sort(rng.normal(size=rng.integers(3, 8)))
        measured = (rng.random((len(time), 1)) < 0.8).astype(np.float32)
        value = rng.normal() + own * time[:, None] + 0.2 * rng.normal(size=(len(time), 1))
        patients.append(((value * measured).astype(np.float32), measured, time.astype(np.float32)))
    torch.manual_seed(0)
    of = KINDS[kind](1, 1)
    step = torch.optim.AdamW(of.parameters(), 0.01)
    train, y = pack(patients[:300], 1), torch.tensor(slope, dtype=torch.float32)
    for _ in range(250):
        step.zero_grad()
        nn.functional.mse_loss(of(train).vector[:, 0], y[:300]).backward()
        step.step()
    with torch.no_grad():
        said = of.eval()(pack(patients[300:], 1)).vector[:, 0]
    assert float(torch.corrcoef(torch.stack([said, y[300:]]))[0, 1]) > 0.8
