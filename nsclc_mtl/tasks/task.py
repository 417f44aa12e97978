"""A task: what is predicted, from what view, at what cost. Every kind speaks the same five words.

`fit` learns from the training labels what the task needs (bins), `head` turns a view into raw outputs, `loss` compares
them with the known targets, `predict` says them as probabilities, survival and risk, and `score` is the one number a
patient that explanations and rankings are about (higher = higher class or worse outcome).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nsclc_mtl.records import Target, TaskSpec


class Task(nn.Module, ABC):
    """What all kinds of tasks share. A task that a batch tells nothing (`informed`) costs exactly zero.

    Args:
        spec: its name, kind and classes. view_dim: size of the view. state: what `fit` gave.
        after: class tasks whose probabilities the head reads beside its view (a cascade), by name, and how many classes
            each has; they come before this one.
    """

    competing = False  # whether the head knows competing causes: `event` is then their number, for others of the first

    def __init__(
        self, spec: TaskSpec, view_dim: int, state: Mapping[str, Any], after: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.spec, self.view_dim, self.state, self.after = spec, view_dim, dict(state), dict(after or {})
        self.read_dim = view_dim + sum(self.after.values())  # what `reads` gives

    @classmethod
    def fit(cls, spec: TaskSpec, value: np.ndarray, event: np.ndarray) -> dict[str, Any]:
        """What is fitted on the training patients with a known label, as plain JSON types."""
        return {}

    @abstractmethod
    def head(self, view: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
        """Raw outputs [patient, ...] of a view [patient, view_dim].

        `earlier` holds the class probabilities [patient, class] of the class tasks before.
        """

    def reads(self, view: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
        """The view with the probabilities of the tasks that this one comes `after`, [patient, read_dim]."""
        return torch.cat([view, *(earlier[name] for name in self.after)], dim=1) if self.after else view

    def moved(self, raw: Tensor, by: Tensor) -> Tensor:
        """Raw outputs moved on the scale of the score by [patient, output]: one number a patient, a class's logit each
        where the classes have no order."""
        return raw + (by.squeeze(1) if raw.ndim == 1 else by)

    def loss(self, raw: Tensor, target: Target) -> Tensor:
        """Mean loss over the patients whose label is known; zero, with a gradient of zero, where there is none."""
        if not bool(target.known.any()):
            return raw.sum() * 0.0
        return self._loss(raw[target.known], *self._known(target))

    def informed(self, target: Target) -> bool:
        """Whether the labels tell the task anything: one is known, and of survival one that the likelihood speaks of.

        Where they do not, the loss is zero whatever the outputs are, which is not the zero of an easy task.
        """
        return bool(target.known.any()) and self._informed(*self._known(target))

    def _known(self, target: Target) -> tuple[Tensor, Tensor | None]:
        """Labels and events, as the head counts them, of the patients whose label is known."""
        event = None if target.event is None else self.counted(target.event[target.known])
        return target.value[target.known], event

    @classmethod
    def counted(cls, event: Any) -> Any:
        """Events as the head counts them, an array or tensor of causes: the first alone, or each by its number."""
        return event if cls.competing else event * (event == 1)

    @abstractmethod
    def _loss(self, raw: Tensor, value: Tensor, event: Tensor | None) -> Tensor:
        """Mean loss over patients whose labels are all known."""

    def _informed(self, value: Tensor, event: Tensor | None) -> bool:
        """Whether the loss of at least one patient, whose labels are all known, depends on the outputs."""
        return True

    def recalibrate(self, raw: Tensor, value: np.ndarray, event: np.ndarray) -> None:
        """Brings absolute predictions back to the training patients where training drew others more often.

        raw: outputs of all training patients with a known label; value, event: their labels, [patient]. Heads whose
        predictions do so by themselves (classes) need nothing.
        """

    @abstractmethod
    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """Public outputs by name (`p:<class>`, `risk`, `surv:<days>`), each [patient]."""

    @abstractmethod
    def score(self, raw: Tensor) -> Tensor:
        """One number a patient, [patient], higher = higher class or worse outcome; differentiable."""


def by_class(classes: Sequence[str], probability: Tensor) -> dict[str, Tensor]:
    """`p:<class>` for every class from probabilities [patient, class]."""
    return {f"p:{name}": probability[:, i] for i, name in enumerate(classes)}


def small_linear(read_dim: int, out: int) -> nn.Linear:
    """A last layer that starts near zero: the first prediction is the base rate, not noise."""
    layer = nn.Linear(read_dim, out)
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


def log_odds(share: float) -> float:
    """Log odds of a share, kept finite."""
    share = float(np.clip(share, 0.01, 0.99))
    return float(np.log(share / (1 - share)))


def set_bias(layer: nn.Linear, values: Sequence[float]) -> None:
    """Start from these base rates."""
    with torch.no_grad():
        layer.bias.copy_(torch.tensor(list(values)))
