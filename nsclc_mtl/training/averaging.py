"""Averages of the weights along a fit: what is validated, saved and predicts, while the optimiser goes its own way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from nsclc_mtl.records import UsageFault


class Averaging(WeightAveraging):
    """Lightning's averaging, made to fit what comes after the training.

    What differs: before the first average the weights themselves are validated (Lightning: those of the start);
    buffers are taken over as they are, so that edges of bins stay what they are to the last bit; and after the fit the
    model is free of it, so that what is still fitted to it (the baseline of a Cox task) is saved too.
    """

    def __init__(self, avg_fn: Callable[[Tensor, Tensor, Any], Tensor] | None = None) -> None:
        super().__init__(use_buffers=False, avg_fn=avg_fn)

    @property
    def begun(self) -> bool:
        """Whether there is an average by now."""
        return self._average_model is not None and int(self._average_model.n_averaged) > 0

    def weights(self) -> dict[str, Tensor]:
        """The average, by the names of the model."""
        assert self._average_model is not None
        return self._average_model.module.state_dict()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the average in the place of the weights."""
        if self.begun:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the weights back."""
        if self.begun:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The average becomes the model."""
        if self.begun:
            super().on_train_end(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lets go of the model; checkpoints from here on hold what the model holds."""
        self._average_model = None


class ExponentialAverage(Averaging):
    """Exponential moving average of the weights, one update a step (Polyak and Juditsky, SIAM J Control Optim, 1992,
    in its exponential form).

    The weight of the past is `decay`, and less at the start of a fit: after k updates (1 + k) / (10 + k) where that is
    smaller, so that the random start is forgotten also in a fit of a hundred steps.
    """

    def __init__(self, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise UsageFault(f"callbacks.ema.decay={decay} must lie in [0, 1)")
        self.decay = decay

        def average(past: Tensor, now: Tensor, updates: Any) -> Tensor:
            k = float(updates)
            return past.lerp(now, 1 - min(decay, (1 + k) / (10 + k)))

        super().__init__(average)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After every step."""
        return step_idx is not None


class StochasticAverage(Averaging):
    """Plain mean of the weights at the ends of the last epochs (stochastic weight averaging; Izmailov and others,
    UAI 2018).

    It begins when the share `begins` of the epochs is over; from then on the learning rate stays where the schedule
    was, so that the weights go on moving and there is something to average. In the paper it is constant or cyclical;
    here it is what the cosine has come down to (15 % of its height after three quarters).
    """

    def __init__(self, begins: float = 0.75) -> None:
        if not 0 <= begins < 1:
            raise UsageFault(f"callbacks.swa.begins={begins} must lie in [0, 1)")
        super().__init__()
        self.begins = begins
        self._first_epoch = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Holds the learning rate from the first averaged epoch on."""
        epochs = trainer.max_epochs or 1
        self._first_epoch = min(math.ceil(self.begins * epochs), epochs - 1)
        held = round(int(trainer.estimated_stepping_batches) * self._first_epoch / epochs)
        for schedule in trainer.lr_scheduler_configs:
            if isinstance(schedule.scheduler, LambdaLR):
                schedule.scheduler.lr_lambdas = [_until(held, f) for f in schedule.scheduler.lr_lambdas]

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After every epoch from the first averaged one on."""
        return epoch_idx is not None and epoch_idx >= self._first_epoch


def _until(step: int, factor: Callable[[int], float]) -> Callable[[int], float]:
    return lambda now: factor(min(now, step))


def judged_weights(trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Tensor]:
    """A copy of the weights that the last validation has seen: the average where there is one."""
    seen = pl_module.state_dict()
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Averaging) and callback.begun:
            seen = callback.weights()
    return {name: value.detach().cpu().clone() for name, value in seen.items()}
