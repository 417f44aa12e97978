"""Laws of every fusion: an absent modality is a masked one, and order, company and padding are nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import DIM, KINDS, NAMES, TASKS, fusion, patients, spoiled

from nsclc_mtl.fusion.concat import Concat
from nsclc_mtl.fusion.experts import Experts
from nsclc_mtl.fusion.joining import Joining

EVERY = pytest.mark.parametrize("kind", sorted(KINDS))


@EVERY
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), garbage=st.sampled_from([1e3, -7.0, float("nan")]), train=st.booleans())
def test_garbage_in_absent_rows_changes_nothing(kind: str, seed: int, garbage: float, train: bool) -> None:
    """Neither a view nor a loss nor the gradient of a parameter, bit for bit."""
    fuse = fusion(kind).train(train)
    seen, present = patients(6, seed)
    made = []
    for rows in (seen, spoiled(seen, present, garbage)):
        torch.manual_seed(5)
        views, losses = fuse(rows, present)
        total = sum(view.square().sum() for view in views.values()) + sum(losses.values())
        moved = torch.autograd.grad(total, list(fuse.parameters()), allow_unused=True)
        made.append([*views.values(), *losses.values(), *[g for g in moved if g is not None]])
    for task in TASKS:
        assert views[task].shape == (6, fuse.view_dim)
    assert len(made[0]) == len(made[1])
    for clean, dirty in zip(*made, strict=True):
        assert torch.isfinite(dirty).all()
        assert torch.equal(clean, dirty)


@EVERY
def test_losses_are_those_of_training_alone(kind: str) -> None:
    fuse = fusion(kind)
    seen, present = patients(6, 0)
    assert fuse.eval()(seen, present)[1] == {}
    expected = {"interactions"} if kind.startswith("experts") else set()
    assert set(fuse.train()(seen, present)[1]) == expected | ({"load_balance"} if "two of four" in kind else set())
    assert all(note.ndim == 0 and torch.isfinite(note) for note in fuse.notes.values())


@EVERY
def test_the_order_of_patients_their_company_and_padding_are_nothing(kind: str) -> None:
    fuse = fusion(kind).eval()
    seen, present = patients(7, 3)
    present["wsi"][5:] = present["rna"][5:] = present["clinical"][5:] = False  # two who have nothing: padding
    together, _ = fuse(seen, present)
    for order in (torch.tensor([4, 0, 3, 1, 2]), torch.tensor([2])):
        others, _ = fuse({n: e.rows(order) for n, e in seen.items()}, {n: p[order] for n, p in present.items()})
        for task in TASKS:
            torch.testing.assert_close(others[task], together[task][order])


@EVERY
def test_gradient_flows_to_what_is_present_and_nowhere_else(kind: str) -> None:
    fuse = fusion(kind).eval()
    seen, present = patients(8, 3)
    for name, embedding in seen.items():
        embedding.vector.requires_grad_(True)
        views, _ = fuse(seen, present)
        total = torch.stack([view.square().sum() for view in views.values()]).sum()
        (gradient,) = torch.autograd.grad(total, embedding.vector)
        assert ((gradient.abs().sum(1) > 0) == present[name]).all()


@EVERY
def test_the_order_of_modalities_in_the_batch_is_nothing(kind: str) -> None:
    fuse = fusion(kind).eval()
    seen, present = patients(4, 1)
    told, _ = fuse(seen, present)
    turned, _ = fuse(dict(reversed(seen.items())), dict(reversed(present.items())))
    for task in TASKS:
        assert torch.equal(told[task], turned[task])


@EVERY
@pytest.mark.parametrize("train", [False, True])
def test_a_patient_without_any_modality_and_a_batch_of_such_are_finite(kind: str, train: bool) -> None:
    fuse = fusion(kind).train(train)
    seen, present = patients(3, 2)
    nobody = {name: torch.zeros_like(there) for name, there in present.items()}
    views, losses = fuse(seen, nobody)
    total = sum(view.sum() for view in views.values()) + sum(losses.values())
    assert torch.isfinite(total)
    moved = torch.autograd.grad(total, [p for p in fuse.parameters() if p.requires_grad], allow_unused=True)
    assert all(torch.isfinite(g).all() for g in moved if g is not None)
    assert all(torch.isfinite(w).all() for w in fuse.weights_of(seen, nobody).values())


@EVERY
@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_one_modality_works(kind: str, name: str) -> None:
    fuse = fusion(kind, names=(name,)).eval()
    seen, present = patients(5, 1)
    present[name][:] = True
    views, _ = fuse({name: seen[name]}, {name: present[name]})
    for task in TASKS:
        assert views[task].shape == (5, fuse.view_dim)
        assert views[task].std(0).max() > 0  # it tells patients apart
    for weight in fuse.weights_of({name: seen[name]}, {name: present[name]}).values():
        torch.testing.assert_close(weight.sum(1), torch.ones(5))


@EVERY
def test_weights_are_weights_of_what_is_there(kind: str) -> None:
    fuse = fusion(kind).eval()
    seen, present = patients(9, 4, chance=0.8)
    weights = fuse.weights_of(seen, present)
    assert set(weights) == {task for task in TASKS if fuse.weighed(task)}
    there = torch.stack([present[name] for name in NAMES], dim=1)
    for task, weight in weights.items():
        assert weight.shape == (9, len(fuse.weighed(task)))
        assert (weight >= 0).all()
        if fuse.weighed(task) == NAMES:
            assert ((weight > 0) == there).all()
            torch.testing.assert_close(weight.sum(1), there.any(1).float())
        else:
            torch.testing.assert_close(weight.sum(1), torch.ones(9))
    again = fuse.weights_of(spoiled(seen, present, float("nan")), present)
    assert all(torch.equal(again[task], weight) for task, weight in weights.items())


@EVERY
def test_mixed_precision_changes_little(kind: str) -> None:
    fuse = fusion(kind).eval()
    seen, present = patients(6, 8)
    exact, _ = fuse(seen, present)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = fuse(seen, present)
        weights, tiles = fuse.weights_of(seen, present), fuse.tile_weights(seen, present)
        fuse.train()(seen, present)
    assert all(torch.isfinite(w).all() for w in (*weights.values(), *tiles.values()))
    for task in TASKS:
        scale = exact[task].abs().max().clamp(min=1.0)
        # the choice of the k largest may turn with the rounding: most patients, not all
        near = ((rough[task].float() - exact[task]).abs().amax(1) < 0.05 * scale).float().mean()
        assert near >= 0.8, (kind, task)


def test_which_fusions_weigh_what() -> None:
    weighed = {kind: fusion(kind).weighed("grade") for kind in KINDS}
    assert weighed["concat"] == weighed["low rank"] == weighed["tensor"] == weighed["coattention"] == ()
    assert weighed["attention"] == weighed["late"] == NAMES
    assert weighed["experts"] == ("expert0", "expert1", "expert2", "expert3")
    assert weighed["ple of two levels"] == ("own0", "own1", "shared0", "shared1")


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
