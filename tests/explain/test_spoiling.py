"""The audit's spoiling: one modality of everybody who has it, and nothing else; coalitions that training knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from two_tasks import two_tasks

from nsclc_mtl.encoders.mil import ABMIL
from nsclc_mtl.encoders.tabular import MLP
from nsclc_mtl.explain import shapley, spoiling
from nsclc_mtl.fusion.coattention import CoAttention
from nsclc_mtl.fusion.concat import Concat
from nsclc_mtl.fusion.late import Late
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Bag, Batch, TaskSpec
from nsclc_mtl.tasks.balance import Sum
from nsclc_mtl.tasks.classes import Binary, Multiclass

WHOLE = [["wsi", "rna"]]
TRAINED = [[4, 0, 2, 3], [True, True, False, True]]  # tiles and rna of the patients that were trained on


def learner(dropout: float = 0.1) -> Learner:
    tasks = two_tasks()
    encoders = {"wsi": ABMIL(3, 4), "rna": MLP(5, 4, hidden=0)}
    fuse = Concat(("wsi", "rna"), list(tasks), 4, width=8, modality_dropout=dropout)
    return Learner(encoders, fuse, tasks, Sum(list(tasks))).eval().requires_grad_(False)


def batch(sizes: Sequence[int], rna: Sequence[bool], seed: int = 1) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    n, offsets = len(sizes), torch.tensor([0, *sizes]).cumsum(0)
    bag = Bag(torch.randn(sum(sizes), 3, generator=draw), offsets)
    present = {"wsi": torch.tensor(sizes) > 0, "rna": torch.tensor(rna)}
    return Batch([f"p{i}" for i in range(n)], {"wsi": bag, "rna": torch.randn(n, 5, generator=draw)}, present, {})


def spoil(made: Learner, whole: Batch, repeats: int = 1, patterns: Sequence[Sequence[str]] = WHOLE):  # type: ignore[no-untyped-def]
    mean = spoiling.typical(made, [batch(*TRAINED, seed=2)])  # type: ignore[arg-type]
    return {key: of.scores for key, of in spoiling.spoil(made, whole, repeats, 0, mean, patterns).items()}


def test_the_audit_spoils_one_modality_and_nothing_else() -> None:
    made = learner()
    whole = batch([3, 0, 2, 4, 0, 1], [True, True, False, True, True, False])
    told = spoil(made, whole, repeats=3)
    assert set(told) == {("", "", 0)} | {(m, d, 0) for m in ("wsi", "rna") for d in ("drop", "mean")} | {
        (m, "permute", r) for m in ("wsi", "rna") for r in range(3)
    }  # fmt: skip
    untouched = told["", "", 0]["response"]
    with torch.no_grad():  # as the audit: with gradients a bag is not looked at in pieces, and sums round otherwise
        np.testing.assert_allclose(
            untouched, made.tasks["response"].score(made(whole)[0]["response"]).numpy(), rtol=1e-6
        )  # type: ignore[operator, union-attr]
    absent = ~whole.present["rna"].numpy()
    for repeat in range(3):
        spoiled = told["rna", "permute", repeat]["response"]
        np.testing.assert_array_equal(spoiled[absent], untouched[absent])
        assert (spoiled[~absent] != untouched[~absent]).all()
    assert any((told["rna", "permute", 0]["grade"] != told["rna", "permute", r]["grade"]).any() for r in (1, 2))
    alone = [1, 4]  # they have rna and nothing else: they keep it
    dropped = told["rna", "drop", 0]["response"]
    np.testing.assert_array_equal(dropped[alone], untouched[alone])
    without = replace(whole, present={**whole.present, "rna": torch.zeros(6, dtype=torch.bool)})
    by_hand = made.tasks["response"].score(made(without)[0]["response"]).numpy()  # type: ignore[operator, union-attr]
    both = whole.present["wsi"].numpy()
    np.testing.assert_allclose(dropped[both], by_hand[both], rtol=1e-5)
    again = spoil(made, whole, repeats=3)
    assert all(np.array_equal(again[key][task], scores[task]) for key, scores in told.items() for task in scores)


def test_a_modality_of_one_patient_is_not_spoiled() -> None:
    told = spoil(learner(), batch([3, 1], [True, False]))
    assert {m for m, _, _ in told} == {"", "wsi"}


@given(st.integers(2, 40), st.integers(0, 99))
def test_nobody_keeps_his_own(n: int, seed: int) -> None:
    order = spoiling._derangement(n, np.random.Generator(np.random.PCG64(seed)))
    assert sorted(order.tolist()) == list(range(n))
    assert (order != np.arange(n)).all()


def test_the_audit_says_the_probability_of_every_class_without_an_order() -> None:
    made, whole = learner(), batch([3, 2], [True, True])
    made.tasks["look"] = Multiclass(TaskSpec("look", "multiclass", ("a", "b", "c")), 8, {})
    made.fusion = Concat(("wsi", "rna"), list(made.tasks), 4, width=8)
    told = spoil(made.eval().requires_grad_(False), whole)
    said = made.predict_step(whole, 0)["look"]
    assert told["", "", 0]["look"].shape == (2, 3)
    for k, name in enumerate("abc"):
        np.testing.assert_allclose(told["", "", 0]["look"][:, k], said[f"p:{name}"].numpy(), rtol=1e-6)
    assert all(scores["response"].shape == (2,) for scores in told.values())


def test_a_mean_stands_for_what_the_training_patients_have() -> None:
    made, whole = learner(), batch([3, 0, 2, 4], [True, True, False, True])
    told = spoil(made, whole)
    trained = batch(*TRAINED, seed=2)  # type: ignore[arg-type]
    with torch.no_grad():
        mean = made.embed(trained)["rna"].vector[torch.tensor(TRAINED[1])].mean(0)
        seen = made.embed(whole)
        seen["rna"].vector[:] = mean
        by_hand = made.tasks["response"].score(made.decide(seen, whole.present)[0]["response"]).numpy()  # type: ignore[operator, union-attr]
    have = whole.present["rna"].numpy()
    np.testing.assert_allclose(told["rna", "mean", 0]["response"][have], by_hand[have], rtol=1e-5)
    np.testing.assert_array_equal(told["rna", "mean", 0]["response"][~have], told["", "", 0]["response"][~have])


def test_tiles_that_the_fusion_reads_have_a_mean_too() -> None:
    torch.manual_seed(0)
    tasks = {"response": Binary(TaskSpec("response", "binary", ("no", "yes")), 32, {})}
    encoders = {"wsi": ABMIL(3, 4, hidden=6, tokens=True), "rna": MLP(5, 4, hidden=0)}
    fuse = CoAttention(("wsi", "rna"), list(tasks), 4, tiles={"wsi": 6})
    made = Learner(encoders, fuse, tasks, Sum(list(tasks))).eval().requires_grad_(False)
    told = spoil(made, batch([5, 2, 0], [True, True, True]))
    filled = told["wsi", "mean", 0]["response"]
    assert np.isfinite(filled).all()
    assert (filled[:2] != told["", "", 0]["response"][:2]).all()


def test_nobody_is_left_with_what_training_never_saw() -> None:
    """Without modality dropout the combinations of the training patients alone are known."""
    whole = batch([3, 2, 4], [True, True, False])
    assert ("rna", "drop", 0) in spoil(learner(), whole)
    fixed = learner(dropout=0.0)
    assert {m for m, d, _ in spoil(fixed, whole) if d == "drop"} == set()
    assert {m for m, d, _ in spoil(fixed, whole, patterns=[*WHOLE, ["wsi"]]) if d == "drop"} == {"rna"}
    mean = spoiling.typical(fixed, [whole])
    assert spoiling.shown(fixed, whole, mean, [*WHOLE, ["wsi"]])["wsi",].touched.tolist() == [False, False, True]
    assert spoiling.shown(fixed, batch([3], [True]), mean, WHOLE) == {}
    every = [*WHOLE, ["wsi"], ["rna"]]
    assert spoiling.shown(fixed, whole, mean, every)["wsi",].touched.all()


def test_a_coalition_is_the_patient_with_that_alone() -> None:
    made, whole = learner(), batch([3, 0, 2], [True, True, False])
    mean = spoiling.typical(made, [batch(*TRAINED, seed=2)])  # type: ignore[arg-type]
    told = spoiling.shown(made, whole, mean, WHOLE)
    assert list(told) == [(), ("wsi",), ("rna",), ("wsi", "rna")]
    np.testing.assert_array_equal(told["wsi", "rna"].scores["grade"], spoil(made, whole)["", "", 0]["grade"])
    alone = replace(whole, present={**whole.present, "rna": torch.zeros(3, dtype=torch.bool)})
    with torch.no_grad():
        by_hand = made.tasks["grade"].score(made(alone)[0]["grade"]).numpy()  # type: ignore[operator, union-attr]
    np.testing.assert_allclose(told["wsi",].scores["grade"][[0, 2]], by_hand[[0, 2]], rtol=1e-6)
    base = told[()].scores["grade"]
    assert told["wsi",].scores["grade"][1] == base[1] == pytest.approx(float(mean.scores["grade"]))


def test_shapley_values_of_scores_that_modalities_add_to_are_their_parts() -> None:
    """Late fusion of patients who have everything: the score is a mean of one part a modality, which they then are."""
    torch.manual_seed(0)
    tasks = {"response": Binary(TaskSpec("response", "binary", ("no", "yes")), 8, {})}
    nn.init.normal_(tasks["response"].linear.weight)
    encoders = {"wsi": ABMIL(3, 4), "rna": MLP(5, 4, hidden=0)}
    made = Learner(encoders, Late(("wsi", "rna"), list(tasks), 4, width=8), tasks, Sum(list(tasks))).eval()
    whole = batch([3, 1, 2], [True, True, True])
    told = spoiling.shown(made, whole, spoiling.typical(made, [whole]), WHOLE)
    nothing, wsi, rna, both = (of.scores["response"] for of in told.values())
    np.testing.assert_allclose(both, (wsi + rna) / 2, rtol=1e-5)
    found = shapley.values(np.stack([nothing, wsi, rna, both]))
    np.testing.assert_allclose(found[0] - found[1], (wsi - rna), atol=1e-5)
    np.testing.assert_allclose(found.sum(0), both - nothing, atol=1e-6)
