"""Survival as a probability of each bin of follow-up: the softmax heads PMF and MTLR."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.tasks.bins import BinnedSurvival, fit_edges, fit_hazards, hazards_of, logits_of, pycox_loss, whole_bins
from nsclc_mtl.tasks.running import running_sum

LEAST = 1e-12
"""What pycox adds to a probability before its logarithm. Its own 1e-7 would be felt by whoever has a small chance to be
alive; with the loss in double precision nothing as large is needed."""


class SoftmaxSurvival(BinnedSurvival):
    """A head whose softmax over the bins, and over outliving them all (logit 0), is the distribution of the time.

    An offset `moved` acts on the log odds of the hazard of every bin, as it does in the logistic hazard: later bins
    lose what earlier ones gain.
    """

    def __init__(
        self, spec: TaskSpec, view_dim: int, state: Mapping[str, Any], after: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(spec, view_dim, state, after, len(state["cuts"]))

    @classmethod
    def fit(cls, spec: TaskSpec, value: np.ndarray, event: np.ndarray, *, bins: int = 10) -> dict[str, Any]:
        """Right edges of the bins (quantiles of event times, days) and the raw outputs that fit everybody best.

        Raises NoEvents where fewer than two training patients had the event.
        """
        edges = fit_edges(spec, value, event, bins)
        hazards = torch.tensor(fit_hazards(edges, value, event), dtype=torch.float64)
        best = cls.raw_of(logits_of(hazards[None, None])[:, 0])[0]
        return {"cuts": edges.tolist(), "baseline": best.tolist()}

    @staticmethod
    @abstractmethod
    def logits(raw: Tensor) -> Tensor:
        """Logits of the bins, [patient, bin], of raw outputs of the same shape."""

    @staticmethod
    @abstractmethod
    def raw_of(logits: Tensor) -> Tensor:
        """Raw outputs, [patient, bin], that have these logits."""

    def hazard_log_odds(self, raw: Tensor) -> Tensor:
        """Log odds of the event in each bin among those who reach it, [patient, bin]."""
        return hazards_of(self.logits(raw)[:, None])[:, 0]

    def moved(self, raw: Tensor, by: Tensor) -> Tensor:
        """Raw outputs with the log odds of the hazard of every bin moved by [patient, 1]."""
        return self.raw_of(logits_of((self.hazard_log_odds(raw) + by)[:, None])[:, 0])

    def _loss(self, raw: Tensor, value: Tensor, event: Tensor | None) -> Tensor:
        assert event is not None
        at, happens = whole_bins(self.edges, value, event)
        seen = at >= 0  # a censoring before the first edge has seen no whole bin and says nothing
        if not bool(seen.any()):
            return raw.sum() * 0.0
        # double: the share of those who outlive a bin is a difference of sums, lost to rounding in single precision
        return self._likelihood(raw[seen].double(), at[seen], happens[seen].double()).to(raw.dtype)

    def _informed(self, value: Tensor, event: Tensor | None) -> bool:
        """Whether somebody had the event or passed a whole bin."""
        assert event is not None
        return bool((whole_bins(self.edges, value, event)[0] >= 0).any())

    @abstractmethod
    def _likelihood(self, raw: Tensor, at: Tensor, happens: Tensor) -> Tensor:
        """Minus the mean log likelihood: of the bin for events, of outliving it for the censored."""


class PMF(SoftmaxSurvival):
    """The probability of every bin by a softmax (Kvamme and Borgan, Lifetime Data Analysis, 2021).

    The likelihood (that of Lee et al., AAAI 2018) is pycox's, in double precision. Bins are quantiles of the training
    patients' event times.
    """

    @staticmethod
    def logits(raw: Tensor) -> Tensor:
        """The raw outputs themselves."""
        return raw

    @staticmethod
    def raw_of(logits: Tensor) -> Tensor:
        """The logits themselves."""
        return logits

    def _likelihood(self, raw: Tensor, at: Tensor, happens: Tensor) -> Tensor:
        return pycox_loss("nll_pmf", raw, at, happens, epsilon=LEAST)


class MTLR(SoftmaxSurvival):
    """Multi-task logistic regression (Yu et al., NIPS 2011; with a network Fotso, arXiv:1801.05512), with pycox's loss.

    The logit of a bin is the sum of the raw outputs from this bin on, so that neighbours share what they learn. Without
    the papers' penalty on differences between the weights of neighbours, which weight decay stands for.
    """

    @staticmethod
    def logits(raw: Tensor) -> Tensor:
        """Sum of the raw outputs of the bin and all later ones."""
        return running_sum(raw.flip(1), 1).flip(1)

    @staticmethod
    def raw_of(logits: Tensor) -> Tensor:
        """Each bin's logit minus the next one's."""
        return logits - torch.cat([logits[:, 1:], torch.zeros_like(logits[:, :1])], dim=1)

    def _likelihood(self, raw: Tensor, at: Tensor, happens: Tensor) -> Tensor:
        return pycox_loss("nll_mtlr", raw, at, happens, epsilon=LEAST)
