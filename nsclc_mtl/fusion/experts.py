"""Multi-gate mixture of experts: the tasks share experts and each mixes them by a gate of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nsclc_mtl.fusion.joining import FlatFusion


class Expert(nn.Module):
    """One expert: a linear path, and the product of two others, so that interactions need no depth to be found.

    The product is the low-rank bilinear form of Kim et al. (ICLR 2017), here added to a linear path.
    """

    def __init__(self, in_dim: int, width: int, rank: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, width)
        self.left, self.right = nn.Linear(in_dim, rank), nn.Linear(in_dim, rank)
        self.product = nn.Linear(rank, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[patient, width] of [patient, in_dim]."""
        bilinear = torch.tanh(self.left(x)) * torch.tanh(self.right(x))
        return self.dropout(self.linear(x) + self.product(bilinear))


class Experts(FlatFusion):
    """Multi-gate mixture of experts (Ma et al., KDD 2018) over the joined embeddings.

    Every gate sees the joined embeddings, so that it can route by what a patient has. Differs from the paper in the
    experts (with a bilinear path) and in masked inputs.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        tasks: Sequence[str],
        dim: int,
        experts: int = 4,
        width: int = 32,
        rank: int = 16,
        dropout: float = 0.25,
        modality_dropout: float = 0.1,
    ) -> None:
        super().__init__(modalities, tasks, dim, width, modality_dropout)
        inside = self.joined_dim
        self.experts = nn.ModuleList([Expert(inside, width, rank, dropout) for _ in range(experts)])
        self.gates = nn.ModuleDict({task: nn.Linear(inside, experts) for task in self.tasks})

    def weights(self, joined: Tensor) -> dict[str, Tensor]:
        """Weight of each expert, [patient, expert] a task; rows sum to one."""
        return {task: gate(joined).softmax(1) for task, gate in self.gates.items()}

    def views(self, joined: Tensor) -> dict[str, Tensor]:
        """What the experts make of the joined embeddings, mixed by each task's gate, [patient, width] a task."""
        made = torch.stack([expert(joined) for expert in self.experts], dim=1)  # [patient, expert, width]
        return {task: (weight[:, :, None] * made).sum(1) for task, weight in self.weights(joined).items()}
