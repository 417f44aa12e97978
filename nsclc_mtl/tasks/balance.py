"""Balance: how the losses of several tasks become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class Sum(nn.Module):
    """Weighted sum; tasks that are not named weigh 1."""

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.weights = {task: float((weights or {}).get(task, 1.0)) for task in tasks}

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """One number."""
        return torch.stack([self.weights[task] * loss for task, loss in losses.items()]).sum()


class Uncertainty(nn.Module):
    """Weights by learned noise, exp(-s) * loss + s / 2 (Kendall, Gal and Cipolla, CVPR 2018); s starts at 0."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.log_variance = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in tasks})

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """One number."""
        terms = [(-self.log_variance[task]).exp() * loss + self.log_variance[task] / 2 for task, loss in losses.items()]
        return torch.stack(terms).sum()
