"""Gates: the k largest, how evenly experts are used, and the collapse that the load balance prevents; PLE by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import TASKS, fusion, patients
from torch import Tensor, nn

from nsclc_mtl.fusion import gates
from nsclc_mtl.fusion.experts import Experts
from nsclc_mtl.fusion.ple import ProgressiveExtraction
from nsclc_mtl.records import Embedding, UsageFault


@given(seed=st.integers(0, 999), k=st.integers(1, 5))
def test_the_k_largest_sum_to_one_in_the_ratios_of_the_softmax(seed: int, k: int) -> None:
    logits = 3 * torch.randn(7, 5, generator=torch.Generator().manual_seed(seed))
    weight, whole = gates.top_k(logits, k), logits.softmax(1)
    assert ((weight > 0).sum(1) == k).all()
    torch.testing.assert_close(weight.sum(1), torch.ones(7))
    for row, all_of_it in zip(weight, whole, strict=True):
        at = row > 0
        assert all_of_it[at].min() >= all_of_it[~at].max() if k < 5 else bool(at.all())
        torch.testing.assert_close(row[at], all_of_it[at] / all_of_it[at].sum())
    assert torch.equal(gates.top_k(logits, None), whole)


def test_a_gate_of_one_expert_learns_from_its_tasks() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0]], requires_grad=True)
    (gates.top_k(logits, 1) * torch.tensor([2.0, 5.0, 7.0])).sum().backward()
    p = logits.detach().softmax(1)
    torch.testing.assert_close(logits.grad, 2.0 * (torch.tensor([[1.0, 0.0, 0.0]]) - p))  # d log p / d logits, times 2


def test_imbalance_from_even_use_to_one_for_everything() -> None:
    even, one = torch.full((6, 4), 0.25), torch.tensor([[1.0, 0, 0, 0]] * 6)
    assert gates.imbalance(even, even).item() == pytest.approx(0)
    assert gates.imbalance(one, one).item() == pytest.approx(3)
    p = torch.rand(50, 4).softmax(1)
    variation = p.mean(0).var(correction=0) / p.mean(0).mean() ** 2  # squared, as of Shazeer et al.
    assert gates.imbalance(p, p).item() == pytest.approx(variation.item(), abs=1e-6)
    best = torch.nn.functional.one_hot(p.argmax(1), 4).float()
    switch = 4 * sum(best[:, i].mean() * p[:, i].mean() for i in range(4)) - 1
    assert gates.imbalance(p, best).item() == pytest.approx(float(switch), abs=1e-6)


def test_notes_by_hand() -> None:
    weights = {
        "grade": torch.tensor([[0.5, 0.5, 0.0, 0.0]] * 2),
        "survival": torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1]]),
    }
    said = {name: float(note) for name, note in gates.notes(weights).items()}
    loads = {"load/0": 0.5, "load/1": 0.25, "load/2": 0.0, "load/3": 0.25}
    expected = {"gate_entropy/grade": math.log(2), "gate_entropy/survival": 0.0, **loads, "collapsed": 1.0}
    assert said == pytest.approx(expected)


@pytest.mark.parametrize("top_k", [0, 5])
def test_a_number_of_experts_that_there_is_not(top_k: int) -> None:
    with pytest.raises(UsageFault, match=f"top_k={top_k}: a gate uses 1 to 4"):
        fusion("experts", top_k=top_k)


def trained(load_balance: float, seed: int) -> Experts:
    """Eight experts, one a patient and task, after 150 steps on two tasks that every expert could learn."""
    torch.manual_seed(seed)
    names = ("wsi", "rna")
    fuse = Experts(names, TASKS, 4, experts=8, top_k=1, factors=0, load_balance=load_balance, dropout=0.0)
    heads = nn.ModuleDict({task: nn.Linear(fuse.view_dim, 1) for task in TASKS})
    x = 0.1 * torch.randn(200, 8)  # embeddings start small: see `encoders.tabular`
    seen = {"wsi": Embedding(x[:, :4]), "rna": Embedding(x[:, 4:])}
    there = {name: torch.ones(200, dtype=torch.bool) for name in names}
    answer = {"grade": x[:, :1] - x[:, 5:6], "survival": x[:, :1].abs() + x[:, 6:7]}
    optimizer = torch.optim.AdamW([*fuse.parameters(), *heads.parameters()], lr=5e-3)
    for _ in range(150):
        views, losses = fuse(seen, there)
        loss = sum(nn.functional.mse_loss(heads[task](views[task]), answer[task]) for task in TASKS)
        optimizer.zero_grad()
        (loss + sum(losses.values())).backward()
        optimizer.step()
    return fuse


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_load_balance_prevents_the_collapse_that_there_is_without_it(seed: int) -> None:
    """Nothing is rigged: gates that see small embeddings begin with one expert for all, and most are never tried."""
    without, balanced = trained(0.0, seed).notes, trained(0.1, seed).notes
    assert without["collapsed"] >= 2
    assert balanced["collapsed"] == 0
    assert max(float(balanced[f"load/{i}"]) for i in range(8)) < 0.25


def ple(**options: int) -> tuple[ProgressiveExtraction, Tensor]:
    fuse = fusion("ple", **options).eval()
    assert isinstance(fuse, ProgressiveExtraction)
    seen, present = patients(6, 5)
    return fuse, fuse.join(seen, present)[0].flatten(1)


def test_one_level_by_hand() -> None:
    fuse, x = ple(shared=2, own=1)
    (level,) = fuse.levels
    for task in TASKS:
        weight = level.gates[task](x).softmax(1)  # type: ignore[index, operator, union-attr]
        experts = [level.own[task][0], *level.shared]  # type: ignore[index, misc, union-attr]
        by_hand = sum(weight[:, i, None] * expert(x) for i, expert in enumerate(experts))
        torch.testing.assert_close(fuse.views(x)[task], by_hand)


def test_two_levels_by_hand() -> None:
    fuse, x = ple(levels=2, shared=1, own=2)
    first, second = fuse.levels
    own = {task: [expert(x) for expert in first.own[task]] for task in TASKS}  # type: ignore[index, union-attr]
    shared = first.shared[0](x)  # type: ignore[index, operator]

    def mixed(gate: nn.Module, at: Tensor, made: list[Tensor]) -> Tensor:
        return torch.einsum("pe,epw->pw", gate(at).softmax(1), torch.stack(made))

    every = mixed(first.gate_of_all, x, [*own["grade"], *own["survival"], shared])  # type: ignore[arg-type]
    for task in TASKS:
        row = mixed(first.gates[task], x, [*own[task], shared])  # type: ignore[index]
        made = [*(expert(row) for expert in second.own[task]), second.shared[0](every)]  # type: ignore[index, operator, union-attr]
        torch.testing.assert_close(fuse.views(x)[task], mixed(second.gates[task], row, made))  # type: ignore[index]


def test_a_task_never_teaches_the_experts_of_another() -> None:
    fuse, x = ple(levels=1)
    fuse.views(x)["grade"].sum().backward()
    taught = {name.split(".")[3] for name, p in fuse.named_parameters() if ".own." in name and p.grad is not None}
    assert taught == {"grade"}
    assert all(p.grad is not None for p in fuse.levels[0].shared.parameters())  # type: ignore[union-attr]
