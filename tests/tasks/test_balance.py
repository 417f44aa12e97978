"""Balance: several losses become one number."""

from __future__ import annotations

import math

import pytest
import torch

from nsclc_mtl.tasks.balance import Sum, Uncertainty

LOSSES = {"grade": torch.tensor(2.0), "os": torch.tensor(3.0)}


def test_a_weighted_sum() -> None:
    assert Sum(["grade", "os"])(LOSSES).item() == 5
    assert Sum(["grade", "os"], {"os": 0.5})(LOSSES).item() == 3.5


def test_learned_noise_settles_at_the_loss() -> None:
    """exp(-s) L + s / 2 is least at s = log(2 L): the weight of a task is one over twice its loss."""
    balance = Uncertainty(["grade", "os"])
    assert balance(LOSSES).item() == 5
    optimiser = torch.optim.Adam(balance.parameters(), lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        balance(LOSSES).backward()
        optimiser.step()
    for task, loss in LOSSES.items():
        assert balance.log_variance[task].item() == pytest.approx(math.log(2 * loss.item()), abs=0.02)


def test_a_task_that_is_not_there_learns_no_noise() -> None:
    balance = Uncertainty(["grade", "os"])
    balance({"os": LOSSES["os"]}).backward()
    assert balance.log_variance["grade"].grad is None
