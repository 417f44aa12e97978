"""Balances of gradients under what Lightning does to a step: accumulation, clipping, several processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from test_learner import batch, learner
from torch import nn

from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Batch
from nsclc_mtl.tasks.balance import Balance, Sum
from nsclc_mtl.tasks.gradients import GradNorm, PCGrad, projections, shared_gradients

pytestmark = pytest.mark.filterwarnings("ignore")


class Batches:
    """Four batches; another four in every process."""

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[Batch]:
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        return iter([batch(seed=10 * rank + i) for i in range(4)])


def fit(made: Learner, **options: Any) -> Learner:
    made.optimizer = lambda groups: torch.optim.SGD(groups, lr=0.1)
    made.warmup = 1.0
    given = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False} | options
    trainer = pl.Trainer(**given, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False)
    trainer.fit(made, Batches())
    return made


def gradients(made: Learner) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("balance", [GradNorm, PCGrad])
def test_a_step_gives_heads_the_plain_gradient_and_shared_parameters_the_balanced_one(balance: type[Balance]) -> None:
    """Of all four tasks with their real heads, against the gradients of the tasks taken one by one."""
    whole = batch()
    plain, ours = learner(Sum).train(), learner(balance).train()
    ours.load_state_dict(plain.state_dict(), strict=False)
    if isinstance(ours.balance, GradNorm):
        ours.balance.weight.copy_(torch.tensor([0.4, 0.8, 1.2, 1.6]))
    told = []
    for made in (plain, ours):
        torch.manual_seed(3)
        loss = made.training_step(whole, 0)
        loss.backward()
        told.append((loss.item(), gradients(made)))
    assert told[0][0] == told[1][0]
    torch.manual_seed(3)
    out, _ = plain(whole)
    losses = {name: task.loss(out[name], whole.targets[name]) for name, task in plain.each_task()}
    rows, kept = shared_gradients(losses, plain._shared())
    names = [next(name for name, p in plain.named_parameters() if p is one) for one in kept]
    assert any(name.startswith("encoders") for name in names)
    assert not any(name.startswith("fusion.gates") for name in names)  # a gate is one task's own
    torch.manual_seed(3)
    plain(whole)  # the balance draws after the network
    weights = torch.tensor([0.4, 0.8, 1.2, 1.6]) if balance is GradNorm else projections(rows @ rows.T).sum(0).float()
    joined = (weights @ rows).split([p.numel() for p in kept])
    more = dict(zip(names, [part.view_as(p) for part, p in zip(joined, kept, strict=True)], strict=True))
    sums = dict(zip(names, rows.sum(0).split([p.numel() for p in kept]), strict=True))
    for name, grad in told[0][1].items():
        # the fusion's own loss is no task's: its gradient stays
        want = grad - sums[name].view_as(grad) + more[name] if name in more else grad
        torch.testing.assert_close(told[1][1][name], want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("balance", [GradNorm, PCGrad])
def test_accumulated_and_clipped(balance: type[Balance]) -> None:
    """Four batches, two a step: a step learns from the mean of their balanced gradients, cut to a norm."""
    summed: list[float] = []
    cut: list[float] = []

    def norm(module: pl.LightningModule) -> float:
        return float(nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None]))

    class Norms(pl.Callback):
        def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
            summed.append(norm(pl_module))

        def on_before_zero_grad(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
            cut.append(norm(pl_module))

    made = learner(balance)
    torch.manual_seed(5)
    fit(made, accumulate_grad_batches=2, gradient_clip_val=0.05, callbacks=[Norms()])
    by_hand = learner(balance).train()
    torch.manual_seed(5)
    for some in list(Batches())[:2]:
        (by_hand.training_step(some, 0) / 2).backward()
    assert len(summed) == 2
    assert summed[0] == pytest.approx(norm(by_hand), rel=1e-4)
    assert min(summed) > 0.05
    assert max(cut) == pytest.approx(0.05, rel=1e-3)
    assert all(p.isfinite().all() for p in made.parameters())


class Written(pl.Callback):
    """What every process ends with, in a file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"rank{trainer.global_rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("balance", [GradNorm, PCGrad])
def test_two_processes_keep_one_model(balance: type[Balance], tmp_path: Path) -> None:
    strategy = "ddp_fork_find_unused_parameters_true"
    fit(learner(balance), strategy=strategy, devices=2, max_epochs=2, callbacks=[Written(tmp_path)])
    one, other = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not np.allclose(one["fusion.join.absent.rna"], learner(balance).state_dict()["fusion.join.absent.rna"])
    if balance is GradNorm:
        assert not torch.equal(one["balance.weight"], torch.ones(4))
