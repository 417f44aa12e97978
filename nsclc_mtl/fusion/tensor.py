"""Tensor fusion: every product of the modalities' numbers, whole for up to three of them, of low rank for more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nsclc_mtl.fusion.joining import Fusion, zero_where_absent
from nsclc_mtl.records import Embedding, UsageFault

MOST = 3  # modalities of the whole outer product: with a fourth it has (dim + 1)^4 numbers


class TensorFusion(Fusion):
    """Outer product of up to three embeddings, each with a constant 1 added (Zadeh et al., EMNLP 2017), then one layer.

    The constants let single modalities and pairs of them stand beside the products of all; an absent modality is its
    constant alone. With `gated` an embedding is first scaled by a gate that sees all modalities, after Pathomic Fusion
    (Chen et al., IEEE TMI 2020), whose gate is bilinear and followed by a further layer; ours is linear.

    Args:
        modalities, tasks: their names. dim: size of an embedding. width: of the view, the same for all tasks.
        gated: see above. dropout: of the view. modality_dropout: see `Fusion`.

    Raises UsageFault for more than three modalities.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        tasks: Sequence[str],
        dim: int,
        width: int = 32,
        gated: bool = True,
        dropout: float = 0.25,
        modality_dropout: float = 0.1,
    ) -> None:
        super().__init__(modalities, tasks, width, modality_dropout)
        if len(self.modalities) > MOST:
            raise UsageFault(
                f"fusion=tensor takes at most {MOST} modalities, not {len(self.modalities)} "
                f"({', '.join(self.modalities)}): pick some with modalities=[...], or use fusion=low_rank"
            )
        self.gates = nn.Linear(dim * len(self.modalities), dim * len(self.modalities)) if gated else None
        mix = nn.Linear((dim + 1) ** len(self.modalities), width)
        self.layers = nn.Sequential(mix, nn.Dropout(dropout))
        # single modalities, which are most of what there is to learn, at the size they have in a sum
        with torch.no_grad():
            mix.weight.mul_(math.sqrt(mix.in_features / (1 + dim * len(self.modalities))))

    def product(self, rows: Tensor) -> Tensor:
        """Outer product [patient, (dim + 1)^modality] of embeddings [patient, modality, dim] with a 1 after each."""
        extended = nn.functional.pad(rows, (0, 1), value=1.0)
        product = extended[:, 0]
        for more in extended.unbind(1)[1:]:
            product = (product[:, :, None] * more[:, None, :]).flatten(1)
        return product

    def forward(
        self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The same view [patient, width] for every task, and no losses of its own."""
        rows, _ = zero_where_absent(self.modalities, seen, present)
        if self.gates is not None:
            rows = rows * self.gates(rows.flatten(1)).sigmoid().view_as(rows)  # what is absent stays zero
        return dict.fromkeys(self.tasks, self.layers(self.product(rows))), {}


class LowRankFusion(Fusion):
    """Low-rank tensor fusion (Liu et al., ACL 2018): the weights of the outer product as a sum of `rank` products.

    Cost grows with the number of modalities, not as a power of it. An absent modality is its constant 1 alone. It
    differs from the paper in the start: the weights of the constants are 1, so that the product of (1 + little) is
    first a sum of the modalities, and products of many small random numbers do not drown what is to be learned.

    Args:
        modalities, tasks: their names. dim: size of an embedding. rank: how many products are added up.
        width: of the view, the same for all tasks. dropout: of the view. modality_dropout: see `Fusion`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        tasks: Sequence[str],
        dim: int,
        rank: int = 4,
        width: int = 32,
        dropout: float = 0.25,
        modality_dropout: float = 0.1,
    ) -> None:
        super().__init__(modalities, tasks, width, modality_dropout)
        self.rank = rank
        bound = dim**-0.5  # as of a linear layer
        self.factors = nn.ParameterList(
            [nn.Parameter(torch.empty(dim, rank * width).uniform_(-bound, bound)) for _ in self.modalities]
        )
        self.constants = nn.ParameterList([nn.Parameter(torch.ones(rank * width)) for _ in self.modalities])
        self.weights = nn.Parameter(torch.full((rank,), 1 / rank))
        self.bias = nn.Parameter(-torch.ones(width))  # the product of the constants, so that a view starts at zero
        self.drop = nn.Dropout(dropout)

    def forward(
        self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The same view [patient, width] for every task, and no losses of its own."""
        rows, _ = zero_where_absent(self.modalities, seen, present)
        product = rows.new_ones(len(rows), self.rank * self.view_dim)
        for x, factor, constant in zip(rows.unbind(1), self.factors, self.constants, strict=True):
            product = product * (x @ factor + constant)
        view = torch.einsum("prw,r->pw", product.view(len(rows), self.rank, -1), self.weights) + self.bias
        return dict.fromkeys(self.tasks, self.drop(view)), {}
