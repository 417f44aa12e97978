"""DeepHit: the distribution of time and cause at once, by likelihood and by ranking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from nsclc_mtl.records import TaskSpec, UsageFault
from nsclc_mtl.tasks.bins import (
    DAYS_PER_YEAR,
    HORIZONS_DAYS,
    BinnedSurvival,
    areas,
    fit_edges,
    hazards_of,
    log_survival,
    logits_of,
    placed,
    pycox_loss,
    whole_bins,
)
from nsclc_mtl.tasks.pmf import LEAST
from nsclc_mtl.tasks.running import running_sum
from nsclc_mtl.tasks.task import log_odds


class DeepHit(BinnedSurvival):
    """Probabilities of every bin and cause by one softmax, for one cause or for competing ones (Lee et al., AAAI 2018).

    The loss is `alpha` times minus the mean log likelihood plus 1 - `alpha` times the ranking loss: for every pair
    whose order is known, exp((F_j - F_i) / sigma), F the probability of the event (of that cause) up to the bin in
    which i had it and j was still free of it, summed over the pairs of the batch and divided by all n^2 of them. Both
    are pycox's; the likelihood is in double precision. Unlike in the paper the causes share their layers up to the last
    one, and it has no residual connection from the inputs.

    With competing causes the risk is that of the first one: the restricted mean time lost to it (Andersen, Statistics
    in Medicine, 2013) minus the span up to the last edge, in years, which for one cause is minus the restricted mean
    survival time. `surv:<days>` is free of any event, `cif:<cause>:<days>` is the cumulative incidence.

    Raises UsageFault where `alpha` is not within 0 and 1 or `sigma` is not above 0.
    """

    competing = True

    def __init__(
        self,
        spec: TaskSpec,
        view_dim: int,
        state: Mapping[str, Any],
        after: Mapping[str, int] | None = None,
        alpha: float = 0.2,
        sigma: float = 0.1,
    ) -> None:
        causes = max(1, len(spec.causes))
        super().__init__(spec, view_dim, state, after, causes * len(state["cuts"]))
        self.causes, self.alpha, self.sigma = causes, alpha, sigma
        if not 0 <= alpha <= 1 or not sigma > 0:
            raise UsageFault(f"task {spec.name}: alpha={alpha} is to lie within 0 and 1, and sigma={sigma} above 0")

    @classmethod
    def fit(cls, spec: TaskSpec, value: np.ndarray, event: np.ndarray, *, bins: int = 10) -> dict[str, Any]:
        """Right edges of the bins (quantiles of the times of all events, days) and the logits that fit everybody best.

        `event`: 0 = censored, 1, 2, ... = cause. Raises NoEvents where fewer than two training patients had any event.
        """
        edges = fit_edges(spec, value, event, bins)
        at, happens = whole_bins(*(torch.as_tensor(np.asarray(x, np.float32)) for x in (edges, value, event)))
        number, cause = at.numpy(), happens.numpy()
        causes = np.arange(1, max(1, len(spec.causes)) + 1)
        log_odds_of = np.zeros((len(causes), len(edges)))
        for j in range(len(edges)):
            had = np.array([((number == j) & (cause == c)).sum() for c in causes])
            free = (number >= j).sum() - had.sum()
            log_odds_of[:, j] = [log_odds(n / max(1, n + free)) for n in had]  # against outliving the bin
        logits = logits_of(torch.tensor(log_odds_of)[None])[0]
        return {"cuts": edges.tolist(), "baseline": logits.flatten().tolist()}

    def _by_cause(self, raw: Tensor) -> Tensor:
        """The logits as [patient, cause, bin]."""
        return raw.reshape(len(raw), self.causes, len(self.edges))

    def hazard_log_odds(self, raw: Tensor) -> Tensor:
        """Log odds of any event in each bin among those who reach it, [patient, bin]."""
        return hazards_of(self._by_cause(raw)).logsumexp(1)

    def moved(self, raw: Tensor, by: Tensor) -> Tensor:
        """Raw outputs with the first cause's log odds in every bin, against outliving it, moved by [patient, 1]."""
        odds = hazards_of(self._by_cause(raw))
        return logits_of(torch.cat([odds[:, :1] + by[:, None], odds[:, 1:]], dim=1)).flatten(1)

    def _loss(self, raw: Tensor, value: Tensor, event: Tensor | None) -> Tensor:
        assert event is not None
        at, happens = whole_bins(self.edges, value, event)
        seen = at >= 0  # a censoring before the first edge has seen no whole bin and says nothing
        if not bool(seen.any()):
            return raw.sum() * 0.0
        logits, at, happens = self._by_cause(raw[seen]), at[seen], happens[seen]
        order = known_order(at, happens).to(torch.float32)
        if self.causes == 1:
            fit = pycox_loss("nll_pmf", logits[:, 0].double(), at, happens.double(), epsilon=LEAST)
            rank = pycox_loss("rank_loss_deephit_single", logits[:, 0].float(), at, happens, order, self.sigma)
        else:
            fit = pycox_loss("nll_pmf_cr", logits.double(), at, happens.long(), epsilon=LEAST)
            rank = pycox_loss("rank_loss_deephit_cr", logits.float(), at, happens.long(), order, self.sigma)
        return (self.alpha * fit.to(raw.dtype) + (1 - self.alpha) * rank).to(raw.dtype)

    def _informed(self, value: Tensor, event: Tensor | None) -> bool:
        """Whether somebody had an event or passed a whole bin; of ranking alone, whether a pair is in a known order."""
        assert event is not None
        at, happens = whole_bins(self.edges, value, event)
        seen = at >= 0
        return bool((seen if self.alpha else known_order(at[seen], happens[seen])).any())

    def incidence(self, raw: Tensor, days: list[float]) -> Tensor:
        """Cumulative incidence of each cause at these days, [patient, cause, day]; they sum to 1 - S(t)."""
        logits = self._by_cause(raw)
        hazard, share = softplus(self.hazard_log_odds(raw)), logits.softmax(1)
        ends = log_survival(self.edges, hazard, self.edges.tolist()).exp()
        begins = torch.cat([torch.ones_like(ends[:, :1]), ends[:, :-1]], dim=1)
        whole = running_sum(share * (begins - ends)[:, None], 2)
        before = torch.cat([torch.zeros_like(whole[..., :1]), whole[..., :-1]], dim=2)
        at, _ = placed(self.edges, days)
        within = begins[:, at] - log_survival(self.edges, hazard, days).exp()
        return before[..., at] + share[..., at] * within[:, None]

    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """Risk, S(t), and with competing causes the cumulative incidence of each, at the horizons."""
        out = super().predict(raw)
        if self.causes > 1:
            curve = self.incidence(raw, list(HORIZONS_DAYS))
            for c, name in enumerate(self.spec.causes):
                out |= {f"cif:{name}:{days:g}": curve[:, c, i] for i, days in enumerate(HORIZONS_DAYS)}
        return out

    def score(self, raw: Tensor) -> Tensor:
        """Time lost to the first cause minus the whole span, in years; one cause: minus the restricted mean."""
        if self.causes == 1:
            return super().score(raw)
        hazard, share = softplus(self.hazard_log_odds(raw)), self._by_cause(raw).softmax(1)[:, 0]
        width = torch.cat([self.edges.new_zeros(1), self.edges]).diff()
        begins = torch.cat([torch.zeros_like(hazard[:, :1]), -running_sum(hazard[:, :-1], 1)], dim=1).exp()
        ends = begins * torch.exp(-hazard)
        whole = running_sum(share * (begins - ends), 1)
        before = torch.cat([torch.zeros_like(whole[:, :1]), whole[:, :-1]], dim=1)
        lost = (before + share * begins) * width - share * areas(self.edges, hazard)
        return (lost.sum(1) - self.edges[-1]) / DAYS_PER_YEAR


def known_order(at: Tensor, happens: Tensor) -> Tensor:
    """Which pairs are in a known order, bool [i, j]: i had an event while j was free of any, by their bins.

    Two events in one bin have no order; who was censored in the bin of another's event outlived it whole.
    """
    later = (at[None] > at[:, None]) | ((at[None] == at[:, None]) & (happens == 0)[None])
    return later & (happens > 0)[:, None]
