"""Regression tasks: a number a patient, in the unit of its column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from nsclc_mtl.records import DataFault, TaskSpec, UsageFault
from nsclc_mtl.tasks.task import Task, set_bias, small_linear

LOSSES = ("squared", "huber")


class Regression(Task):
    """The expected number by a linear head, learned on the scale of the training labels (mean 0, deviation 1).

    Args:
        loss: `squared` error (halved), or `huber`: squared up to `delta` standard deviations of the training labels and
            linear beyond (Huber, Annals of Mathematical Statistics 1964), for labels with outliers.
    """

    def __init__(
        self,
        spec: TaskSpec,
        view_dim: int,
        state: Mapping[str, Any],
        after: Mapping[str, int] | None = None,
        loss: str = "squared",
        delta: float = 1.0,
    ) -> None:
        super().__init__(spec, view_dim, state, after)
        if loss not in LOSSES:
            raise UsageFault(f"parts.tasks.regression.loss={loss!r} is none of {', '.join(LOSSES)}")
        if not delta > 0:
            raise UsageFault(f"parts.tasks.regression.delta={delta} must be above zero")
        self.mean, self.scale = float(state.get("mean", 0.0)), float(state.get("scale", 1.0))
        self.delta = float(delta) if loss == "huber" else None
        self.linear = small_linear(self.read_dim, 1)
        set_bias(self.linear, [0.0])

    @classmethod
    def fit(cls, spec: TaskSpec, value: np.ndarray, event: np.ndarray) -> dict[str, Any]:
        """Mean and standard deviation of the training labels. Raises DataFault where they do not vary."""
        if len(value) < 2 or np.ptp(value) == 0:
            raise DataFault(
                f"task {spec.name}: the {len(value)} known values of the training patients do not vary; use fewer "
                "folds (folds.n), or leave the task out (tasks=[...])"
            )
        return {"mean": float(np.mean(value)), "scale": float(np.std(value))}

    def head(self, view: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
        """Deviation from the mean of the training labels, in their standard deviations, [patient]."""
        return self.linear(self.reads(view, earlier)).squeeze(1)

    def _loss(self, raw: Tensor, value: Tensor, event: Tensor | None) -> Tensor:
        wanted = (value.to(raw.dtype) - self.mean) / self.scale
        if self.delta is None:
            return functional.mse_loss(raw, wanted) / 2
        return functional.huber_loss(raw, wanted, delta=self.delta)

    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """The number, `value`, in the unit of the column."""
        return {"value": raw * self.scale + self.mean}

    def score(self, raw: Tensor) -> Tensor:
        """Deviation from the mean, in standard deviations of the training labels."""
        return raw
