"""Survival in continuous time: a hazard that is constant within each bin of follow-up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.tasks.bins import BinnedSurvival, exact_bins, fit_edges, pycox_loss

RATES = (0.01, 4.6)
"""Least and largest cumulative hazard of a bin to begin with: hazards of 1 and 99 %."""


class PCHazard(BinnedSurvival):
    """Piecewise constant hazard (Kvamme and Borgan, Lifetime Data Analysis, 2021), with pycox's loss.

    The times count to the day: who is censored within a bin has been at risk for a part of it, and who had the event is
    known to have had it then. The softplus of a raw output is the cumulative hazard over the whole bin. `proportional`:
    one score for all bins, as in the discrete hazard.
    """

    def __init__(
        self, spec: TaskSpec, view_dim: int, state: Mapping[str, Any], after: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(spec, view_dim, state, after, 1 if state["proportional"] else len(state["cuts"]))

    @classmethod
    def fit(
        cls, spec: TaskSpec, value: np.ndarray, event: np.ndarray, *, bins: int = 10, proportional: bool = True
    ) -> dict[str, Any]:
        """Right edges of the bins (quantiles of event times, days) and the raw outputs that fit everybody best.

        Raises NoEvents where fewer than two training patients had the event.
        """
        edges = fit_edges(spec, value, event, bins)
        at, share, happens = exact_bins(*(torch.as_tensor(np.asarray(x, np.float32)) for x in (edges, value, event)))
        number = at.numpy()
        seen = [float((number > j).sum() + share.numpy()[number == j].sum()) for j in range(len(edges))]
        events = [float(happens.numpy()[number == j].sum()) for j in range(len(edges))]
        rates = np.clip(np.array(events) / np.maximum(seen, 1e-6), *RATES)  # events over bins at risk
        return {"cuts": edges.tolist(), "baseline": np.log(np.expm1(rates)).tolist(), "proportional": proportional}

    def hazard_log_odds(self, raw: Tensor) -> Tensor:
        """The raw outputs themselves: their softplus is the cumulative hazard of the bin."""
        return raw

    def _loss(self, raw: Tensor, value: Tensor, event: Tensor | None) -> Tensor:
        assert event is not None
        at, share, happens = exact_bins(self.edges, value, event)
        return pycox_loss("nll_pc_hazard_loss", raw, at, happens.to(raw.dtype), share.to(raw.dtype))
