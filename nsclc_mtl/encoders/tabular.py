"""Tables and vectors: one row a patient becomes an embedding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nsclc_mtl.records import Embedding

START = 0.1  # size of an embedding's first weights, in the usual ones


class MLP(nn.Module):
    """A multilayer perceptron with layer norm; `hidden=0` is a linear map.

    The last layer starts small, so that an embedding is what was learned and not the random map it began with: few
    steps never unlearn that map, and products of embeddings would be mostly noise (the "rich" against the "kernel"
    regime of Woodworth et al., COLT 2020).
    """

    def __init__(
        self, in_dim: int, dim: int, hidden: int = 64, dropout: float = 0.25, input_dropout: float = 0.1
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Dropout(input_dropout)]
        if hidden:
            layers += [nn.Linear(in_dim, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout)]
        last = nn.Linear(hidden or in_dim, dim)
        with torch.no_grad():
            last.weight.mul_(START)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Embedding:
        """Vector [patient, dim] of rows [patient, in_dim]."""
        return Embedding(self.layers(x))


class Projected(nn.Module):
    """An encoder of principal components, for rows that hold the columns themselves.

    The linear skip sees all columns, the encoder their components: a small cohort learns nothing else from thousands.

    Args:
        loadings: [component, column], of the first columns; those behind them (indicators, categories) go on as they
            are. encoder: of rows [patient, component + others].
    """

    loadings: Tensor

    def __init__(self, loadings: Sequence[Sequence[float]], encoder: nn.Module) -> None:
        super().__init__()
        self.register_buffer("loadings", torch.tensor(loadings))
        self.encoder = encoder
        self.token_dim = getattr(encoder, "token_dim", None)

    def forward(self, x: Tensor) -> Embedding:
        """Embedding of rows [patient, column + others]."""
        numbers = self.loadings.shape[1]
        narrow = torch.cat([x[:, :numbers] @ self.loadings.to(x.dtype).T, x[:, numbers:]], dim=1)
        made: Embedding = self.encoder(narrow)
        return made


class SNN(nn.Module):
    """A self-normalising network for wide omics tables (Klambauer et al., NeurIPS 2017): SELU and alpha dropout.

    Without hidden layers (`depth` 0) it is a linear map.
    """

    def __init__(self, in_dim: int, dim: int, hidden: int = 64, depth: int = 2, dropout: float = 0.25) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(in_dim if i == 0 else hidden, hidden), nn.SELU(), nn.AlphaDropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden if layers else in_dim, dim))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):  # variance 1 / fan-in keeps SELU activations at mean 0 and variance 1
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Embedding:
        """Vector [patient, dim] of rows [patient, in_dim]."""
        return Embedding(self.layers(x))
