"""Early stopping on the validation part; the weights of the best epoch are those that stay."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.training.averaging import judged_weights

WATCHED = {"score": "max", "loss": "min"}


class EarlyStopping(pl.Callback):
    """Ends a fit when the validation part has not been told better for a while.

    `watch` is `score` (mean over the tasks of the metric that each is judged by, higher is better) or `loss` (the
    balanced loss, lower is better). `patience` counts validations, which come once an epoch; a gain of no more than
    `min_delta` is none. With `restore` the model ends with the weights of its best epoch, else with the last.

    It sees the validation part and nothing else. Raises DataFault where there is nothing to watch.
    """

    def __init__(self, watch: str = "score", patience: int = 6, min_delta: float = 0.0, restore: bool = True) -> None:
        if watch not in WATCHED:
            raise UsageFault(f"callbacks.early_stopping.watch={watch!r} is none of {', '.join(WATCHED)}")
        self.watch, self.patience, self.min_delta, self.restore = watch, patience, min_delta, restore
        self.best: float | None = None  # value of the best epoch
        self.best_epoch = -1
        self.waited = 0  # validations since then
        self._weights: dict[str, Tensor] | None = None
        self._validated = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validations come before this."""
        every = trainer.check_val_every_n_epoch
        if not self._validated and every and (trainer.current_epoch + 1) % every == 0:
            raise DataFault(
                "early stopping has no validation part to look at: set folds.validation above 0, or callbacks=none"
            )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compares, keeps the best weights, and asks for the end where it was waited long enough."""
        if trainer.sanity_checking:
            return
        self._validated = True
        value = self._value(trainer)
        sign = 1 if WATCHED[self.watch] == "max" else -1
        if self.best is None or sign * (value - self.best) > self.min_delta:
            self.best, self.best_epoch, self.waited = value, trainer.current_epoch, 0
            if self.restore:
                self._weights = judged_weights(trainer, pl_module)
        else:
            self.waited += 1
        stop = self.waited >= self.patience or not math.isfinite(value)
        if trainer.strategy.reduce_boolean_decision(stop, all=False):  # all processes together
            trainer.should_stop = True

    def _value(self, trainer: pl.Trainer) -> float:
        """What is watched; the worst there is where the model gives no numbers any more."""
        told = trainer.callback_metrics.get(f"validation/{self.watch}")
        if told is None:
            raise DataFault(
                "early stopping finds no metric of any task in the validation part (too few patients, or one class "
                "only): raise folds.validation or folds.min_validation, or set callbacks.early_stopping.watch=loss"
            )
        value = float(told)
        if math.isfinite(value):
            return value
        return -math.inf if WATCHED[self.watch] == "max" else math.inf

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes up the best weights, after everything else that changes weights at the end of a fit."""
        if self._weights is not None:
            pl_module.load_state_dict(self._weights)
            self._weights = None

    def state_dict(self) -> dict[str, Any]:
        """Best value and epoch, how long it was waited, and the best weights until they are taken up."""
        return {
            "best": self.best, "best_epoch": self.best_epoch, "waited": self.waited, "weights": self._weights,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self.waited, self._weights = state_dict["waited"], state_dict["weights"]
