"""Survival in bins of follow-up: where times fall, hazards and probabilities of the bins, curves between their edges.

Every head on bins comes down to one number a bin: the log odds of the discrete hazard, whose softplus is the cumulative
hazard that the bin adds, since -log(1 - sigmoid(z)) = softplus(z). Curves, means and offsets follow from it for all.
"""

from __future__ import annotations

import functools
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from nsclc_mtl.records import NoEvents, TaskSpec
from nsclc_mtl.tasks.running import InOneOrder, running_logsumexp, running_sum
from nsclc_mtl.tasks.task import Task, log_odds, small_linear

HORIZONS_DAYS = (182.5, 365.0, 730.0, 1095.0, 1460.0, 1825.0)
DAYS_PER_YEAR = 365.25


def pycox_loss(name: str, *args: Any, **options: Any) -> Tensor:
    """The loss of pycox that has this name; its running sums are added in one order on every device."""
    with InOneOrder():
        return getattr(_pycox(), name)(*args, **options)


@functools.cache
def _pycox() -> Any:
    """pycox's losses, whose import warns about things that are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pycox.models.loss
    return pycox.models.loss


class BinnedSurvival(Task):
    """A survival head on bins of follow-up time: what all of them share, once `hazard_log_odds` is known.

    The curve is 1 at day 0 and never rises; within a bin the hazard is constant, beyond the last edge the curve stays
    where it is. Risk is minus the restricted mean survival time up to the last edge, in years.
    """

    edges: Tensor

    def __init__(
        self, spec: TaskSpec, view_dim: int, state: Mapping[str, Any], after: Mapping[str, int] | None, outputs: int
    ) -> None:
        super().__init__(spec, view_dim, state, after)
        self.linear = small_linear(self.read_dim, outputs)
        self.register_buffer("edges", torch.tensor(state["cuts"], dtype=torch.float32))  # right edges of the bins, days
        self.baseline = torch.nn.Parameter(torch.tensor(state["baseline"], dtype=torch.float32))

    def head(self, view: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
        """Raw outputs of each bin, [patient, bin]."""
        return self.linear(self.reads(view, earlier)) + self.baseline

    def _informed(self, value: Tensor, event: Tensor | None) -> bool:
        """Whether somebody had an event or was seen for a part of a bin."""
        assert event is not None
        return bool((part_bins(self.edges, value, event)[1] > 0).any())

    @abstractmethod
    def hazard_log_odds(self, raw: Tensor) -> Tensor:
        """Log odds of the event in each bin among those who reach it, [patient, bin], of raw outputs."""

    def survival(self, raw: Tensor, days: Sequence[float]) -> Tensor:
        """S(t) at these days, [patient, day]: never rising; within a bin the hazard is constant."""
        return log_survival(self.edges, softplus(self.hazard_log_odds(raw)), days).exp()

    def restricted_mean(self, raw: Tensor) -> Tensor:
        """Restricted mean survival time up to the last edge, days, [patient]: the area under `survival`."""
        return areas(self.edges, softplus(self.hazard_log_odds(raw))).sum(1)

    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """Risk (minus the restricted mean, in years) and S(t) at the horizons."""
        curve = self.survival(raw, HORIZONS_DAYS)
        return {"risk": self.score(raw), **{f"surv:{days:g}": curve[:, i] for i, days in enumerate(HORIZONS_DAYS)}}

    def score(self, raw: Tensor) -> Tensor:
        """Minus the restricted mean survival time, in years."""
        return -self.restricted_mean(raw) / DAYS_PER_YEAR


# ---------------------------------------------------------------------------------------------------------------------
# Where times fall
# ---------------------------------------------------------------------------------------------------------------------


def fit_edges(spec: TaskSpec, value: np.ndarray, event: np.ndarray, bins: int) -> np.ndarray:
    """Right edges of the bins, days, float64 [bin]: quantiles of the event times, the last behind every follow-up.

    `event` counts where it is not 0. Raises NoEvents where fewer than two training patients had the event.
    """
    happened = np.asarray(value)[np.asarray(event) > 0]
    if len(happened) < 2:
        raise NoEvents(f"task {spec.name}: {len(happened)} of {len(value)} training patients had the event")
    inner = np.quantile(happened, np.linspace(0, 1, bins + 1)[1:-1])
    # in single precision, as the edges are kept: a time that lies on an edge falls into the same bin ever after
    edges = np.unique(np.concatenate([inner, [float(np.max(value)) + 1.0]]).astype(np.float32)).astype(float)
    return edges[edges > 0]


def fit_hazards(edges: np.ndarray, value: np.ndarray, event: np.ndarray, parts: bool = False) -> list[float]:
    """Log odds of the hazard in each bin among the patients who reach it: the constant that fits them best.

    With `parts` who is censored in a bin counts for the share of it that he was seen for, as in a life table; else only
    who passed it whole.
    """
    at, part, happens = part_bins(*(torch.as_tensor(np.asarray(x, np.float32)) for x in (edges, value, event)))
    number, share, happened = at.numpy(), part.numpy().astype(float), happens.numpy() > 0
    seen = np.where(happened, 1.0, share if parts else share == 1)
    rates = [(number > j).sum() + seen[number == j].sum() for j in range(len(edges))]
    return [log_odds(((number == j) & happened).sum() / max(1.0, rates[j])) for j in range(len(edges))]


def part_bins(edges: Tensor, days: Tensor, event: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bin in which each patient was last seen, int64 [patient], the share of it that he was seen for, and his event.

    As `exact_bins`; of an event the whole bin counts, as for likelihoods that know a time by its bin alone.
    """
    at, share, event = exact_bins(edges, days, event)
    return at, torch.where(event > 0, torch.ones_like(share), share), event


def whole_bins(edges: Tensor, days: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
    """Bin of each patient, int64 [patient], and his event: for likelihoods that know a time by its bin alone.

    An event counts in the bin that it lies in (left open, right closed), a censoring in the last bin that was passed
    whole: -1 where there is none, of whom such a likelihood says nothing. Who was followed beyond the last edge is seen
    event-free up to it.
    """
    days = days.to(edges.dtype).contiguous()
    event = torch.where(days > edges[-1], torch.zeros_like(event), event)
    lies = torch.searchsorted(edges, days)
    passed = torch.searchsorted(edges, days, right=True) - 1
    return torch.where(event > 0, lies, passed).clamp(max=len(edges) - 1), event


def exact_bins(edges: Tensor, days: Tensor, event: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bin in which each patient was last seen, int64 [patient], the share of it that he was seen for, and his event."""
    days = days.to(edges.dtype)
    event = torch.where(days > edges[-1], torch.zeros_like(event), event)
    days = days.clamp(min=0).minimum(edges[-1])
    at = torch.searchsorted(edges, days)
    begins = torch.cat([edges.new_zeros(1), edges])[at]
    return at, (days - begins) / (edges[at] - begins), event


# ---------------------------------------------------------------------------------------------------------------------
# Hazards of the bins and curves
# ---------------------------------------------------------------------------------------------------------------------


def log_survival(edges: Tensor, hazard: Tensor, days: Sequence[float]) -> Tensor:
    """log S(t) at these days, [patient, day], of the cumulative hazard that each bin adds, [patient, bin]."""
    log_s = torch.cat([torch.zeros_like(hazard[:, :1]), -running_sum(hazard, 1)], dim=1)
    bin_of, share = placed(edges, days)
    return log_s[:, bin_of] * (1 - share) + log_s[:, bin_of + 1] * share


def placed(edges: Tensor, days: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Bin of each day, int64 [day], and the share of it that has passed then; days beyond the last edge are it."""
    whole = torch.cat([edges.new_zeros(1), edges])
    t = torch.tensor(list(days), dtype=edges.dtype, device=edges.device).clamp(max=float(edges[-1]))
    bin_of = (torch.searchsorted(whole, t, right=True) - 1).clamp(0, len(edges) - 1)
    return bin_of, (t - whole[bin_of]) / (whole[bin_of + 1] - whole[bin_of])


def areas(edges: Tensor, hazard: Tensor) -> Tensor:
    """Area under the survival curve in each bin, days, [patient, bin]."""
    begins = torch.cat([torch.zeros_like(hazard[:, :1]), -running_sum(hazard[:, :-1], 1)], dim=1).exp()
    width = torch.cat([edges.new_zeros(1), edges]).diff()
    small = hazard < 1e-4  # there (1 - exp(-h)) / h loses its digits, and its series has them
    safe = torch.where(small, torch.ones_like(hazard), hazard)
    mean = torch.where(small, 1 - hazard / 2, -torch.expm1(-safe) / safe)
    return begins * mean * width


# ---------------------------------------------------------------------------------------------------------------------
# Logits of a softmax over bins (and causes), with 0 for who outlives the last of them
# ---------------------------------------------------------------------------------------------------------------------


def hazards_of(logits: Tensor) -> Tensor:
    """Log odds of each cause in each bin against outliving it, [patient, cause, bin], of logits of the same shape.

    p_cj / S_j: with tail_j the log of the summed weights of bin j and all that come after it, z_cj = logit_cj -
    tail_(j+1).
    """
    whole = logits.logsumexp(1)
    tail = running_logsumexp(torch.cat([whole, torch.zeros_like(whole[:, :1])], dim=1).flip(1), 1).flip(1)
    return logits - tail[:, None, 1:]


def logits_of(log_odds: Tensor) -> Tensor:
    """The logits that give these log odds, [patient, cause, bin]: what `hazards_of` undoes."""
    outlives = torch.zeros_like(log_odds[:, :1])
    step = torch.cat([outlives, log_odds], dim=1).logsumexp(1)  # tail_j - tail_(j+1)
    later = running_sum(torch.cat([step[:, 1:], torch.zeros_like(step[:, :1])], dim=1).flip(1), 1).flip(1)
    return log_odds + later[:, None]
