"""A vision transformer whose tokens are pooled by attention to one learned query, as CoCa (Yu et al. 2022) does it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionPooled(nn.Module):
    """Vectors [tile, dim]: the answer of a trunk's tokens [tile, token, width] to the query that was trained with it.

    The parameters have the names of CONCH's checkpoints (`trunk`, `attn_pool_contrast`, `ln_contrast`).
    """

    def __init__(self, trunk: nn.Module, dim: int, heads: int = 8) -> None:
        super().__init__()
        self.trunk = trunk
        self.attn_pool_contrast = Query(dim, int(trunk.num_features), heads)  # type: ignore[arg-type]
        self.ln_contrast = nn.LayerNorm(dim)

    def forward(self, light: Tensor) -> Tensor:
        """[tile, dim] of [tile, 3, px, px]."""
        return self.ln_contrast(self.attn_pool_contrast(self.trunk(light)))


class Query(nn.Module):
    """One learned query over normalised tokens: [tile, dim] of [tile, token, width]."""

    def __init__(self, dim: int, width: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, dim))
        self.attn = nn.MultiheadAttention(dim, heads, kdim=width, vdim=width, batch_first=True)
        self.ln_q, self.ln_k = nn.LayerNorm(dim), nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[tile, dim]."""
        seen = self.ln_k(tokens)
        asked = self.ln_q(self.query).expand(len(tokens), 1, -1)
        return self.attn(asked, seen, seen, need_weights=False)[0][:, 0]
