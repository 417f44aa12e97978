"""Ordered classes: three heads that say how probable it is to lie above each cut between them.

`Ordinal` learns one score and cuts in order, `Coral` one score and free biases, `Corn` the probability of each next
class among those who have reached the one before. Whatever was learned, P(above a cut) never rises with the cut.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.tasks.classes import ClassTask
from nsclc_mtl.tasks.running import running_sum
from nsclc_mtl.tasks.task import log_odds, set_bias, small_linear


class Graded(ClassTask):
    """What the ordinal heads share. Their raw outputs are numbers a cut, [patient, class - 1], higher = above it."""

    @abstractmethod
    def above(self, raw: Tensor) -> Tensor:
        """P(above each cut), [patient, class - 1], never rising from cut to cut."""

    def probability(self, raw: Tensor) -> Tensor:
        """Probability of every class: differences of P(above a cut)."""
        above = self.above(raw)
        one, zero = torch.ones_like(above[:, :1]), torch.zeros_like(above[:, :1])
        edges = torch.cat([one, above, zero], dim=1)
        return (edges[:, :-1] - edges[:, 1:]).clamp(min=0)

    def score(self, raw: Tensor) -> Tensor:
        """Expected class number."""
        return self.above(raw).sum(1)

    def _base_rates(self) -> Tensor:
        """Log odds of lying above each cut when nothing is known of a patient, [class - 1]."""
        below = np.cumsum(self.seen)[:-1]
        return torch.tensor([-log_odds(share) for share in below], dtype=torch.float32)


def _beyond(value: Tensor, cuts: int, like: Tensor) -> Tensor:
    """1 where the class lies above the cut, [patient, cut]."""
    return (value[:, None] > torch.arange(cuts, device=value.device)).to(like.dtype)


class Ordinal(Graded):
    """Ordered classes by cumulative logits: one score, cut points in order, P(above a cut) = sigmoid(score - cut).

    The form is that of proportional odds (McCullagh, JRSS B, 1980), but the loss is not its likelihood: it is the
    binary cross-entropy of lying above each cut, averaged over the cuts, i.e. the all-threshold loss with a logistic
    penalty (Rennie and Srebro, IJCAI workshop on advances in preference handling, 2005).
    """

    def __init__(
        self,
        spec: TaskSpec,
        view_dim: int,
        state: Mapping[str, Any],
        after: Mapping[str, int] | None = None,
        weights: str | Mapping[str, Any] = "none",
        prevalence: str | Mapping[str, Any] = "training",
    ) -> None:
        super().__init__(spec, view_dim, state, after, weights, prevalence)
        self.linear = small_linear(self.read_dim, 1)
        cuts = -self._base_rates()
        self.first = nn.Parameter(cuts[:1].clone())
        self.gaps = nn.Parameter(torch.log(torch.expm1(cuts.diff().clamp(min=0.05))))  # softplus keeps the order

    def cuts(self) -> Tensor:
        """Cut points on the scale of the score, rising, [class - 1]."""
        return torch.cat([self.first, self.first + running_sum(functional.softplus(self.gaps), 0)])

    def head(self, view: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
        """Log odds of lying above each cut, [patient, class - 1]."""
        return self.linear(self.reads(view, earlier)) - self.cuts()

    def _each(self, raw: Tensor, value: Tensor) -> Tensor:
        # every cut is a yes or no of its own: finite however close two cuts lie, which the log of a difference is not
        above = _beyond(value, raw.shape[1], raw)
        return functional.binary_cross_entropy_with_logits(raw, above, reduction="none").mean(1)

    def above(self, raw: Tensor) -> Tensor:
        """P(above each cut), which falls because the cuts rise."""
        return raw.sigmoid()


class Coral(Graded):
    """Ordered classes by CORAL: weights shared by all cuts, a free bias for each, cross-entropies summed.

    Cao, Mirjalili and Raschka, "Rank consistent ordinal regression for neural networks" (Pattern Recognition Letters,
    2020), with all cuts of equal importance. At the minimum of the loss the biases are in order (their theorem 1); on
    the way there, or with few patients, they need not be: here P(above a cut) is the least of those up to the cut, so
    that no class has a negative probability. The biases begin at the base rates instead of at zero.
    """

    def __init__(
        self,
        spec: TaskSpec,
        view_dim: int,
        state: Mapping[str, Any],
        after: Mapping[str, int] | None = None,
        weights: str | Mapping[str, Any] = "none",
        prevalence: str | Mapping[str, Any] = "training",
    ) -> None:
        super().__init__(spec, view_dim, state, after, weights, prevalence)
        self.linear = small_linear(self.read_dim, 1)
        self.biases = nn.Parameter(self._base_rates())

    def head(self, view: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
        """Log odds of lying above each cut, [patient, class - 1]."""
        return self.linear(self.reads(view, earlier)) + self.biases

    def _each(self, raw: Tensor, value: Tensor) -> Tensor:
        above = _beyond(value, raw.shape[1], raw)
        return functional.binary_cross_entropy_with_logits(raw, above, reduction="none").sum(1)

    def above(self, raw: Tensor) -> Tensor:
        """P(above each cut), the least of those up to it."""
        return raw.sigmoid().cummin(dim=1).values


class Corn(Graded):
    """Ordered classes by CORN: log odds of lying above each cut among those who lie above the one before.

    Shi, Cao and Raschka, "Deep neural networks for rank-consistent ordinal regression based on conditional
    probabilities" (Pattern Analysis and Applications, 2023; arXiv 2021). Every cut is taught by the patients who have
    reached it, the loss is the mean over all such pairs of patient and cut, and P(above a cut) is the product of the
    conditional probabilities up to it. Every cut has weights of its own, as there; with `proportional` they share one
    score, which small cohorts need (a continuation-ratio model). The biases begin at the base rates.
    """

    def __init__(
        self,
        spec: TaskSpec,
        view_dim: int,
        state: Mapping[str, Any],
        after: Mapping[str, int] | None = None,
        weights: str | Mapping[str, Any] = "none",
        prevalence: str | Mapping[str, Any] = "training",
        proportional: bool = False,
    ) -> None:
        super().__init__(spec, view_dim, state, after, weights, prevalence)
        cuts = len(spec.classes) - 1
        self.linear = small_linear(self.read_dim, 1 if proportional else cuts)
        set_bias(self.linear, [0.0] * self.linear.out_features)
        reached = 1 - np.cumsum([0.0, *self.seen])[:cuts]  # share of the patients who have reached each cut
        beyond = 1 - np.cumsum(self.seen)[:cuts]
        odds = [log_odds(b / r if r > 1e-9 else 0.5) for b, r in zip(beyond, reached, strict=True)]
        self.biases = nn.Parameter(torch.tensor(odds, dtype=torch.float32))

    def head(self, view: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
        """Log odds of lying above each cut among those above the one before, [patient, class - 1]."""
        return self.linear(self.reads(view, earlier)) + self.biases

    def _loss(self, raw: Tensor, value: Tensor, event: Tensor | None) -> Tensor:
        reached = (value[:, None] >= torch.arange(raw.shape[1], device=raw.device)).to(raw.dtype)
        return (self._each(raw, value) * self.weight[value.long()]).sum() / reached.sum()

    def _each(self, raw: Tensor, value: Tensor) -> Tensor:
        above = _beyond(value, raw.shape[1], raw)
        reached = (value[:, None] >= torch.arange(raw.shape[1], device=raw.device)).to(raw.dtype)
        return (functional.binary_cross_entropy_with_logits(raw, above, reduction="none") * reached).sum(1)

    def above(self, raw: Tensor) -> Tensor:
        """P(above each cut): the conditional probabilities multiplied up to it."""
        return running_sum(functional.logsigmoid(raw), 1).exp()
