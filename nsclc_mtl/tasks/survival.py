"""Survival tasks: discrete hazard (the default) and Cox. One risk convention: higher is worse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nsclc_mtl.records import NoEvents, TaskSpec
from nsclc_mtl.tasks.bins import (
    HORIZONS_DAYS,
    BinnedSurvival,
    fit_edges,
    fit_hazards,
    pycox_losses,
    whole_bins,
)
from nsclc_mtl.tasks.task import Task, set_bias, small_linear


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


class Cox(Task):
    """Proportional hazards (Cox, JRSS B, 1972) by the partial likelihood of the batch's risk sets, with pycox's loss.

    The batch's risk set is an approximation of the cohort's; larger batches make it better. Absolute survival comes
    from Breslow's baseline, which `set_baseline` fits on the training patients after training.
    """

    hazard: Tensor

    def __init__(
        self, spec: TaskSpec, view_dim: int, state: Mapping[str, Any], after: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(spec, view_dim, state, after)
        self.linear = small_linear(self.read_dim, 1)
        set_bias(self.linear, [0.0])
        self.register_buffer(
            "hazard", torch.tensor(state["hazard"], dtype=torch.float32)
        )  # cumulative, at the horizons

    @classmethod
    def fit(cls, spec: TaskSpec, value: np.ndarray, event: np.ndarray) -> dict[str, Any]:
        """Cumulative hazard at the horizons (Nelson-Aalen), the baseline when the score is 0. Raises NoEvents."""
        if not (np.asarray(event) == 1).any():
            raise NoEvents(f"task {spec.name}: none of {len(value)} training patients had the event")
        return {"hazard": cumulative_hazard(np.zeros(len(value)), value, event)}

    def set_baseline(self, score: np.ndarray, value: np.ndarray, event: np.ndarray) -> None:
        """Breslow's cumulative baseline hazard, from scores, days and events of the training patients."""
        self.hazard.copy_(torch.tensor(cumulative_hazard(score, value, event), dtype=torch.float32))

    def head(self, view: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
        """Log hazard ratio [patient]."""
        return self.linear(self.reads(view, earlier)).squeeze(1)

    def _loss(self, raw: Tensor, value: Tensor, event: Tensor | None) -> Tensor:
        assert event is not None
        if not bool((event == 1).any()):  # pycox divides by the number of events
            return raw.sum() * 0.0
        return pycox_losses().cox_ph_loss(raw, value, event)

    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """Risk (log hazard ratio) and S(t) at the horizons."""
        curve = torch.exp(-self.hazard * raw[:, None].exp())
        return {"risk": raw, **{f"surv:{days:g}": curve[:, i] for i, days in enumerate(HORIZONS_DAYS)}}

    def score(self, raw: Tensor) -> Tensor:
        """Log hazard ratio."""
        return raw


def cumulative_hazard(score: np.ndarray, days: np.ndarray, event: np.ndarray) -> list[float]:
    """Breslow's cumulative hazard at the horizons (Biometrics, 1974); Nelson-Aalen's where all scores are 0."""
    days, event = np.asarray(days, float), np.asarray(event, float)
    order = np.argsort(days, kind="stable")
    weight = np.exp(np.asarray(score, float)[order])
    at_risk = np.cumsum(weight[::-1])[::-1]
    first = np.searchsorted(days[order], days[order], side="left")  # ties share the risk set of the first of them
    steps = event[order] / at_risk[first]
    return [float(steps[days[order] <= horizon].sum()) for horizon in HORIZONS_DAYS]
