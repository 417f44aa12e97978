"""TransMIL: kernel attention against the whole matrix, the pyramid against its convolutions, size against tiles."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nsclc_mtl.encoders.transmil import FLOOR, Alike, KernelAttention, PyramidPosition, TransMIL
from nsclc_mtl.records import Bag, UsageFault

WIDTH, HEADS = 8, 2


def dense(made: KernelAttention, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What attention of all tokens among themselves adds, and its weights [head, query, key], by the whole matrix."""
    x = made.norm(tokens)
    read, weights = [], []
    width = WIDTH // HEADS
    for head in range(HEADS):
        rows = slice(head * width, (head + 1) * width)
        q, k, v = (layer(x)[:, rows] for layer in (made.query, made.key, made.value))
        score = (functional.elu(q) + 1 + FLOOR) @ (functional.elu(k) + 1 + FLOOR).T
        weights.append(score / score.sum(1, keepdim=True))
        read.append(weights[-1] @ v)
    return made.out(torch.cat(read, dim=1)), torch.stack(weights)


@pytest.mark.parametrize("sizes", [[5], [3, 0, 4], [1], [4, 1, 0, 3, 2, 0, 9, 4]])
def test_attention_is_that_of_the_whole_matrix(sizes: list[int]) -> None:
    torch.manual_seed(0)
    made = KernelAttention(WIDTH, HEADS, dropout=0.0)
    first, tile = torch.randn(len(sizes), WIDTH), torch.randn(sum(sizes), WIDTH)
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    token, tiles = made(first, tile, Alike(sizes))
    pooled, attention = made.pool(first, tile, Alike(sizes), owner)
    torch.testing.assert_close(pooled, token)
    for i in range(len(sizes)):
        whole = torch.cat([first[i : i + 1], tile[owner == i]])
        added, weights = dense(made, whole)
        torch.testing.assert_close(torch.cat([token[i : i + 1], tiles[owner == i]]), whole + added)
        own = weights[:, 0, 1:]  # of the class token to the tiles
        torch.testing.assert_close(attention[owner == i], (own / own.sum(1, keepdim=True)).mean(0))


@pytest.mark.parametrize("n", [1, 2, 4, 7, 10, 26])
def test_the_pyramid_is_the_sum_of_its_three_convolutions(n: int) -> None:
    torch.manual_seed(0)
    made = PyramidPosition(WIDTH)
    tile = torch.randn(n, WIDTH)
    side = math.ceil(math.sqrt(n))
    square = torch.zeros(side * side, WIDTH)
    square[:n] = tile
    image = square.reshape(side, side, WIDTH).permute(2, 0, 1)[None]
    seen = image
    for look in (made.wide, made.middle, made.narrow):
        seen = seen + functional.conv2d(image, look.weight, look.bias, padding=look.kernel_size[0] // 2, groups=WIDTH)
    expected = seen[0].permute(1, 2, 0).reshape(side * side, WIDTH)[:n]
    torch.testing.assert_close(made(torch.cat([tile, tile]), Alike([n, n])), torch.cat([expected, expected]))


@pytest.mark.parametrize("small", [0, 4, 1024])
def test_patients_side_by_side_are_patients_one_by_one(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors, attention and gradients, whoever stands together: small=0 is everybody with tiles alone."""
    sizes = [4, 1, 0, 3, 2, 17, 0, 9, 4, 30]
    gen = torch.Generator().manual_seed(0)
    packed = Bag(torch.randn(sum(sizes), 5, generator=gen), torch.tensor([0, *sizes]).cumsum(0))
    torch.manual_seed(0)
    encode = TransMIL(5, 4, WIDTH, HEADS).double().eval()

    def told(small: int) -> list[Tensor]:
        monkeypatch.setattr("nsclc_mtl.encoders.transmil.SMALL", small)
        said = encode(Bag(packed.features.double(), packed.offsets))
        return [
            said.vector,
            said.attention,
            *torch.autograd.grad(said.vector.square().sum(), list(encode.parameters())),
        ]

    monkeypatch.setattr("nsclc_mtl.encoders.transmil.SMALL", small)
    alike = Alike(sizes)
    assert sum(alike.counts) == len(sizes)
    assert torch.equal(alike.join(alike.split(packed.features)), packed.features)
    rows = torch.arange(len(sizes))
    assert torch.equal(alike.patients_together(alike.patients_apart(rows)), rows)
    for together, alone in zip(told(small), told(-1), strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


def test_order_is_read_by_the_pyramid_alone() -> None:
    made = Bag(torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 9]))
    turned = Bag(made.features.flip(0), made.offsets)
    for ppeg in (True, False):
        torch.manual_seed(0)
        encode = TransMIL(5, 4, WIDTH, HEADS, ppeg=ppeg).eval()
        assert torch.allclose(encode(made).vector, encode(turned).vector, atol=1e-6) != ppeg


def test_no_matrix_of_tiles_by_tiles_is_made() -> None:
    """30,000 tiles: a matrix of their pairs would be 3.6 GB a head; the largest tensor stays linear in the tiles."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                largest = max(largest, out.numel())
            return out

    encode, n = TransMIL(5, 4, WIDTH, HEADS), 30_000
    packed = Bag(torch.randn(n, 5), torch.tensor([0, n]))
    with Watch():
        encode(packed).vector.sum().backward()
    assert largest <= 4 * n * WIDTH


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(UsageFault, match="hidden=8 must be a multiple of heads=3"):
        TransMIL(5, 4, 8, 3)


def test_gradients_of_the_pyramid_share_no_memory() -> None:
    """Patients of one size of square: a second bag doubles every gradient, also those of the biases."""
    torch.manual_seed(0)
    made, bag = TransMIL(5, 4, hidden=8, heads=2, dropout=0.0), Bag(torch.randn(30, 5), torch.tensor([0, 30]))
    made(bag).vector.sum().backward()
    once = {name: p.grad.clone() for name, p in made.position.named_parameters()}
    made(bag).vector.sum().backward()
    for name, p in made.position.named_parameters():
        torch.testing.assert_close(p.grad, 2 * once[name])
    places = [p.grad.data_ptr() for p in made.parameters() if p.grad is not None]
    assert len(set(places)) == len(places)
