"""Concatenation: all embeddings side by side, one hidden layer, the same view for every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from nsclc_mtl.fusion.joining import Joining
from nsclc_mtl.records import Embedding


class Concat(nn.Module):
    """The plainest fusion; the one that others have to beat."""

    def __init__(
        self,
        modalities: Sequence[str],
        tasks: Sequence[str],
        dim: int,
        width: int = 64,
        dropout: float = 0.25,
        modality_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.tasks, self.view_dim = tuple(tasks), width
        self.join = Joining(modalities, dim, modality_dropout)
        self.layers = nn.Sequential(
            nn.Linear(dim * len(self.join.modalities), width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout)
        )

    def forward(
        self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One view [patient, width] a task (here the same), and no losses of its own."""
        joined, _ = self.join(seen, present)
        view = self.layers(joined.flatten(1))
        return dict.fromkeys(self.tasks, view), {}
