"""Cox's proportional hazards: one log hazard ratio a patient, by the partial likelihood of those who are at risk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nsclc_mtl.records import NoEvents, TaskSpec, UsageFault
from nsclc_mtl.tasks.bins import HORIZONS_DAYS
from nsclc_mtl.tasks.running import running_logsumexp
from nsclc_mtl.tasks.task import Task, set_bias, small_linear

TIES = ("efron", "breslow")


class Cox(Task):
    """Proportional hazards (Cox, JRSS B, 1972): minus the log partial likelihood, mean over the events.

    Whose risk sets? Those of the patients that `loss` is handed. With `cox.mode=batch` they are a batch: an
    approximation, whose gradient is not on average the cohort's (a risk set of few patients is not a smaller copy of a
    large one), and which larger batches make better. With `cox.mode=exact` they are all training patients of the fold
    (see `exact`). Absolute survival comes from Breslow's baseline, which `set_baseline` fits on the training patients
    after training.

    Args:
        ties: patients with the event on the same day, see `partial_likelihood`. The others: see `Task`.

    Raises UsageFault for `ties` of another name.
    """

    hazard: Tensor

    def __init__(
        self,
        spec: TaskSpec,
        view_dim: int,
        state: Mapping[str, Any],
        after: Mapping[str, int] | None = None,
        ties: str = "efron",
    ) -> None:
        super().__init__(spec, view_dim, state, after)
        if ties not in TIES:
            raise UsageFault(f"task {spec.name}: ties={ties!r} is none of {', '.join(TIES)}")
        self.ties = ties
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
        return partial_likelihood(raw, value, event, self.ties).to(raw.dtype)

    def _informed(self, value: Tensor, event: Tensor | None) -> bool:
        """Whether somebody had the event while another was at risk."""
        assert event is not None
        died = value[event == 1]  # the risk set of the first of them is the largest
        return len(died) > 0 and int((value >= died.min()).sum()) > 1

    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """Risk (log hazard ratio) and S(t) at the horizons."""
        curve = torch.exp(-self.hazard * raw[:, None].exp())
        return {"risk": raw, **{f"surv:{days:g}": curve[:, i] for i, days in enumerate(HORIZONS_DAYS)}}

    def score(self, raw: Tensor) -> Tensor:
        """Log hazard ratio."""
        return raw


def partial_likelihood(score: Tensor, days: Tensor, event: Tensor, ties: str = "efron") -> Tensor:
    """Minus the log partial likelihood, mean over the events, one float64; zero, with a gradient of zero, without any.

    Args:
        score: log hazard ratio, float [patient]. days: to the event or to censoring, [patient]. event: 1 = happened,
            [patient]. ties: of d patients who die on the same day, Efron (JASA, 1977) takes the share k/d of all of
            them out of the risk set of the k-th one, k = 0..d-1; Breslow (Biometrics, 1974) leaves them in.

    Sums over risk sets are taken as logarithms in double precision, so that scores of any size stay finite.

    >>> loss = partial_likelihood(torch.zeros(3), torch.tensor([1.0, 2, 3]), torch.tensor([1, 1, 0]))
    >>> round(float((2 * loss).exp()), 9)  # nobody differs: the risk sets of the two deaths hold 3 and 2 patients
    6.0
    """
    dead = event == 1
    if not bool(dead.any()):
        return score.double().sum() * 0.0
    order = torch.argsort(days, stable=True)
    eta, dead, days = score.double()[order], dead[order], days[order]
    # sorted by time, so each risk set is a suffix; ties share that of the first of them
    at_risk = running_logsumexp(eta.flip(0), 0).flip(0)
    died, times = eta[dead], days[dead]
    first = torch.searchsorted(days, times.contiguous(), side="left")
    log_risk = at_risk[first]
    if ties == "efron":
        _, group, count = torch.unique_consecutive(times, return_inverse=True, return_counts=True)
        top = torch.full((len(count),), -torch.inf, dtype=eta.dtype, device=eta.device)
        top = top.scatter_reduce(0, group, died.detach(), "amax")
        tied = torch.zeros_like(top).index_add(0, group, (died - top[group]).exp()).log() + top
        begins = count.cumsum(0) - count
        share = (torch.arange(len(group), device=eta.device) - begins[group]).double() / count[group]
        # the dead are a part of those at risk: their share is at most one, and less than all of it is taken out
        log_risk = log_risk + torch.log1p(-share * (tied[group] - log_risk).clamp(max=0.0).exp())
    return (log_risk - died).mean()


def cumulative_hazard(score: np.ndarray, days: np.ndarray, event: np.ndarray) -> list[float]:
    """Breslow's cumulative hazard at the horizons (Biometrics, 1974); Nelson-Aalen's where all scores are 0."""
    days, event = np.asarray(days, float), np.asarray(event, float)
    order = np.argsort(days, kind="stable")
    weight = np.exp(np.asarray(score, float)[order])
    at_risk = np.cumsum(weight[::-1])[::-1]
    first = np.searchsorted(days[order], days[order], side="left")  # ties share the risk set of the first of them
    steps = event[order] / at_risk[first]
    return [float(steps[days[order] <= horizon].sum()) for horizon in HORIZONS_DAYS]
