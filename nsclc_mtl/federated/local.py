"""The training of one site in one round: the same Learner, the same data, Lightning's Trainer."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch

from nsclc_mtl.bags.datamodule import FoldData
from nsclc_mtl.federated.state import learned, put, taken
from nsclc_mtl.federated.update import State
from nsclc_mtl.learner import Learner

MakeTrainer = Callable[[int, Sequence[pl.Callback]], pl.Trainer]


@dataclass
class Memory:
    """What a site keeps between rounds and tells nobody: the moments of its optimiser."""

    optimizer: dict[str, Any] | None = None


@dataclass
class Work:
    """What a round asks of a site.

    `learner` is made of the shared configuration; its numbers are those of the round once it begins. `trainer` makes
    Lightning's Trainer for so many epochs with these callbacks. `span` is the share of the whole training that the
    round is. `proximal` is the weight of FedProx's pull. `normalisation` says whether norm layers stay at the site.
    """

    learner: Learner
    trainer: MakeTrainer
    epochs: int
    round: int
    span: tuple[float, float] = (0.0, 1.0)
    seed: int = 0
    proximal: float = 0.0
    normalisation: str = "shared"
    memory: Memory = field(default_factory=Memory)


def local_update(state: State, data: FoldData, config: Work) -> tuple[dict[str, Any], int, dict[str, float]]:
    """The model after a round's training at a site: its numbers, the site's training patients, and mean losses.

    Dropout is drawn by (seed, round, the site's patients) and patients are ordered by (seed, epoch): the same question
    has the same answer.
    """
    learner, before = config.learner, dict(state)
    put(learner, before, config.normalisation)
    learner.span = config.span
    data.seed, data.epoch = config.seed, config.round * config.epochs
    between = Between(config, before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_drawn(config.seed, config.round, data.parts["train"]))
        trainer = config.trainer(config.epochs, [between])
        learner.train()
        trainer.fit(learner, datamodule=data)
    told = {name: float(value) for name, value in trainer.callback_metrics.items()}
    wanted = ("loss", *learner.tasks)
    losses = {name: told[f"train/{name}"] for name in wanted if math.isfinite(told.get(f"train/{name}", math.nan))}
    return taken(learner.cpu(), config.normalisation), len(data.parts["train"]), losses


class Between(pl.Callback):
    """Takes the optimiser up where the last round left it, and pulls towards the round's model where FedProx asks."""

    def __init__(self, work: Work, state: State) -> None:
        self.work, self.state = work, state

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The moments of the rounds before; the rate of learning is the schedule's."""
        if self.work.memory.optimizer is not None:
            (optimizer,) = trainer.optimizers
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(self.work.memory.optimizer)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        """Adds the gradient of (proximal / 2) |w - w of the round|^2 (Li et al., MLSys 2020)."""
        if self.work.proximal:
            for name, value in learned(pl_module, self.work.normalisation).items():
                if value.grad is not None:
                    there = torch.from_numpy(self.state[name]).to(value)
                    value.grad.add_(value.detach() - there, alpha=self.work.proximal)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps the moments for the next round."""
        (optimizer,) = trainer.optimizers
        self.work.memory.optimizer = optimizer.state_dict()


def _drawn(seed: int, number: int, patients: Sequence[str]) -> int:
    return zlib.crc32(f"{seed} {number} {' '.join(patients)}".encode())
