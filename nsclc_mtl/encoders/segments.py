"""Sums, softmax and owners of packed rows: tiles of a bag, visits of a series.

Sums over rows are taken, and given, in single precision at least: in the eight bits of bfloat16 a sum of thousands
stops growing, and a half overflows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def owners(offsets: Tensor) -> Tensor:
    """Patient of each tile, int64 [tile], from offsets [patient + 1]."""
    return torch.repeat_interleave(torch.arange(len(offsets) - 1, device=offsets.device), offsets.diff())


def wide(x: Tensor) -> Tensor:
    """The same numbers in single precision, or in double where they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def segment_softmax(score: Tensor, owner: Tensor, n: int) -> Tensor:
    """Softmax of `score` [tile] within each of `n` patients; a patient without tiles takes no part.

    >>> segment_softmax(torch.zeros(3), torch.tensor([0, 0, 1]), 2).tolist()
    [0.5, 0.5, 1.0]
    """
    score = wide(score)
    top = torch.full((n,), -torch.inf, dtype=score.dtype, device=score.device)
    top = top.scatter_reduce(0, owner, score.detach(), "amax")
    weight = (score - top[owner]).exp()
    total = torch.zeros(n, dtype=score.dtype, device=score.device).index_add(0, owner, weight)
    return weight / total[owner]


def segment_sum(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """Sum of the rows of `values` [tile, dim] that belong to each patient, [patient, dim]."""
    values = wide(values)
    return values.new_zeros(n, values.shape[1]).index_add(0, owner, values)


def weighted_sum(weight: Tensor, values: Tensor, offsets: Tensor) -> Tensor:
    """Weighted sum of every patient's rows, [patient, dim], of weights [tile] and values [tile, dim].

    A product of a vector and a matrix a patient: nothing as large as the values is made beside them.
    """
    sizes = offsets.diff().tolist()
    parts = zip(weight.to(values.dtype).split(sizes), values.split(sizes), strict=True)
    return torch.stack([share @ rows for share, rows in parts])
