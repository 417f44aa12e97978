"""The first layer of a slide encoder, block by block: the same numbers and gradients as the plain layers give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nsclc_mtl.encoders import mil, tiles
from nsclc_mtl.encoders.mil import ABMIL, MeanPool
from nsclc_mtl.encoders.tiles import AsTheyAre, TileScale, first_layer, tile_scale
from nsclc_mtl.records import Bag

DIM, HIDDEN = 24, 6
SCALE = {"mean": [0.5 * i for i in range(DIM)], "sd": [0.1 + 0.2 * i for i in range(DIM)]}


def drawn(rows: int, seed: int = 0, dtype: torch.dtype = torch.float16) -> Tensor:
    """Features, some of them beyond the clip."""
    made = torch.Generator().manual_seed(seed)
    scale = TileScale(**SCALE)
    return (scale.mean + 3 * scale.sd * torch.randn(rows, DIM, generator=made)).to(dtype)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "BLOCK", 7)
    monkeypatch.setattr(mil, "LOOK", 10)


@pytest.mark.parametrize("rows", [0, 1, 7, 40])
@pytest.mark.parametrize("scale", [SCALE, None])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.usefixtures("small_blocks")
def test_products_and_gradients_are_those_of_the_plain_layers(rows: int, scale: dict | None, bias: bool) -> None:
    torch.manual_seed(0)
    layer, by = nn.Linear(DIM, HIDDEN, bias=bias), tile_scale(scale)
    features = drawn(rows, dtype=torch.float32).requires_grad_(True)
    upstream = torch.randn(rows, HIDDEN)
    wanted = layer(by(features))
    found = first_layer(features, by, layer)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    leaves = [features, *layer.parameters()]
    for mine, plain in zip(
        torch.autograd.grad(found, leaves, upstream), torch.autograd.grad(wanted, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-4)
    if scale and rows == 40:
        assert (by(features).abs() == 6).any()  # the clip was tried


def test_half_precision_is_made_wide_before_it_is_scaled() -> None:
    layer, features = nn.Linear(DIM, HIDDEN), drawn(30)
    for by in (TileScale(**SCALE), AsTheyAre()):
        torch.testing.assert_close(
            first_layer(features, by, layer), first_layer(features.float(), by, layer), rtol=0, atol=0
        )


@pytest.mark.usefixtures("small_blocks")
def test_dropout_drops_each_feature_by_itself_and_keeps_the_mean() -> None:
    """The identity as a layer shows what it let through: zeros at the stated share, the others scaled up."""
    layer = nn.Linear(DIM, DIM, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(DIM))
    features = torch.ones(4000, DIM, dtype=torch.float16)
    torch.manual_seed(3)
    seen = first_layer(features, AsTheyAre(), layer, dropout=0.1, training=True)
    share = 26 / 256
    kept = seen != 0
    torch.testing.assert_close(seen[kept], torch.full_like(seen[kept], 1 / (1 - share)))
    n = kept.numel()
    assert abs(1 - kept.float().mean().item() - share) < 5 * (share * (1 - share) / n) ** 0.5
    together = torch.corrcoef(kept.float().T) - torch.eye(DIM)  # of features
    assert together.abs().max() < 5 / 4000**0.5
    lagged = torch.corrcoef(torch.stack([kept[:-1].flatten().float(), kept[1:].flatten().float()]))[0, 1]  # of tiles
    assert abs(lagged) < 5 / n**0.5
    torch.manual_seed(3)
    assert torch.equal(first_layer(features, AsTheyAre(), layer, dropout=0.1, training=True), seen)
    assert not torch.equal(first_layer(features, AsTheyAre(), layer, dropout=0.1, training=True), seen)
    assert torch.equal(first_layer(features, AsTheyAre(), layer, dropout=0.1, training=False), features.float())


@pytest.mark.usefixtures("small_blocks")
def test_the_gradient_sees_what_the_product_saw() -> None:
    """A product is linear in its weights: with dropout, too, output = gradient of the sum times the weights."""
    layer, features = nn.Linear(DIM, HIDDEN, bias=False), drawn(40, dtype=torch.float32).requires_grad_(True)
    seen = first_layer(features, AsTheyAre(), layer, dropout=0.5, training=True)
    of_weight, of_features = torch.autograd.grad(seen.sum(), [layer.weight, features])
    torch.testing.assert_close((of_weight * layer.weight).sum(), seen.sum(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close((of_features * features).sum(), seen.sum(), rtol=1e-4, atol=1e-3)
    assert 0.3 < (of_features == 0).float().mean() < 0.7


def test_several_gradients_at_once() -> None:
    layer, features = nn.Linear(DIM, HIDDEN), drawn(30)
    out, each = first_layer(features, TileScale(**SCALE), layer), torch.randn(3, 30, HIDDEN)
    (together,) = torch.autograd.grad(out, [layer.weight], each, retain_graph=True, is_grads_batched=True)
    for i in range(3):
        (alone,) = torch.autograd.grad(out, [layer.weight], each[i], retain_graph=True)
        torch.testing.assert_close(together[i], alone)


@pytest.mark.parametrize("of_features", [False, True])
@pytest.mark.parametrize("rows", [0, 40])
@pytest.mark.usefixtures("small_blocks")
def test_in_bf16_the_same_features_are_dropped_and_the_gradients_are_nearly_the_same(
    rows: int, of_features: bool
) -> None:
    """The layer keeps what it saw in bf16; with gradients of several outputs at once, and without any."""
    torch.manual_seed(0)
    layer, by = nn.Linear(DIM, HIDDEN), TileScale(**SCALE)
    features, each = drawn(rows, dtype=torch.float32).requires_grad_(of_features), torch.randn(3, rows, HIDDEN)
    leaves = [*layer.parameters(), *([features] if of_features else [])]

    def said(bf16: bool, graph: bool = True) -> Tensor:
        torch.manual_seed(7)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16), torch.set_grad_enabled(graph):
            return first_layer(features, by, layer, dropout=0.3, training=True)

    wide, half = said(False), said(True)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), wide, rtol=0.02, atol=0.05)
    torch.testing.assert_close(said(True, graph=False), half, rtol=0, atol=0.02)
    for i in range(3):
        wanted = torch.autograd.grad(wide, leaves, each[i], retain_graph=True)
        found = torch.autograd.grad(half, leaves, each[i].bfloat16(), retain_graph=True)
        for mine, plain in zip(found, wanted, strict=True):
            assert mine.dtype == torch.float32
            assert torch.linalg.norm(mine - plain) <= 0.01 * torch.linalg.norm(plain)
    if rows:
        (together,) = torch.autograd.grad(half, [layer.weight], each.bfloat16(), is_grads_batched=True)
        torch.testing.assert_close(together[2], found[0], rtol=0.01, atol=0.02)


@pytest.mark.parametrize("kind", [ABMIL, MeanPool])
@pytest.mark.parametrize("sizes", [[33], [0, 3, 25, 0, 1, 12, 0], [0]])
@pytest.mark.usefixtures("small_blocks")
def test_in_pieces_equals_whole(kind: type[nn.Module], sizes: list[int]) -> None:
    """Without gradients bags are looked at in pieces, whose bounds lie within patients and between them."""
    torch.manual_seed(2)
    encode = kind(DIM, 4, scale=SCALE).eval()
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    features = drawn(sum(sizes))
    whole = encode(Bag(features.float().requires_grad_(True), offsets))
    with torch.no_grad():
        pieces = encode(Bag(features, offsets))
    torch.testing.assert_close(pieces.vector, whole.vector.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pieces.attention, whole.attention.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("small_blocks")
def test_scores_that_rise_from_piece_to_piece_do_not_overflow() -> None:
    encode = ABMIL(1, 2, hidden=1, gate=1).eval()
    with torch.no_grad():
        for parameter in encode.parameters():
            parameter.fill_(1.0)
        encode.score.weight.fill_(300.0)  # scores from 0 to 300: exp(300) is infinite in single precision
        features = torch.linspace(-3, 3, 41)[:, None]
        told = encode(Bag(features, torch.tensor([0, 41])))
    whole = encode(Bag(features, torch.tensor([0, 41])))
    torch.testing.assert_close(told.vector, whole.vector.detach())
    torch.testing.assert_close(told.attention, whole.attention.detach())
    assert told.attention.sum().item() == pytest.approx(1)
