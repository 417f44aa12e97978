"""Rows to embeddings: each patient alone, any width, finite."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nsclc_mtl.encoders.tabular import MLP, SNN

MAKERS = {
    "mlp": lambda: MLP(6, 4),
    "linear": lambda: MLP(6, 4, hidden=0, input_dropout=0.3),
    "snn": lambda: SNN(6, 4, depth=3),
}


@pytest.fixture(params=sorted(MAKERS))
def encoder(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return MAKERS[request.param]()


def test_a_row_is_encoded_by_itself(encoder: nn.Module) -> None:
    encoder.eval()
    x = torch.randn(7, 6)
    together = encoder(x).vector
    assert together.shape == (7, 4)
    torch.testing.assert_close(together[3:4], encoder(x[3:4]).vector)
    other = x.clone()
    other[[0, 1]] = 1e6
    torch.testing.assert_close(encoder(other).vector[2:], together[2:])
    assert torch.isfinite(encoder(other).vector).all()


def test_training_drops_and_gradients_flow(encoder: nn.Module) -> None:
    x = torch.randn(64, 6)
    encoder.train()
    assert not torch.equal(encoder(x).vector, encoder(x).vector)
    encoder(x).vector.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_no_hidden_layer_is_a_linear_map() -> None:
    encode = MLP(6, 4, hidden=0).eval()
    a, b = torch.randn(2, 3, 6)
    zero = encode(torch.zeros(3, 6)).vector
    torch.testing.assert_close(encode(a + b).vector - zero, (encode(a).vector - zero) + (encode(b).vector - zero))


def test_activations_of_a_self_normalising_network_keep_their_scale() -> None:
    """Klambauer et al. (2017): mean 0 and variance 1 are kept from layer to layer."""
    torch.manual_seed(0)
    deep = SNN(200, 4, hidden=200, depth=8).eval()
    inside = deep.layers[:-1](torch.randn(500, 200)).detach()
    assert abs(float(inside.mean())) < 0.1
    assert 0.7 < float(inside.var()) < 1.4


def test_without_hidden_layers_it_is_a_linear_map() -> None:
    encode = SNN(6, 4, depth=0)
    x, y = torch.randn(5, 6), torch.randn(5, 6)
    torch.testing.assert_close(encode(x + y).vector, encode(x).vector + encode(y).vector)
