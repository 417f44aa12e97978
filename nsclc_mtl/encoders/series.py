"""Repeated visits at irregular times become one vector a patient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nsclc_mtl.encoders.segments import owners, segment_softmax, segment_sum
from nsclc_mtl.records import Embedding, Series

START = 0.1  # size of the last layer's first weights, in the usual ones: see `tabular.MLP`
STEEPEST = 3.0  # steepness of the outermost heads at the start, per SD of the visits' days


class TimeAttention(nn.Module):
    """Attention over visits, several heads, each leaning to early or to late visits.

    A head's weight of a visit is the softmax of `steepness * time` plus a gated score of its content (as the attention
    of Ilse et al. 2018); what it pools of a column are the visits at which that column was measured. The heads begin
    evenly spread from the first visits to the last, so that their differences are courses over time; the steepness is
    learned. Irregular times need no grid, the number of visits no padding, and a blank cell is no value, not a zero
    (compare GRU-D, Che et al., Sci Rep 2018, which decays towards the mean instead). The plain mean of a column is its
    level; what the heads tell is how far they lie from it, in the spread that the column has within a patient.

    Args:
        in_dim: columns of a visit. dim: size of the embedding. heads: of the attention. hidden: width of the gate.
        within: spread of every column within a patient, in the units of the values; None = 1.
        dropout: of the pooled values, in training.
    """

    within: Tensor

    def __init__(
        self,
        in_dim: int,
        dim: int,
        heads: int = 4,
        hidden: int = 16,
        dropout: float = 0.1,
        within: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("within", torch.tensor(within) if within else torch.ones(in_dim))
        self.heads = heads
        self.steepness = nn.Parameter(torch.linspace(-STEEPEST, STEEPEST, heads) if heads > 1 else torch.zeros(1))
        self.content, self.gate = nn.Linear(2 * in_dim + 1, hidden), nn.Linear(2 * in_dim + 1, hidden)
        self.score = nn.Linear(hidden, heads)
        last = nn.Linear((heads + 2) * in_dim, dim)
        with torch.no_grad():
            self.score.weight.mul_(START)
            last.weight.mul_(START)
        self.out = nn.Sequential(nn.Dropout(dropout), last)

    def forward(self, visits: Series) -> Embedding:
        """Vector [patient, dim], and the mean attention of the heads [visit]; who has no visit gets the bias alone."""
        n, owner = len(visits.offsets) - 1, owners(visits.offsets)
        seen = torch.cat([visits.values, visits.measured, visits.time[:, None]], dim=1)
        score = self.score(torch.tanh(self.content(seen)) * torch.sigmoid(self.gate(seen)))
        score = score + self.steepness * visits.time[:, None]
        steps = range(self.heads)
        level = _mean(torch.zeros_like(visits.time), visits.values, visits.measured, owner, n)
        pooled = [_mean(score[:, head], visits.values, visits.measured, owner, n) for head in steps]
        course = [(head - level) / self.within for head in pooled]
        ever = segment_sum(visits.measured, owner, n).clamp(max=1.0)
        weight = torch.stack([segment_softmax(score[:, head], owner, n) for head in steps]).mean(0)
        return Embedding(self.out(torch.cat([level, *course, ever], dim=1)), attention=weight)


def _mean(score: Tensor, values: Tensor, measured: Tensor, owner: Tensor, n: int) -> Tensor:
    """Mean of every column, [patient, column], weighted by the softmax of the scores [visit] of those visits at which
    the column was measured; 0 where it never was."""
    visit, column = torch.nonzero(measured, as_tuple=True)
    slot, slots = owner[visit] * values.shape[1] + column, n * values.shape[1]
    weight = segment_softmax(score[visit], slot, slots)
    return segment_sum((weight * values[visit, column])[:, None], slot, slots).view(n, values.shape[1])
