"""Tasks with classes: binary, multiclass, and ordinal by a cumulative-logit head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nsclc_mtl.records import TaskSpec
from nsclc_mtl.tasks.task import Task, by_class, log_odds, set_bias, small_linear


class Binary(Task):
    """Two classes; the second one is positive."""

    def __init__(
        self, spec: TaskSpec, view_dim: int, state: Mapping[str, Any], after: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(spec, view_dim, state, after)
        self.linear = small_linear(self.read_dim, 1)
        set_bias(self.linear, [log_odds(state.get("share", 0.5))])

    @classmethod
    def fit(cls, spec: TaskSpec, value: np.ndarray, event: np.ndarray) -> dict[str, Any]:
        """Share of the positive class."""
        return {"share": float(value.mean()) if len(value) else 0.5}

    def head(self, view: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
        """Log odds [patient]."""
        return self.linear(self.reads(view, earlier)).squeeze(1)

    def _loss(self, raw: Tensor, value: Tensor, event: Tensor | None) -> Tensor:
        return functional.binary_cross_entropy_with_logits(raw, value)

    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """Probability of both classes."""
        p = raw.sigmoid()
        return by_class(self.spec.classes, torch.stack([1 - p, p], dim=1))

    def score(self, raw: Tensor) -> Tensor:
        """Log odds of the positive class."""
        return raw


class Multiclass(Task):
    """Classes without an order."""

    def __init__(
        self, spec: TaskSpec, view_dim: int, state: Mapping[str, Any], after: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(spec, view_dim, state, after)
        self.linear = small_linear(self.read_dim, len(spec.classes))

    def head(self, view: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
        """Logits [patient, class]."""
        return self.linear(self.reads(view, earlier))

    def _loss(self, raw: Tensor, value: Tensor, event: Tensor | None) -> Tensor:
        return functional.cross_entropy(raw, value.long())

    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """Probability of every class."""
        return by_class(self.spec.classes, raw.softmax(1))

    def score(self, raw: Tensor) -> Tensor:
        """Largest logit against the mean of all: how clearly a class stands out."""
        return raw.amax(1) - raw.mean(1)


class Ordinal(Task):
    """Ordered classes by cumulative logits: one score, cut points in order, P(above a cut) = sigmoid(score - cut).

    The form is that of proportional odds (McCullagh, JRSS B, 1980), but the loss is not its likelihood: it is the
    binary cross-entropy of lying above each cut, averaged over the cuts, i.e. the all-threshold loss with a logistic
    penalty (Rennie and Srebro, IJCAI workshop on advances in preference handling, 2005).
    """

    def __init__(
        self, spec: TaskSpec, view_dim: int, state: Mapping[str, Any], after: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(spec, view_dim, state, after)
        self.linear = small_linear(self.read_dim, 1)
        cuts = torch.tensor(state["cuts"]) if "cuts" in state else torch.linspace(-1, 1, len(spec.classes) - 1)
        self.first = nn.Parameter(cuts[:1].clone())
        self.gaps = nn.Parameter(torch.log(torch.expm1(cuts.diff().clamp(min=0.05))))  # softplus keeps the order

    @classmethod
    def fit(cls, spec: TaskSpec, value: np.ndarray, event: np.ndarray) -> dict[str, Any]:
        """Cut points that give every class its share among the training patients when the score is 0."""
        if len(value) == 0:
            return {}
        below = [float((value <= k).mean()) for k in range(len(spec.classes) - 1)]
        return {"cuts": [log_odds(share) for share in below]}

    def cuts(self) -> Tensor:
        """Cut points on the scale of the score, rising, [class - 1]."""
        return torch.cat([self.first, self.first + functional.softplus(self.gaps).cumsum(0)])

    def head(self, view: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
        """Log odds of lying above each cut, [patient, class - 1]."""
        return self.linear(self.reads(view, earlier)) - self.cuts()

    def _loss(self, raw: Tensor, value: Tensor, event: Tensor | None) -> Tensor:
        # every cut is a yes or no of its own: finite however close two cuts lie, which the log of a difference is not
        above = (value[:, None] > torch.arange(raw.shape[1], device=raw.device)).to(raw.dtype)
        return functional.binary_cross_entropy_with_logits(raw, above)

    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """Probability of every class: differences of P(above a cut), which fall because the cuts rise."""
        above = raw.sigmoid()
        one, zero = torch.ones_like(above[:, :1]), torch.zeros_like(above[:, :1])
        edges = torch.cat([one, above, zero], dim=1)
        return by_class(self.spec.classes, (edges[:, :-1] - edges[:, 1:]).clamp(min=0))

    def score(self, raw: Tensor) -> Tensor:
        """Expected class number."""
        return raw.sigmoid().sum(1)
