"""Deletion curves: of a model whose tiles are known, by hand; in every encoder; and what stays as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from two_tasks import two_tasks

from nsclc_mtl.encoders.clam import CLAM
from nsclc_mtl.encoders.dsmil import DSMIL
from nsclc_mtl.encoders.mil import ABMIL, MeanPool
from nsclc_mtl.encoders.pooling import MaxPool
from nsclc_mtl.encoders.tabular import MLP
from nsclc_mtl.encoders.transmil import TransMIL
from nsclc_mtl.explain import deletion, influence
from nsclc_mtl.fusion.concat import Concat
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Bag, Batch, Embedding
from nsclc_mtl.tasks.balance import Sum


class Counted(nn.Module):
    """Sum of the first feature over the tiles."""

    def forward(self, bag: Bag) -> Embedding:
        owner = torch.repeat_interleave(torch.arange(len(bag.offsets) - 1), bag.offsets.diff())
        total = torch.zeros(len(bag.offsets) - 1).index_add(0, owner, bag.features[:, 0].float())
        return Embedding(total[:, None] * torch.tensor([[1.0, 0, 0, 0]]))


def learner(encoder: nn.Module | None = None) -> Learner:
    tasks = two_tasks()
    encoders = {"wsi": encoder or ABMIL(3, 4), "rna": MLP(5, 4, hidden=0)}
    return Learner(encoders, Concat(("wsi", "rna"), list(tasks), 4, width=8), tasks, Sum(list(tasks))).eval()


def batch(n: int, half: bool = False) -> Batch:
    draw = torch.Generator().manual_seed(1)
    features = torch.randn(n, 3, generator=draw)
    coords = torch.stack([torch.arange(n) % 4, torch.arange(n) // 4], dim=1) * 256
    bag = Bag(features.half() if half else features, torch.tensor([0, n]), coords)
    there = {"wsi": torch.tensor([True]), "rna": torch.tensor([True])}
    return Batch(["p"], {"wsi": bag, "rna": torch.randn(1, 5, generator=draw)}, there, {})


def test_the_scores_are_those_of_bags_without_the_tiles() -> None:
    made, whole = learner(), batch(8)
    kept = [np.arange(8), np.array([1, 5, 6]), np.array([0])]
    said = deletion.scores_of(made, whole, "wsi", kept)
    for k, rows in enumerate(kept):
        bag = whole.inputs["wsi"]
        alone = replace(bag, features=bag.features[rows], coords=bag.coords[rows], offsets=torch.tensor([0, len(rows)]))
        with torch.no_grad():
            out, _ = made(replace(whole, inputs={**whole.inputs, "wsi": alone}))
        for task in ("response", "grade"):
            np.testing.assert_allclose(said[task][k], made.tasks[task].score(out[task]).numpy(), rtol=1e-5)  # type: ignore[operator, union-attr]


def test_the_curves_take_the_tiles_in_the_order_of_each_map() -> None:
    made, whole = learner(Counted()), batch(10)
    worth = whole.inputs["wsi"].features[:, 0].numpy()
    maps = {"attention": worth, "influence:grade": -worth}
    told = deletion.curves(made, whole, "wsi", maps, steps=5, draws=3)
    assert list(told.columns) == list(deletion.COLUMNS)
    assert set(told.loc[told["by"] == "influence", "task"]) == {"grade"}
    assert set(told.loc[told["by"] == "attention", "task"]) == {"grade", "response"}
    order = np.argsort(-worth)
    want = deletion.scores_of(made, whole, "wsi", [np.arange(10), order[4:], order[:4]])["response"]
    here = told[(told["by"] == "attention") & (told["task"] == "response") & (told["share"] == 0.4)].set_index("mode")
    assert here["tiles"].to_dict() == {"removed": 6, "kept": 4}
    assert here.loc["removed", "score"] == pytest.approx(want[1])
    assert here.loc["kept", "change"] == pytest.approx(abs(want[2] - want[0]))
    random = told[(told["by"] == "random") & (told["task"] == "response")].set_index(["mode", "share"])
    assert random.loc[("removed", 0.4), "change"] == random.loc[("kept", 0.6), "change"]  # the same random tiles
    pd.testing.assert_frame_equal(told, deletion.curves(made, whole, "wsi", maps, steps=5, draws=3))


def test_the_gap_is_the_area_between_the_curves() -> None:
    share = [0.25, 0.5, 0.75]
    rows = [("influence", "removed", s, c) for s, c in zip(share, [1.0, 2.0, 3.0], strict=True)]
    rows += [("random", "removed", s, c) for s, c in zip(share, [0.0, 1.0, 3.0], strict=True)]
    rows += [("influence", "kept", s, c) for s, c in zip(share, [1.0, 0.0, 0.0], strict=True)]
    rows += [("random", "kept", s, c) for s, c in zip(share, [2.0, 2.0, 0.0], strict=True)]
    told = pd.DataFrame(rows, columns=["by", "mode", "share", "change"]).assign(task="t", patient_id="p")
    found = deletion.areas(told, ["patient_id"]).set_index("mode")
    assert found.loc["removed", ["area", "random", "gap"]].tolist() == pytest.approx([1.5, 2.5 / 3, 2 / 3])
    assert found.loc["kept", ["area", "random", "gap"]].tolist() == pytest.approx([0.5 / 3, 1.0, 1 - 0.5 / 3])


@pytest.mark.parametrize(
    "encoder", [ABMIL, MeanPool, MaxPool, CLAM, TransMIL, DSMIL, Counted], ids=lambda maker: maker.__name__
)
def test_every_encoder_of_slides_can_be_explained(encoder: type[nn.Module]) -> None:
    made = learner(encoder() if encoder is Counted else encoder(3, 4))
    whole = batch(12, half=True)
    looked, moved = influence.tiles(made, whole, "wsi")
    assert (looked is None) == (encoder is Counted)
    maps = {f"influence:{task}": scores for task, scores in moved.items()}
    assert all(np.isfinite(scores).all() and (scores >= 0).all() for scores in maps.values())
    told = deletion.curves(made, whole, "wsi", maps, steps=3, draws=2)
    assert np.isfinite(told[["score", "change"]]).all().all()


def test_a_bag_of_one_tile_has_no_curve() -> None:
    told = deletion.curves(learner(), batch(1), "wsi", {"attention": np.ones(1)}, steps=4)
    assert told.empty
    assert deletion.areas(told.assign(patient_id="p"), ["patient_id"]).empty


def test_batches_hold_no_more_tiles_than_they_may() -> None:
    assert deletion._batches([5, 3, 3, 9, 1], 8) == [[0, 1], [2], [3], [4]]
