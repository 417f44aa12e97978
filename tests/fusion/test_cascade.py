"""The cascade, as `model=cascade` makes it: order, gradient back into the class heads, tasks that are not run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nsclc_mtl.bags.fitted import Fitted
from nsclc_mtl.commands import assemble
from nsclc_mtl.config import compose, plain
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Bag, Batch, Target, TaskSpec, UsageFault
from nsclc_mtl.tasks.survival import DiscreteHazard

SPECS = {
    "survival": TaskSpec("survival", "survival"),  # the first one that the cohort names, and the last to be predicted
    "grade": TaskSpec("grade", "ordinal", ("1", "2", "3")),
    "response": TaskSpec("response", "binary", ("no", "yes")),
}
TIME, EVENT = np.array([100.0, 300, 500, 800, 1500, 2000]), np.array([1.0, 1, 0, 1, 0, 1])


def assembled(tasks: tuple[str, ...], words: tuple[str, ...] = ("model=cascade",)) -> Learner:
    torch.manual_seed(0)
    cfg: dict[str, Any] = plain(compose("train", list(words)))
    specs = {name: SPECS[name] for name in tasks}
    state = {"survival": DiscreteHazard.fit(SPECS["survival"], TIME, EVENT, bins=3), "grade": {}, "response": {}}
    scale = {"mean": [0.0] * 5, "sd": [1.0] * 5}
    fitted = Fitted(bags={"wsi": scale}, tasks={name: state[name] for name in tasks})
    return assemble.learner(cfg, specs, {"wsi": cfg["parts"]["modalities"]["bag"]}, fitted)


def batch(known: tuple[str, ...]) -> Batch:
    draw = torch.Generator().manual_seed(0)
    bag = Bag(torch.randn(18, 5, generator=draw), torch.arange(0, 19, 3))
    days, event = torch.tensor(TIME, dtype=torch.float32), torch.tensor(EVENT, dtype=torch.float32)
    targets = {
        name: Target(torch.full((6,), name in known), days if name == "survival" else event, event) for name in SPECS
    }
    return Batch([f"p{i}" for i in range(6)], {"wsi": bag}, {"wsi": torch.ones(6, dtype=torch.bool)}, targets)


def test_survival_comes_last_and_reads_the_probabilities_of_all_class_tasks() -> None:
    made = assembled(("survival", "grade", "response"))
    assert list(made.tasks) == ["grade", "response", "survival"]
    task = made.tasks["survival"]
    assert task.after == {"grade": 3, "response": 2}
    assert task.linear.in_features == made.fusion.view_dim + 5  # type: ignore[union-attr, operator]
    made.eval()
    out, _ = made(batch(()))
    view = made.fusion(made.embed(batch(())), present=batch(()).present)[0]["survival"]
    said = [torch.stack(list(made.tasks[n].predict(out[n]).values()), dim=1) for n in ("grade", "response")]  # type: ignore[operator, union-attr]
    by_hand = task.linear(torch.cat([view, *said], dim=1)) + task.baseline  # type: ignore[operator]
    torch.testing.assert_close(out["survival"], by_hand)


def test_the_loss_of_survival_teaches_the_class_heads() -> None:
    made = assembled(("survival", "grade", "response"))
    made.training_step(batch(("survival",)), 0).backward()
    for name in ("grade", "response"):
        gradient = made.tasks[name].linear.weight.grad  # type: ignore[union-attr]
        assert gradient is not None, name
        assert gradient.abs().sum() > 0, name  # type: ignore[operator]
    parallel = assembled(("survival", "grade", "response"), ("model=moe_mil",))
    parallel.training_step(batch(("survival",)), 0).backward()
    gradient = parallel.tasks["grade"].linear.weight.grad  # type: ignore[union-attr]
    assert gradient is None or not gradient.any()  # type: ignore[operator]


def test_a_task_that_is_not_run_is_left_out() -> None:
    assert assembled(("survival", "response")).tasks["survival"].after == {"response": 2}
    assert assembled(("survival",)).tasks["survival"].after == {}


def test_a_list_of_tasks_and_its_faults() -> None:
    one = assembled(("survival", "grade", "response"), ("model=moe_mil", "+parts.tasks.survival.after=[grade]"))
    assert one.tasks["survival"].after == {"grade": 3}
    for words, sentence in (
        ("+parts.tasks.survival.after=[grad]", "the cohort declares no task 'grad'"),
        ("+parts.tasks.ordinal.after=[survival]", "'survival' has no classes"),
    ):
        with pytest.raises(UsageFault, match=sentence):
            assembled(("survival", "grade"), ("model=moe_mil", words))
    with pytest.raises(UsageFault, match="the tasks grade, response wait for each other"):
        assembled(
            ("grade", "response"),
            ("model=moe_mil", "+parts.tasks.ordinal.after=[response]", "+parts.tasks.binary.after=[grade]"),
        )


@pytest.mark.parametrize("encoder", ["abmil", "clam_sb", "clam_mb", "dsmil", "transmil", "max"])
def test_coattention_gets_the_tiles_of_every_slide_encoder(encoder: str) -> None:
    made = assembled(("grade",), ("model=coattention", f"encoder={encoder}"))
    assert made.fusion.read == ("wsi",)
    made.training_step(batch(("grade",)), 0).backward()
    taught = {name for name, p in made.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert {"fusion.key.wsi.weight", "fusion.value.wsi.weight"} <= taught
    assert any(name.startswith("encoders.wsi.tile.") for name in taught)


def test_who_does_not_want_the_tiles_asked_says_so() -> None:
    alone = ("model=moe_mil", "fusion=coattention")
    assert assembled(("grade",), alone).fusion.read == ("wsi",)
    assert assembled(("grade",), (*alone, "parts.modalities.bag.encoder.tokens=false")).fusion.read == ()
    assert assembled(("grade",), (*alone, "encoder=mean")).fusion.read == ()
    assert assembled(("grade",), ("model=moe_mil",)).encoders["wsi"].token_dim is None


def test_the_encoders_task_may_be_one_that_a_run_of_a_task_alone_does_not_train() -> None:
    words = ("model=clam", "encoder=clam_sb", "parts.modalities.bag.encoder.task=grade")
    both, alone = assembled(("grade", "survival"), words), assembled(("survival",), words)
    assert both.encoders["wsi"].task == "grade"
    assert alone.encoders["wsi"].task is None
    with pytest.raises(UsageFault, match="task=grad is no class task of this run"):
        assembled(("grade",), (*words[:2], "parts.modalities.bag.encoder.task=grad"))
