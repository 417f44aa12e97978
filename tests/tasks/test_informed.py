"""What a batch tells a task: an outcome that a likelihood says nothing of is no easy one, whatever the balance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nsclc_mtl.encoders.tabular import MLP
from nsclc_mtl.fusion.concat import Concat
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Batch, Target, TaskSpec
from nsclc_mtl.tasks.balance import DWA, Balance, Uncertainty
from nsclc_mtl.tasks.classes import Binary, Multiclass
from nsclc_mtl.tasks.cox import Cox
from nsclc_mtl.tasks.deephit import DeepHit
from nsclc_mtl.tasks.ordinal import Ordinal
from nsclc_mtl.tasks.pc_hazard import PCHazard
from nsclc_mtl.tasks.pmf import MTLR, PMF
from nsclc_mtl.tasks.regression import Regression
from nsclc_mtl.tasks.survival import DiscreteHazard
from nsclc_mtl.tasks.task import Task

DAYS, EVENT = np.array([100.0, 300, 500, 800, 1500, 2000]), np.array([1.0, 1, 0, 1, 0, 1])
DIM, OS = 4, TaskSpec("os", "survival")
HEADS: dict[str, tuple[type[Task], dict[str, Any]]] = {
    "cox": (Cox, {}), "hazard": (DiscreteHazard, {}), "pc_hazard": (PCHazard, {}), "pmf": (PMF, {}),
    "mtlr": (MTLR, {}), "deephit": (DeepHit, {}), "deephit, ranks alone": (DeepHit, {"alpha": 0.0}),
}  # fmt: skip
# a batch of six with labels that this head learns nothing from: days and events
SILENT = {
    "cox": (DAYS, EVENT * 0),  # nobody had the event
    "cox, the last one": (DAYS, np.eye(6)[5]),  # the event of the one who was followed longest: a risk set of himself
    "hazard": (DAYS * 0, EVENT * 0),  # nobody was followed for a day
    "pc_hazard": (DAYS * 0, EVENT * 0),
    "pmf": (DAYS / 1e4, EVENT * 0),  # nobody passed a bin
    "mtlr": (DAYS / 1e4, EVENT * 0),
    "deephit": (DAYS / 1e4, EVENT * 0),
    "deephit, ranks alone": (DAYS, EVENT * 0),  # no pair in a known order
}


def head(name: str, dim: int = DIM) -> Task:
    cls, options = HEADS[name]
    return cls(OS, dim, cls.fit(OS, DAYS, EVENT), **options)


def target(days: Any, event: Any, known: Any = True) -> Target:
    here = torch.ones(len(days), dtype=torch.bool) & torch.as_tensor(known)
    return Target(here, torch.tensor(days, dtype=torch.float32), torch.tensor(event, dtype=torch.float32))


def learner(name: str, balance: type[Balance]) -> Learner:
    """Survival by the head of this name, and a response that every batch tells something of."""
    torch.manual_seed(0)
    fusion = Concat(("rna",), ("os", "response"), DIM)
    tasks = {
        "os": head(name, fusion.view_dim),
        "response": Binary(TaskSpec("response", "binary", ("no", "yes")), fusion.view_dim, {}),
    }
    return Learner({"rna": MLP(5, DIM, hidden=0)}, fusion, tasks, balance(list(tasks))).train()


def batch(os: Target) -> Batch:
    rna = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    response = Target(torch.ones(6, dtype=torch.bool), torch.tensor([0.0, 1, 1, 0, 1, 0]))
    return Batch(
        [f"p{i}" for i in range(6)], {"rna": rna}, {"rna": torch.ones(6, dtype=torch.bool)},
        {"os": os, "response": response},
    )  # fmt: skip


@pytest.mark.parametrize("case", SILENT)
def test_labels_that_say_nothing_do_not_move_learned_noise(case: str) -> None:
    made = learner(case if case in HEADS else "cox", Uncertainty)
    silent, unknown = target(*SILENT[case]), target(DAYS, EVENT, known=False)
    moved = []
    for os in (silent, unknown, target(DAYS, EVENT)):
        made.zero_grad(set_to_none=True)
        torch.manual_seed(2)
        made.training_step(batch(os), 0).backward()
        moved.append({n: None if p.grad is None else p.grad.item() for n, p in made.balance.named_parameters()})
    assert moved[0] == moved[1]
    assert moved[0]["log_variance.os"] is None
    assert moved[0]["log_variance.response"] is not None
    assert moved[2]["log_variance.os"] is not None


@pytest.mark.parametrize("case", SILENT)
def test_labels_that_say_nothing_do_not_enter_the_mean_of_an_epoch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DWA compares means of epochs: with batches of no loss among them the task would look as if it fell fast."""
    name = case if case in HEADS else "cox"
    logged: dict[str, Tensor] = {}
    weights = []
    for os in (target(*SILENT[case]), target(DAYS, EVENT, known=False)):
        made = learner(name, DWA)
        monkeypatch.setattr(made, "log_dict", lambda values, **_: logged.update(values))
        for silent in (0, 0, 3):
            torch.manual_seed(3)
            made.training_step(batch(target(DAYS, EVENT)), 0)
            for _ in range(silent):
                made.training_step(batch(os), 0)
            made.on_train_epoch_end()
        weights.append(made.balance.weight.tolist())
        torch.manual_seed(3)
        told = made.tasks["os"].loss(made(batch(target(DAYS, EVENT)))[0]["os"], target(DAYS, EVENT))  # type: ignore[operator, union-attr]
        assert logged["train/os"].item() == pytest.approx(told.item(), rel=1e-5)
    assert weights[0] == pytest.approx(weights[1])


def test_an_epoch_that_says_nothing_leaves_dwa_as_if_there_was_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner("cox", DWA)
    monkeypatch.setattr(made, "log_dict", lambda values, **_: None)
    for _ in range(3):
        made.training_step(batch(target(*SILENT["cox"])), 0)
        made.on_train_epoch_end()
    assert isinstance(made.balance, DWA)
    assert made.balance.means[:, 0].isnan().all()
    assert made.balance.means[:, 1].isfinite().all()
    assert made.balance.weight[0] == pytest.approx(1, abs=0.3)


@given(
    st.sampled_from(sorted(HEADS)),
    st.lists(st.tuples(st.sampled_from([0.0, 0.05, 100, 300, 700, 2000, 2500]), st.integers(0, 1), st.booleans()),
             min_size=1, max_size=5),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_a_batch_informs_a_head_where_its_loss_is_more_than_nothing(
    name: str, rows: list[tuple[float, int, bool]]
) -> None:
    made, (days, event, known) = head(name), zip(*rows, strict=True)
    os = target(days, event, torch.tensor(known))
    raw = made.head(torch.randn(len(rows), DIM, generator=torch.Generator().manual_seed(0)), {}).detach()
    loss = made.loss(raw.requires_grad_(), os)
    loss.backward()
    assert made.informed(os) == bool(raw.grad is not None and raw.grad.abs().max() > 0)
    assert made.informed(os) == (loss.item() > 0)


def test_every_known_class_and_number_informs() -> None:
    state = {"mean": 0.0, "scale": 1.0}
    for made in (
        Binary(TaskSpec("a", "binary", ("no", "yes")), DIM, {}),
        Ordinal(TaskSpec("b", "ordinal", ("1", "2")), DIM, {}),
        Multiclass(TaskSpec("c", "multiclass", ("x", "y")), DIM, {}),
        Regression(TaskSpec("d", "regression"), DIM, state),
    ):
        one = Target(torch.tensor([True, False]), torch.zeros(2))
        assert made.informed(one)
        assert not made.informed(replace(one, known=torch.zeros(2, dtype=torch.bool)))
