"""Survival tasks: discrete hazard (the default) and Cox. One risk convention: higher is worse."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nsclc_mtl.records import NoEvents, TaskSpec
from nsclc_mtl.tasks.task import Task, log_odds, set_bias, small_linear

HORIZONS_DAYS = (182.5, 365.0, 730.0, 1095.0, 1460.0, 1825.0)


@functools.cache
def _pycox() -> Any:
    """pycox's losses, whose import warns about things that are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pycox.models.loss
        import pycox.preprocessing.label_transforms
    return pycox


class DiscreteHazard(Task):
    """Logistic hazard over bins of follow-up time (Kvamme and Borgan, Lifetime Data Analysis, 2021), with pycox's loss.

    Bins are quantiles of the training patients' event times. With `proportional` the bins share one score (a
    proportional-odds hazard, Cox 1972 section 6), which small cohorts need; without it each bin has its own weights.
    """

    edges: Tensor

    def __init__(
        self, spec: TaskSpec, view_dim: int, state: Mapping[str, Any], after: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(spec, view_dim, state, after)
        self.proportional = bool(state["proportional"])
        self.linear = small_linear(self.read_dim, 1 if self.proportional else len(state["cuts"]))
        self.register_buffer("edges", torch.tensor(state["cuts"], dtype=torch.float32))  # right edges of the bins, days
        self.baseline = torch.nn.Parameter(torch.tensor(state["baseline"], dtype=torch.float32))

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

        Raises NoEvents where no training patient had the event.
        """
        happened = np.asarray(value)[np.asarray(event) == 1]
        if len(happened) < 2:
            raise NoEvents(f"task {spec.name}: {len(happened)} of {len(value)} training patients had the event")
        inner = np.quantile(happened, np.linspace(0, 1, bins + 1)[1:-1])
        # in single precision, as the edges are kept: a time that lies on an edge falls into the same bin ever after
        cuts = np.unique(np.concatenate([[0.0], inner, [float(np.max(value)) + 1.0]]).astype(np.float32)).astype(float)
        number, happens = cls.discretise(cuts, value, event)
        rates = []
        for j in range(1, len(cuts)):
            at_risk = (number >= j).sum()
            rates.append(log_odds(((number == j) & (happens == 1)).sum() / max(1, at_risk)))
        return {"cuts": cuts[1:].tolist(), "baseline": rates, "proportional": proportional}

    @staticmethod
    def discretise(cuts: np.ndarray, value: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bin number (1 = first) and event of each patient; by pycox's own discretisation, whose cuts start with 0."""
        transform = _pycox().preprocessing.label_transforms.LabTransDiscreteTime(np.asarray(cuts, float))
        value, event = np.asarray(value, np.float32).astype(float), np.asarray(event, float)
        beyond = value > cuts[-1]  # longer than any training patient was followed: seen event-free up to the last cut
        # pycox's transform needs an event and a censoring in what it is handed: one of each, dropped again, is added
        days = np.concatenate([np.where(beyond, cuts[-1], value), [cuts[-1], cuts[-1]]])
        number, happens = transform.transform(days, np.concatenate([np.where(beyond, 0.0, event), [1.0, 0.0]]))
        number, happens = number[:-2], happens[:-2]
        # an event counts in the bin that it lies in, a censoring in the last bin that was passed whole (0 = none)
        return np.asarray(number), np.asarray(happens)

    def head(self, view: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
        """Log odds of the hazard in each bin, [patient, bin]."""
        return self.linear(self.reads(view, earlier)) + self.baseline

    def _loss(self, raw: Tensor, value: Tensor, event: Tensor | None) -> Tensor:
        assert event is not None
        cuts = np.concatenate([[0.0], self.edges.cpu().numpy()])
        number, happens = self.discretise(cuts, value.cpu().numpy(), event.cpu().numpy())
        # A censoring before the first cut has seen no whole bin and says nothing; pycox counts bins from 0.
        seen = torch.as_tensor(number >= 1, device=raw.device)
        if not bool(seen.any()):
            return raw.sum() * 0.0
        at = torch.as_tensor(np.maximum(number - 1, 0), device=raw.device)
        happens_at = torch.as_tensor(happens, device=raw.device, dtype=raw.dtype)
        return _pycox().models.loss.nll_logistic_hazard(raw[seen], at[seen], happens_at[seen])

    def recalibrate(self, raw: Tensor, value: np.ndarray, event: np.ndarray) -> None:
        """Moves the log odds of each bin so that the training patients have as many events in it as the curves say.

        The bins' intercepts are the maximum of the likelihood with the scores as an offset: recalibration in the large
        (Steyerberg, Clinical Prediction Models, 2019, chapter 15). A bin without an event stays as it is.
        """
        cuts = np.concatenate([[0.0], self.edges.cpu().numpy()])
        number, happens = self.discretise(cuts, value, event)
        said = raw.detach().cpu().double().numpy()
        for j in range(said.shape[1]):
            events = ((number == j + 1) & (happens == 1)).sum()
            at_risk = said[number >= j + 1, j]
            if 0 < events < len(at_risk):
                low, high = -40.0, 40.0
                for _ in range(60):  # the expected number of events rises with the shift
                    middle = (low + high) / 2
                    less = (1 / (1 + np.exp(-np.clip(at_risk + middle, -700, 700)))).sum() < events
                    low, high = (middle, high) if less else (low, middle)
                with torch.no_grad():
                    self.baseline[j] += (low + high) / 2

    def survival(self, raw: Tensor, days: Sequence[float]) -> Tensor:
        """S(t) at these days, [patient, day]: never rising; within a bin the hazard is constant."""
        log_s = torch.cat([torch.zeros_like(raw[:, :1]), torch.nn.functional.logsigmoid(-raw).cumsum(1)], dim=1)
        edges = torch.cat([self.edges.new_zeros(1), self.edges])
        t = torch.tensor(list(days), dtype=edges.dtype, device=edges.device).clamp(max=float(edges[-1]))
        bin_of = (torch.searchsorted(edges, t, right=True) - 1).clamp(0, len(edges) - 2)
        share = (t - edges[bin_of]) / (edges[bin_of + 1] - edges[bin_of])
        return (log_s[:, bin_of] * (1 - share) + log_s[:, bin_of + 1] * share).exp()

    def restricted_mean(self, raw: Tensor) -> Tensor:
        """Restricted mean survival time up to the last edge, days, [patient]: the area under `survival`."""
        hazard = torch.nn.functional.softplus(raw)  # cumulative, of each bin
        begins = torch.cat([torch.zeros_like(raw[:, :1]), -hazard[:, :-1].cumsum(1)], dim=1).exp()
        width = torch.cat([self.edges.new_zeros(1), self.edges]).diff()
        small = hazard < 1e-4  # there (1 - exp(-h)) / h loses its digits, and its series has them
        safe = torch.where(small, torch.ones_like(hazard), hazard)
        mean = torch.where(small, 1 - hazard / 2, -torch.expm1(-safe) / safe)
        return (begins * mean * width).sum(1)

    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """Risk (minus the restricted mean, in years) and S(t) at the horizons."""
        curve = self.survival(raw, HORIZONS_DAYS)
        return {"risk": self.score(raw), **{f"surv:{days:g}": curve[:, i] for i, days in enumerate(HORIZONS_DAYS)}}

    def score(self, raw: Tensor) -> Tensor:
        """Minus the restricted mean survival time, in years."""
        return -self.restricted_mean(raw) / 365.25


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
        return _pycox().models.loss.cox_ph_loss(raw, value, event)

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
