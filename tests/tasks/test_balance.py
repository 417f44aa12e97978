"""Balance: several losses become one number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nsclc_mtl.records import UsageFault
from nsclc_mtl.tasks.balance import DWA, Sum, Uncertainty, mean_over_ranks

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


def test_learned_noise_does_not_change_what_early_stopping_compares() -> None:
    balance = Uncertainty(["grade", "os"])
    torch.nn.init.constant_(balance.log_variance["os"], 3.0)
    assert balance(LOSSES).item() == pytest.approx(2 + 3 * math.exp(-3) + 1.5)
    assert balance.notes["os"].item() == pytest.approx(math.exp(-3))
    assert balance.eval()(LOSSES).item() == 5
    assert balance.notes == {}


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(UsageFault, match=r"balance\.weights\.os"):
        Sum(["grade", "os"], {"os": weight})


def test_a_weight_of_a_task_that_is_not_trained_says_nothing() -> None:
    assert Sum(["grade", "stage"], {"grade": 2.0, "os": 7.0})({"grade": LOSSES["grade"]}).item() == 4
    assert Sum(["grade"], {"grade": 2.0, "os": 7.0})({"grade": LOSSES["grade"]}).item() == 2  # alone it weighs one
    assert Sum(["grade"])({}).item() == 0


def test_dwa_by_hand() -> None:
    """K exp(r / T) / sum exp(r / T) with r the ratio of the last two epochs; 1 for the first two."""
    balance, epochs = (
        DWA(["grade", "os", "stage"], temperature=2.0),
        np.array([[2.0, 3, 1], [1.0, 2.7, 1], [0.9, 3, 0.2]]),
    )
    losses = {"grade": torch.tensor(2.0), "os": torch.tensor(3.0), "stage": torch.tensor(0.5)}
    for i, means in enumerate(epochs):
        ratio = epochs[i - 1] / epochs[i - 2] if i > 1 else np.ones(3)
        want = 3 * np.exp(ratio / 2) / np.exp(ratio / 2).sum()
        np.testing.assert_allclose(balance.weight.numpy(), want, rtol=1e-6)
        assert balance(losses).item() == pytest.approx(want @ [2, 3, 0.5])
        assert {task: w.item() for task, w in balance.notes.items()} == pytest.approx(
            dict(zip(losses, want, strict=True))
        )
        balance.epoch_ended(dict(zip(losses, torch.tensor(means), strict=True)))
    assert balance.eval()(losses).item() == 5.5


def test_dwa_of_a_task_without_labels_for_an_epoch() -> None:
    balance = DWA(["grade", "os"], temperature=1.0)
    for grade, os in ((4.0, 1.0), (2.0, math.nan), (1.0, 1.0)):
        balance.epoch_ended({"grade": torch.tensor(grade)} | ({} if math.isnan(os) else {"os": torch.tensor(os)}))
        assert balance.weight.isfinite().all()
    np.testing.assert_allclose(balance.weight, 2 * np.exp([0.5, 1]) / np.exp([0.5, 1]).sum(), rtol=1e-6)
    assert balance({"os": LOSSES["os"]}).item() == pytest.approx(3 * balance.weight[1].item())


def test_dwa_of_equal_losses_and_of_a_single_task() -> None:
    balance, alone = DWA(["grade", "os"]), DWA(["grade"])
    for loss in (3.0, 2.0, 0.0, 0.0):
        balance.epoch_ended({"grade": torch.tensor(loss), "os": torch.tensor(loss)})
        alone.epoch_ended({"grade": torch.tensor(loss)})
        assert balance.weight.tolist() == [1, 1]
        assert alone.weight.tolist() == [1]
    with pytest.raises(UsageFault, match="temperature"):
        DWA(["grade"], temperature=0.0)


def test_one_process_is_its_own_mean() -> None:
    got = mean_over_ranks(torch.tensor([1.0, math.nan, 3.0]), torch.tensor([True, False, True]))
    assert got.nan_to_num(-1).tolist() == [1, -1, 3]
