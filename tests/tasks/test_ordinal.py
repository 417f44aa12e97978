"""Ordinal heads: laws that all of them keep, and losses and probabilities against loops written from the papers."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nsclc_mtl.records import Target, TaskSpec
from nsclc_mtl.tasks.ordinal import Coral, Corn, Graded, Ordinal

CLASSES = ("G1", "G2", "G3", "G4")
SPEC = TaskSpec("grade", "ordinal", CLASSES, ("g",))
LABELS = np.array([0, 1, 1, 2, 3, 3, 3, 3], float)
HEADS: dict[str, Any] = {"ordinal": (Ordinal, {}), "coral": (Coral, {}), "corn": (Corn, {}),
                         "corn_proportional": (Corn, {"proportional": True})}  # fmt: skip
heads = pytest.mark.parametrize("name", sorted(HEADS))


def head(name: str, labels: np.ndarray = LABELS, **options: Any) -> Graded:
    torch.manual_seed(0)
    kind, own = HEADS[name]
    made = kind(SPEC, 6, json.loads(json.dumps(kind.fit(SPEC, labels, labels * 0))), **own, **options)
    assert isinstance(made, Graded)
    return made


def known(value: list[int]) -> Target:
    return Target(torch.ones(len(value), dtype=torch.bool), torch.tensor(value, dtype=torch.float32))


def table(told: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(told.values()), dim=1)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@heads
@settings(max_examples=40, deadline=None)
@given(raw=st.lists(st.floats(-60, 60), min_size=3, max_size=3), by=st.floats(0, 20))
def test_probabilities_sum_to_one_and_an_offset_raises_them(name: str, raw: list[float], by: float) -> None:
    """Whatever was learned, also cuts out of order: no negative probability, and a higher score is a higher class."""
    made = head(name)
    z = torch.tensor([sorted(raw, reverse=True) if name == "ordinal" else raw])  # its cuts are in order by their make
    p = table(made.predict(z))
    assert (p >= 0).all()
    torch.testing.assert_close(p.sum(1), torch.ones(1))
    higher = made.moved(z, torch.tensor([[by]]))
    torch.testing.assert_close(higher, z + by)  # every cut moves
    assert (made.above(higher) >= made.above(z) - 1e-6).all()
    assert made.score(higher) >= made.score(z) - 1e-5
    torch.testing.assert_close(made.score(z), (p * torch.arange(4)).sum(1), atol=1e-4, rtol=0)


@heads
def test_the_first_prediction_is_the_base_rate(name: str) -> None:
    made = head(name)
    told = table(made.predict(made.head(torch.zeros(1, 6), {})))[0]
    torch.testing.assert_close(told, torch.tensor([1 / 8, 2 / 8, 1 / 8, 4 / 8]), atol=1e-4, rtol=0)


@heads
def test_all_cuts_learn_and_a_missing_label_does_not(name: str) -> None:
    made = head(name)
    raw = made.head(torch.randn(5, 6), {})
    value = torch.tensor([0.0, 3, float("nan"), 2, 1])
    made.loss(raw, Target(~value.isnan(), value)).backward()
    for parameter in made.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    nothing = made.loss(made.head(torch.randn(5, 6), {}), Target(torch.zeros(5, dtype=torch.bool), value))
    assert nothing.item() == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(1, 7))
def test_coral_is_the_loss_of_its_paper(seed: int, n: int) -> None:
    """Minus the sum over the cuts of the log likelihood of lying above each, mean over the patients."""
    made, draw = head("coral"), np.random.default_rng(seed)
    raw, value = draw.normal(0, 3, (n, 3)), draw.integers(0, 4, n).tolist()
    total = 0.0
    for i in range(n):
        for k in range(3):
            p = sigmoid(raw[i, k])
            total -= math.log(p) if value[i] > k else math.log(1 - p)
    loss = made.loss(torch.tensor(raw), known(value))
    assert loss.item() == pytest.approx(total / n, rel=1e-6)
    proba = table(made.predict(torch.tensor(np.sort(raw, axis=1)[:, ::-1].copy()))).numpy()
    for i in range(n):
        above = [1.0, *(sigmoid(x) for x in sorted(raw[i], reverse=True)), 0.0]
        assert proba[i] == pytest.approx([above[k] - above[k + 1] for k in range(4)], abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(1, 7))
def test_corn_is_the_loss_of_its_paper(seed: int, n: int) -> None:
    """Cut k is taught by those whose class is at least k; the mean is over all pairs of patient and cut."""
    made, draw = head("corn"), np.random.default_rng(seed)
    raw, value = draw.normal(0, 3, (n, 3)), draw.integers(0, 4, n).tolist()
    total, pairs = 0.0, 0
    for k in range(3):
        for i in range(n):
            if value[i] > k - 1:
                p = sigmoid(raw[i, k])
                total -= math.log(p) if value[i] > k else math.log(1 - p)
                pairs += 1
    loss = made.loss(torch.tensor(raw), known(value))
    assert loss.item() == pytest.approx(total / pairs, rel=1e-6)
    proba = table(made.predict(torch.tensor(raw))).numpy()
    for i in range(n):
        above = [1.0]
        for k in range(3):
            above.append(above[-1] * sigmoid(raw[i, k]))
        above.append(0.0)
        assert proba[i] == pytest.approx([above[k] - above[k + 1] for k in range(4)], abs=1e-6)


def test_only_corn_has_weights_of_its_own_for_each_cut() -> None:
    view = torch.randn(50, 6)
    spread = {name: (head(name).head(view, {}).diff(dim=1).std(0) > 1e-6).any().item() for name in HEADS}
    assert spread == {"ordinal": False, "coral": False, "corn": True, "corn_proportional": False}


@heads
def test_it_learns_an_order(name: str) -> None:
    made, draw = head(name), torch.Generator().manual_seed(1)
    x = torch.randn(400, 6, generator=draw)
    noise = torch.rand(400, generator=draw).clamp(1e-4, 1 - 1e-4).logit()
    value = torch.bucketize(2 * x[:, 0] + noise, torch.tensor([-1.0, 0.0, 1.5])).float()
    target = Target(torch.ones(400, dtype=torch.bool), value)
    optimiser = torch.optim.Adam(made.parameters(), lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        made.loss(made.head(x, {}), target).backward()
        optimiser.step()
    p = table(made.predict(made.head(x, {}))).detach()
    shares = torch.bincount(value.long(), minlength=4) / 400
    torch.testing.assert_close(p.mean(0), shares, atol=0.015, rtol=0)  # calibrated in the large
    assert np.corrcoef(made.score(made.head(x, {})).detach(), value)[0, 1] > 0.6  # of the true expectation it is .66
