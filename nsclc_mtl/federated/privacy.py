"""Training at a site that promises each patient differential privacy (DP-SGD, Abadi et al., CCS 2016).

A step takes a Poisson sample of the training patients, computes the gradient of each patient's own loss, shortens it to
the norm `clip`, adds them up, adds Gaussian noise of SD `noise` x `clip`, and divides by the number of patients that a
sample has on average. The optimiser, its momentum and weight decay, clipping by the trainer and a pull towards the
model of the round come after the noise and cost nothing. `accountant` says what the steps have cost.

The promise covers what a site sends of its training: the states of all rounds, together. Neighbours are two cohorts
that differ in one patient, added or removed, with his place left empty (the number of training patients, and so the
sampling rate, is taken for known). It does not cover

* what was fitted on the same patients before: scalers, imputation, bins of follow-up and base rates, also those that
  heads begin with, and all counts that a site tells;
* losses and metrics of training and validation, and that a site stops: training losses must stay at the site;
* validation patients, where a server chooses rounds by what they say;
* the site's own files: its log, its model with local norm layers, its predictions;
* attacks on the last bits of floating-point noise (Mironov, CCS 2012).

Samples and noise come from the operating system's generator, never from the seed, which others know: two trainings
with privacy are never the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from nsclc_mtl.bags.datamodule import FoldData, moved
from nsclc_mtl.bags.dataset import pack
from nsclc_mtl.bags.passes import Pass
from nsclc_mtl.federated.plan import Privacy
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Batch, DataFault, UsageFault
from nsclc_mtl.tasks.balance import Sum
from nsclc_mtl.tasks.cox import Cox
from nsclc_mtl.tasks.deephit import DeepHit

Source = Callable[[int], bytes]
"""So many random bytes. `os.urandom` outside of tests."""


class Drawn(Pass):
    """The patients of one step, each in a batch of his own; `expected` is how many a step has on average."""

    def __init__(
        self, batches: Callable[[], Iterable[Batch]], seed: int, epoch: int, patients: int, expected: float
    ) -> None:
        super().__init__(batches, seed, epoch, patients)
        self.expected = expected


class Draws:
    """A loader of Poisson samples: every patient is in every step with the chance `q` = batch_size / n, at most 1.

    An epoch has as many steps as it takes to look at n patients on average.
    """

    def __init__(self, data: FoldData, source: Source = os.urandom) -> None:
        self.data, self.source, self.epoch = data, source, data.epoch
        self.n = len(data.train_set)
        self.expected = float(min(data.batch_size, self.n))
        self.q = self.expected / self.n

    def __len__(self) -> int:
        return -(-self.n // int(self.expected))

    def __iter__(self) -> Iterator[Drawn]:
        epoch, seed = self.epoch, self.data.seed
        self.epoch += 1
        for _ in range(len(self)):
            chosen = np.flatnonzero(uniform(self.n, self.source) < self.q).tolist()
            yield Drawn(partial(self._alone, chosen, epoch), seed, epoch, len(chosen), self.expected)

    def _alone(self, chosen: list[int], epoch: int) -> Iterator[Batch]:
        patients = self.data.train_set
        patients.seed, patients.epoch = self.data.seed, epoch
        for index in chosen:
            yield pack([patients[index]], self.data.fitted)


class PrivateData(FoldData):
    """The data of a fold, whose training loader gives Poisson samples. `source` may be set before the fit."""

    source: Source = staticmethod(os.urandom)

    def train_dataloader(self) -> Any:
        """Poisson samples. Raises UsageFault for balanced epochs, whole passes and shares of several processes."""
        if self.groups is not None:
            raise _refused("balanced epochs draw some patients more often than others", "optim.sampler=shuffled")
        if self.exact:
            raise _refused("a pass over all patients has no gradient of a single one", "cox.mode=batch")
        if self.share.of > 1:
            raise _refused("a sample needs one process", "trainer=default")
        return Draws(self, self.source)

    def transfer_batch_to_device(self, batch: Batch | Pass, device: torch.device, dataloader_idx: int) -> Any:
        """The batch on the device; of a sample every patient when his turn comes."""
        if isinstance(batch, Drawn):
            there = lambda: (moved(part, device) for part in batch)  # noqa: E731
            return Drawn(there, batch.seed, batch.epoch, len(batch), batch.expected)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)


class PrivateLearner(Learner):
    """A learner whose training step takes a `Drawn` and ends in a noisy gradient; in its weights the same as a Learner.

    A patient's loss is the weighted sum over the tasks of which his label is known, and the parts' own losses of him
    alone. A step divides by the patients of a sample, not by the known labels of each task as a batch does: a task that
    few have a label of weighs less (balance=fixed can give it more).

    Raises UsageFault where a loss or a part looks at several patients at a time.
    """

    def __init__(self, *parts: Any, privacy: Privacy, source: Source = os.urandom, **named: Any) -> None:
        super().__init__(*parts, **named)
        self.privacy, self.source = privacy, source
        self._gradient: list[Tensor] = []  # what `backward` hands to the optimiser
        self._refuse()

    @classmethod
    def of(cls, made: Learner, privacy: Privacy, source: Source = os.urandom) -> PrivateLearner:
        """The private learner that is made of the parts of another one, which is not to be used any more."""
        skip, further = made.skip, dict(made.auxiliaries.items())
        parts = (dict(made.encoders.items()), made.fusion, dict(made.each_task()), made.balance)
        return cls(*parts, made.optimizer, made.warmup, skip, further, privacy=privacy, source=source)

    def trained(self) -> list[nn.Parameter]:
        """The parameters that are trained: all of them share one norm, and all of them get noise."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Mean loss of the sample, 0 of an empty one; the noisy gradient waits for `backward`."""
        self._refuse_trainer()
        losses, sums = [torch.zeros((), device=self.device)], [torch.zeros_like(p) for p in self.trained()]
        for patient in batch:
            loss, gradient = self._of_one(patient)
            losses.append(loss)
            for total, own in zip(sums, gradient, strict=True):
                total += own
        spread = self.privacy.noise * self.privacy.clip
        self._gradient = [(total + spread * normal(total, self.source)) / batch.expected for total in sums]
        return torch.stack(losses).sum() / max(1, len(batch))

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Hands the gradient of the step to the parameters; nothing is left to be computed."""
        for parameter, gradient in zip(self.trained(), self._gradient, strict=True):
            parameter.grad = gradient
        self._gradient = []

    def _of_one(self, patient: Batch) -> tuple[Tensor, list[Tensor]]:
        """The loss of one patient, and his gradient of norm `clip` at most. Raises UsageFault and DataFault."""
        parameters = self.trained()
        before = [buffer._version for buffer in self.buffers()]
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # dropout of one patient must not depend on who was drawn beside him
            torch.manual_seed(int.from_bytes(self.source(8), "big") >> 1)
            loss = self._losses(patient, "train", 1)
        if before != [buffer._version for buffer in self.buffers()]:
            raise _refused("a part of the model keeps what it has seen of patients in a buffer", "another part")
        made = torch.autograd.grad(loss, parameters, allow_unused=True)
        own = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, made, strict=True)]
        norm = torch.stack([g.double().square().sum() for g in own]).sum().sqrt()
        if not bool(torch.isfinite(norm)):
            raise DataFault("the gradient of a patient is not finite: lower optim.optimizer.lr, or look at the inputs")
        factor = float((self.privacy.clip / (norm + 1e-6)).clamp(max=1.0))
        return loss.detach(), [g * factor for g in own]

    def _refuse(self) -> None:
        tasks = dict(self.each_task())
        if not isinstance(self.balance, Sum):
            raise _refused(
                f"the balance {type(self.balance).__name__} looks at more than one patient's losses",
                "balance=sum or balance=fixed",
            )
        if self.auxiliaries:
            raise _refused(f"{next(iter(self.auxiliaries))} compares patients", "adaptation=none")
        if self.skip is not None:
            raise _refused("the linear skip is fitted on the patients without noise", "skip=none")
        if any(isinstance(task, Cox) for task in tasks.values()):
            raise _refused("Cox's likelihood compares patients", "survival=hazard")
        if any(isinstance(task, DeepHit) and task.alpha < 1 for task in tasks.values()):
            raise _refused("DeepHit's ranking loss compares patients", "survival=hazard, or alpha=1 for the task")
        if getattr(self.fusion, "load_balance", 0):
            raise _refused("the load of experts is counted over patients", "fusion.load_balance=0")
        for name, module in self.named_modules():  # instance norm too, where it keeps running statistics
            if isinstance(module, _NormBase) and (module.track_running_stats or not _alone(module)):
                raise _refused(f"'{name}' normalises over patients", "another encoder")

    def _refuse_trainer(self) -> None:
        if (trainer := self._trainer) is None:
            return
        if trainer.world_size > 1:
            raise _refused("a sample needs one process", "trainer=default")
        if trainer.accumulate_grad_batches > 1:
            raise _refused("a step is one sample", "trainer.accumulate_grad_batches=1")
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise _refused("16-mixed scales gradients, and the noise with them", "precision=32-true or bf16")


def uniform(n: int, source: Source) -> np.ndarray:
    """n numbers in [0, 1) of 53 bits."""
    return (np.frombuffer(source(8 * n), "<u8") >> 11) * 2.0**-53


def normal(like: Tensor, source: Source) -> Tensor:
    """Standard normal numbers in the shape of `like` (Box and Muller, Ann Math Stat, 1958), by double precision."""
    half = (like.numel() + 1) // 2
    radius = np.sqrt(-2 * np.log(1 - uniform(half, source)))
    angle = 2 * np.pi * uniform(half, source)
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[: like.numel()]
    return torch.from_numpy(both).reshape(like.shape).to(like)


def _alone(module: nn.Module) -> bool:
    return isinstance(module, torch.nn.modules.instancenorm._InstanceNorm)


def _refused(why: str, way: str) -> UsageFault:
    return UsageFault(f"federated.privacy: {why}; set {way}, or federated.privacy.enabled=false")
