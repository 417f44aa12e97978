"""Tasks with classes: what they share, and the heads of two classes and of classes without an order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.tasks import prior
from nsclc_mtl.tasks.task import Task, by_class, log_odds, set_bias, small_linear


class ClassTask(Task):
    """What the heads of classes share: weights of the classes in the loss, and probabilities at the right prevalence.

    Weighted classes, or patients drawn by class (`drawn` in the state), teach a head that the rare is frequent. The
    probabilities are brought back to the shares of the training patients by the log-prior shift (Saerens, Latinne and
    Decaestecker, Neural Computation 2002); `score` and the raw outputs are left as learned.

    Args:
        weights: see `prior.class_weights`. prevalence: shares of the classes where the model is to be used
            (`prior.population`); that shift is kept as `population`, for whoever has calibrated first.
    """

    weight: Tensor
    shift: Tensor

    def __init__(
        self,
        spec: TaskSpec,
        view_dim: int,
        state: Mapping[str, Any],
        after: Mapping[str, int] | None = None,
        weights: str | Mapping[str, Any] = "none",
        prevalence: str | Mapping[str, Any] = "training",
    ) -> None:
        super().__init__(spec, view_dim, state, after)
        alike = [1 / len(spec.classes)] * len(spec.classes)
        shares = state.get("shares", alike)
        drawn = state.get("drawn", shares)
        weight = prior.class_weights(spec, weights, drawn)
        self.seen = (weight * np.asarray(drawn)).tolist()  # shares of the classes as the loss meets them
        self.population = prior.population(spec, prevalence, shares)
        self.register_buffer("weight", torch.tensor(weight, dtype=torch.float32), persistent=False)
        shift = torch.tensor(prior.log_ratio(shares, self.seen), dtype=torch.float32)
        self.register_buffer("shift", shift, persistent=False)
        self.shifted = bool((shift != 0).any())

    @classmethod
    def fit(cls, spec: TaskSpec, value: np.ndarray, event: np.ndarray) -> dict[str, Any]:
        """Shares of the classes among the training patients; alike where no label is known."""
        return {"shares": prior.shares(value, len(spec.classes))["shares"]}

    @abstractmethod
    def probability(self, raw: Tensor) -> Tensor:
        """Probabilities [patient, class] among patients as the loss meets them."""

    @abstractmethod
    def _each(self, raw: Tensor, value: Tensor) -> Tensor:
        """Loss of every patient, [patient]; all labels are known."""

    def _loss(self, raw: Tensor, value: Tensor, event: Tensor | None) -> Tensor:
        # the mean is over patients, not over weights: a batch in which the rare class is missing counts less
        return (self._each(raw, value) * self.weight[value.long()]).mean()

    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """Probability of every class at the prevalence of the training patients."""
        p = self.probability(raw)
        if self.shifted:
            p = p * self.shift.exp()
            p = p / p.sum(1, keepdim=True).clamp(min=1e-30)
        return by_class(self.spec.classes, p)


class Binary(ClassTask):
    """Two classes; the second one is positive."""

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
        set_bias(self.linear, [log_odds(self.seen[1])])

    def head(self, view: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
        """Log odds [patient]."""
        return self.linear(self.reads(view, earlier)).squeeze(1)

    def _each(self, raw: Tensor, value: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(raw, value, reduction="none")

    def probability(self, raw: Tensor) -> Tensor:
        """Probability of both classes."""
        p = raw.sigmoid()
        return torch.stack([1 - p, p], dim=1)

    def score(self, raw: Tensor) -> Tensor:
        """Log odds of the positive class."""
        return raw


class Multiclass(ClassTask):
    """Classes without an order."""

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
        self.linear = small_linear(self.read_dim, len(spec.classes))

    def head(self, view: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
        """Logits [patient, class]."""
        return self.linear(self.reads(view, earlier))

    def _each(self, raw: Tensor, value: Tensor) -> Tensor:
        return functional.cross_entropy(raw, value.long(), reduction="none")

    def probability(self, raw: Tensor) -> Tensor:
        """Probability of every class."""
        return raw.softmax(1)

    def score(self, raw: Tensor) -> Tensor:
        """Largest logit against the mean of all: how clearly a class stands out."""
        return raw.amax(1) - raw.mean(1)
