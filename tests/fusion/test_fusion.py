"""Fusion: an absent modality is a masked one, whatever stands in its rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nsclc_mtl.fusion.concat import Concat
from nsclc_mtl.fusion.experts import Experts
from nsclc_mtl.fusion.joining import Joining
from nsclc_mtl.records import Embedding

NAMES, TASKS, DIM = ("wsi", "rna", "clinical"), ("grade", "survival"), 4
MAKERS: dict[str, Any] = {"concat": Concat, "experts": Experts}


def fusion(kind: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    made = MAKERS[kind](NAMES, TASKS, DIM, **options)
    for token in made.join.absent.values():  # they start at zero; here they must be told from it
        nn.init.normal_(token)
    if isinstance(made, Experts):  # the same for what the products weigh
        assert made.interactions is not None
        for weight in made.interactions.weights.values():
            nn.init.normal_(weight)
    return made


def patients(n: int, seed: int) -> tuple[dict[str, Embedding], dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    seen = {name: Embedding(torch.randn(n, DIM, generator=draw)) for name in NAMES}
    return seen, {name: torch.rand(n, generator=draw) < 0.6 for name in NAMES}


def spoiled(seen: dict[str, Embedding], present: dict[str, Tensor], garbage: float) -> dict[str, Embedding]:
    return {name: Embedding(torch.where(present[name][:, None], e.vector, garbage)) for name, e in seen.items()}


@pytest.mark.parametrize("kind", sorted(MAKERS))
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), garbage=st.sampled_from([1e3, -7.0, float("nan")]), train=st.booleans())
def test_garbage_in_absent_rows_changes_nothing(kind: str, seed: int, garbage: float, train: bool) -> None:
    fuse = fusion(kind).train(train)
    seen, present = patients(6, seed)
    made = []
    for rows in (seen, spoiled(seen, present, garbage)):
        torch.manual_seed(5)
        views, losses = fuse(rows, present)
        assert set(losses) == ({"interactions"} if kind == "experts" and train else set())
        assert all(torch.isfinite(loss) for loss in losses.values())
        made.append(views)
    for task in TASKS:
        assert made[0][task].shape == (6, fuse.view_dim)
        torch.testing.assert_close(made[0][task], made[1][task], rtol=0, atol=0)
        assert torch.isfinite(made[1][task]).all()


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_patient_is_fused_alone_and_masked_rows_get_no_gradient(kind: str) -> None:
    fuse = fusion(kind).eval()
    seen, present = patients(5, 3)
    together, _ = fuse(seen, present)
    alone, _ = fuse({n: Embedding(e.vector[2:3]) for n, e in seen.items()}, {n: p[2:3] for n, p in present.items()})
    for task in TASKS:
        torch.testing.assert_close(together[task][2:3], alone[task])
    vector = seen["rna"].vector.requires_grad_(True)
    views, _ = fuse(seen, present)
    (gradient,) = torch.autograd.grad(sum(v.sum() for v in views.values()), vector)
    assert ((gradient.abs().sum(1) > 0) == present["rna"]).all()


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_the_order_of_modalities_in_the_batch_is_nothing(kind: str) -> None:
    fuse = fusion(kind).eval()
    seen, present = patients(4, 1)
    told, _ = fuse(seen, present)
    turned, _ = fuse(dict(reversed(seen.items())), dict(reversed(present.items())))
    for task in TASKS:
        assert torch.equal(told[task], turned[task])


def test_gates_are_weights_and_differ_between_tasks() -> None:
    fuse = fusion("experts", experts=3).eval()
    assert isinstance(fuse, Experts)
    seen, present = patients(6, 2)
    joined = fuse.join(seen, present)[0].flatten(1)
    gates = fuse.weights(joined)
    for weight in gates.values():
        torch.testing.assert_close(weight.sum(1), torch.ones(6))
        assert (weight > 0).all()
    assert not torch.allclose(gates["grade"], gates["survival"])
    views = fuse.views(joined)
    by_hand = sum(gates["grade"][:, i, None] * expert(joined) for i, expert in enumerate(fuse.experts))
    torch.testing.assert_close(views["grade"], by_hand)


def test_modalities_are_hidden_in_training_but_never_all() -> None:
    torch.manual_seed(0)
    fuse = Concat(NAMES, TASKS, DIM, modality_dropout=0.4)
    _, present = patients(400, 4)
    there = torch.stack(list(present.values()), dim=1)
    used = torch.stack(list(fuse.train().hide(present).values()), dim=1)
    assert (used <= there).all()
    assert (used.any(1) == there.any(1)).all()
    assert 0.6 * there.sum() < used.sum() < 0.9 * there.sum()
    assert torch.equal(torch.stack(list(fuse.eval().hide(present).values()), dim=1), there)


def test_the_token_of_what_is_absent_is_learned() -> None:
    join = Joining(NAMES, DIM)
    seen, present = patients(5, 6)
    present["wsi"] = torch.tensor([True, False, True, True, True])
    join(seen, present)[0].sum().backward()
    assert join.absent["wsi"].grad is not None
    assert join.absent["wsi"].grad.tolist() == [1.0] * DIM
