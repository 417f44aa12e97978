"""What every fusion starts with: the embeddings side by side, with a learned word for what is not there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nsclc_mtl.records import Embedding


class Joining(nn.Module):
    """Embeddings next to each other, [patient, modality, dim]; an absent one is a learned token, whatever came in.

    In training each present modality is hidden with probability `modality_dropout` (never all of a patient's), so that
    the model knows every combination that it may meet.
    """

    def __init__(self, modalities: Sequence[str], dim: int, modality_dropout: float = 0.0) -> None:
        super().__init__()
        self.modalities, self.modality_dropout = tuple(modalities), modality_dropout
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(dim)) for name in modalities})

    def forward(self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Joined embeddings [patient, modality, dim] and what was used of them, bool [patient, modality]."""
        used = torch.stack([present[name] for name in self.modalities], dim=1)
        if self.training and self.modality_dropout:
            used = self._hide(used)
        rows = [
            torch.where(used[:, i, None], seen[name].vector, self.absent[name])
            for i, name in enumerate(self.modalities)
        ]
        return torch.stack(rows, dim=1), used

    def _hide(self, used: Tensor) -> Tensor:
        kept = used & (torch.rand(used.shape, device=used.device) >= self.modality_dropout)
        return torch.where(kept.any(1, keepdim=True), kept, used)


class FlatFusion(nn.Module, ABC):
    """A fusion whose view of each task is made from the joined embeddings in one row a patient."""

    def __init__(
        self, modalities: Sequence[str], tasks: Sequence[str], dim: int, view_dim: int, modality_dropout: float
    ) -> None:
        super().__init__()
        self.tasks, self.view_dim = tuple(tasks), view_dim
        self.join = Joining(modalities, dim, modality_dropout)
        self.joined_dim = dim * len(self.join.modalities)

    @abstractmethod
    def views(self, joined: Tensor) -> dict[str, Tensor]:
        """The view of each task from what was joined, [patient, joined_dim]."""

    def forward(
        self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One view [patient, view_dim] a task, and no losses of its own."""
        joined, _ = self.join(seen, present)
        return self.views(joined.flatten(1)), {}
