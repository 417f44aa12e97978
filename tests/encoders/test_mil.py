"""Bags: attention sums to one, order and packing are nothing, patients never touch each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nsclc_mtl.encoders.mil import ABMIL, MeanPool
from nsclc_mtl.encoders.segments import owners, segment_softmax, segment_sum
from nsclc_mtl.records import Bag, UsageFault

DIM = 5
sizes_of_bags = st.lists(st.integers(0, 6), min_size=1, max_size=5)


def bag(sizes: list[int], seed: int = 0, scale: float = 3.0) -> Bag:
    made = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    return Bag(scale * torch.randn(sum(sizes), DIM, generator=made), offsets)


def encoder(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    return kind(DIM, 4, scale={"mean": [0.5] * DIM, "sd": [2.0] * DIM}).eval()


def rows(made: Bag, i: int) -> Tensor:
    return made.features[made.offsets[i] : made.offsets[i + 1]]


@pytest.mark.parametrize("kind", [ABMIL, MeanPool])
@settings(max_examples=40, deadline=None)
@given(sizes=sizes_of_bags, seed=st.integers(0, 99))
def test_packing_and_order_are_nothing_and_attention_sums_to_one(
    kind: type[nn.Module], sizes: list[int], seed: int
) -> None:
    encode, packed = encoder(kind), bag(sizes, seed)
    with torch.no_grad():
        told = encode(packed)
        total = segment_sum(told.attention[:, None], owners(packed.offsets), len(sizes)).squeeze(1)
        torch.testing.assert_close(total, (torch.tensor(sizes) > 0).float())
        assert told.vector.shape == (len(sizes), 4)
        for i, size in enumerate(sizes):
            turned = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
            alone = encode(Bag(rows(packed, i)[turned], torch.tensor([0, size])))
            torch.testing.assert_close(alone.vector[0], told.vector[i])
            mine = told.attention[packed.offsets[i] : packed.offsets[i + 1]]
            torch.testing.assert_close(alone.attention, mine[turned])


@pytest.mark.parametrize("kind", [ABMIL, MeanPool])
def test_a_patient_without_tiles_changes_nobody_and_has_no_gradient(kind: type[nn.Module]) -> None:
    encode, packed = encoder(kind), bag([3, 0, 2])
    features = packed.features.requires_grad_(True)
    told = encode(Bag(features, packed.offsets))
    assert torch.isfinite(told.vector).all()
    (gradient,) = torch.autograd.grad(told.vector[1].sum(), features)
    assert gradient.abs().sum() == 0
    (gradient,) = torch.autograd.grad(encode(Bag(features, packed.offsets)).vector[0].sum(), features)
    assert gradient[:3].abs().sum() > 0
    assert gradient[3:].abs().sum() == 0


def test_large_scores_and_single_tiles_are_finite() -> None:
    weight = segment_softmax(torch.tensor([1e4, -1e4, 3e38]), torch.tensor([0, 0, 1]), 2)
    assert weight.tolist() == [1, 0, 1]
    told = encoder(ABMIL)(bag([1, 2], scale=1e6))
    assert told.attention[0] == 1
    assert torch.isfinite(told.vector).all()


@pytest.mark.parametrize("kind", [ABMIL, MeanPool])
def test_half_precision_on_the_way(kind: type[nn.Module]) -> None:
    """`precision=bf16-mixed` gives what 32 bits give, nearly."""
    encode, packed = encoder(kind), bag([3, 2])
    plain = encode(packed).vector
    with torch.autocast("cpu", dtype=torch.bfloat16):
        told = encode(packed)
    torch.testing.assert_close(told.vector.float(), plain, atol=0.05, rtol=0.05)
    assert float(told.attention.detach().float().sum()) == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize("kind", [ABMIL, MeanPool])
def test_double_precision_on_the_way(kind: type[nn.Module]) -> None:
    """Weights may be wide, and the stored tiles as they are."""
    encode, packed = encoder(kind), bag([3, 2])
    plain = encode(packed).vector
    told = encode.double()(Bag(packed.features.half(), packed.offsets)).vector
    assert told.dtype == torch.float64
    torch.testing.assert_close(told.float(), plain, atol=0.01, rtol=0.01)


def test_tokens_are_the_hidden_tiles_of_every_patient() -> None:
    torch.manual_seed(1)
    made, given = ABMIL(DIM, 4, hidden=7, tokens=True).eval(), bag([3, 0, 2])
    said = made(given)
    assert said.tokens is not None
    assert made.token_dim == said.tokens.shape[1] == 7
    assert torch.equal(said.offsets, given.offsets)
    pooled = segment_sum(said.tokens * said.attention[:, None], owners(given.offsets), 3)
    torch.testing.assert_close(made.out(pooled), said.vector)
    assert encoder(ABMIL)(given).tokens is None


def test_attention_is_a_softmax_of_the_gated_score() -> None:
    """Against the formula of Ilse et al. (2018), equation 9, written out."""
    encode, packed = encoder(ABMIL), bag([4])
    assert isinstance(encode, ABMIL)
    with torch.no_grad():
        told = encode(packed)
        h = torch.nn.functional.gelu(encode.tile[1](((packed.features - 0.5) / 2).clamp(-6, 6)))
        v = torch.tanh(encode.content(h)) * torch.sigmoid(encode.gate(h))
        weight = (v @ encode.score.weight.T + encode.score.bias).softmax(0)
        torch.testing.assert_close(told.attention, weight.squeeze(1))
        torch.testing.assert_close(told.vector, encode.out((weight * h).sum(0, keepdim=True)))


def test_several_tile_layers_are_the_published_network() -> None:
    """256-128-64 with ReLU in small, written out; whole in training and piece by piece without a gradient."""
    torch.manual_seed(1)
    made = ABMIL(DIM, 1, [8, 6, 4], 3, dropout=0.0, tokens=True, activation="relu", tile_dropout=0.5).eval()
    packed = bag([4, 2])
    layers = [layer for layer in made.tile if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in layers] == [8, 6, 4]
    h = packed.features
    for layer in layers:
        h = (h @ layer.weight.T + layer.bias).relu()
    score = made.score(torch.tanh(made.content(h)) * torch.sigmoid(made.gate(h))).squeeze(1)
    weight = torch.cat([score[:4].softmax(0), score[4:].softmax(0)])
    told = made(packed)
    assert made.token_dim == 4
    torch.testing.assert_close(told.tokens, h)
    torch.testing.assert_close(told.attention, weight)
    torch.testing.assert_close(told.vector, made.out(torch.stack([weight[:4] @ h[:4], weight[4:] @ h[4:]])))
    made.token_dim = None
    with torch.no_grad():
        torch.testing.assert_close(made(packed).vector, told.vector)
    made.train()
    assert (made(packed).vector != made(packed).vector).any()  # tiles are dropped out between the layers


def test_one_width_in_a_list_is_that_width() -> None:
    made = []
    for hidden in (7, [7]):
        torch.manual_seed(1)
        made.append(ABMIL(DIM, 4, hidden).state_dict())
    assert made[0].keys() == made[1].keys()
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


@pytest.mark.parametrize(
    ("given", "says"),
    [({"hidden": []}, "hidden"), ({"hidden": [4, 0]}, "hidden"), ({"activation": "elu"}, "gelu, relu")],
)
def test_no_layers_and_unknown_activations_are_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(UsageFault, match=says):
        ABMIL(DIM, 4, **given)  # type: ignore[arg-type]
