"""One model for every task. All parts are handed in; nothing here knows a modality or a task by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nsclc_mtl.encoders.supervised import SupervisedEncoder
from nsclc_mtl.fusion.joining import Fusion
from nsclc_mtl.fusion.skip import LinearSkip
from nsclc_mtl.records import Batch, Embedding, Target
from nsclc_mtl.tasks.balance import Balance
from nsclc_mtl.tasks.gradients import norms_and_cosines
from nsclc_mtl.tasks.task import Task
from nsclc_mtl.training.ranks import summed
from nsclc_mtl.training.score import joined, scores

POINTS = 5  # of the gradients' curves, evenly over the epochs of a fit


class Learner(pl.LightningModule):
    """Encoders, one fusion, and a head a task; trained on the balanced sum of the tasks' losses.

    `optimizer` makes an optimiser of parameters; `warmup` is the share of all steps over which the learning rate rises
    before it falls as a cosine. `skip` says what a line makes of the inputs, to which the heads add. `auxiliaries` are
    further losses of the embeddings, called with (embeddings, present, batch, share of the fit that is done).
    `gradient_curves` logs, of the first batch of five epochs, the norm of each task's gradient on what the tasks share,
    and the cosine of each two.
    """

    encoders: nn.ModuleDict
    tasks: nn.ModuleDict
    fusion: Fusion
    balance: Balance

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        fusion: Fusion,
        tasks: Mapping[str, Task],
        balance: Balance,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.AdamW,
        warmup: float = 0.1,
        skip: LinearSkip | None = None,
        auxiliaries: Mapping[str, nn.Module] | None = None,
        gradient_curves: bool = False,
    ) -> None:
        super().__init__()
        self.encoders, self.tasks = nn.ModuleDict(encoders), nn.ModuleDict(tasks)
        self.fusion = fusion
        self.balance = balance
        self.skip = skip
        self.auxiliaries = nn.ModuleDict(auxiliaries or {})
        self.optimizer, self.warmup = optimizer, warmup
        self.gradient_curves = gradient_curves
        self.span = (0.0, 1.0)  # the share of the whole training that a fit is: of a federation each round is one
        self._sums: dict[str, dict[str, tuple[Any, int]]] = {}
        self._said: list[tuple[dict[str, Tensor], Mapping[str, Target]]] = []  # of the validation part, batch by batch

    def each_task(self) -> list[tuple[str, Task]]:
        """The tasks by name, in the order of their dependencies."""
        return [(name, cast(Task, task)) for name, task in self.tasks.items()]

    def embed(self, batch: Batch) -> dict[str, Embedding]:
        """What each encoder says of the batch."""
        return {name: self.look(name, batch.inputs[name], batch.patients) for name in self.encoders}

    def look(self, name: str, inputs: Any, patients: Sequence[str]) -> Embedding:
        """What the encoder `name` says of one modality of these patients, and the line of the skip beside it."""
        embedding: Embedding = self.encoders[name](inputs)
        if self.skip is not None:
            with self._exactly():
                embedding.linear = self.skip(name, inputs, patients)
        return embedding

    def _exactly(self) -> AbstractContextManager[Any]:
        """Without mixed precision: a score of eight bits has ties, and a sum of logarithms loses its digits in them."""
        return torch.autocast(self.device.type, enabled=False)

    def decide(
        self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Raw outputs of every task from embeddings, and the fusion's own losses."""
        views, losses = self.fusion(seen, present=present)
        mixed = torch.is_autocast_enabled(self.device.type)
        out: dict[str, Tensor] = {}
        earlier: dict[str, Tensor] = {}
        with self._exactly():
            for name, task in self.each_task():  # in the order of their dependencies
                view = views[name].float() if mixed else views[name]
                out[name] = task.head(view, earlier)  # a cascade head reads earlier predictions; others ignore them
                if self.skip is not None:
                    out[name] = task.moved(out[name], self.skip.joined(name, seen, present))
                if task.spec.classes:
                    earlier[name] = torch.stack(list(task.predict(out[name]).values()), dim=1)
        return out, losses

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Raw outputs of every task, [patient, ...], and the losses of encoders, fusion and auxiliaries.

        In training some of what is present is hidden first, from everything that follows.
        """
        present = self.fusion.hide(batch.present)
        seen = self.embed(batch)
        out, losses = self.decide(seen, present)
        own = {f"{name}/{word}": loss for name, e in seen.items() for word, loss in e.losses.items()}
        if self.training:
            own |= self._taught(batch, seen, present)
        return out, {**losses, **own}

    def _taught(self, batch: Batch, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses that there are in training alone."""
        losses: dict[str, Tensor] = {}
        for name, encode in self.encoders.items():
            if isinstance(encode, SupervisedEncoder):
                taught = encode.supervise(batch.inputs[name], seen[name], batch.targets, batch.present[name])
                losses |= {f"{name}/{word}": loss for word, loss in taught.items()}
        for name, auxiliary in self.auxiliaries.items():
            losses[name] = auxiliary(seen, present, batch, self._done())
        return losses

    def _done(self) -> float:
        """Share of the training that is done, 0 to 1; 0 outside of a fit."""
        trainer = self._trainer
        if trainer is None:
            return 0.0
        begin, end = self.span
        return begin + (end - begin) * min(1.0, trainer.global_step / max(1, int(trainer.estimated_stepping_batches)))

    def _shared(self) -> list[nn.Parameter]:
        """The parameters that the tasks may have in common: those of the encoders and the fusion."""
        return [p for room in (self.encoders, self.fusion) for p in room.parameters() if p.requires_grad]

    def _losses(self, batch: Batch, part: str, index: int = 0) -> Tensor:
        out, extra = self(batch)
        curves = self.gradient_curves and self.training and index == 0 and self._is_looked_at()
        return self._total(out, extra, batch.targets, len(batch), part, curves)

    def _is_looked_at(self) -> bool:
        """Whether this epoch gives a point of the gradients' curves, which costs a backward pass a task."""
        trainer = self._trainer
        if trainer is None or not trainer.loggers:
            return False
        return trainer.current_epoch % max(1, -(-(trainer.max_epochs or 1) // POINTS)) == 0

    def _total(
        self,
        out: Mapping[str, Tensor],
        extra: Mapping[str, Tensor],
        targets: Mapping[str, Target],
        n: int,
        part: str,
        curves: bool = False,
    ) -> Tensor:
        """The balanced loss of `n` patients from what was said of them; noted for the log of the part.

        With `curves` also what the tasks' gradients say of each other.
        """
        with self._exactly():
            losses = {name: task.loss(out[name], targets[name]) for name, task in self.each_task()}
        if part == "validation":
            self._said.append(({name: raw.detach() for name, raw in out.items()}, targets))
        known = {name: int(targets[name].known.sum()) * task.informed(targets[name]) for name, task in self.each_task()}
        # a task that the labels here tell nothing takes no part: its zero would teach learned weights that it is easy
        told_of = {name: loss for name, loss in losses.items() if known[name]}
        shared = self._shared() if curves or (self.training and self.balance.reads_gradients) else []
        total = self.balance(told_of, shared)
        if not told_of:
            total = total + sum(losses.values())  # zero, with a gradient of zero
        total = total + sum(extra.values(), start=torch.zeros((), device=self.device))
        told = {"loss": (total, n), **{name: (losses[name], known[name]) for name in losses}}
        told |= {name: (loss, n) for name, loss in extra.items()}
        told |= {f"fusion/{name}": (note, n) for name, note in self.fusion.notes.items() if self.training}
        told |= {f"weight/{name}": (weight, n) for name, weight in self.balance.notes.items()}
        if curves:
            told |= {name: (value, n) for name, value in norms_and_cosines(told_of, shared).items()}
        kept = self._sums.setdefault(part, {})
        for name, (value, count) in told.items():
            before, patients = kept.get(name, (0.0, 0))
            kept[name] = before + value.detach() * count, patients + count
        return total

    def _log_means(self, part: str) -> dict[str, Any]:
        """Mean losses of the epoch, summed by ourselves: a log call per step and task costs more than the step.

        Each is the mean over the patients whose label is known, of the batches that told the task something; a task
        without such a batch is not logged.
        """
        kept = self._sums.pop(part, {})
        if part == "train":  # every process has seen patients of its own; each validates the whole part
            kept = summed(kept)
        means = {f"{part}/{name}": total / patients for name, (total, patients) in kept.items() if patients}
        self.log_dict(means, batch_size=1)
        return means

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's training losses, and tells them to the balance."""
        means = self._log_means("train")
        self.balance.epoch_ended({name: means[f"train/{name}"] for name in self.tasks if f"train/{name}" in means})

    def on_validation_epoch_end(self) -> None:
        """Logs the epoch's validation losses, the main metric of every task that has one, and their mean."""
        self._log_means("validation")
        said, self._said = self._said, []
        if not said:
            return
        tasks = dict(self.each_task())
        raw = {name: torch.cat([out[name] for out, _ in said]) for name in tasks}
        mean, each = scores(tasks, raw, {name: joined([targets[name] for _, targets in said]) for name in tasks})
        told = {f"validation/score/{name}": float(score) for name, score in each.items() if score.known}
        if mean is not None:
            told["validation/score"] = mean
        self.log_dict(told, batch_size=1)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The balanced loss of the batch."""
        return self._losses(batch, "train", index)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Makes the last step of an epoch a mean over its own batches where gradients are accumulated.

        Lightning divides each loss by the batches of a whole step, of which the end of an epoch may leave fewer.
        """
        whole = self.trainer.accumulate_grad_batches
        if rest := (self.trainer.fit_loop.batch_idx + 1) % whole:
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(whole / rest)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Logs the balanced loss of the validation part."""
        self._losses(batch, "validation")

    def predict_step(self, batch: Batch, index: int) -> dict[str, dict[str, Tensor]]:
        """Public outputs: task -> output name -> [patient]."""
        out, _ = self(batch)
        return {name: task.predict(out[name]) for name, task in self.each_task()}

    def configure_optimizers(self) -> Any:
        """The optimiser handed in, with linear warm-up and cosine decay over all steps of the training."""
        decay: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for parameter in self.parameters():
            (decay if parameter.ndim > 1 else plain).append(parameter)  # biases, norms and tokens are not decayed
        optimizer = self.optimizer([{"params": decay}, {"params": plain, "weight_decay": 0.0}])  # type: ignore[list-item]
        begin, end = self.span
        steps = max(1, round(int(self.trainer.estimated_stepping_batches) / (end - begin)))  # of the whole training
        rise, before = max(1, round(self.warmup * steps)), round(begin * steps)

        def factor(step: int) -> float:
            step += before
            if step < rise:
                return (step + 1) / rise
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))

        schedule = {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}
