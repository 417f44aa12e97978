"""Gene sets: each becomes a token made from its own genes, and a patient the attention-weighted mean of the tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nsclc_mtl.encoders.tabular import START
from nsclc_mtl.records import Embedding


class PathwayTokens(nn.Module):
    """A small self-normalising layer a gene set, then gated attention over the sets.

    Pathways as tokens are the idea of SurvPath (Jaume et al., CVPR 2024); gated attention is that of Ilse, Tomczak and
    Welling (ICML 2018). A gene that is in several sets takes part in each; one that is in none is not seen.

    Args:
        in_dim: columns of the table. dim: size of the embedding. groups: gene set -> positions of its columns.
        width: size of a token. dropout: of tokens. input_dropout: of columns, in training.
    """

    index: Tensor
    inside: Tensor

    def __init__(
        self,
        in_dim: int,
        dim: int,
        groups: Mapping[str, Sequence[int]],
        width: int = 8,
        dropout: float = 0.1,
        input_dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.token_dim = width
        self.pathways, most = tuple(groups), max(len(columns) for columns in groups.values())
        index = torch.full((len(groups), most), in_dim)  # the column behind the last one is zero
        for row, columns in zip(index, groups.values(), strict=True):
            row[: len(columns)] = torch.as_tensor(list(columns))
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("inside", (index < in_dim)[..., None], persistent=False)
        # variance 1 / fan-in keeps SELU activations at mean 0 and variance 1
        genes = self.inside.sum(dim=1, keepdim=True)
        self.weight = nn.Parameter(torch.randn(len(groups), most, width) * self.inside / genes.sqrt())
        self.bias = nn.Parameter(torch.zeros(len(groups) * width))
        self.name = nn.Parameter(torch.randn(len(groups), width) * START)  # tells attention which set it looks at
        self.drop, self.act = nn.Dropout(input_dropout), nn.Sequential(nn.SELU(), nn.AlphaDropout(dropout))
        self.content, self.gate, self.score = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 1)
        self.out = nn.Linear(width, dim)
        with torch.no_grad():
            self.out.weight.mul_(START)

    def forward(self, x: Tensor) -> Embedding:
        """Vector [patient, dim], tokens [patient, set, width] and attention [patient, set] of rows [patient, in_dim].

        The attention of a patient sums to one.
        """
        x = nn.functional.pad(self.drop(x), (0, 1))
        genes = x[:, self.index]  # [patient, set, gene]
        tokens = torch.einsum("psg,sgw->psw", genes, self.weight * self.inside)
        tokens = self.act(tokens + self.bias.view_as(self.name))
        named = tokens + self.name
        score = self.score(torch.tanh(self.content(named)) * torch.sigmoid(self.gate(named))).squeeze(-1)
        attention = score.softmax(dim=1)
        pooled = (named * attention[..., None]).sum(dim=1)
        return Embedding(self.out(pooled), tokens=tokens, attention=attention)
