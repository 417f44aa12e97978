"""Logistic hazard over bins of follow-up, the default head of survival tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.tasks.bins import (
    BinnedSurvival,
    fit_edges,
    fit_hazards,
    pycox_losses,
    whole_bins,
)


class DiscreteHazard(BinnedSurvival):
    """Logistic hazard over bins of follow-up time (Kvamme and Borgan, Lifetime Data Analysis, 2021), with pycox's loss.

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
        hazards = fit_hazards(edges, value, event)
        return {"cuts": edges.tolist(), "baseline": hazards, "proportional": proportional}

    def hazard_log_odds(self, raw: Tensor) -> Tensor:
        """The raw outputs themselves."""
        return raw

    def _loss(self, raw: Tensor, value: Tensor, event: Tensor | None) -> Tensor:
        assert event is not None
        at, happens = whole_bins(self.edges, value, event)
        seen = at >= 0  # a censoring before the first edge has seen no whole bin and says nothing
        if not bool(seen.any()):
            return raw.sum() * 0.0
        return pycox_losses().nll_logistic_hazard(raw[seen], at[seen], happens[seen].to(raw.dtype))
