"""The learner whose every step has the gradient of all training patients, in the memory of a batch.

A risk set of Cox's likelihood is everybody who was still under observation. A batch has a handful of them, and the
likelihood of batches is another one than the cohort's. Here a step is a pass over the fold's training patients:

1. all of them are scored, batch by batch, without a graph;
2. the loss of the whole is computed from these scores, and its derivative by every score of every patient;
3. each batch is run again, with a graph, and these derivatives are sent back through it.

By the chain rule the sum over the batches is the gradient of the whole (the same cut as in GradCache, Gao et al.,
RepL4NLP 2021, which caches the gradients of representations for a contrastive loss; we cache those of the tasks' raw
outputs). It holds only where both runs are the same function: dropout and hidden modalities are keyed by (seed, epoch,
patient), as the draws of tiles are, and what the second run says is compared with the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from nsclc_mtl.bags.passes import Pass
from nsclc_mtl.keyed import Keyed
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Batch, Target, UsageFault
from nsclc_mtl.tasks.balance import Sum, Uncertainty
from nsclc_mtl.tasks.cox import Cox
from nsclc_mtl.training import score

BALANCES = (Sum, Uncertainty)  # functions of the losses' values; others look at gradients, of which there are none yet

Said = tuple[Batch, dict[str, Tensor], dict[str, Tensor]]  # the batch, raw outputs of every task, further losses


class ExactLearner(Learner):
    """A learner whose training step takes a `Pass` instead of a batch; otherwise, and in its weights, the same.

    All tasks share the step: their losses are means over all training patients with a known label. Losses of encoders,
    fusion and auxiliaries are made batch by batch and averaged by patients; where such a loss is itself a mean over
    patients, that is the mean of all. The validation loss is that of the whole validation part.

    Raises UsageFault for balances that need gradients, several processes, survival tasks of which none is Cox's, and
    parts whose random numbers cannot be tied to patients or that say something else when they are run again.
    """

    def __init__(self, *parts: Any, **named: Any) -> None:
        super().__init__(*parts, **named)
        if not isinstance(self.balance, BALANCES):
            raise UsageFault(
                f"cox.mode=exact: the balance {type(self.balance).__name__} looks at more than the losses of a step; "
                "take balance=sum or balance=uncertainty, or cox.mode=batch"
            )
        survival = [task for _, task in self.each_task() if task.spec.kind == "survival"]
        if survival and not any(isinstance(task, Cox) for task in survival):
            raise UsageFault("cox.mode=exact: no survival task is Cox's; set survival=cox, or cox.mode=batch")
        self._now: Pass | None = None  # what `backward` is to run again
        self._raw: dict[str, Tensor] = {}
        self._further: dict[str, Tensor] = {}
        self._validated: list[Said] = []

    def training_step(self, batch: Any, index: int) -> Tensor:
        """The balanced loss of all training patients; its graph ends at their raw outputs.

        `batch` is a `Pass`.
        """
        if self._trainer is not None and self._trainer.world_size > 1:
            raise UsageFault("cox.mode=exact: a pass needs one process; set trainer=default, or cox.mode=batch")
        noted: dict[str, Tensor] = {}
        with torch.no_grad():
            said = list(self._run(batch, noted))
        self.fusion.notes = noted
        self._now = batch
        out, self._further, targets = joined(said)
        self._raw = {name: raw.requires_grad_() for name, raw in out.items()}
        for loss in self._further.values():
            loss.requires_grad_()
        return self._total(self._raw, self._further, targets, sum(len(part) for part, _, _ in said), "train")

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Sends the loss of the whole back into the parameters, batch by batch."""
        super().backward(loss, *args, **kwargs)  # to the raw outputs, and to what the balance learns
        assert self._now is not None
        begin = 0
        with self._precision():
            for part, out, further in self._run(self._now, {}):
                here = slice(begin, begin := begin + len(part))
                pairs = []
                for name, raw in self._raw.items():
                    self._same(name, raw[here].detach(), out[name].detach())
                    if raw.grad is not None:  # None: a task that is told nothing takes no part
                        pairs.append((out[name], raw.grad[here]))
                for name, value in further.items():
                    grad = self._further[name].grad
                    if grad is not None and value.requires_grad:
                        pairs.append((value, (grad * (len(part) / len(self._now))).to(value.dtype)))
                torch.autograd.backward([made for made, _ in pairs], [grad for _, grad in pairs])
        self._now, self._raw, self._further = None, {}, {}

    def validation_step(self, batch: Batch, index: int) -> None:
        """Keeps what is said of the batch."""
        self._validated.append((Batch(batch.patients, {}, {}, batch.targets), *self(batch)))

    def on_validation_epoch_end(self) -> None:
        """Logs the losses of the whole validation part."""
        if self._validated:
            out, further, targets = joined(self._validated)
            self._total(out, further, targets, sum(len(part) for part, _, _ in self._validated), "validation")
        self._validated = []
        super().on_validation_epoch_end()

    def _run(self, whole: Pass, noted: dict[str, Tensor]) -> Iterator[Said]:
        """What is said of every batch; the fusion's notes are averaged into `noted`."""
        for batch in whole:
            with Keyed(batch, whole.seed, whole.epoch, dict(self.encoders.items())):
                out, further = self(batch)
            for name, note in self.fusion.notes.items():
                noted[name] = noted.get(name, torch.zeros_like(note)) + note.detach() * (len(batch) / len(whole))
            yield Batch(batch.patients, {}, {}, batch.targets), out, further

    def _precision(self) -> AbstractContextManager[Any]:
        """The precision that the trainer gives to the step; it does not hold in `backward`."""
        return nullcontext() if self._trainer is None else self._trainer.precision_plugin.forward_context()

    def _same(self, name: str, first: Tensor, again: Tensor) -> None:
        slack = 1e-3 * (1.0 + float(first.abs().max()))
        if first.shape != again.shape or not bool(((first - again).abs() <= slack).all()):
            raise UsageFault(
                f"cox.mode=exact: the outputs of task '{name}' differ when the same patients are run again; a part of "
                "the model keeps a state or draws numbers of its own: take another part, or cox.mode=batch"
            )


def joined(said: list[Said]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Target]]:
    """Raw outputs and targets of all patients, and the further losses as means over them."""
    n = sum(len(batch) for batch, _, _ in said)
    out = {name: torch.cat([raw[name] for _, raw, _ in said]) for name in said[0][1]}
    further: dict[str, Tensor] = {}
    for batch, _, losses in said:
        for name, loss in losses.items():
            further[name] = further.get(name, torch.zeros_like(loss)) + loss * (len(batch) / n)
    targets = {name: score.joined([batch.targets[name] for batch, _, _ in said]) for name in said[0][0].targets}
    return out, further, targets
