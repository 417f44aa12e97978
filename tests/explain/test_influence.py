"""Influence: against finite differences and against what must not move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from two_tasks import two_tasks

from nsclc_mtl.encoders.mil import ABMIL
from nsclc_mtl.encoders.tabular import MLP
from nsclc_mtl.explain import influence
from nsclc_mtl.fusion.coattention import CoAttention
from nsclc_mtl.fusion.concat import Concat
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Bag, Batch, TaskSpec
from nsclc_mtl.tasks.balance import Sum
from nsclc_mtl.tasks.classes import Binary

SD = [1.0, 2.0, 4.0]


def learner() -> Learner:
    tasks = two_tasks()
    encoders = {"wsi": ABMIL(3, 4, scale={"mean": [0.0] * 3, "sd": SD}), "rna": MLP(5, 4, hidden=0)}
    made = Learner(encoders, Concat(("wsi", "rna"), list(tasks), 4, width=8), tasks, Sum(list(tasks)))
    return made.eval().requires_grad_(False)


def batch(sizes: list[int], rna: list[bool]) -> Batch:
    draw = torch.Generator().manual_seed(1)
    n, offsets = len(sizes), torch.tensor([0, *sizes]).cumsum(0)
    bag = Bag(torch.randn(sum(sizes), 3, generator=draw), offsets)
    present = {"wsi": torch.tensor(sizes) > 0, "rna": torch.tensor(rna)}
    return Batch([f"p{i}" for i in range(n)], {"wsi": bag, "rna": torch.randn(n, 5, generator=draw)}, present, {})


def test_influence_is_attention_times_the_gradient() -> None:
    made, whole = learner(), batch([5], [True])
    looked, moved = influence.tiles(made, whole, "wsi")
    assert looked.shape == (5,)
    assert looked.sum() == np.float32(1) or abs(looked.sum() - 1) < 1e-6
    assert set(moved) == {"response", "grade"}

    def score(features: torch.Tensor) -> float:
        changed = replace(whole, inputs={**whole.inputs, "wsi": replace(whole.inputs["wsi"], features=features)})
        return float(made.tasks["response"].score(made(changed)[0]["response"]))  # type: ignore[operator, union-attr]

    made.double()
    features = whole.inputs["wsi"].features.double()
    whole = replace(whole, inputs={**whole.inputs, "rna": whole.inputs["rna"].double()})
    for tile in range(5):
        slope = []
        for column in range(3):
            step = torch.zeros_like(features)
            step[tile, column] = 1e-5 * SD[column]  # one scaled unit
            slope.append((score(features + step) - score(features - step)) / 2e-5)
        assert abs(moved["response"][tile] - looked[tile] * np.linalg.norm(slope)) < 1e-4


def test_tiles_that_the_fusion_reads_too_are_looked_at_by_both() -> None:
    torch.manual_seed(0)
    tasks = {"response": Binary(TaskSpec("response", "binary", ("no", "yes")), 32, {})}
    encoders = {"wsi": ABMIL(3, 4, hidden=6, tokens=True), "rna": MLP(5, 4, hidden=0)}
    fuse = CoAttention(("wsi", "rna"), list(tasks), 4, tiles={"wsi": 6})
    made, whole = Learner(encoders, fuse, tasks, Sum(list(tasks))).eval(), batch([5], [True])
    looked, moved = influence.tiles(made, whole, "wsi")
    with torch.no_grad():
        seen = made.embed(whole)
        both = (seen["wsi"].attention + fuse.tile_weights(seen, whole.present)["wsi"]) / 2  # type: ignore[operator]
    np.testing.assert_allclose(looked, both.numpy(), atol=1e-7)
    assert abs(looked.sum() - 1) < 1e-6
    assert (moved["response"] > 0).all()


def test_the_rest_of_the_patient_stays_as_it_is() -> None:
    made, whole = learner(), batch([3, 2], [True, True])
    score = influence.score_of(made, whole, "rna", "grade")
    seen = made.embed(whole)
    out, _ = made.decide(seen, whole.present)
    torch.testing.assert_close(score(seen["rna"]), made.tasks["grade"].score(out["grade"]).sum())  # type: ignore[operator, union-attr]
