"""Averages of weights: what they are by hand, what validation sees of them, and that nothing of them stays behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from nsclc_mtl.records import DataFault, UsageFault
from nsclc_mtl.training.averaging import ExponentialAverage, StochasticAverage
from nsclc_mtl.training.stopping import EarlyStopping

EPOCHS, STEPS = 8, 3


class Line(pl.LightningModule):
    """A weight that walks towards 1, with a validation score that is given, and a record of what was seen."""

    edge: Tensor

    def __init__(self, scores: Sequence[float] = ()) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3]))
        self.register_buffer("edge", torch.tensor([1 / 3]))
        self.scores = list(scores)
        self.after_steps: list[float] = []
        self.validated: list[float] = []
        self.rates: list[float] = []

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        return ((self.weight - 1) * batch).square().sum()

    def on_train_batch_end(self, *_: Any) -> None:
        self.after_steps.append(float(self.weight.detach()))
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    def validation_step(self, batch: Tensor, index: int) -> None:
        self.validated.append(float(self.weight.detach()))

    def on_validation_epoch_end(self) -> None:
        if self.scores:
            self.log("validation/score", self.scores[self.current_epoch])
            self.log("validation/loss", -self.scores[self.current_epoch])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        schedule = LambdaLR(optimizer, lambda step: 1 - step / (EPOCHS * STEPS))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(module: Line, *callbacks: pl.Callback, folder: Path, validation: bool = True) -> pl.Trainer:
    data = DataLoader(torch.linspace(0.5, 1.5, STEPS)[:, None])
    trainer = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=list(callbacks), default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, data, DataLoader(torch.ones(1, 1)) if validation else None)
    return trainer


def test_the_exponential_average_forgets_its_start(tmp_path: Path) -> None:
    module = Line()
    fit(module, ExponentialAverage(decay=0.8), folder=tmp_path)
    mean, seen = module.after_steps[0], []
    for k, weight in enumerate(module.after_steps):
        if k:
            past = min(0.8, (1 + k) / (10 + k))
            mean = past * mean + (1 - past) * weight
        if (k + 1) % STEPS == 0:
            seen.append(mean)
    assert module.validated == pytest.approx(seen, abs=1e-6)
    assert module.weight.item() == pytest.approx(mean, abs=1e-6)
    assert float(module.edge) == float(torch.tensor(1 / 3))  # to the last bit


def test_the_stochastic_average_is_the_mean_of_the_last_epochs(tmp_path: Path) -> None:
    module = Line()
    fit(module, StochasticAverage(begins=0.75), folder=tmp_path)
    ends = module.after_steps[STEPS - 1 :: STEPS]
    assert module.weight.item() == pytest.approx(sum(ends[6:]) / 2, abs=1e-6)
    assert module.validated[:6] == pytest.approx(ends[:6])  # before it begins, the weights themselves
    held = module.rates[6 * STEPS - 1 :]
    assert held == pytest.approx([held[0]] * len(held))
    assert held[0] == pytest.approx(0.05 * 0.25)
    assert module.rates[3] > module.rates[4] > module.rates[5]


def test_a_fit_that_ends_before_the_average_begins_keeps_its_weights(tmp_path: Path) -> None:
    module = Line([0.5] * EPOCHS)
    fit(module, StochasticAverage(), EarlyStopping(patience=2, restore=False), folder=tmp_path)
    assert len(module.after_steps) == 3 * STEPS
    assert module.weight.item() == pytest.approx(module.after_steps[-1])


@pytest.mark.parametrize("watch", ["score", "loss"])
@pytest.mark.parametrize("average", [False, True])
def test_the_best_epoch_stays_as_it_was_judged(tmp_path: Path, watch: str, average: bool) -> None:
    module = Line([0.5, 0.6, 0.8, 0.7, 0.8, 0.79, 0.9, 0.9])
    stopping = EarlyStopping(watch, patience=3)
    extra = [ExponentialAverage(0.9)] if average else []
    trainer = fit(module, stopping, *extra, folder=tmp_path)
    assert (stopping.best_epoch, trainer.current_epoch) == (2, 6)  # three validations after epoch 2
    assert module.weight.item() == pytest.approx(module.validated[2])
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(saved["state_dict"]["weight"], module.weight)
    assert "current_model_state" not in saved  # what is fitted to the model after the fit would be lost there
    assert next(s for s in saved["callbacks"].values() if "best_epoch" in s)["weights"] is None


def test_gains_too_small_to_count_and_numbers_that_are_none(tmp_path: Path) -> None:
    small = EarlyStopping(patience=2, min_delta=0.05)
    fit(Line([0.5, 0.54, 0.54, 0.7, 0.7, 0.7, 0.7, 0.7]), small, folder=tmp_path)
    assert (small.best_epoch, small.waited) == (0, 2)
    lost = EarlyStopping()
    trainer = fit(module := Line([0.5, float("nan"), *[0.9] * 6]), lost, folder=tmp_path)
    assert (lost.best_epoch, trainer.current_epoch) == (0, 2)
    assert module.weight.item() == pytest.approx(module.validated[0])


def test_nothing_to_watch_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataFault, match="no metric of any task"):
        fit(Line(), EarlyStopping(), folder=tmp_path)
    with pytest.raises(DataFault, match="no validation part"):
        fit(Line([0.5] * EPOCHS), EarlyStopping(), folder=tmp_path, validation=False)


@pytest.mark.parametrize(
    "made", [lambda: EarlyStopping("accuracy"), lambda: ExponentialAverage(1.0), lambda: StochasticAverage(1.0)]
)
def test_words_that_make_no_sense(made: Any) -> None:
    with pytest.raises(UsageFault, match=r"callbacks\."):
        made()
