"""Regression: numbers in their own unit, losses by hand, and nothing from missing labels."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nsclc_mtl.records import DataFault, Target, TaskSpec, UsageFault
from nsclc_mtl.tasks.regression import Regression

SPEC = TaskSpec("ki67", "regression", (), ("ki67",), unit="%")
VALUES = np.array([10.0, 20, 40, 50])


def task(**options: Any) -> Regression:
    torch.manual_seed(0)
    return Regression(SPEC, 3, json.loads(json.dumps(Regression.fit(SPEC, VALUES, VALUES * 0))), **options)


def known(value: list[float]) -> Target:
    return Target(torch.ones(len(value), dtype=torch.bool), torch.tensor(value))


def test_the_first_prediction_is_the_mean() -> None:
    made = task()
    assert made.predict(made.head(torch.zeros(1, 3), {}))["value"].item() == pytest.approx(30, abs=1e-4)


@given(raw=st.lists(st.floats(-5, 5), min_size=3, max_size=3), value=st.lists(st.floats(0, 99), min_size=3, max_size=3))
def test_losses_by_hand(raw: list[float], value: list[float]) -> None:
    errors = [r - (v - 30) / np.std(VALUES) for r, v in zip(raw, value, strict=True)]
    squared = float(np.mean([e * e / 2 for e in errors]))
    assert task().loss(torch.tensor(raw), known(value)).item() == pytest.approx(squared, rel=1e-4, abs=1e-5)
    bent = [e * e / 2 if abs(e) <= 1.5 else 1.5 * (abs(e) - 0.75) for e in errors]
    made = task(loss="huber", delta=1.5).loss(torch.tensor(raw), known(value)).item()
    assert made == pytest.approx(float(np.mean(bent)), rel=1e-4, abs=1e-5)


def test_an_offset_moves_the_number_and_the_score() -> None:
    made, raw = task(), torch.tensor([0.0, 1.0])
    moved = made.moved(raw, torch.tensor([[2.0], [2.0]]))
    now, was = made.predict(moved)["value"], made.predict(raw)["value"]
    torch.testing.assert_close(now - was, torch.full((2,), 2 * float(np.std(VALUES))))
    assert (made.score(moved) > made.score(raw)).all()


def test_missing_labels_teach_nothing() -> None:
    made, raw = task(), torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    some = torch.tensor([True, False, True])
    losses = [made.loss(raw, Target(some, torch.tensor([20.0, blank, 40.0]))) for blank in (1.0, float("nan"))]
    assert torch.equal(losses[0], losses[1])
    losses[1].backward()
    assert raw.grad is not None
    assert raw.grad[1] == 0


def test_words_and_labels_that_make_no_regression_are_refused() -> None:
    with pytest.raises(UsageFault, match="squared, huber"):
        task(loss="absolute")
    with pytest.raises(UsageFault, match="above zero"):
        task(loss="huber", delta=0)
    with pytest.raises(DataFault, match="do not vary"):
        Regression.fit(SPEC, np.array([4.0, 4.0]), np.zeros(2))
