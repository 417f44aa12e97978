"""`device=...` of train and predict: model and batches go to the device, what comes out comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_way import Way

from nsclc_mtl.bags.datamodule import moved
from nsclc_mtl.learner import Learner
from nsclc_mtl.records import Bag, Batch, Target


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    """A working folder with a model of slides and one table, two folds."""
    made = Way(tmp_path_factory.mktemp("device"))
    assert made.train("whole", "modalities=[wsi,clinical]", "tasks=[grade,survival]", "audit=0") == 0
    return made


def test_a_batch_moves_with_everything_in_it() -> None:
    bag = Bag(torch.ones(3, 2), torch.tensor([0, 3]), torch.zeros(3, 2, dtype=torch.int64))
    target = Target(torch.tensor([True]), torch.ones(1), torch.ones(1))
    inputs: dict[str, Any] = {"wsi": bag, "rna": torch.ones(1, 4)}
    batch = Batch(["P"], inputs, {"wsi": torch.tensor([True])}, {"os": target, "grade": Target(*[torch.ones(1)] * 2)})
    there = moved(batch, torch.device("meta"))
    assert there.patients == ["P"]
    tensors = [
        there.inputs["rna"], there.inputs["wsi"].features, there.inputs["wsi"].offsets, there.inputs["wsi"].coords,
        there.present["wsi"], there.targets["os"].known, there.targets["os"].value, there.targets["os"].event,
    ]  # fmt: skip
    assert {t.device.type for t in tensors} == {"meta"}
    assert there.targets["grade"].event is None
    assert moved(batch, torch.device("cpu")) is batch


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where models were sent, and where each batch was taken to; the numbers themselves stay on this machine."""
    seen: list[str] = []
    to = Learner.to

    def sent(self: Learner, place: Any, *rest: Any) -> Learner:
        seen.append(f"model {torch.device(place).type}")
        return to(self, "cpu")

    def taken(batch: Batch, place: torch.device) -> Batch:
        seen.append(f"batch {torch.device(place).type}")
        return batch

    monkeypatch.setattr(Learner, "to", sent)
    monkeypatch.setattr("nsclc_mtl.bags.datamodule.moved", taken)
    return seen


@pytest.mark.slow
def test_models_and_batches_of_predictions_and_maps_go_there(
    way: Way, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    words = ("explain.patients=1", "explain.pictures=false")
    assert way.predict("there", "device=cuda", *words) == 0
    assert devices.count("model cuda") == 2  # one a fold
    # predictions, embeddings, weights of the experts and pictures: every batch goes where the model says that it is
    assert devices.count("batch cpu") == len(devices) - 2 > 6
    del devices[:]
    assert way.predict("auto", *words) == 0
    assert devices.count("model cuda") == 2
    del devices[:]
    assert way.predict("here", "device=cpu", *words) == 0
    assert set(devices) == {"model cpu", "batch cpu"}


def test_a_device_that_is_not_there_is_exit_2(
    way: Way, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert way.predict("none", "device=cuda") == 2
    assert "no usable GPU" in capsys.readouterr().err
    assert not Path(way.folder("predict", "none")).exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_says_what_the_processor_says(way: Way) -> None:
    words = ("explain.patients=2",)
    assert way.predict("gpu", "device=cuda", *words) == 0
    assert way.predict("cpu", "device=cpu", *words) == 0
    there, here = way.table("predict", "gpu"), way.table("predict", "cpu")
    assert there["value"].to_numpy() == pytest.approx(here["value"].to_numpy(), rel=1e-3, abs=1e-4)


# every head on bins and Cox's, beside every slide encoder; what each is made of is walked on a processor in
# test_one_order.py
PAIRS = [
    ("abmil", "hazard"), ("mean", "pc_hazard"), ("max", "mtlr"), ("clam_sb", "pmf"), ("clam_mb", "cox"),
    ("dsmil", "deephit"), ("transmil", "hazard"),
]  # fmt: skip


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("encoder", "survival"), PAIRS)
def test_the_gpu_trains_and_one_seed_is_one_hash_of_weights(way: Way, encoder: str, survival: str) -> None:
    """With the trainer's `deterministic: true`: an operation that has no fixed order would be refused."""
    words = ("device=cuda", "modalities=[wsi,clinical]", f"encoder={encoder}", f"survival={survival}", "fold=0")
    told = []
    for name in (f"{encoder}-{survival}", f"{encoder}-{survival}-again"):
        assert way.train(name, *words, "audit=0") == 0
        told.append(json.loads((way.folder(name=name) / "fold0/finished.json").read_text())["weights"])
    assert told[0] == told[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_trains_in_bf16_with_ordinal_heads_that_multiply(way: Way) -> None:
    words = ("device=cuda", "precision=bf16", "modalities=[wsi,clinical]", "ordinal=corn", "encoder=clam_mb")
    assert way.train("gpu-bf16", *words, "audit=0", "fold=0") == 0
    assert np.isfinite(way.table(name="gpu-bf16")["value"]).all()
