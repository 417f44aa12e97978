"""Repeated visits at irregular times, read one after the other (GRU) or all at once (transformer)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nsclc_mtl.encoders.mil import owners
from nsclc_mtl.encoders.tabular import START
from nsclc_mtl.encoders.transformer import Block, of_the_others
from nsclc_mtl.records import Embedding, Series, UsageFault


@dataclass
class Laid:
    """Visits of the patients who have some, side by side in the order of time; behind the last stands filler."""

    values: Tensor  # float [row, visit, column], 0 where not measured
    measured: Tensor  # float [row, visit, column]
    time: Tensor  # float [row, visit], scaled
    there: Tensor  # bool [row, visit]
    patient: Tensor  # int64 [row]: who it is in the batch
    row: Tensor  # int64 [visit of the series]: where each visit of the series stands: its row,
    place: Tensor  # int64 [visit of the series]: and its number in time

    @classmethod
    def of(cls, visits: Series) -> Laid:
        """The visits of a packed series, whatever the order of a patient's rows in it."""
        owner, sizes = owners(visits.offsets), visits.offsets.diff()
        patient = torch.nonzero(sizes)[:, 0]
        order = torch.argsort(visits.time, stable=True)
        order = order[torch.argsort(owner[order], stable=True)]  # by patient, each in the order of time
        number = torch.arange(len(owner), device=owner.device) - visits.offsets[owner]
        place = torch.empty_like(number).index_copy(0, order, number)
        row = (torch.cumsum((sizes > 0).long(), 0) - 1)[owner]
        shape = (len(patient), int(sizes.max()) if len(patient) else 0)
        lay = lambda x: x.new_zeros(*shape, *x.shape[1:]).index_put((row, place), x)  # noqa: E731
        there = lay(torch.ones_like(visits.time)) > 0
        return cls(
            lay(visits.values * visits.measured), lay(visits.measured), lay(visits.time), there, patient, row, place
        )

    def ages(self) -> tuple[Tensor, Tensor]:
        """Time since the visit before, [row, visit], and since each column was last measured, [row, visit, column].

        0 at the first visit; a column that was never measured is as old as the first visit (Che et al. 2018).
        """
        before = torch.cat([self.time[:, :1], self.time[:, :-1]], dim=1)
        known = torch.where(self.measured > 0, self.time[..., None], -torch.inf).cummax(dim=1).values
        last = torch.cat([torch.full_like(known[:, :1], -torch.inf), known[:, :-1]], dim=1)
        last = torch.maximum(last, self.time[:, :1, None])
        gap, age = self.time - before, self.time[..., None] - last
        return gap * self.there, age * self.there[..., None]

    def levels(self) -> tuple[Tensor, Tensor]:
        """Each patient's mean of every column, 0 where never measured; and 1 where ever, else 0. [row, column] both."""
        count = self.measured.sum(1)
        return self.values.sum(1) / count.clamp(min=1.0), count.clamp(max=1.0)

    def courses(self, within: Tensor) -> Tensor:
        """How far values lie from the patient's mean, in the spread within a patient; 0 where not measured."""
        return (self.values - self.levels()[0][:, None]) * self.measured / within

    def back(self, rows: Tensor, patients: int) -> Tensor:
        """Rows [row, width] at their patients, [patient, width]; zeros for who has no visit."""
        return rows.new_zeros(patients, rows.shape[1]).index_copy(0, self.patient, rows)


def _last(width: int, dim: int, dropout: float) -> nn.Sequential:
    last = nn.Linear(width, dim)
    with torch.no_grad():
        last.weight.mul_(START)  # see `tabular.MLP`
    return nn.Sequential(nn.Dropout(dropout), last)


class VisitGRU(nn.Module):
    """A gated recurrent unit over the visits, which is told when each was and how old every value is.

    A visit comes in as its values, which of them were measured, its time, the time since the visit before, and the time
    since each column was last measured: "GRU-simple" of Che et al. (Sci Rep 2018), with the times beside the intervals.
    What differs: values come in as what they lie above the patient's own mean (0 where there is none), in the spread
    that the column has within a patient, and the mean goes past the unit to the last layer, so that a few dozen
    patients show a course. In their GRU-D a missing value decays from the last one to the mean, and the state to zero,
    at learned rates; here the unit itself learns what an old value is worth.

    Args:
        in_dim: columns of a visit. dim: size of the embedding. hidden: of the state. dropout: of the last state, in
            training. within: spread of every column within a patient, in the units of the values; None = 1.
    """

    within: Tensor

    def __init__(
        self, in_dim: int, dim: int, hidden: int = 16, dropout: float = 0.1, within: list[float] | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("within", torch.tensor(within) if within else torch.ones(in_dim))
        self.unit = nn.GRU(3 * in_dim + 2, hidden, batch_first=True)
        self.out = _last(hidden + 2 * in_dim, dim, dropout)

    def forward(self, visits: Series) -> Embedding:
        """Vector [patient, dim], from the state after the last visit; who has no visit gets the bias alone."""
        laid, n = Laid.of(visits), len(visits.offsets) - 1
        state = visits.values.new_zeros(n, self.unit.hidden_size + 2 * len(self.within))
        if len(laid.patient):
            gap, age = laid.ages()
            times = torch.stack([laid.time, gap], dim=-1)
            seen = torch.cat([laid.courses(self.within), laid.measured, age, times], dim=-1)
            states, _ = self.unit(seen)  # causal: filler behind the last visit reaches no state before it
            count = laid.there.sum(1)
            last = states[torch.arange(len(count), device=count.device), count - 1]
            state = laid.back(torch.cat([last, *laid.levels()], dim=1), n)
        return Embedding(self.out(state))


class VisitTransformer(nn.Module):
    """Attention among a patient's visits and a class token; when a visit was is a sine code added to it.

    The code is that of Vaswani et al. (NeurIPS 2017) with the time itself in the place of the position, as irregular
    visits need (compare Horn et al., ICML 2020): sines and cosines of `width` / 2 periods, geometrically from twice to
    twenty times the SD of the visits' days; shorter ones, tried down to a tenth, tell sparse visits apart by noise and
    found courses less well. Values and the patient's mean are taken as in `VisitGRU`.

    Args:
        in_dim: columns of a visit. dim: size of the embedding. width: of a token, even. depth: blocks. heads: of the
            attention. dropout: in the blocks and of the class token. within: as in `VisitGRU`.

    Raises UsageFault where the heads do not divide the width, or it is odd.
    """

    within: Tensor
    period: Tensor

    def __init__(
        self,
        in_dim: int,
        dim: int,
        width: int = 16,
        depth: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
        within: list[float] | None = None,
    ) -> None:
        super().__init__()
        if width % 2:
            raise UsageFault(f"width={width} must be even: half of the time code are sines, half cosines")
        self.register_buffer("within", torch.tensor(within) if within else torch.ones(in_dim))
        self.register_buffer("period", torch.logspace(math.log10(2), math.log10(20), width // 2), persistent=False)
        self.visit = nn.Linear(2 * in_dim, width)
        self.first = nn.Parameter(0.02 * torch.randn(1, 1, width))  # the class token
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(width), _last(width + 2 * in_dim, dim, dropout)

    def code(self, time: Tensor) -> Tensor:
        """Sines, then cosines, of times [...] (in SD): [..., width]."""
        angle = 2 * torch.pi * time[..., None] / self.period
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def forward(self, visits: Series) -> Embedding:
        """Vector [patient, dim], and the class token's attention in the last block [visit], which sums to one within a
        patient; who has no visit gets the bias alone."""
        laid, n = Laid.of(visits), len(visits.offsets) - 1
        if not len(laid.patient):
            nothing = visits.values.new_zeros(n, len(self.period) * 2 + 2 * len(self.within))
            return Embedding(self.out(nothing), attention=visits.time)
        tokens = self.visit(torch.cat([laid.courses(self.within), laid.measured], dim=-1)) + self.code(laid.time)
        tokens = torch.cat([self.first.expand(len(tokens), 1, -1), tokens], dim=1)
        there = torch.cat([torch.ones_like(laid.there[:, :1]), laid.there], dim=1)
        attention = there.to(tokens.dtype)
        for block in self.blocks:
            tokens, attention = block(tokens, there)
        pooled = laid.back(torch.cat([self.norm(tokens[:, 0]), *laid.levels()], dim=1), n)
        return Embedding(self.out(pooled), attention=of_the_others(attention)[laid.row, laid.place])
