"""Transformers over few tokens: the block that they share, and tables with a token a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nsclc_mtl.encoders.tabular import START
from nsclc_mtl.records import Embedding, UsageFault


class Block(nn.Module):
    """Attention and a gated feed-forward part, each a residual one after layer norm (Vaswani et al., NeurIPS 2017; the
    norm first as in Xiong et al., ICML 2020; ReGLU of Shazeer, 2020).

    Args:
        width: of tokens. heads: of the attention. dropout: of what either part adds, and of the attention's weights.
        norm: layer norm before the attention; the first block over raw tokens does better without (Gorishniy et al.).

    Raises UsageFault where the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int = 4, dropout: float = 0.1, norm: bool = True) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise UsageFault(f"width={width} must be a multiple of heads={heads}")
        self.heads, self.inside = heads, round(width * 4 / 3)  # as many weights as a plain part of twice the width
        self.before = nn.LayerNorm(width) if norm else nn.Identity()
        self.ask, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.then = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * self.inside), nn.Linear(self.inside, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, there: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens [row, token, width] of such; and the attention of the first token, mean of the heads, [row, token].

        `there`, bool [row, token], says which tokens there are; the others are looked at by none. None = all.
        """
        rows, count, width = tokens.shape
        parts = self.ask(self.before(tokens)).view(rows, count, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # [row, head, token, width of a head] each
        score = query @ key.transpose(-1, -2) / (width // self.heads) ** 0.5
        if there is not None:
            score = score.masked_fill(~there[:, None, None, :], -torch.inf)
        weight = score.softmax(-1)
        pooled = (self.drop(weight) @ value).transpose(1, 2).reshape(rows, count, width)
        tokens = tokens + self.drop(self.out(pooled))
        gate, content = self.wide(self.then(tokens)).chunk(2, dim=-1)
        return tokens + self.drop(self.narrow(functional.relu(gate) * content)), weight[:, :, 0].mean(1)


def of_the_others(attention: Tensor) -> Tensor:
    """The first token's attention [row, token] to the tokens behind it, [row, token - 1]; sums to one."""
    others = attention[:, 1:]
    return others / others.sum(1, keepdim=True).clamp(min=torch.finfo(others.dtype).tiny)


class FTTransformer(nn.Module):
    """A token a column of the table, a class token, and attention among them (Gorishniy et al., NeurIPS 2021).

    A number's token is its value times a vector, plus a bias; a category's is the vector of its value, plus a bias. The
    table comes in as numbers, one-hot groups and indicators of missing values, so that both are one sum over the
    columns that came from the same one: a category that training does not know is the bias alone, and an indicator adds
    a vector to the token of its column. What else differs from the paper: the layers are few and narrow (a cohort has
    hundreds of patients, not their ten thousand), the hidden width is 4/3 in both blocks' gated parts alike, and the
    last linear map starts small (see `tabular.MLP`).

    Args:
        in_dim: columns of the encoded table. dim: size of the embedding.
        columns: column of the table -> positions of what was made of it; None = each position is a column.
        width: of a token. depth: blocks. heads: of the attention. dropout: in the blocks and of the class token.
    """

    member: Tensor

    def __init__(
        self,
        in_dim: int,
        dim: int,
        columns: Mapping[str, Sequence[int]] | None = None,
        width: int = 16,
        depth: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        columns = columns if columns is not None else {str(i): [i] for i in range(in_dim)}
        placed = sorted(place for places in columns.values() for place in places)
        if placed != list(range(in_dim)):
            raise ValueError(f"the positions of {len(columns)} columns are not 0 to {in_dim - 1}, each once")
        self.token_dim, self.columns = width, tuple(columns)
        member = torch.zeros(len(columns), in_dim)
        for row, places in zip(member, columns.values(), strict=True):
            row[list(places)] = 1.0
        self.register_buffer("member", member, persistent=False)
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(in_dim, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(len(columns), width).uniform_(-bound, bound))
        self.first = nn.Parameter(torch.empty(1, width).uniform_(-bound, bound))  # the class token
        self.blocks = nn.ModuleList(Block(width, heads, dropout, norm=i > 0) for i in range(depth))
        last = nn.Linear(width, dim)
        with torch.no_grad():
            last.weight.mul_(START)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Dropout(dropout), last)

    def forward(self, x: Tensor) -> Embedding:
        """Vector [patient, dim], tokens [patient, column, width] and attention [patient, column] of rows [patient,
        in_dim].

        The attention is that of the class token in the last block, and sums to one over the columns.
        """
        tokens = torch.einsum("pi,ti,iw->ptw", x, self.member, self.weight) + self.bias
        tokens = torch.cat([self.first.expand(len(x), 1, -1), tokens], dim=1)
        attention = tokens.new_full(tokens.shape[:2], 1.0)
        for block in self.blocks:
            tokens, attention = block(tokens)
        return Embedding(self.out(tokens[:, 0]), tokens=tokens[:, 1:], attention=of_the_others(attention))
