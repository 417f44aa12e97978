"""The score that early stopping watches: the mean, over the tasks that have one, of what the evaluation gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nsclc_mtl.records import Target, TaskSpec
from nsclc_mtl.tasks.classes import Binary, Multiclass
from nsclc_mtl.tasks.cox import Cox
from nsclc_mtl.tasks.ordinal import Ordinal
from nsclc_mtl.tasks.survival import DiscreteHazard
from nsclc_mtl.tasks.task import Task
from nsclc_mtl.training.score import joined, main_metric, scores

DAYS, EVENT = np.array([100.0, 300, 500, 800, 1500, 2000]), np.array([1.0, 1, 0, 1, 0, 1])


def task(kind: str) -> Task:
    classes = {"binary": 2, "ordinal": 3, "multiclass": 3}
    spec = TaskSpec("t", kind, tuple("abc"[: classes.get(kind, 0)]))  # type: ignore[arg-type]
    if kind == "survival":
        return DiscreteHazard(spec, 4, DiscreteHazard.fit(spec, DAYS, EVENT, bins=3))
    return {"binary": Binary, "ordinal": Ordinal, "multiclass": Multiclass}[kind](spec, 4, {})


def pairs(label: Tensor, score: Tensor, comparable: Tensor) -> float:
    """Share of the comparable pairs (i above j) in which the score agrees; ties count one half."""
    won = (score[:, None] > score[None, :]).double() + 0.5 * (score[:, None] == score[None, :]).double()
    return float(won[comparable].mean())


@pytest.mark.parametrize("kind", ["binary", "ordinal", "multiclass", "survival"])
def test_the_metric_of_a_task_is_the_share_of_pairs_in_their_order(kind: str) -> None:
    torch.manual_seed(0)
    made = task(kind).eval()
    raw = made.head(torch.randn(40, 4) * 3, {}).detach()
    known = torch.rand(40) < 0.8
    if kind == "survival":
        days, event = torch.rand(40) * 2000, (torch.rand(40) < 0.6).float()
        told = main_metric(made, raw, Target(known, torch.where(known, days, math.nan), event))
        earlier = (days[:, None] < days[None, :]) & (event[:, None] == 1) & known[:, None] & known[None, :]
        assert float(told) == pytest.approx(pairs(days, made.score(raw), earlier))
        return
    label = torch.randint(0, len(made.spec.classes), (40,)).float()
    told = main_metric(made, raw, Target(known, torch.where(known, label, math.nan)))
    proba = torch.stack(list(made.predict(raw).values()), dim=1).double()
    both = known[:, None] & known[None, :]
    if kind == "multiclass":
        each = [
            pairs(label, proba[:, k], (label == k)[:, None] & (label != k)[None, :] & both)
            for k in range(proba.shape[1])
        ]
        assert float(told) == pytest.approx(sum(each) / len(each))
    else:
        expected = proba @ torch.arange(proba.shape[1]).double()
        assert float(told) == pytest.approx(pairs(label, expected, (label[:, None] > label[None, :]) & both))


def test_tasks_without_a_metric_are_left_out_and_lost_ones_are_not() -> None:
    one, other = task("binary"), task("ordinal")
    all_known = torch.ones(4, dtype=torch.bool)
    score = torch.tensor([-1.0, 2.0, -2.0, 1.0])
    right, single = Target(all_known, torch.tensor([0.0, 1, 0, 1])), Target(all_known, torch.ones(4))
    raw = {"one": _raw(one, score), "other": _raw(other, score)}
    tasks = {"one": one, "other": other}
    mean, each = scores(tasks, raw, {"one": right, "other": single})
    assert (mean, float(each["one"])) == (1.0, 1.0)
    assert each["other"].reason == "one class only"
    assert scores(tasks, raw, {"one": single, "other": single})[0] is None
    nobody = Target(~all_known, torch.full((4,), math.nan))
    assert scores(tasks, raw, {"one": nobody, "other": nobody})[0] is None
    lost, each = scores(tasks, {**raw, "other": raw["other"] * math.nan}, {"one": right, "other": single})
    assert lost is not None
    assert math.isnan(lost)
    assert each["other"].reason == "outputs are not finite"


def _raw(made: Task, score: Tensor) -> Tensor:
    """What the head says where its one weight is 1: a score that orders the patients as given."""
    with torch.no_grad():
        for parameter in made.linear.parameters():
            parameter.zero_()
            if parameter.ndim > 1:
                parameter[:, 0] = 1.0
    return made.head(torch.stack([score, *[torch.zeros_like(score)] * 3], dim=1), {}).detach()


def test_batches_of_targets_are_those_of_one() -> None:
    cox = Cox(TaskSpec("t", "survival"), 4, Cox.fit(TaskSpec("t", "survival"), DAYS, EVENT))
    known = torch.ones(6, dtype=torch.bool)
    whole = Target(known, torch.tensor(DAYS), torch.tensor(EVENT))
    parts = [Target(known[i : i + 2], whole.value[i : i + 2], whole.event[i : i + 2]) for i in (0, 2, 4)]  # type: ignore[index]
    raw = torch.randn(6)
    assert float(main_metric(cox, raw, joined(parts))) == float(main_metric(cox, raw, whole))
