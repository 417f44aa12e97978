"""Progressive layered extraction: experts that all tasks share beside experts of one task alone, level upon level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nsclc_mtl.fusion import gates
from nsclc_mtl.fusion.joining import FlatFusion
from nsclc_mtl.records import Embedding


class Level(nn.Module):
    """One level of customised gate control: each task mixes its own experts with the shared ones.

    Args:
        tasks: their names. inside: size of what comes in. width: of what goes out. shared, own: number of experts of
            all tasks, and of each. dropout: of an expert's output. last: nothing reads what is shared after it, and the
            experts are linear, as the only ones of a single level.
    """

    def __init__(
        self, tasks: Sequence[str], inside: int, width: int, shared: int, own: int, dropout: float, last: bool
    ) -> None:
        super().__init__()

        def experts(number: int) -> nn.ModuleList:
            bend: list[nn.Module] = [] if last else [nn.GELU()]
            return nn.ModuleList(
                [nn.Sequential(nn.Linear(inside, width), *bend, nn.Dropout(dropout)) for _ in range(number)]
            )

        self.number_own = own
        self.own, self.shared = nn.ModuleDict({task: experts(own) for task in tasks}), experts(shared)
        self.gates = nn.ModuleDict({task: nn.Linear(inside, own + shared) for task in tasks})
        self.gate_of_all = None if last else nn.Linear(inside, own * len(tasks) + shared)

    def weights(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weight of each expert, a task's own first, [patient, own + shared] a task; rows sum to one."""
        return {task: gate(inputs[task]).softmax(1) for task, gate in self.gates.items()}

    def forward(
        self, inputs: Mapping[str, Tensor], of_all: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
        """What each task goes on with [patient, width], what all go on with, and the weights, from a row a task and the
        row of all."""
        made = {task: _stack(experts, inputs[task]) for task, experts in self.own.items()}
        common = _stack(self.shared, of_all)
        weights = self.weights(inputs)
        out = {
            task: (weight[:, :, None] * torch.cat([made[task], common], dim=1)).sum(1)
            for task, weight in weights.items()
        }
        if self.gate_of_all is not None:
            every = torch.cat([*made.values(), common], dim=1)
            of_all = (self.gate_of_all(of_all).softmax(1)[:, :, None] * every).sum(1)
        return out, of_all, weights


class ProgressiveExtraction(FlatFusion):
    """Progressive layered extraction (Tang et al., RecSys 2020) over the joined embeddings; one level is their CGC.

    Differs from the paper in the experts, which are one linear layer each (bent by a GELU below the last level), and in
    masked inputs: an absent modality is a learned token.

    Args:
        modalities, tasks: their names. dim: size of an embedding. levels: how many. shared, own: experts of all tasks,
            and of each, a level. width: of an expert and a view. dropout: of an expert's output.
        modality_dropout: see `Fusion`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        tasks: Sequence[str],
        dim: int,
        levels: int = 1,
        shared: int = 2,
        own: int = 1,
        width: int = 32,
        dropout: float = 0.25,
        modality_dropout: float = 0.1,
    ) -> None:
        super().__init__(modalities, tasks, dim, width, modality_dropout)
        self.levels = nn.ModuleList(
            [
                Level(self.tasks, width if i else self.joined_dim, width, shared, own, dropout, last=i == levels - 1)
                for i in range(levels)
            ]
        )

    def views(self, joined: Tensor) -> dict[str, Tensor]:
        """The view [patient, width] of each task from what was joined, [patient, joined_dim]."""
        views, weights = self._through(joined)
        if self.training:
            self.notes = {name: note for name, note in gates.notes(weights).items() if name.startswith("gate_entropy")}
        return views

    def _through(self, joined: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        views, of_all, weights = dict.fromkeys(self.tasks, joined), joined, {}
        for level in self.levels:
            views, of_all, weights = level(views, of_all)
        return views, weights

    def weighed(self, task: str) -> tuple[str, ...]:
        """The experts of the last level: the task's own by number, then the shared ones."""
        last = self.levels[-1]
        assert isinstance(last, Level)
        return (*(f"own{i}" for i in range(last.number_own)), *(f"shared{i}" for i in range(len(last.shared))))

    def weights_of(self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weight of each expert of the last level, [patient, own + shared] a task."""
        return self._through(self.join(seen, present)[0].flatten(1))[1]


def _stack(experts: nn.Module, row: Tensor) -> Tensor:
    assert isinstance(experts, nn.ModuleList)
    return torch.stack([expert(row) for expert in experts], dim=1)  # [patient, expert, width]
