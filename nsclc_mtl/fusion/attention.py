"""Gated attention over modalities: what each has to say, weighed patient by patient and task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nsclc_mtl.fusion.joining import Fusion, softmax_over_present, zero_where_absent
from nsclc_mtl.records import Embedding


class Attention(Fusion):
    """Weighted sum of what the present modalities say, with weights that can be traced.

    The weight of a modality is the softmax, over what the patient has, of a gated score of its embedding (Ilse, Tomczak
    and Welling, ICML 2018, with modalities in the place of tiles). It differs in that every modality has maps of its
    own, because embeddings of different modalities share no space, and in that every task weighs anew. The weighted
    mean is multiplied by the number of modalities present: evidence adds up, and who has one modality alone is not
    told with the confidence of five.

    Args:
        modalities, tasks: their names. dim: size of an embedding. width: of a view. hidden: of the gated score.
        per_task: every task weighs on its own; else all share the weights.
        dropout: of the views. modality_dropout: see `Fusion`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        tasks: Sequence[str],
        dim: int,
        width: int = 32,
        hidden: int = 16,
        per_task: bool = True,
        dropout: float = 0.25,
        modality_dropout: float = 0.1,
    ) -> None:
        super().__init__(modalities, tasks, width, modality_dropout)
        self.says = nn.ModuleList([nn.Linear(dim, width) for _ in self.modalities])
        self.content = nn.ModuleList([nn.Linear(dim, hidden) for _ in self.modalities])
        self.gate = nn.ModuleList([nn.Linear(dim, hidden) for _ in self.modalities])
        self.score = nn.Linear(hidden, len(self.tasks) if per_task else 1, bias=False)
        # how far a task trusts a modality whatever it says; one a (task, modality), flat so that it is not decayed
        self.trust = nn.Parameter(torch.zeros(self.score.out_features * len(self.modalities)))
        self.drop = nn.Dropout(dropout)

    def weighed(self, task: str) -> tuple[str, ...]:
        """The modalities."""
        return self.modalities

    def weights_of(self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Attention of each task over the modalities, [patient, modality]; sums to one over what is present."""
        return self._weights(*zero_where_absent(self.modalities, seen, present))

    def _weights(self, rows: Tensor, used: Tensor) -> dict[str, Tensor]:
        each = zip(self.content, self.gate, rows.unbind(1), strict=True)
        gated = torch.stack([torch.tanh(content(x)) * torch.sigmoid(gate(x)) for content, gate, x in each], dim=1)
        # [patient, task, modality]
        score = self.score(gated).transpose(1, 2) + self.trust.view(-1, len(self.modalities))
        weight = softmax_over_present(score, used[:, None].expand_as(score))
        return {task: weight[:, i if weight.shape[1] > 1 else 0] for i, task in enumerate(self.tasks)}

    def forward(
        self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One view [patient, width] a task, and no losses of its own; zeros for a patient without any modality."""
        rows, used = zero_where_absent(self.modalities, seen, present)
        said = torch.stack([say(x) for say, x in zip(self.says, rows.unbind(1), strict=True)], dim=1)
        said = said * used.sum(1)[:, None, None]
        weights = self._weights(rows, used)
        if self.training:
            for i, name in enumerate(self.modalities):
                self.notes[f"weight/{name}"] = torch.stack([w[:, i] for w in weights.values()]).detach().mean()
        return {task: self.drop((weight[:, :, None] * said).sum(1)) for task, weight in weights.items()}, {}
