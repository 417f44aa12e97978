"""Multi-gate mixture of experts: the tasks share experts and each mixes them by a gate of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nsclc_mtl.fusion.interactions import Interactions
from nsclc_mtl.fusion.joining import FlatFusion
from nsclc_mtl.records import Embedding


class Experts(FlatFusion):
    """Multi-gate mixture of experts (Ma et al., KDD 2018) over the joined embeddings.

    Every gate sees the joined embeddings, so that it can route by what a patient has. Differs from the paper in the
    experts, which are linear, in masked inputs, and in the interactions of modalities that are added to each view.

    Args:
        modalities, tasks: their names. dim: size of an embedding. experts: how many. width: of an expert and a view.
        factors: of each modality, whose products are the interactions; 0 = none. gain: see `Interactions`.
        sparsity: weight of the interactions' penalty in the training loss.
        dropout: of an expert's output. modality_dropout: see `Fusion`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        tasks: Sequence[str],
        dim: int,
        experts: int = 4,
        width: int = 32,
        factors: int = 3,
        gain: float = 6.0,
        sparsity: float = 0.006,
        dropout: float = 0.25,
        modality_dropout: float = 0.1,
    ) -> None:
        super().__init__(modalities, tasks, dim, width, modality_dropout)
        inside = self.joined_dim
        self.experts = nn.ModuleList(
            [nn.Sequential(nn.Linear(inside, width), nn.Dropout(dropout)) for _ in range(experts)]
        )
        self.gates = nn.ModuleDict({task: nn.Linear(inside, experts) for task in self.tasks})
        self.sparsity = sparsity
        pairs = factors and len(self.join.modalities) > 1
        self.interactions = (
            Interactions(self.tasks, len(self.join.modalities), dim, width, factors, gain) if pairs else None
        )

    def weights(self, joined: Tensor) -> dict[str, Tensor]:
        """Weight of each expert, [patient, expert] a task; rows sum to one."""
        return {task: gate(joined).softmax(1) for task, gate in self.gates.items()}

    def views(self, joined: Tensor) -> dict[str, Tensor]:
        """What the experts make of the joined embeddings, mixed by each task's gate, [patient, width] a task."""
        made = torch.stack([expert(joined) for expert in self.experts], dim=1)  # [patient, expert, width]
        return {task: (weight[:, :, None] * made).sum(1) for task, weight in self.weights(joined).items()}

    def forward(
        self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One view [patient, view_dim] a task, and in training the penalty of the interactions' weights."""
        joined, used = self.join(seen, present)
        views = self.views(joined.flatten(1))
        if self.interactions is None:
            return views, {}
        more = self.interactions(joined, used)
        losses = {"interactions": self.sparsity * self.interactions.penalty()} if self.training else {}
        return {task: view + more[task] for task, view in views.items()}, losses
