"""Concatenation: all embeddings side by side, one hidden layer, the same view for every task."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nsclc_mtl.fusion.joining import FlatFusion


class Concat(FlatFusion):
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
        super().__init__(modalities, tasks, dim, width, modality_dropout)
        self.layers = nn.Sequential(
            nn.Linear(self.joined_dim, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout)
        )

    def views(self, joined: Tensor) -> dict[str, Tensor]:
        """The same view [patient, width] for every task."""
        return dict.fromkeys(self.tasks, self.layers(joined))
