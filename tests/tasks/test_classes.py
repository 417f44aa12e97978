"""Tasks with classes: probabilities that sum to one, cuts in order, losses by hand, and nothing from missing labels."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nsclc_mtl.records import Target, TaskSpec
from nsclc_mtl.tasks.classes import Binary, Multiclass
from nsclc_mtl.tasks.ordinal import Ordinal
from nsclc_mtl.tasks.task import Task

CLASSES = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "ordinal": ("G1", "G2", "G3", "G4")}
KINDS: dict[str, Any] = {"binary": Binary, "multiclass": Multiclass, "ordinal": Ordinal}
LABELS = {"binary": [0, 1, 1, 1], "multiclass": [0, 1, 2, 2], "ordinal": [0, 1, 1, 2, 3, 3, 3, 3]}


def task(kind: str, labels: list[int] | None = None) -> Task:
    torch.manual_seed(0)
    spec = TaskSpec("t", kind, CLASSES[kind], ("c",))  # type: ignore[arg-type]
    value = np.array(LABELS[kind] if labels is None else labels, float)
    state = KINDS[kind].fit(spec, value, value * 0)
    return KINDS[kind](spec, 6, json.loads(json.dumps(state)))


def all_known(value: list[int]) -> Target:
    return Target(torch.ones(len(value), dtype=torch.bool), torch.tensor(value, dtype=torch.float32))


def table(told: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(told.values()), dim=1)


def test_a_task_that_leaves_a_word_out_cannot_be_built() -> None:
    spec = TaskSpec("t", "binary", CLASSES["binary"], ("c",))
    with pytest.raises(TypeError, match=r"abstract methods? '?_loss'?, '?head'?, '?predict'?, '?score'?"):
        Task(spec, 6, {})  # type: ignore[abstract]
    half = type("Half", (Binary,), {"score": Task.score})
    with pytest.raises(TypeError, match=r"abstract method '?score"):
        half(spec, 6, {})


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(max_examples=40, deadline=None)
@given(size=st.floats(0, 1e4), seed=st.integers(0, 99))
def test_probabilities_sum_to_one(kind: str, size: float, seed: int) -> None:
    made = task(kind)
    view = size * torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
    told = made.predict(made.head(view, {}))
    assert list(told) == [f"p:{name}" for name in CLASSES[kind]]
    assert (table(told) >= 0).all()
    torch.testing.assert_close(table(told).sum(1), torch.ones(5))


@settings(max_examples=40, deadline=None)
@given(labels=st.lists(st.integers(0, 3), max_size=12), shift=st.floats(-30, 30))
def test_cuts_stay_in_order_whatever_was_learned(labels: list[int], shift: float) -> None:
    made = task("ordinal", labels)
    assert isinstance(made, Ordinal)
    with torch.no_grad():
        made.gaps += shift
    assert torch.isfinite(made.cuts()).all()
    assert (made.cuts().diff() >= 0).all()


@pytest.mark.parametrize("kind", ["binary", "ordinal"])
def test_the_first_prediction_is_the_base_rate(kind: str) -> None:
    made = task(kind)
    told = table(made.predict(made.head(torch.zeros(1, 6), {})))[0]
    share = torch.bincount(torch.tensor(LABELS[kind])) / len(LABELS[kind])
    torch.testing.assert_close(told, share, atol=1e-4, rtol=0)


def test_losses_by_hand() -> None:
    for kind in ("binary", "multiclass"):
        made, value = task(kind), [1, 0, 1]
        raw = made.head(torch.randn(3, 6), {})
        p = table(made.predict(raw))[torch.arange(3), torch.tensor(value)]
        torch.testing.assert_close(made.loss(raw, all_known(value)), -p.log().mean())
    made, value = task("ordinal"), [0, 3, 2]
    raw = made.head(torch.randn(3, 6), {})
    above = raw.sigmoid()
    truth = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 1, 0]])  # lies above each of the three cuts
    by_hand = -torch.where(truth == 1, above, 1 - above).log().mean()
    torch.testing.assert_close(made.loss(raw, all_known(value)), by_hand)


@pytest.mark.parametrize("kind", ["binary", "ordinal"])
def test_a_higher_score_is_a_higher_class(kind: str) -> None:
    made = task(kind)
    with torch.no_grad():
        made.linear.weight.fill_(1.0)  # type: ignore[union-attr, operator]
    raw = made.head(torch.tensor([[-1.0] * 6, [0.0] * 6, [1.0] * 6]), {})
    assert (made.score(raw).diff() > 0).all()
    if kind == "ordinal":
        expected = (table(made.predict(raw)) * torch.arange(4)).sum(1)
        torch.testing.assert_close(made.score(raw), expected)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_missing_labels_teach_nothing(kind: str) -> None:
    made = task(kind)
    view = torch.randn(5, 6)
    known = torch.tensor([True, False, True, False, True])
    value = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    losses = []
    for blank in (torch.tensor([1.0, 0.0]), torch.tensor([float("nan"), 99.0])):
        value[~known] = blank
        losses.append(made.loss(made.head(view, {}), Target(known, value.clone())))
    assert torch.equal(losses[0], losses[1])
    nothing = made.loss(made.head(view, {}), Target(torch.zeros(5, dtype=torch.bool), value))
    nothing.backward()
    assert nothing.item() == 0
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in made.parameters())


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_extreme_outputs_cost_a_finite_loss(kind: str) -> None:
    made = task(kind)
    raw = 1e4 * torch.randn(2, *made.head(torch.zeros(1, 6), {}).shape[1:])
    assert torch.isfinite(made.loss(raw, all_known([0, 1])))
    assert torch.isfinite(made.score(raw)).all()
