"""Balances that read the gradients of the tasks on the parameters that they share, and the angles between these.

What they change is the gradient of the shared parameters alone; the heads, and whatever one task alone reaches, learn
from the plain sum. It is done by a number that is worth the plain sum and whose backward pass gives that gradient, so
that clipping, accumulation and the averaging over processes need to know nothing of it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nsclc_mtl.records import UsageFault
from nsclc_mtl.tasks.balance import Balance, mean_over_ranks


def shared_gradients(losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Gradient of every loss, [task, number], and the parameters that it is of: those that at least two losses reach.

    With a single loss all that it reaches. The graph of the losses is kept.
    """
    each = [
        torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        if loss.requires_grad and shared
        else [None] * len(shared)
        for loss in losses.values()
    ]
    least = min(2, len(each))
    reached = [i for i in range(len(shared)) if sum(of[i] is not None for of in each) >= least > 0]
    kept = [shared[i] for i in reached]
    if not kept:
        return torch.zeros(len(each), 0, device=next((loss.device for loss in losses.values()), None)), kept
    rows = torch.stack([torch.cat([_or_zero(of[i], shared[i]).flatten() for i in reached]) for of in each])
    return rows.to(torch.promote_types(rows.dtype, torch.float32)), kept


def _or_zero(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient


def norms_and_cosines(losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> dict[str, Tensor]:
    """`gradient/<task>`: norm of each task's gradient on what it shares; `cosine/<a>~<b>`: cosine of the angle of two.

    The cosine is left out where a gradient is zero.
    """
    with _full_precision(losses):
        rows, _ = shared_gradients(losses, shared)
        norms, inner = rows.norm(dim=1), rows @ rows.T
    names, out = list(losses), {}
    for i, a in enumerate(names):
        out[f"gradient/{a}"] = norms[i]
        for j in range(i):
            if norms[i] > 0 and norms[j] > 0:
                out[f"cosine/{names[j]}~{a}"] = inner[i, j] / (norms[i] * norms[j])
    return out


class GradientBalance(Balance):
    """A balance of gradients: says what the shared parameters learn from, [number], given each task's gradient."""

    reads_gradients = True

    def balanced(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> Tensor:
        """Worth the plain sum; its gradient is the balanced one on shared parameters and the plain one elsewhere."""
        total = self.plain(losses)
        if len(self.tasks) < 2:
            return total
        with _full_precision(losses):
            rows, parameters = shared_gradients(losses, shared)
            with torch.no_grad():
                more = self.joined(losses, rows) - rows.sum(0)
            for part, parameter in zip(more.split([p.numel() for p in parameters]), parameters, strict=True):
                moved = (part.view_as(parameter) * parameter).sum()
                total = total + (moved - moved.detach())  # worth nothing, with the gradient `part`
        return total

    @abstractmethod
    def joined(self, losses: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """The gradient that the shared parameters get, [number], from those of the tasks, [task, number]."""

    def weighted(self, losses: Mapping[str, Tensor], rows: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of the rows; the weights [task] are noted."""
        self.notes = dict(zip(losses, weights.detach(), strict=True))
        return weights.to(rows) @ rows


class GradNorm(GradientBalance):
    """Weights under which all tasks train at similar rates (Chen, Badrinarayanan, Lee and Rabinovich, ICML 2018).

    With G_k = |w_k grad L_k| and r_k = L_k / L_k(0) over its mean, the weights descend on the sum over the tasks of
    |G_k - mean(G) r_k^alpha| (the target held constant) and are scaled so that they add up to the number of tasks.
    Differs from the paper: the norms are of all shared parameters, not of the last layer; that sum is divided by the
    mean norm of the unweighted gradients, so that `rate` has no unit; the weights descend by plain steps; the heads
    keep the plain gradient. L_k(0) is the first loss above zero of a task. Tasks that the batch tells nothing neither
    count nor move. Processes agree on means of losses and norms.

    Args:
        tasks: their names. alpha: how strongly slow tasks are pulled up, the paper's 1.5; 0 = equal norms.
        rate: of the weights' steps. least: no weight falls below.
    """

    weight: Tensor  # [task]
    first: Tensor  # [task]: L_k(0); NaN = none yet

    def __init__(self, tasks: Sequence[str], alpha: float = 1.5, rate: float = 0.025, least: float = 0.01) -> None:
        super().__init__(tasks)
        if not (math.isfinite(alpha) and alpha >= 0 and 0 < rate < 1 and 0 < least < 1):
            raise UsageFault(
                f"balance: alpha={alpha}, rate={rate}, least={least} do not go: alpha is at least 0, the others lie "
                "between 0 and 1"
            )
        self.alpha, self.rate, self.least = alpha, rate, least
        self.register_buffer("weight", torch.ones(len(self.tasks)))
        self.register_buffer("first", torch.full((len(self.tasks),), torch.nan))

    def joined(self, losses: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """The rows by their weights, which then make their step."""
        places = [self.tasks.index(task) for task in losses]
        made = self.weighted(losses, rows, self.weight[places].clone())
        loss, norm = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        if places:
            loss[places] = torch.stack([value.detach() for value in losses.values()]).to(loss)
            norm[places] = rows.norm(dim=1).to(norm)
        known = torch.zeros_like(self.weight, dtype=torch.bool)
        known[places] = True
        # a loss or a gradient of zero says nothing
        known &= (loss > 0) & (norm > 0) & loss.isfinite() & norm.isfinite()
        self._step(mean_over_ranks(loss, known), mean_over_ranks(norm, known))
        return made

    def _step(self, loss: Tensor, norm: Tensor) -> None:
        """One step of the weights; loss and norm of the unweighted gradient are NaN where a task takes no part."""
        self.first.copy_(torch.where(self.first.isnan(), loss, self.first))
        here = norm.isfinite()
        if int(here.sum()) < 2:
            return
        weight, norm = self.weight[here], norm[here] / norm[here].mean()
        rate = loss[here] / self.first[here]
        size = weight * norm
        target = size.mean() * (rate / rate.mean()) ** self.alpha
        moved = (weight - self.rate * norm * (size - target).sign()).clamp_min(self.least)
        self.weight[here] = moved * (weight.sum() / moved.sum())  # those that are absent keep theirs


class PCGrad(GradientBalance):
    """Each task's gradient without what points against another's (Yu et al., NeurIPS 2020), summed.

    Every gradient meets the others in an order drawn anew each step from torch's generator; where their inner product
    is negative, its projection on the other (as that one was at first) is taken away. Of several processes each
    projects the gradients of its own patients, and the results are averaged.
    """

    def joined(self, losses: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """The sum of the projected gradients."""
        if len(rows) < 2:
            return rows.sum(0)
        return self.weighted(losses, rows, projections(rows @ rows.T).sum(0).to(rows.device))


def projections(inner: Tensor) -> Tensor:
    """PCGrad's projected gradients as sums of the given ones, [task, task], from their inner products [task, task].

    All that it needs of the gradients: each projection subtracts a multiple of another row.
    """
    products = inner.detach().double().cpu()
    made = torch.eye(len(products), dtype=torch.float64)
    for i in range(len(products)):
        for j in torch.randperm(len(products)).tolist():
            against = made[i] @ products[:, j]
            if j != i and against < 0:  # then row j is not zero
                made[i, j] -= against / products[j, j]
    return made


class _full_precision:
    """Gradients and their products are taken outside of autocast, in the precision of the parameters."""

    def __init__(self, losses: Mapping[str, Tensor]) -> None:
        kind = next((loss.device.type for loss in losses.values()), "cpu")
        self.off = torch.autocast(kind, enabled=False)

    def __enter__(self) -> None:
        self.off.__enter__()

    def __exit__(self, *wrong: object) -> None:
        self.off.__exit__(*wrong)
