"""Balance: how the losses of several tasks become one. Here those that weigh losses; those that read gradients stand in
`gradients`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nsclc_mtl.records import UsageFault


class Balance(nn.Module, ABC):
    """The losses of the tasks become one number to minimise.

    A task that the batch tells nothing (`Task.informed`) is left out by the caller and takes no part: its zero would
    teach learned weights that it is easy. Outside of training every balance is `plain`, so that early stopping compares
    the epochs by one and the same measure. A single task weighs 1 whatever the balance, but for learned noise.

    Args:
        tasks: their names. `notes` holds the weight of each task in the last training step, for the log.
    """

    reads_gradients = False  # whether `balanced` wants the shared parameters, and costs a backward pass a task

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.notes: dict[str, Tensor] = {}

    def forward(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor] = ()) -> Tensor:
        """One number from the losses, 0-dim each. `shared`: the parameters that the tasks have in common (training)."""
        self.notes = {}
        return self.balanced(losses, shared) if self.training else self.plain(losses)

    def plain(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum of the losses; 0 where there is none."""
        return torch.stack(list(losses.values())).sum() if losses else torch.zeros(())

    @abstractmethod
    def balanced(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> Tensor:
        """The number that is minimised in training."""

    def epoch_ended(self, losses: Mapping[str, Tensor]) -> None:
        """Told at the end of every epoch of training: the mean loss of each task that was told something in it."""


class Sum(Balance):
    """Weighted sum, in training and outside of it; tasks that are not named weigh 1, and so does a task alone.

    Raises UsageFault where a weight is negative or not finite.
    """

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float] | None = None) -> None:
        super().__init__(tasks)
        for task, weight in (weights or {}).items():
            if not (math.isfinite(weight) and weight >= 0):
                raise UsageFault(f"balance.weights.{task}={weight} is no weight: give a number of at least 0")
        self.weights = {task: float((weights or {}).get(task, 1.0)) if len(tasks) > 1 else 1.0 for task in tasks}

    def plain(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum."""
        return super().plain({task: self.weights[task] * loss for task, loss in losses.items()})

    def balanced(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> Tensor:
        """The weighted sum."""
        return self.plain(losses)


class Uncertainty(Balance):
    """Weights by learned noise, exp(-s) * loss + s / 2 (Kendall, Gal and Cipolla, CVPR 2018); s starts at 0."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.log_variance = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in tasks})

    def balanced(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> Tensor:
        """The losses by their noise, with what the noise costs."""
        weights = {task: (-self.log_variance[task]).exp() for task in losses}
        self.notes = {task: weight.detach() for task, weight in weights.items()}
        return self.plain({task: weights[task] * loss + self.log_variance[task] / 2 for task, loss in losses.items()})


class DWA(Balance):
    """Dynamic weight average (Liu, Johns and Davison, CVPR 2019): tasks whose loss falls slowly weigh more.

    In epoch t task k weighs K exp(r_k / T) / sum_j exp(r_j / T), r_k = L_k(t - 1) / L_k(t - 2), with L the mean
    training loss of an epoch and K the number of tasks; 1 in the first two epochs. Here a task that lacks one of the
    two losses (told nothing in that epoch, or a loss of zero) has r = 1.

    Args:
        tasks: their names. temperature: T, the paper's 2; the larger, the more alike the weights.
    """

    weight: Tensor  # [task]
    means: Tensor  # [2, task]: the epoch before the last one, and the last one; NaN = not known

    def __init__(self, tasks: Sequence[str], temperature: float = 2.0) -> None:
        super().__init__(tasks)
        if not (math.isfinite(temperature) and temperature > 0):
            raise UsageFault(f"balance.temperature={temperature} divides: give a number above 0")
        self.temperature = temperature
        self.register_buffer("weight", torch.ones(len(self.tasks)))
        self.register_buffer("means", torch.full((2, len(self.tasks)), torch.nan))

    def balanced(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> Tensor:
        """The sum, weighted by what the last two epochs said."""
        self.notes = {task: self.weight[self.tasks.index(task)].clone() for task in losses}
        return self.plain({task: self.notes[task] * loss for task, loss in losses.items()})

    def epoch_ended(self, losses: Mapping[str, Tensor]) -> None:
        """The weights of the next epoch."""
        mean = torch.full_like(self.weight, torch.nan)
        for task, loss in losses.items():
            mean[self.tasks.index(task)] = loss
        mean = mean_over_ranks(mean, mean.isfinite())
        self.means.copy_(torch.stack([self.means[1], mean]))
        ratio = self.means[1] / self.means[0]
        ratio = torch.where(ratio.isfinite() & (ratio > 0), ratio, 1.0)
        self.weight.copy_(len(self.tasks) * (ratio / self.temperature).softmax(0))


def mean_over_ranks(values: Tensor, known: Tensor) -> Tensor:
    """Mean of the values [n] over the processes in which they are `known`, bool [n]; NaN where they are in none.

    Every process of a distributed training must call it, and all get the same.
    """
    both = torch.stack([torch.where(known, values, 0.0), known.to(values.dtype)])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(both)
    return both[0] / both[1]  # 0 / 0 is NaN
