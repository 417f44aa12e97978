"""Laws of every slide encoder: attention sums to one, order and packing are nothing, nobody's tiles touch another."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nsclc_mtl.encoders.clam import CLAM
from nsclc_mtl.encoders.coordinates import Coordinates, places
from nsclc_mtl.encoders.dsmil import DSMIL
from nsclc_mtl.encoders.mil import ABMIL, MeanPool
from nsclc_mtl.encoders.pooling import MaxPool
from nsclc_mtl.encoders.segments import owners, segment_softmax, segment_sum
from nsclc_mtl.encoders.supervised import SupervisedEncoder
from nsclc_mtl.encoders.tiles import TileScale
from nsclc_mtl.encoders.transmil import TransMIL
from nsclc_mtl.records import Bag, Target, UsageFault

IN, DIM, CLASSES = 5, 4, {"grade": 3, "response": 2}
Make = Callable[[], nn.Module]
SCALE = {"mean": [0.5] * IN, "sd": [2.0] * IN}

NEW: dict[str, Make] = {
    "max": lambda: MaxPool(IN, DIM, 8, scale=SCALE),
    "max-placed": lambda: MaxPool(IN, DIM, 8, scale=SCALE, coordinates=True),
    "clam-sb": lambda: CLAM(IN, DIM, 8, 4, k=2, classes=CLASSES, scale=SCALE),
    "clam-mb": lambda: CLAM(IN, DIM, 8, 4, branches="class", k=2, classes=CLASSES, scale=SCALE, coordinates=8),
    "clam-mb-survival": lambda: CLAM(IN, DIM, 8, 4, branches="class", classes={}, scale=SCALE),
    "dsmil": lambda: DSMIL(IN, DIM, 8, 4, classes=CLASSES, scale=SCALE, coordinates=True),
    "dsmil-binary": lambda: DSMIL(IN, DIM, 8, 4, task="response", classes=CLASSES, scale=SCALE),
    "dsmil-survival": lambda: DSMIL(IN, DIM, 8, 4, scale=SCALE),
    "abmil-deep": lambda: ABMIL(IN, DIM, [8, 6], 4, scale=SCALE, coordinates=8, activation="relu", tile_dropout=0.25),
    "transmil": lambda: TransMIL(IN, DIM, 8, 2, scale=SCALE),
    "transmil-no-order": lambda: TransMIL(IN, DIM, 8, 2, ppeg=False, scale=SCALE, coordinates=True),
}
ALL: dict[str, Make] = {"abmil": lambda: ABMIL(IN, DIM, 8, 4), "mean": lambda: MeanPool(IN, DIM), **NEW}
ORDERED = ("transmil",)  # position encoding reads the canonical order
sizes_of_bags = st.lists(st.integers(0, 7), min_size=1, max_size=5)


def bag(sizes: list[int], seed: int = 0, scale: float = 3.0) -> Bag:
    made = torch.Generator().manual_seed(seed)
    coords = torch.randint(0, 90_000, (sum(sizes), 2), generator=made)
    return Bag(
        scale * torch.randn(sum(sizes), IN, generator=made), torch.tensor([0, *sizes]).cumsum(0), coords
    )  # each patient's own


def part(made: Bag, i: int, order: Tensor | None = None) -> Bag:
    rows = slice(int(made.offsets[i]), int(made.offsets[i + 1]))
    features, coords = made.features[rows], None if made.coords is None else made.coords[rows]
    if order is not None:
        features, coords = features[order], None if coords is None else coords[order]
    return Bag(features, torch.tensor([0, len(features)]), coords)


def encoder(name: str) -> nn.Module:
    torch.manual_seed(1)
    made = ALL[name]().eval()
    for parameter in made.parameters():  # biases and tokens too: a law must not hold by a zero at the start
        nn.init.normal_(parameter, std=0.5)
    return made


def targets(n: int, known: bool = True) -> dict[str, Target]:
    there = torch.full((n,), known)
    value = torch.arange(n) % 3 if known else torch.full((n,), torch.nan)
    return {"grade": Target(there, value.float()), "response": Target(there, (value % 2).float())}


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25, deadline=None)
@given(sizes=sizes_of_bags, seed=st.integers(0, 99))
def test_packing_and_order_are_nothing_and_attention_sums_to_one(name: str, sizes: list[int], seed: int) -> None:
    encode, packed = encoder(name), bag(sizes, seed)
    with torch.no_grad():
        told = encode(packed)
        assert told.vector.shape == (len(sizes), DIM)
        assert bool((told.attention >= 0).all())
        total = segment_sum(told.attention[:, None], owners(packed.offsets), len(sizes)).squeeze(1)
        torch.testing.assert_close(total, (torch.tensor(sizes) > 0).float())
        for i, size in enumerate(sizes):
            turned = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
            order = torch.arange(size) if name in ORDERED else turned
            alone = encode(part(packed, i, order))
            torch.testing.assert_close(alone.vector[0], told.vector[i], atol=2e-5, rtol=2e-5)
            mine = told.attention[packed.offsets[i] : packed.offsets[i + 1]]
            torch.testing.assert_close(alone.attention, mine[order], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", NEW)
@settings(max_examples=15, deadline=None)
@given(sizes=sizes_of_bags, seed=st.integers(0, 99))
def test_losses_of_the_tiles_know_no_order_of_patients_and_are_finite(name: str, sizes: list[int], seed: int) -> None:
    """The mean of what each patient costs alone; unknown labels and hidden patients cost nothing."""
    encode, packed, n = encoder(name), bag(sizes, seed), len(sizes)
    if not isinstance(encode, SupervisedEncoder):
        return
    truth, present = targets(n), torch.tensor(sizes) > 0
    told = encode.supervise(packed, encode(packed), truth, present)
    if encode.task is None:
        assert told == {}
        return
    each = []
    for i in torch.nonzero(present).flatten().tolist():
        one = part(packed, i)
        label = {task: Target(t.known[i : i + 1], t.value[i : i + 1]) for task, t in truth.items()}
        each.append(encode.supervise(one, encode(one), label, torch.tensor([True]))["instance"])
    mean = torch.stack(each).mean() if each else torch.zeros(())
    torch.testing.assert_close(told["instance"], mean, atol=2e-5, rtol=2e-5)
    for blank in (
        encode.supervise(packed, encode(packed), targets(n, known=False), present),
        encode.supervise(packed, encode(packed), truth, torch.zeros(n, dtype=torch.bool)),
    ):
        assert blank["instance"].item() == 0
        gradients = torch.autograd.grad(blank["instance"], list(encode.parameters()), allow_unused=True)
        assert all(g is None or not bool(g.any()) for g in gradients)


@pytest.mark.parametrize("name", ALL)
def test_a_patient_without_tiles_changes_nobody_and_gradients_are_finite(name: str) -> None:
    encode, packed = encoder(name), bag([3, 0, 2, 1, 0])
    features = packed.features.requires_grad_(True)
    told = encode(Bag(features, packed.offsets, packed.coords))
    torch.testing.assert_close(told.vector[1], told.vector[4])
    nothing = Bag(torch.zeros(0, IN), torch.zeros(3, dtype=torch.int64), torch.zeros(0, 2, dtype=torch.int64))
    torch.testing.assert_close(encode(nothing).vector[0], told.vector[1])
    (gradient,) = torch.autograd.grad(told.vector[1].sum(), features, retain_graph=True, allow_unused=True)
    assert gradient is None or gradient.abs().sum() == 0
    (gradient,) = torch.autograd.grad(told.vector[0].sum(), features, retain_graph=True)
    assert gradient[:3].abs().sum() > 0
    assert gradient[3:].abs().sum() == 0
    loss = told.vector.square().sum()
    if isinstance(encode, SupervisedEncoder):
        loss = loss + sum(encode.supervise(packed, told, targets(5), packed.offsets.diff() > 0).values())
    loss.backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in encode.parameters())
    moved = {n for n, p in encode.named_parameters() if p.grad is not None and bool(p.grad.any())}
    # a bias of all keys alike moves no softmax; an unused position code has no gradient
    assert {n for n, p in encode.named_parameters() if p.ndim > 1} <= moved


@pytest.mark.parametrize("name", ALL)
def test_thousands_of_tiles_and_wild_features_are_finite(name: str) -> None:
    encode, packed = encoder(name), bag([3000, 1], scale=1e4)
    told = encode(packed)
    told.vector.sum().backward()
    assert torch.isfinite(told.vector).all()
    assert all(bool(torch.isfinite(p.grad).all()) for p in encode.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", NEW)
def test_half_precision_on_the_way(name: str) -> None:
    """`precision=bf16-mixed` gives nearly what 32 bits give, losses of the tiles among it."""
    encode, packed = encoder(name), bag([3, 2])
    plain = encode(packed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        told = encode(packed)
        if isinstance(encode, SupervisedEncoder):
            losses = encode.supervise(packed, told, targets(2), torch.ones(2, dtype=torch.bool))
            assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    spread = plain.vector.abs().max().item()
    torch.testing.assert_close(told.vector.float(), plain.vector, atol=0.08 * spread, rtol=0.08)
    assert float(told.attention.detach().float().sum()) == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("looked", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", ALL)
def test_thousands_of_tiles_in_half_precision(name: str, looked: bool) -> None:
    """A sum of thousands in eight bits stops growing where a tile is less than half its last bit: sums are wider."""
    torch.manual_seed(1)
    encode, packed = ALL[name]().eval(), bag([5000, 3, 0], scale=1.0)
    with torch.set_grad_enabled(looked):
        plain = encode(packed)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            told = encode(packed)
    total = segment_sum(told.attention.detach().float()[:, None], owners(packed.offsets), 3).squeeze(1)
    torch.testing.assert_close(total, torch.tensor([1.0, 1.0, 0.0]), atol=1e-2, rtol=0)
    away = (told.vector.float() - plain.vector).detach().norm(dim=1) / plain.vector.detach().norm(dim=1)
    assert away.max() < 0.03


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_sums_of_halves_are_single_and_those_of_doubles_double(half: torch.dtype) -> None:
    """70,000 ones are more than a half can say, and 300 of them more than bf16 can count to."""
    owner, ones = torch.zeros(70_000, dtype=torch.int64), torch.ones(70_000)
    assert segment_sum(ones.to(half)[:, None], owner, 1).tolist() == [[70_000.0]]
    weight = segment_softmax(ones.to(half), owner, 1)
    assert weight.dtype == torch.float32
    assert float(weight.sum()) == pytest.approx(1, abs=1e-5)
    assert segment_softmax(ones.double(), owner, 1).dtype == torch.float64
    assert segment_sum(ones.double()[:, None], owner, 1).dtype == torch.float64


@pytest.mark.parametrize("name", [n for n in NEW if n != "clam-mb-survival"])
def test_dropout_is_for_training(name: str) -> None:
    encode, packed = encoder(name), bag([4, 3])
    assert torch.equal(encode(packed).vector, encode(packed).vector)
    encode.train()
    assert not torch.equal(encode(packed).vector, encode(packed).vector)


@pytest.mark.parametrize("name", NEW)
def test_the_influence_of_a_tile_finds_the_scale_of_its_features(name: str) -> None:
    """`explain.influence` looks for it: without, a feature of a large spread would seem to matter less."""
    (scale,) = (part for part in NEW[name]().modules() if isinstance(part, TileScale))
    assert scale.sd.tolist() == SCALE["sd"]


PLACED = ["max-placed", "clam-mb", "dsmil", "transmil-no-order"]


@pytest.mark.parametrize("name", PLACED)
def test_places_are_read_and_the_origin_of_a_slide_is_not(name: str) -> None:
    encode, packed = encoder(name), bag([4, 3])
    assert packed.coords is not None
    away = Bag(packed.features, packed.offsets, packed.coords * 2 + torch.tensor([10**9, -70_000]))
    torch.testing.assert_close(encode(away).vector, encode(packed).vector)  # another corner, another pixel size
    mirrored = Bag(packed.features, packed.offsets, packed.coords.flip(1))
    assert not torch.allclose(encode(mirrored).vector, encode(packed).vector)


@pytest.mark.parametrize("name", PLACED)
def test_without_coordinates_the_place_adds_exactly_nothing(name: str) -> None:
    encode, packed = encoder(name), bag([4, 3])
    bare = encode(Bag(packed.features, packed.offsets)).vector
    for module in encode.modules():
        if isinstance(module, Coordinates):
            nn.init.zeros_(module.linear.weight)
    torch.testing.assert_close(encode(packed).vector, bare)


def test_places_lie_between_minus_one_and_one_and_keep_shapes() -> None:
    packed = bag([5, 0, 1, 40])
    at = places(packed)
    assert at is not None
    assert at.abs().max() == 1
    assert at[5].tolist() == [0, 0]  # one tile: the middle
    assert places(Bag(packed.features, packed.offsets)) is None
    square = torch.tensor([[0, 0], [4000, 0], [0, 1000], [4000, 1000]])
    wide = places(Bag(torch.zeros(4, 1), torch.tensor([0, 4]), square))
    assert wide is not None
    assert wide.tolist() == [[-1, -0.25], [1, -0.25], [-1, 0.25], [1, 0.25]]


@pytest.mark.parametrize("dim", [2, 6, -4])
def test_a_code_of_another_length_is_refused(dim: int) -> None:
    with pytest.raises(UsageFault, match="multiple of 4"):
        MaxPool(IN, DIM, coordinates=dim)


@pytest.mark.parametrize("name", ["mean", "max", "abmil", "clam-sb", "dsmil-survival"])
def test_every_slide_five_times_is_every_slide_once(name: str) -> None:
    """What a patient is predicted does not follow how many copies of a slide there are, so no interval does either."""
    once = bag([4, 3, 5])
    rows = torch.cat([torch.arange(a, b).repeat(5) for a, b in itertools.pairwise(once.offsets.tolist())])
    assert once.coords is not None
    often = Bag(once.features[rows], once.offsets * 5, once.coords[rows])
    encode = encoder(name)
    torch.testing.assert_close(encode(often).vector, encode(once).vector, rtol=1e-5, atol=1e-5)
