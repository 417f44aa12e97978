"""Multi-gate mixture of experts: the tasks share experts and each mixes them by a gate of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nsclc_mtl.fusion import gates
from nsclc_mtl.fusion.interactions import Interactions
from nsclc_mtl.fusion.joining import FlatFusion
from nsclc_mtl.records import Embedding, UsageFault


class Experts(FlatFusion):
    """Multi-gate mixture of experts (Ma et al., KDD 2018) over the joined embeddings.

    Every gate sees the joined embeddings, so that it can route by what a patient has. Differs from the paper in the
    experts, which are linear, in masked inputs, in gates that may use the k largest experts alone (Shazeer et al., ICLR
    2017), and in the interactions of modalities that are added to each view.

    Args:
        modalities, tasks: their names. dim: size of an embedding. experts: how many. width: of an expert and a view.
        factors: of each modality, whose products are the interactions; 0 = none. gain: see `Interactions`.
        sparsity: weight of the interactions' penalty in the training loss.
        top_k: experts that a gate uses for a patient; None = all. noise: SD of what is added to the gates' logits in
            training, so that experts near the k-th are tried too. load_balance: weight of the loss that keeps experts
            in use; few experts of a large number need it. See `gates`.
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
        top_k: int | None = None,
        noise: float = 0.0,
        load_balance: float = 0.0,
        dropout: float = 0.25,
        modality_dropout: float = 0.1,
    ) -> None:
        super().__init__(modalities, tasks, dim, width, modality_dropout)
        inside = self.joined_dim
        self.experts = nn.ModuleList(
            [nn.Sequential(nn.Linear(inside, width), nn.Dropout(dropout)) for _ in range(experts)]
        )
        self.gates = nn.ModuleDict({task: nn.Linear(inside, experts) for task in self.tasks})
        if top_k is not None and not 1 <= top_k <= experts:
            raise UsageFault(f"fusion.top_k={top_k}: a gate uses 1 to {experts} of fusion.experts={experts}")
        self.top_k, self.noise, self.load_balance, self.sparsity = top_k, noise, load_balance, sparsity
        pairs = factors and len(self.join.modalities) > 1
        self.interactions = (
            Interactions(self.tasks, len(self.join.modalities), dim, width, factors, gain) if pairs else None
        )

    def logits(self, joined: Tensor) -> dict[str, Tensor]:
        """What each gate says of each expert, [patient, expert] a task; with noise in training, where it is set."""
        said = {task: gate(joined) for task, gate in self.gates.items()}
        if self.training and self.noise:
            return {task: logits + self.noise * torch.randn_like(logits) for task, logits in said.items()}
        return said

    def weights(self, joined: Tensor) -> dict[str, Tensor]:
        """Weight of each expert, [patient, expert] a task; rows sum to one."""
        return {task: gates.top_k(logits, self.top_k) for task, logits in self.logits(joined).items()}

    def mixed(self, joined: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the experts make of the joined embeddings, mixed by these weights, [patient, width] a task."""
        made = torch.stack([expert(joined) for expert in self.experts], dim=1)  # [patient, expert, width]
        return {task: (weight[:, :, None] * made).sum(1) for task, weight in weights.items()}

    def views(self, joined: Tensor) -> dict[str, Tensor]:
        """What the experts make of the joined embeddings, mixed by each task's gate, [patient, width] a task."""
        return self.mixed(joined, self.weights(joined))

    def weighed(self, task: str) -> tuple[str, ...]:
        """The experts, by number."""
        return tuple(f"expert{i}" for i in range(len(self.experts)))

    def weights_of(self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weight of each expert, [patient, expert] a task; the interactions are added beside the experts."""
        return self.weights(self.join(seen, present)[0].flatten(1))

    def forward(
        self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One view [patient, view_dim] a task, and in training the losses of the gates and the interactions."""
        joined, used = self.join(seen, present)
        flat = joined.flatten(1)
        logits = self.logits(flat)
        weights = {task: gates.top_k(said, self.top_k) for task, said in logits.items()}
        views, losses = self.mixed(flat, weights), {}
        if self.training:
            self.notes = gates.notes(weights)
            if self.load_balance:
                losses["load_balance"] = self.load_balance * gates.imbalance(
                    torch.cat([said.softmax(1) for said in logits.values()]), torch.cat(list(weights.values()))
                )
        if self.interactions is None:
            return views, losses
        more = self.interactions(joined, used)
        if self.training:
            losses["interactions"] = self.sparsity * self.interactions.penalty()
        return {task: view + more[task] for task, view in views.items()}, losses
