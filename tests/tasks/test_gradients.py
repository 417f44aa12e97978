"""Balances of gradients: each rule by hand in NumPy, and what reaches heads and shared parameters."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nsclc_mtl.records import UsageFault
from nsclc_mtl.tasks.balance import Balance, Sum
from nsclc_mtl.tasks.gradients import GradNorm, PCGrad, norms_and_cosines, shared_gradients

Rows = dict[str, np.ndarray]


class Toy:
    """Losses |W h - y_k|^2 / 2 of a shared vector W and a head's scale h_k, whose gradients NumPy writes down."""

    def __init__(self, goals: dict[str, list[float]]) -> None:
        torch.manual_seed(0)
        self.goals = {task: torch.tensor(goal, dtype=torch.float64) for task, goal in goals.items()}
        self.shared = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
        self.heads = {task: nn.Parameter(torch.tensor(1.0 + i, dtype=torch.float64)) for i, task in enumerate(goals)}

    def losses(self) -> dict[str, Tensor]:
        return {task: ((self.shared * self.heads[task] - goal) ** 2).sum() / 2 for task, goal in self.goals.items()}

    def by_hand(self) -> tuple[Rows, dict[str, float]]:
        """Gradients on the shared vector and on the heads."""
        w, rows, heads = self.shared.detach().numpy(), {}, {}
        for task, goal in self.goals.items():
            h = self.heads[task].item()
            rows[task] = h * (h * w - goal.numpy())
            heads[task] = float(w @ (h * w - goal.numpy()))
        return rows, heads

    def learned(self, balance: Balance) -> tuple[np.ndarray, dict[str, float], float]:
        """What shared vector and heads get, and what the number is worth."""
        total = balance(self.losses(), [self.shared])
        total.backward()
        heads = {task: head.grad.item() for task, head in self.heads.items() if head.grad is not None}
        return self.shared.grad.numpy(), heads, total.item()  # type: ignore[union-attr]


AGAINST = {"grade": [3.0, 1.0, 0.0], "os": [-9.0, 2.0, 4.0]}
THREE = {**AGAINST, "stage": [1.0, -8.0, -5.0]}


def projected(rows: Rows, orders: dict[str, tuple[str, ...]]) -> np.ndarray:
    """PCGrad as its paper states it, vector by vector."""
    total = np.zeros(3)
    for task, row in rows.items():
        mine = row.copy()
        for other in orders[task]:
            inner = mine @ rows[other]
            if inner < 0:
                mine -= inner / (rows[other] @ rows[other]) * rows[other]
        total += mine
    return total


def test_two_gradients_that_disagree_lose_what_points_against_the_other() -> None:
    toy = Toy(AGAINST)
    rows, heads = toy.by_hand()
    assert rows["grade"] @ rows["os"] < 0
    got, head, value = toy.learned(PCGrad(list(AGAINST)))
    np.testing.assert_allclose(got, projected(rows, {"grade": ("os",), "os": ("grade",)}), rtol=1e-12)
    assert head == pytest.approx(heads, rel=1e-12)
    assert value == sum(loss.item() for loss in toy.losses().values())


def test_three_gradients_are_projected_in_an_order_that_torch_draws() -> None:
    rows, _ = Toy(THREE).by_hand()
    others = {task: [other for other in THREE if other != task] for task in THREE}
    allowed = [
        projected(rows, dict(zip(THREE, (a, b, c), strict=True)))
        for a in permutations(others["grade"])
        for b in permutations(others["os"])
        for c in permutations(others["stage"])
    ]
    seen = set()
    for seed in range(40):
        toy = Toy(THREE)
        torch.manual_seed(seed)
        got, _, _ = toy.learned(PCGrad(list(THREE)))
        near = [i for i, one in enumerate(allowed) if np.allclose(one, got, rtol=1e-10)]
        assert near
        seen.add(near[0])
        again = Toy(THREE)
        torch.manual_seed(seed)
        assert (again.learned(PCGrad(list(THREE)))[0] == got).all()
    assert len(seen) > 1


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=6))
def test_of_two_tasks_the_balanced_gradient_opposes_neither(numbers: list[float]) -> None:
    toy = Toy({"a": numbers[:3], "b": numbers[3:]})
    rows, _ = toy.by_hand()
    got, _, _ = toy.learned(PCGrad(["a", "b"]))
    for row in rows.values():
        assert got @ row >= -1e-9 * (1 + np.abs(got).max() * np.abs(row).max())


def test_gradients_that_agree_are_summed() -> None:
    toy = Toy({"a": [3.0, 1.0, 0.0], "b": [4.0, 1.0, 1.0]})
    rows, _ = toy.by_hand()
    assert rows["a"] @ rows["b"] > 0
    np.testing.assert_allclose(toy.learned(PCGrad(["a", "b"]))[0], rows["a"] + rows["b"], rtol=1e-12)


def test_gradnorm_by_hand_over_three_steps() -> None:
    """The weights follow the paper's rule, and the step uses those from before it."""
    alpha, rate, toy = 1.5, 0.1, Toy(AGAINST)
    balance = GradNorm(list(AGAINST), alpha=alpha, rate=rate).double()
    weight, first = np.ones(2), None
    for _ in range(3):
        rows, heads = toy.by_hand()
        loss = np.array([one.item() for one in toy.losses().values()])
        first = loss if first is None else first
        toy.shared.grad = None
        for head in toy.heads.values():
            head.grad = None
        got, head, value = toy.learned(balance)
        np.testing.assert_allclose(got, weight[0] * rows["grade"] + weight[1] * rows["os"], rtol=1e-12)
        assert head == pytest.approx(heads, rel=1e-12)
        assert value == pytest.approx(loss.sum())
        norm = np.array([np.linalg.norm(row) for row in rows.values()])
        size, pace = weight * norm, (loss / first) / (loss / first).mean()
        slope = norm / norm.mean() * np.sign(size - size.mean() * pace**alpha)  # of |size - target| / mean norm
        weight = weight - rate * slope
        weight *= 2 / weight.sum()
        np.testing.assert_allclose(balance.weight.numpy(), weight, rtol=1e-12)
        with torch.no_grad():
            toy.shared -= 0.05 * toy.shared.grad  # type: ignore[operator]
    assert abs(weight[0] - weight[1]) > 0.05


def test_gradnorm_brings_norms_together() -> None:
    """With alpha 0 the weighted norms become equal, up to the step of the weights."""
    balance = GradNorm(list(AGAINST), alpha=0.0, rate=0.01)
    for _ in range(300):
        toy = Toy(AGAINST)
        toy.learned(balance)
    rows, _ = toy.by_hand()
    sizes = balance.weight.numpy() * [np.linalg.norm(row) for row in rows.values()]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)
    assert balance.weight.sum().item() == pytest.approx(2, abs=1e-5)


def test_equal_tasks_keep_equal_weights() -> None:
    same = {"a": [3.0, 1.0, 0.0], "b": [3.0, 1.0, 0.0]}
    balance = GradNorm(list(same))
    for _ in range(5):
        toy = Toy(same)
        toy.heads["b"].data.copy_(toy.heads["a"].data)
        toy.learned(balance)
    assert balance.weight.tolist() == [1, 1]


@pytest.mark.parametrize("made", [GradNorm, PCGrad])
def test_a_task_that_is_not_there_takes_no_part(made: type[Balance]) -> None:
    """The others are balanced as if there were no third one; its weight and its first loss stay."""
    toy, three, two = Toy(THREE), made(list(THREE)), made(list(AGAINST))
    few = {task: loss for task, loss in toy.losses().items() if task != "stage"}
    three(few, [toy.shared]).backward()
    got = toy.shared.grad.clone()  # type: ignore[union-attr]
    want, _, _ = Toy(AGAINST).learned(two)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12)
    assert toy.heads["stage"].grad is None
    if isinstance(three, GradNorm) and isinstance(two, GradNorm):
        assert three.weight[2] == 1
        torch.testing.assert_close(three.weight[:2], two.weight)
        assert three.first.isnan().tolist() == [False, False, True]


@pytest.mark.parametrize("made", [GradNorm, PCGrad])
def test_nobody_there_is_zero(made: type[Balance]) -> None:
    balance = made(["a", "b"])
    before = {name: value.clone() for name, value in balance.state_dict().items()}
    assert balance({}, [nn.Parameter(torch.ones(2))]).item() == 0
    for name, value in balance.state_dict().items():
        assert torch.equal(value, before[name]) or bool(value.isnan().all())


@pytest.mark.parametrize("made", [GradNorm, PCGrad])
def test_outside_of_training_all_is_the_plain_sum_and_nothing_moves(made: type[Balance]) -> None:
    toy, balance = Toy(AGAINST), made(list(AGAINST)).eval()
    if isinstance(balance, GradNorm):
        balance.weight.copy_(torch.tensor([0.5, 1.5]))
    with torch.no_grad():
        assert balance(toy.losses()).item() == Sum(list(AGAINST))(toy.losses()).item()
    assert balance.notes == {}
    if isinstance(balance, GradNorm):
        assert balance.weight.tolist() == [0.5, 1.5]


@pytest.mark.parametrize("made", [GradNorm, PCGrad])
def test_one_task_is_its_own_loss(made: type[Balance]) -> None:
    toy = Toy({"grade": AGAINST["grade"]})
    got, _, value = toy.learned(made(["grade"]))
    np.testing.assert_array_equal(got, toy.by_hand()[0]["grade"])
    assert value == toy.losses()["grade"].item()


def test_what_one_task_alone_reaches_is_not_shared() -> None:
    shared, own = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    losses = {"a": shared.sum() * 2 + own.sum(), "b": -shared.sum()}
    rows, kept = shared_gradients(losses, [shared, own, nn.Parameter(torch.ones(1))])
    assert rows.tolist() == [[2, 2], [-1, -1]]
    assert [p is shared for p in kept] == [True]
    alone, kept = shared_gradients({"a": losses["a"]}, [shared, own])
    assert alone.tolist() == [[2, 2, 1, 1, 1]]
    assert len(kept) == 2


@pytest.mark.parametrize("made", [GradNorm, PCGrad])
def test_nothing_shared_is_the_plain_gradient(made: type[Balance]) -> None:
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    made(["a", "b"])({"a": a.sum(), "b": 3 * b.sum()}, [a, b]).backward()
    assert a.grad.tolist() == [1, 1]  # type: ignore[union-attr]
    assert b.grad.tolist() == [3, 3]  # type: ignore[union-attr]


def test_norms_and_cosines_by_hand() -> None:
    toy = Toy(AGAINST)
    rows, _ = toy.by_hand()
    told = norms_and_cosines(toy.losses(), [toy.shared])
    a, b = rows.values()
    assert list(told) == ["gradient/grade", "gradient/os", "cosine/grade~os"]
    assert told["gradient/grade"].item() == pytest.approx(np.linalg.norm(a))
    assert told["gradient/os"].item() == pytest.approx(np.linalg.norm(b))
    assert told["cosine/grade~os"].item() == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    flat = norms_and_cosines({"a": toy.shared.sum() * 0, "b": toy.shared.sum()}, [toy.shared])
    assert list(flat) == ["gradient/a", "gradient/b"]


@pytest.mark.parametrize("made", [GradNorm, PCGrad])
def test_under_bfloat16_the_gradients_stay_whole(made: type[Balance]) -> None:
    torch.manual_seed(0)
    shared, x = nn.Linear(4, 3), torch.randn(8, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = shared(x)
        losses = {"a": seen.float().pow(2).mean(), "b": -seen.float().sum(1).mean()}
        total = made(["a", "b"])(losses, list(shared.parameters()))
    total.backward()
    assert total.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in shared.parameters())


@pytest.mark.parametrize("wrong", [{"alpha": -1.0}, {"rate": 0.0}, {"rate": 1.0}, {"least": 0.0}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageFault, match="balance"):
        GradNorm(["a"], **wrong)
