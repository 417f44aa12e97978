"""Late fusion: every modality is judged alone, and the judgements are averaged over what a patient has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nsclc_mtl.fusion.joining import Fusion, zero_where_absent
from nsclc_mtl.records import Embedding


class Late(Fusion):
    """The mean, over the modalities present, of what each says of a task by maps of its own.

    Heads are linear in their view, so that the score of a task is exactly the mean of one score a modality, each from a
    linear head of that modality alone: the modalities never meet before it. They are trained together, on the loss of
    the mean score; models trained apart and averaged are runs with `modalities=[x]`.

    Args:
        modalities, tasks: their names. dim: size of an embedding. width: of a view; at least the outputs of a head.
        dropout: of what a modality says. modality_dropout: see `Fusion`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        tasks: Sequence[str],
        dim: int,
        width: int = 32,
        dropout: float = 0.25,
        modality_dropout: float = 0.1,
    ) -> None:
        super().__init__(modalities, tasks, width, modality_dropout)
        self.heads = nn.ModuleDict(
            {task: nn.ModuleList([nn.Linear(dim, width) for _ in self.modalities]) for task in self.tasks}
        )
        self.drop = nn.Dropout(dropout)

    def weighed(self, task: str) -> tuple[str, ...]:
        """The modalities."""
        return self.modalities

    def weights_of(self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One over the number of modalities that the patient has, [patient, modality], for every task."""
        _, used = zero_where_absent(self.modalities, seen, present)
        return dict.fromkeys(self.tasks, _shares(used))

    def forward(
        self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One view [patient, width] a task, and no losses of its own; zeros for a patient without any modality."""
        rows, used = zero_where_absent(self.modalities, seen, present)
        share = _shares(used)[:, :, None]
        views = {}
        for task, heads in self.heads.items():
            assert isinstance(heads, nn.ModuleList)
            said = torch.stack([head(x) for head, x in zip(heads, rows.unbind(1), strict=True)], dim=1)
            views[task] = (share * self.drop(said)).sum(1)
        return views, {}


def _shares(used: Tensor) -> Tensor:
    return used / used.sum(1, keepdim=True).clamp(min=1)
