"""Running sums over bins, classes and patients whose terms are added in the same order on every device.

On CUDA `torch.cumsum` of floating-point numbers adds in an order that changes from run to run, and with
`trainer.deterministic=true` it is refused; so is the gradient of a running product, which is one. Here what is `step`
places before is added, for steps of 1, 2, 4, ...: slices and sums alone, in one order on every device. A product with a
triangle of ones would be rounded where products are (TF32, bf16), and 0 times infinity is no number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def running_sum(x: Tensor, dim: int) -> Tensor:
    """Sum of each number and all before it along `dim`, added in double precision, as torch does on a processor.

    >>> running_sum(torch.tensor([1.0, 2.0, 3.0]), 0).tolist()
    [1.0, 3.0, 6.0]
    """
    return _doubling(x.double(), dim, torch.add).to(x.dtype)


def running_logsumexp(x: Tensor, dim: int) -> Tensor:
    """Logarithm of the running sum of the exponentials along `dim`, in double precision on the way.

    >>> running_logsumexp(torch.zeros(3), 0).exp().round(decimals=5).tolist()
    [1.0, 2.0, 3.0]
    """
    return _doubling(x.double(), dim, torch.logaddexp).to(x.dtype)


def _doubling(x: Tensor, dim: int, add: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """All prefixes in about log2(n) passes (Hillis and Steele, Communications of the ACM, 1986)."""
    n, step = x.shape[dim], 1
    while step < n:
        further = add(x.narrow(dim, step, n - step), x.narrow(dim, 0, n - step))
        x = torch.cat([x.narrow(dim, 0, step), further], dim=dim)
        step *= 2
    return x


class InOneOrder(TorchFunctionMode):
    """While it is on, `cumsum` of floating-point numbers is `running_sum`: for other people's code that calls it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every call of torch passes here; only that one is replaced."""
        kwargs = kwargs or {}
        if func in (torch.cumsum, Tensor.cumsum) and args[0].is_floating_point():
            return running_sum(*args, **kwargs)
        return func(*args, **kwargs)
