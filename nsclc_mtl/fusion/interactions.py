"""Interactions of modalities: products of a few numbers of each, which start at nothing and pay for their weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Interactions(nn.Module):
    """What a task reads from every pair of modalities beyond the sum of the two.

    Each modality is mapped to a few factors, shared by all tasks: a direction that one task finds serves the others.
    A task has a weight for the product of every factor of one modality with every factor of another. The weights start
    at zero, so that the model starts additive, and `penalty` is the lasso's (Tibshirani, JRSS B, 1996): of the many
    products most mean nothing, and an adaptive optimiser takes equal steps along those too.

    Args:
        tasks: their names. modalities: how many. dim: size of an embedding. width: size of a task's view.
        factors: of each modality. gain: by which factors are multiplied. Weights that start at zero go no further than
            the sum of all learning rates; the products of small factors need more.
    """

    left: Tensor
    right: Tensor

    def __init__(self, tasks: Sequence[str], modalities: int, dim: int, width: int, factors: int, gain: float) -> None:
        super().__init__()
        self.gain = gain
        left, right = torch.triu_indices(modalities, modalities, offset=1)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        bound = dim**-0.5  # as of a linear layer
        self.factors = nn.Parameter(torch.empty(modalities, dim, factors).uniform_(-bound, bound))
        self.weights = nn.ParameterDict({t: nn.Parameter(torch.zeros(width, len(left) * factors**2)) for t in tasks})

    def products(self, joined: Tensor, used: Tensor) -> Tensor:
        """Products of factors of every pair, [patient, pair * factors^2], of embeddings [patient, modality, dim].

        Nothing interacts with a modality that is not `used`, bool [patient, modality]: its factors are zero.
        """
        factors = self.gain * torch.einsum("pmd,mdk->pmk", joined, self.factors) * used[:, :, None]
        return (factors[:, self.left, :, None] * factors[:, self.right, None, :]).flatten(1)

    def forward(self, joined: Tensor, used: Tensor) -> dict[str, Tensor]:
        """What is added to the view of each task, [patient, width]."""
        products = self.products(joined, used)
        return {task: products @ weight.T for task, weight in self.weights.items()}

    def penalty(self) -> Tensor:
        """Sum of the absolute weights over all tasks and products, one number."""
        return torch.stack([weight.abs().sum() for weight in self.weights.values()]).sum()
