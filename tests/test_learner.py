"""The learner: what is absent is as if masked, patients are predicted alone, and missing labels teach nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from nsclc_mtl.encoders.mil import ABMIL
from nsclc_mtl.encoders.tabular import MLP
from nsclc_mtl.fusion.experts import Experts
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Bag, Batch, Target, TaskSpec
from nsclc_mtl.tasks.balance import Sum, Uncertainty
from nsclc_mtl.tasks.classes import Binary
from nsclc_mtl.tasks.cox import Cox
from nsclc_mtl.tasks.ordinal import Ordinal
from nsclc_mtl.tasks.survival import DiscreteHazard
from nsclc_mtl.tasks.task import Task

DIM = 4
TIME, EVENT = np.array([100.0, 300, 500, 800, 1500, 2000]), np.array([1.0, 1, 0, 1, 0, 1])


def learner(balance: type[nn.Module] = Sum) -> Learner:
    torch.manual_seed(0)
    names = ("response", "grade", "os", "pfs")
    fusion = Experts(("wsi", "rna"), names, DIM, width=8)
    width = fusion.view_dim
    tasks: dict[str, Task] = {
        "response": Binary(TaskSpec("response", "binary", ("no", "yes")), width, {}),
        "grade": Ordinal(TaskSpec("grade", "ordinal", ("1", "2", "3")), width, {}),
        "os": DiscreteHazard(
            TaskSpec("os", "survival"), width, DiscreteHazard.fit(TaskSpec("os", "survival"), TIME, EVENT, bins=3)
        ),
        "pfs": Cox(TaskSpec("pfs", "survival"), width, Cox.fit(TaskSpec("pfs", "survival"), TIME, EVENT)),
    }
    encoders = {"wsi": ABMIL(3, DIM, hidden=8, gate=4), "rna": MLP(5, DIM, hidden=0, input_dropout=0.3)}
    made = Learner(encoders, fusion, tasks, balance(list(tasks)))
    for token in fusion.join.absent.values():
        nn.init.normal_(token)
    return made


def batch(known: float = 1.0, seed: int = 0, n: int = 6) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([3, 0, 2, 4, 0, 1])[:n]
    present = {"wsi": sizes > 0, "rna": torch.tensor([True, True, False, True, True, False])[:n]}
    rna = torch.randn(n, 5, generator=draw) * present["rna"][:, None]
    bag = Bag(torch.randn(int(sizes.sum()), 3, generator=draw), torch.cat([torch.zeros(1).long(), sizes.cumsum(0)]))
    there = torch.rand(n, generator=draw) < known
    value = torch.tensor([0.0, 1, 1, 0, 1, 0])[:n]
    days, event = torch.tensor(TIME, dtype=torch.float32)[:n], torch.tensor(EVENT, dtype=torch.float32)[:n]
    targets = {
        "response": Target(there, value), "grade": Target(there, value * 2),
        "os": Target(there, days, event), "pfs": Target(there, days, event),
    }  # fmt: skip
    return Batch([f"p{i}" for i in range(n)], {"wsi": bag, "rna": rna}, present, targets)


def one(whole: Batch, i: int) -> Batch:
    bag, rows = whole.inputs["wsi"], slice(i, i + 1)
    a, b = int(bag.offsets[i]), int(bag.offsets[i + 1])
    inputs = {"wsi": Bag(bag.features[a:b], torch.tensor([0, b - a])), "rna": whole.inputs["rna"][rows]}
    return Batch([whole.patients[i]], inputs, {n: p[rows] for n, p in whole.present.items()}, {})


def flat(told: dict[str, dict[str, Tensor]]) -> Tensor:
    return torch.cat([v for outputs in told.values() for v in outputs.values()])


def test_patients_are_predicted_alone() -> None:
    made, whole = learner().eval(), batch()
    together = made.predict_step(whole, 0)
    for i in range(len(whole)):
        alone = made.predict_step(one(whole, i), 0)
        mine = torch.cat([v[i : i + 1] for outputs in together.values() for v in outputs.values()])
        torch.testing.assert_close(flat(alone), mine)


@pytest.mark.parametrize("train", [False, True])
def test_garbage_in_the_rows_of_absent_patients_changes_nothing(train: bool) -> None:
    made, whole = learner().train(train), batch()
    spoiled = replace(
        whole, inputs={**whole.inputs, "rna": torch.where(whole.present["rna"][:, None], whole.inputs["rna"], 1e5)}
    )
    told = []
    for given in (whole, spoiled):
        made.zero_grad()
        torch.manual_seed(3)
        loss = made._losses(given, "train")
        loss.backward()
        told.append([loss.detach(), *[p.grad.clone() for p in made.fusion.parameters() if p.grad is not None]])
    for clean, dirty in zip(*told, strict=True):
        assert torch.equal(clean, dirty)


def test_a_bag_that_is_masked_is_a_bag_that_is_absent() -> None:
    made, whole = learner().eval(), batch()
    hidden = replace(whole, present={**whole.present, "wsi": torch.zeros(6, dtype=torch.bool)})
    nothing = Bag(torch.zeros(0, 3), torch.zeros(7, dtype=torch.int64))
    gone = replace(hidden, inputs={**whole.inputs, "wsi": nothing})
    assert torch.equal(flat(made.predict_step(hidden, 0)), flat(made.predict_step(gone, 0)))


@pytest.mark.parametrize("balance", [Sum, Uncertainty])
def test_without_a_label_the_loss_is_nothing_and_so_is_the_gradient(balance: type[nn.Module]) -> None:
    made = learner(balance)
    loss = made.training_step(batch(known=0.0), 0)
    loss.backward()
    assert loss.item() == 0
    moved = [n for n, p in made.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert not [n for n in moved if not n.startswith("balance")]


def test_a_task_without_a_label_here_does_not_move_its_weight() -> None:
    made, whole = learner(Uncertainty), batch()
    blank = Target(torch.zeros(6, dtype=torch.bool), whole.targets["grade"].value)
    made.training_step(replace(whole, targets={**whole.targets, "grade": blank}), 0).backward()
    grads = {n: p.grad for n, p in made.balance.named_parameters()}
    assert grads["log_variance.grade"] is None
    assert grads["log_variance.os"] is not None


def test_the_learner_says_public_words_only() -> None:
    told = learner().eval().predict_step(batch(), 0)
    assert list(told) == ["response", "grade", "os", "pfs"]
    assert list(told["response"]) == ["p:no", "p:yes"]
    assert {"risk", "surv:365", "surv:1825"} <= set(told["os"]) & set(told["pfs"])


def test_losses_are_logged_as_means_over_those_who_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner().eval()
    logged: dict[str, Any] = {}
    monkeypatch.setattr(made, "log_dict", lambda values, **_: logged.update(values))
    few, many = batch(known=0.4, seed=1), batch(known=1.0, seed=2)
    for part in (few, many):
        made.validation_step(part, 0)
    made.on_validation_epoch_end()
    counts = [int(b.targets["response"].known.sum()) for b in (few, many)]
    assert 0 < counts[0] < 6
    each = [made.tasks["response"].loss(made(b)[0]["response"], b.targets["response"]).item() for b in (few, many)]  # type: ignore[operator, union-attr]
    assert logged["validation/response"].item() == pytest.approx(np.average(each, weights=counts))
    assert "validation/loss" in logged


def fit(epochs: int) -> Learner:
    pl.seed_everything(0, verbose=False)
    made = learner()
    made.optimizer = lambda groups: torch.optim.AdamW(groups, lr=0.02)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, deterministic=True,
    )  # fmt: skip
    trainer.fit(made, torch.utils.data.DataLoader([batch()], batch_size=None))
    return made


@pytest.mark.filterwarnings("ignore")
def test_a_batch_is_learned_by_heart_and_the_same_seed_learns_the_same() -> None:
    first = fit(60)
    before, after = (made.eval()._losses(batch(), "x").item() for made in (learner(), first))
    assert after < 0.6 * before
    for a, b in zip(fit(3).state_dict().values(), fit(3).state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore")
def test_the_learning_rate_rises_and_falls() -> None:
    made = learner()
    made.optimizer = lambda groups: torch.optim.AdamW(groups, lr=1.0, weight_decay=0.5)
    made._trainer = type("T", (), {"estimated_stepping_batches": 100})()  # type: ignore[assignment]
    told = made.configure_optimizers()
    schedule = told["lr_scheduler"]["scheduler"]
    factor = schedule.lr_lambdas[0]
    rates = [factor(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1)
    assert int(np.argmax(rates)) in (9, 10)
    assert rates[-1] == pytest.approx(0, abs=1e-6)
    decay = {g["weight_decay"]: [p.ndim for p in g["params"]] for g in told["optimizer"].param_groups}
    assert set(decay) == {0.0, 0.5}
    assert max(decay[0.0]) <= 1 < min(decay[0.5])


def test_in_mixed_precision_scores_and_losses_stay_single() -> None:
    """Concordance counts ties as half: in eight bits a risk has many."""
    made, whole = learner().train(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        assert made.embed(whole)["rna"].vector.dtype == torch.bfloat16  # the rest is fast
        torch.manual_seed(1)
        out, _ = made(whole)
        torch.manual_seed(1)
        loss = made._losses(whole, "train")
    assert {name: raw.dtype for name, raw in out.items()} == dict.fromkeys(out, torch.float32)
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in made.parameters() if p.grad is not None)
    torch.manual_seed(1)
    torch.testing.assert_close(made._losses(whole, "train"), loss.detach(), rtol=0.02, atol=0.02)
