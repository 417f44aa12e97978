"""CLAM and DSMIL: which tiles are chosen, what they cost, and what the formulas of the papers give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from nsclc_mtl.encoders.clam import CLAM, extremes
from nsclc_mtl.encoders.dsmil import DSMIL
from nsclc_mtl.records import Bag, Target, UsageFault

IN, DIM = 5, 4


def bag(sizes: list[int], seed: int = 0) -> Bag:
    made = torch.Generator().manual_seed(seed)
    return Bag(torch.randn(sum(sizes), IN, generator=made), torch.tensor([0, *sizes]).cumsum(0))


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5), k=st.integers(1, 6), seed=st.integers(0, 99))
def test_the_most_and_the_least_attended_are_those_of_each_patient(sizes: list[int], k: int, seed: int) -> None:
    score = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(seed))
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    top, low = extremes(score, offsets, k)
    for i, n in enumerate(sizes):
        rows = slice(int(offsets[i]), int(offsets[i + 1]))
        order = score[rows].argsort(descending=True).tolist()
        count = min(k, n)
        assert set(torch.nonzero(top[rows]).flatten().tolist()) == set(order[:count])
        assert set(torch.nonzero(low[rows]).flatten().tolist()) == set(order[n - count :])


@pytest.mark.parametrize("branches", ["single", "class"])
@pytest.mark.parametrize("exclusive", [True, False])
def test_the_instance_loss_is_that_of_the_paper_with_a_logistic_penalty(branches: str, exclusive: bool) -> None:
    """Against a loop over patients and classes that sorts one bag at a time."""
    torch.manual_seed(0)
    made = CLAM(IN, DIM, 8, 4, branches, k=2, weight=0.5, exclusive=exclusive, classes={"grade": 3}).eval()
    sizes, value = [7, 3, 1, 0, 6], torch.tensor([2.0, 0, 1, 1, torch.nan])
    known = torch.tensor([True, True, True, True, False])
    packed = bag(sizes)
    told = made.supervise(packed, made(packed), {"grade": Target(known, value)}, packed.offsets.diff() > 0)

    each = []
    for i, n in enumerate(sizes[:3]):
        tile = made.tile(Bag(packed.features[packed.offsets[i] : packed.offsets[i + 1]], torch.tensor([0, n])))
        score = made.attend(tile)
        of_classes = []
        for c in range(3):
            ranked = score[:, c if branches == "class" else 0].argsort(descending=True)
            k = min(2, n)
            most, least = ranked[:k], ranked[n - k :]
            logit = tile @ made.instance.weight[c] + made.instance.bias[c]  # type: ignore[union-attr]
            if c == value[i]:
                of_classes.append(
                    torch.cat([functional.softplus(-logit[most]), functional.softplus(logit[least])]).mean()
                )
            elif exclusive:
                of_classes.append(functional.softplus(logit[most]).mean())
        each.append(torch.stack(of_classes).mean())
    torch.testing.assert_close(told["instance"], 0.5 * torch.stack(each).mean())


def test_the_instance_loss_teaches_the_tiles_which_of_them_speak_for_the_class() -> None:
    """A tile that marks the class stands in every positive bag: its logit rises above the others."""
    torch.manual_seed(0)
    made = CLAM(IN, DIM, 8, 4, k=1, task="response", classes={"response": 2}, dropout=0.0)
    packed = bag([8] * 40)
    label = (torch.arange(40) % 2).float()
    marked = torch.arange(0, 320, 8)[label == 1]
    packed.features[marked, 0] = 6.0
    optimizer = torch.optim.Adam(made.parameters(), lr=0.02)
    for _ in range(60):
        said = made(packed)
        loss = made.supervise(packed, said, {"response": Target(label >= 0, label)}, label >= 0)["instance"]
        loss = loss + functional.binary_cross_entropy_with_logits(said.vector[:, 0], label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert made.instance is not None
    logit = made.instance(made(packed).tokens)[:, 1]
    others = torch.ones(320, dtype=torch.bool)
    others[marked] = False
    assert logit[marked].min() > logit[others].quantile(0.95)


def test_pooling_is_a_softmax_a_branch_and_the_branches_stand_side_by_side() -> None:
    torch.manual_seed(0)
    made = CLAM(IN, DIM, 8, 4, "class", classes={"grade": 3, "response": 2}).eval()
    packed = bag([6])
    told = made(packed)
    tile = functional.gelu(packed.features @ made.tile.linear.weight.T + made.tile.linear.bias)
    gated = torch.tanh(made.attend.content(tile)) * torch.sigmoid(made.attend.gate(tile))
    weight = (gated @ made.attend.score.weight.T + made.attend.score.bias).softmax(0)  # [tile, class]
    torch.testing.assert_close(told.attention, weight.mean(1))
    torch.testing.assert_close(told.vector, made.out((weight.T @ tile).flatten()[None]))


def test_dsmil_pools_by_likeness_to_the_tile_of_the_largest_score() -> None:
    """Against the formula of the paper, one class after the other."""
    torch.manual_seed(0)
    made = DSMIL(IN, DIM, 8, 4, classes={"grade": 3}).eval()
    packed = bag([6])
    told = made(packed)
    tile = functional.gelu(packed.features @ made.tile.linear.weight.T + made.tile.linear.bias)
    score, query, value = made.instance(tile), made.query(tile), made.value(tile)
    weights, pooled = [], []
    for c in range(3):
        critical = query[score[:, c].argmax()]
        weights.append((query @ critical / 2).softmax(0))
        pooled.append(weights[-1] @ value)
    torch.testing.assert_close(told.attention, torch.stack(weights).mean(0))
    torch.testing.assert_close(told.vector[0], made.out(torch.cat([*pooled, score.amax(0)])))
    loss = made.supervise(
        packed, told, {"grade": Target(torch.tensor([True]), torch.tensor([2.0]))}, torch.tensor([True])
    )
    torch.testing.assert_close(loss["instance"], -0.5 * score.amax(0).log_softmax(0)[2])


def test_of_level_tiles_the_first_is_critical() -> None:
    torch.manual_seed(0)
    made = DSMIL(IN, DIM, 8, 4).eval()
    torch.nn.init.zeros_(made.instance.weight)
    packed = bag([4, 0, 3])
    told = made(packed)
    tile = made.tile(packed)
    query = made.query(tile)
    torch.testing.assert_close(told.attention[:4], (query[:4] @ query[0] / 2).softmax(0))
    torch.testing.assert_close(told.attention[4:], (query[4:] @ query[4] / 2).softmax(0))


@pytest.mark.parametrize("kind", [CLAM, DSMIL])
def test_words_that_cannot_be_are_refused(kind: type) -> None:
    with pytest.raises(UsageFault, match=r"task=survival is no class task of this run \(there are: grade\)"):
        kind(IN, DIM, task="survival", classes={"grade": 3})
    with pytest.raises(UsageFault, match="neither single"):
        CLAM(IN, DIM, branches="both")
    with pytest.raises(UsageFault, match="k=0"):
        CLAM(IN, DIM, k=0)


def test_two_classes_need_one_score_and_the_first_class_task_is_learned() -> None:
    assert DSMIL(IN, DIM, classes={"response": 2}).streams == 1
    assert DSMIL(IN, DIM, classes={"grade": 3, "response": 2}).task == "grade"
    assert CLAM(IN, DIM, branches="class", classes={"grade": 3, "response": 2}).branches == 3


@pytest.mark.parametrize("hidden", [[8, 4], 0])
def test_a_width_that_is_none_is_refused(hidden: int) -> None:
    with pytest.raises(UsageFault, match=r"hidden=.* must be the width of the tile layer"):
        CLAM(IN, DIM, hidden, 4)
