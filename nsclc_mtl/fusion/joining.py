"""What every fusion shares: what is hidden in training, and embeddings side by side with a word for what is absent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from nsclc_mtl.records import Embedding


class Fusion(nn.Module, ABC):
    """Embeddings of the modalities become one view a task.

    In training each present modality is hidden with probability `modality_dropout` (never all of a patient's), so that
    the model meets parts of what its patients have, the smaller the more rarely. `notes` holds what the last training
    step is to log, by name, each one number.
    """

    def __init__(
        self, modalities: Sequence[str], tasks: Sequence[str], view_dim: int, modality_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.modalities, self.tasks, self.view_dim = tuple(modalities), tuple(tasks), view_dim
        self.modality_dropout = modality_dropout
        self.notes: dict[str, Tensor] = {}

    def hide(self, present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is used of what is `present`, bool [patient] a modality; outside of training all of it."""
        if not self.training or not self.modality_dropout:
            return dict(present)
        there = torch.stack([present[name] for name in self.modalities], dim=1)
        kept = there & (torch.rand(there.shape, device=there.device) >= self.modality_dropout)
        kept = torch.where(kept.any(1, keepdim=True), kept, there)
        return {**present, **{name: kept[:, i] for i, name in enumerate(self.modalities)}}

    def knows(self, have: Collection[str], patterns: Iterable[Collection[str]]) -> bool:
        """Whether the audit may ask about a patient of whom these modalities are shown; `patterns`: of the training.

        With modality dropout every part of a pattern has a chance to be met in training, without it the patterns alone;
        nothing at all never. What a new patient may have is asked more strictly: `predict.looked_at`.
        """
        if not have:
            return False
        wanted = frozenset(have)
        return any(wanted <= set(seen) if self.modality_dropout > 0 else wanted == set(seen) for seen in patterns)

    @abstractmethod
    def forward(
        self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One view [patient, view_dim] a task, and the fusion's own losses. Rows that are not present say nothing."""

    def weighed(self, task: str) -> tuple[str, ...]:
        """What `weights_of` weighs for the task, by name: modalities or experts; () where nothing is weighed."""
        return ()

    def weights_of(self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How much each of `weighed` counts in the view, task -> [patient, weighed], never negative; {} = no weights.

        A patient's weights of a task sum to one; over modalities they are zero for who has none.
        """
        return {}

    def tile_weights(self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Where the fusion itself looks in packed tokens, modality -> [tile], sums to one within a patient who has it.

        {} for a fusion that reads no tiles; the encoder's own attention stands in its embedding.
        """
        return {}


def zero_where_absent(
    modalities: Sequence[str], seen: Mapping[str, Embedding], present: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Embeddings [patient, modality, dim] with zeros where absent, whatever came in, and what is there, bool [patient,
    modality]."""
    used = torch.stack([present[name] for name in modalities], dim=1)
    rows = torch.stack([seen[name].vector for name in modalities], dim=1)
    return torch.where(used[:, :, None], rows, 0.0), used


def softmax_over_present(score: Tensor, used: Tensor) -> Tensor:
    """Softmax of the last axis over what is `used` (bool, same shape); exactly zero elsewhere and where nothing is.

    >>> softmax_over_present(torch.zeros(2, 3), torch.tensor([[True, True, False], [False, False, False]])).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    score = score.masked_fill(~used, -torch.inf)
    top = score.detach().amax(-1, keepdim=True).clamp(min=torch.finfo(score.dtype).min)
    weight = (score - top).exp()  # the largest is 1, so that the sum is at least 1 where anything is used
    return weight / weight.sum(-1, keepdim=True).clamp(min=1.0)


class Joining(nn.Module):
    """Embeddings next to each other, [patient, modality, dim]; an absent one is a learned token, whatever came in."""

    def __init__(self, modalities: Sequence[str], dim: int) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(dim)) for name in modalities})

    def forward(self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Joined embeddings [patient, modality, dim] and what was used of them, bool [patient, modality]."""
        used = torch.stack([present[name] for name in self.modalities], dim=1)
        rows = [
            torch.where(used[:, i, None], seen[name].vector, self.absent[name])
            for i, name in enumerate(self.modalities)
        ]
        return torch.stack(rows, dim=1), used


class FlatFusion(Fusion):
    """A fusion whose view of each task is made from the joined embeddings in one row a patient."""

    def __init__(
        self, modalities: Sequence[str], tasks: Sequence[str], dim: int, view_dim: int, modality_dropout: float
    ) -> None:
        super().__init__(modalities, tasks, view_dim, modality_dropout)
        self.join = Joining(modalities, dim)
        self.joined_dim = dim * len(self.modalities)

    @abstractmethod
    def views(self, joined: Tensor) -> dict[str, Tensor]:
        """The view of each task from what was joined, [patient, joined_dim]."""

    def forward(
        self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One view [patient, view_dim] a task, and no losses of its own."""
        joined, _ = self.join(seen, present)
        return self.views(joined.flatten(1)), {}
