"""What gates over experts have in common: the k largest, how evenly experts are used, and what is logged of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

UNUSED = 0.01  # mean load of an expert below which a task does not use it


def top_k(logits: Tensor, k: int | None) -> Tensor:
    """Softmax of the gate's logits [patient, expert] over the k largest of each patient, zero elsewhere; None = all.

    Keeping the k largest is Shazeer et al.'s (ICLR 2017). Rows sum to one. With k = 1 the weight is 1 whatever the gate
    says; its gradient is then that of the probability over all experts, as in the Switch transformer (Fedus et al.,
    JMLR 2022), so that a gate of one expert learns from its tasks too.
    """
    probability = logits.softmax(-1)
    if k is None or k >= logits.shape[-1]:
        return probability
    at = logits.topk(k, dim=-1).indices
    kept = probability * torch.zeros_like(probability).scatter(-1, at, 1.0)
    total = kept.sum(-1, keepdim=True)
    return kept / (total.detach() if k == 1 else total)


def imbalance(probability: Tensor, weight: Tensor) -> Tensor:
    """How unevenly the experts are used, one number: 0 = evenly, experts - 1 = one for everything.

    The auxiliary loss of the Switch transformer (Fedus et al., JMLR 2022), experts * sum(share routed * mean
    probability), minus its least value 1; over all tasks together, because tasks may well have experts of their own.
    With gates that use all experts it is the squared coefficient of variation of Shazeer et al. (ICLR 2017).

    Args:
        probability: softmax over all experts, [row, expert], a row a patient and task; the gradient comes through it.
        weight: what is used of it, [row, expert]: the same, or the k largest.
    """
    mean = probability.mean(0)
    used = weight > 0
    routed = mean if bool(used.all()) else used.to(mean.dtype).mean(0).detach()
    routed = routed / routed.sum()
    return probability.shape[-1] * (routed * mean).sum() - 1


def notes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is logged of gates' weights, [patient, expert] a task, each one number.

    `gate_entropy/<task>`, nats; `load/<expert>`, mean over patients and tasks; `collapsed`, the number of experts to
    which no task gives 1 % of its weight.
    """
    loads = torch.stack([weight.detach().mean(0) for weight in weights.values()])  # [task, expert]
    said = {
        f"gate_entropy/{task}": -torch.special.xlogy(weight, weight).detach().sum(-1).mean()
        for task, weight in weights.items()
    }
    said |= {f"load/{i}": load for i, load in enumerate(loads.mean(0))}
    return {**said, "collapsed": (loads < UNUSED).all(0).sum().to(loads.dtype)}
