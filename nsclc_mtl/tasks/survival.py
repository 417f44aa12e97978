"""Logistic hazard over bins of follow-up, the default head of survival tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.tasks.bins import (
    BinnedSurvival,
    fit_edges,
    fit_hazards,
    part_bins,
    pycox_loss,
    whole_bins,
)


class DiscreteHazard(BinnedSurvival):
    """Logistic hazard over bins of follow-up time (Kvamme and Borgan, Lifetime Data Analysis, 2021), with pycox's loss
    of the bins that were passed whole, and of the bin in which somebody is censored the share that he was seen for:
    without it hazards come out too high, and that of the last bin, which nobody passes whole, is 1.

    Bins are quantiles of the training patients' event times. With `proportional` the bins share one score (a
    proportional-odds hazard, Cox 1972 section 6), which small cohorts need; without it each bin has its own weights.
    """

    def __init__(
        self, spec: TaskSpec, view_dim: int, state: Mapping[str, Any], after: Mapping[str, int] | None = None
    ) -> None:
        proportional = bool(state["proportional"])
        super().__init__(spec, view_dim, state, after, 1 if proportional else len(state["cuts"]))

    @classmethod
    def fit(
        cls,
        spec: TaskSpec,
        value: np.ndarray,
        event: np.ndarray,
        *,
        bins: int = 10,
        proportional: bool = True,
    ) -> dict[str, Any]:
        """Right edges of the bins (quantiles of event times, days) and the log odds of the hazard in each.

        Raises NoEvents where fewer than two training patients had the event.
        """
        edges = fit_edges(spec, value, event, bins)
        hazards = fit_hazards(edges, value, event, parts=True)
        return {"cuts": edges.tolist(), "baseline": hazards, "proportional": proportional}

    def hazard_log_odds(self, raw: Tensor) -> Tensor:
        """The raw outputs themselves."""
        return raw

    def _loss(self, raw: Tensor, value: Tensor, event: Tensor | None) -> Tensor:
        assert event is not None
        at, happens = whole_bins(self.edges, value, event)
        seen = at >= 0  # a censoring before the first edge has seen no whole bin
        whole = raw.sum() * 0.0
        if bool(seen.any()):
            whole = pycox_loss("nll_logistic_hazard", raw[seen], at[seen], happens[seen].to(raw.dtype), reduction="sum")
        last, share, _ = part_bins(self.edges, value, event)
        # what is known of the bin in which somebody was censored: he passed a share of it, at a constant hazard
        begun = share < 1
        part = (share * functional.softplus(raw.gather(1, last[:, None]).squeeze(1)))[begun].sum()
        return (whole + part) / max(1, len(raw))

    def recalibrate(self, raw: Tensor, value: np.ndarray, event: np.ndarray) -> None:
        """Moves the log odds of each bin so that the training patients have as many events in it as the curves say.

        The bins' intercepts are the maximum of the likelihood with the scores as an offset: recalibration in the large
        (Steyerberg, Clinical Prediction Models, 2019, chapter 15). A bin without an event stays as it is.
        """
        days, happened = (torch.as_tensor(np.asarray(x, np.float32)) for x in (value, event))
        at, share, happens = (x.numpy() for x in part_bins(self.edges.cpu(), days, happened))
        said = raw.detach().cpu().double().numpy()
        for j in range(said.shape[1]):
            events = ((at == j) & (happens > 0)).sum()
            at_risk, seen = said[at >= j, j], np.where(at > j, 1.0, share)[at >= j]
            if 0 < events < seen.sum():
                low, high = -40.0, 40.0
                for _ in range(60):  # the expected number of events rises with the shift
                    middle = (low + high) / 2
                    less = (seen / (1 + np.exp(-np.clip(at_risk + middle, -700, 700)))).sum() < events
                    low, high = (middle, high) if less else (low, middle)
                with torch.no_grad():
                    self.baseline[j] += (low + high) / 2
