"""The choice of a slide encoder: one word, its own arguments and nobody else's, and a learner that trains with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nsclc_mtl.bags.fitted import Fitted
from nsclc_mtl.commands import assemble
from nsclc_mtl.config import compose, plain
from nsclc_mtl.config.wiring import conf_root
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Bag, Batch, Target, TaskSpec
from nsclc_mtl.tasks.survival import DiscreteHazard

ENCODERS = sorted(file.stem for file in (conf_root() / "encoder").glob("*.yaml"))
TEACHING = ("clam_mb", "clam_sb", "dsmil")  # the class tasks' labels teach the encoder itself
SPECS = {"grade": TaskSpec("grade", "ordinal", ("1", "2", "3")), "survival": TaskSpec("survival", "survival")}
DAYS, EVENT = np.array([100.0, 300, 500, 800]), np.array([1.0, 1, 0, 1])
PLACE = {"bag": "encoder", "spots": "encoder@parts.modalities.spots.encoder"}


def node(words: list[str], kind: str = "bag") -> dict[str, Any]:
    made: dict[str, Any] = plain(compose("train", words))["parts"]["modalities"][kind]["encoder"]
    return made


def learner(words: list[str], kind: str, specs: dict[str, TaskSpec]) -> Learner:
    cfg = plain(compose("train", words))
    tasks = {"survival": DiscreteHazard.fit(SPECS["survival"], DAYS, EVENT, bins=2), "grade": {}}
    scale = {"mean": [0.0] * 3, "sd": [1.0] * 3}
    torch.manual_seed(0)
    return assemble.learner(
        cfg, specs, {"wsi": cfg["parts"]["modalities"][kind]}, Fitted(bags={"wsi": scale}, tasks=tasks)
    )


def batch() -> Batch:
    sizes, known = torch.tensor([5, 0, 20, 1]), torch.tensor([True, True, True, False])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    bag = Bag(torch.randn(26, 3), offsets, torch.randint(0, 9000, (26, 2)))
    targets = {
        "grade": Target(known, torch.tensor([0.0, 1, 2, 0])),
        "survival": Target(known, torch.tensor(DAYS).float(), torch.tensor(EVENT).float()),
    }
    return Batch(["a", "b", "c", "d"], {"wsi": bag}, {"wsi": sizes > 0}, targets)


@pytest.mark.parametrize("kind", PLACE)
@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_trains_on_slides_and_on_spots(name: str, kind: str) -> None:
    for specs in (SPECS, {"survival": SPECS["survival"]}):
        made = learner([f"{PLACE[kind]}={name}", "fusion=concat"], kind, specs)
        out, losses = made(batch())
        assert set(losses) == ({"wsi/instance"} if name in TEACHING and "grade" in specs else set())
        assert all(bool(torch.isfinite(raw).all()) for raw in out.values())
        made.training_step(batch(), 0).backward()
        grads = [p.grad for p in made.encoders["wsi"].parameters() if p.grad is not None]
        assert any(bool(g.any()) for g in grads)
        assert all(bool(torch.isfinite(g).all()) for g in grads)
        with torch.no_grad():
            assert not made.eval()(batch())[1]  # labels are for training


@pytest.mark.parametrize("name", ENCODERS)
def test_one_word_picks_an_encoder_without_the_arguments_of_another(name: str) -> None:
    plainest = node([])
    chosen = node([f"encoder={name}"])
    assert (chosen == plainest) == (name == "abmil")
    assert node([f"encoder={name}"], "spots") == node([], "spots")
    assert node([f"{PLACE['spots']}={name}"], "spots") == chosen
    if "hidden" in chosen:
        assert node([f"encoder={name}", "parts.modalities.bag.encoder.hidden=16"]) == {**chosen, "hidden": 16}


@pytest.mark.parametrize(("model", "encoder"), [("clam", "clam_sb"), ("dsmil", "dsmil"), ("transmil", "transmil")])
def test_presets_take_their_encoder_and_another_word_still_wins(model: str, encoder: str) -> None:
    assert node([f"model={model}"]) == node([f"encoder={encoder}"])
    assert node([f"model={model}", "encoder=clam_mb"]) == node(["encoder=clam_mb"])
    assert compose("train", [f"model={model}"]).modalities == ["wsi"]
