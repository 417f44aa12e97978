"""Survival tasks: losses against likelihoods written out, curves that never rise, and faults in words."""

from __future__ import annotations

import copy
import functools
import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nsclc_mtl.records import NoEvents, Target, TaskSpec
from nsclc_mtl.tasks.bins import HORIZONS_DAYS
from nsclc_mtl.tasks.survival import DiscreteHazard

SPEC = TaskSpec("os", "survival", (), ("t", "e"), "OS")


def follow_up(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.PCG64(seed))
    event = (rng.random(n) < 0.5).astype(float)
    event[:2] = 1
    return rng.exponential(900, n).round(2) + 0.01, event


@functools.cache
def hazard(seed: int = 0, **options: Any) -> DiscreteHazard:
    torch.manual_seed(seed)
    state = DiscreteHazard.fit(SPEC, *follow_up(60, seed), **{"bins": 5, **options})
    return DiscreteHazard(SPEC, 8, json.loads(json.dumps(state)))


def target(value: Any, event: Any, known: Any = None) -> Target:
    value = torch.as_tensor(value, dtype=torch.float32)
    known = torch.ones(len(value), dtype=torch.bool) if known is None else torch.as_tensor(known)
    return Target(known, value, torch.as_tensor(event, dtype=torch.float32))


raws = st.lists(st.floats(-30, 30), min_size=5, max_size=5)


@settings(max_examples=60, deadline=None)
@given(raw=raws, days=st.lists(st.floats(0, 9000), min_size=2, max_size=6))
def test_a_survival_curve_never_rises(raw: list[float], days: list[float]) -> None:
    task = hazard()
    curve = task.survival(torch.tensor([raw]), sorted(days))[0]
    assert ((curve >= 0) & (curve <= 1)).all()
    assert (curve.diff() <= 1e-6).all()
    assert float(task.survival(torch.tensor([raw]), [0.0])) == 1


@settings(max_examples=15, deadline=None)
@given(raw=st.lists(st.floats(-20, 8), min_size=5, max_size=5))
def test_the_restricted_mean_is_the_area_under_the_curve(raw: list[float]) -> None:
    task = copy.deepcopy(hazard()).double()
    z = torch.tensor([raw], dtype=torch.float64)
    days = np.unique(np.concatenate([np.linspace(a, b, 400) for a, b in _bins(task)]))
    area = np.trapezoid(task.survival(z, days.tolist())[0].numpy(), days)
    assert float(task.restricted_mean(z)) == pytest.approx(area, rel=2e-4)
    assert float(task.score(z)) == pytest.approx(-area / 365.25, rel=2e-4)


def _bins(task: DiscreteHazard) -> list[tuple[float, float]]:
    edges = [0.0, *task.edges.tolist()]
    return list(itertools.pairwise(edges))


def test_more_hazard_is_more_risk() -> None:
    task = hazard()
    raw = (torch.zeros(3, 5) + torch.tensor([-1.0, 0, 1])[:, None]).requires_grad_(True)
    risk = task.score(raw)
    assert (risk.diff() > 0).all()
    risk.sum().backward()
    assert raw.grad is not None
    assert (raw.grad > 0).all()
    extreme = task.score(torch.tensor([[-200.0] * 5, [200.0] * 5]).requires_grad_(True))
    assert torch.isfinite(extreme).all()
    assert extreme[0].item() == pytest.approx(-task.edges[-1].item() / 365.25, rel=1e-5)


def by_hand(task: DiscreteHazard, raw: Tensor, days: list[float], event: list[int]) -> float:
    """Minus the mean log likelihood: an event in its bin, survival of the bins before it and of the share that was seen
    of the bin of a censoring."""
    total = 0.0
    for h, t, e in zip(raw.sigmoid().tolist(), days, event, strict=True):
        for j, (start, end) in enumerate(_bins(task)):
            if e and start < t <= end:
                total -= np.log(h[j])
            else:
                total -= min(1.0, max(0.0, (t - start) / (end - start))) * np.log1p(-h[j])
    return total / len(days)


def test_the_discrete_loss_is_the_likelihood_by_hand() -> None:
    task = hazard()
    edges = task.edges.tolist()
    days = [
        edges[0] / 2,
        edges[0],
        edges[1] + 1,
        edges[1],
        edges[0] / 2,
        edges[-1] - 0.5,
        edges[-1] + 500,
        edges[-1] + 9,
    ]
    event = [1, 1, 0, 0, 0, 1, 0, 1]  # the last one is beyond the bins
    raw = torch.randn(len(days), len(edges))
    loss = task.loss(raw, target(days, event))
    assert float(loss) == pytest.approx(by_hand(task, raw, days, event), rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 200), unit=st.sampled_from([1.0, 30.4375, 365.25]))
def test_base_rates_are_the_best_constant(seed: int, unit: float) -> None:
    """At the fitted baseline the gradient of the loss on the training patients vanishes, whatever the times are."""
    rng = np.random.Generator(np.random.PCG64(seed))
    value, event = rng.integers(1, 60, 80) * unit, (rng.random(80) < 0.6).astype(float)
    task = DiscreteHazard(SPEC, 2, DiscreteHazard.fit(SPEC, value, event, bins=4))
    raw = (torch.zeros(80, 1) + task.baseline).detach().requires_grad_(True)
    task.loss(raw, target(value, event)).backward()
    assert raw.grad is not None
    inside = (task.baseline > -4.5) & (task.baseline < 4.5)  # shares are kept within 1 and 99 %
    assert raw.grad.sum(0)[inside].abs().max() < 1e-5


def test_bins_are_in_order_and_hold_every_time() -> None:
    value, event = np.array([3.0001, 3.0002, 3.0003, 10.0, 10.0, 0.0002]), np.ones(6)
    state = DiscreteHazard.fit(SPEC, value, event, bins=10)
    task = DiscreteHazard(SPEC, 2, state)
    edges = torch.cat([torch.zeros(1), task.edges])
    assert (edges.diff() > 0).all()
    assert edges[-1] > 10
    assert torch.isfinite(task.survival(torch.zeros(1, len(task.edges)), np.linspace(0, 11, 50).tolist())).all()


def test_too_few_events_are_told() -> None:
    with pytest.raises(NoEvents, match="task os: 1 of 3 training patients had the event"):
        DiscreteHazard.fit(SPEC, np.array([1.0, 2, 3]), np.array([0.0, 1, 0]))


@pytest.mark.parametrize("proportional", [True, False])
def test_heads_and_public_words(proportional: bool) -> None:
    task = hazard(proportional=proportional)
    raw = task.head(torch.randn(4, 8), {})
    assert raw.shape == (4, 5)
    shift = raw - task.baseline
    assert bool((shift.std(1) < 1e-6).all()) == proportional
    told = task.predict(raw)
    assert list(told) == ["risk", *(f"surv:{d:g}" for d in HORIZONS_DAYS)]
    assert "surv:182.5" in told
    assert "surv:365" in told
    assert all(v.shape == (4,) for v in told.values())


def test_losses_are_finite_where_there_is_nothing_to_learn() -> None:
    task = hazard()
    raw = torch.randn(3, 5).requires_grad_(True)
    nobody = task.loss(raw, target([1, 2, 3], [1, 0, 1], [False] * 3))
    assert nobody.item() == 0
    nobody.backward()
    assert raw.grad is not None
    assert raw.grad.abs().sum() == 0
    for days, event in (([700, 800, 900], [0, 0, 0]), ([0.001] * 3, [0, 0, 0]), ([1e6] * 3, [1, 1, 1])):
        loss = task.loss(raw, target(days, event))
        assert torch.isfinite(loss)
        loss.backward()
        assert torch.isfinite(raw.grad).all()
    one = task.loss(raw[:1], target([5], [1]))
    assert torch.isfinite(one)


def test_what_stands_in_missing_labels_changes_nothing() -> None:
    task = hazard()
    raw = torch.randn(6, 5)
    known = torch.tensor([True, True, False, True, False, True])
    days, event = torch.rand(6) * 900, torch.tensor([1.0, 0, 1, 1, 0, 1])
    loss = task.loss(raw, target(days, event, known))
    days[~known], event[~known] = torch.tensor([-1.0, float("nan")]), float("nan")
    assert torch.equal(loss, task.loss(raw, target(days, event, known)))


def test_recalibration_brings_the_events_back() -> None:
    """After it every bin expects as many events among the training patients as there were; the order stays."""
    value, event = follow_up(300, 3)
    task = copy.deepcopy(hazard())
    torch.manual_seed(1)
    score = torch.randn(300, 1)
    raw = score + task.baseline.detach() + 1.3  # learned from patients drawn by their event
    before = task.baseline.detach().clone()
    task.recalibrate(raw, value, event)
    now = raw + task.baseline.detach() - before
    edges = task.edges.numpy()
    begins = np.concatenate([[0.0], edges[:-1]])
    for j in range(now.shape[1]):  # a censoring counts for the share of the bin that was seen
        here = (value > begins[j]) & (value <= edges[j]) & (event == 1)
        share = np.where(here, 1.0, np.clip((value - begins[j]) / (edges[j] - begins[j]), 0, 1))
        assert (now[:, j].sigmoid().numpy() * share).sum() == pytest.approx(here.sum(), abs=1e-3)
