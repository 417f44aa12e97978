"""What configuration may name, and what it may not, however it is spelled."""

from __future__ import annotations

import functools

import pytest

from nsclc_mtl.config import build, check, permitted
from nsclc_mtl.records import UsageFault

ATTACKS = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "antigravity.fly",
    "torch.load",
    "torch.hub.load",
    "torch.optim.optimizer.torch.load",
    "torch.optim.adamw.torch.hub.load",
    "torch.nn.Module.load_state_dict",
    "torch.nn.modules.module.os.system",
    "torch.utils.cpp_extension.load",
    "torch.jit.load",
    "torch.fx.GraphModule",
    "torch.distributed.nn.RemoteModule",
    "nsclc_mtl.config.allow.os.system",
    "nsclc_mtl.config.allow.sys.modules",
    "nsclc_mtl.config.run.write_atomic",
    "nsclc_mtl.config.frame.execute",
    "nsclc_mtl.config.build",
    "nsclc_mtl.records.Tiles",
    "nsclc_mtl.features.store.write",
    "nsclc_mtl.encoders.__builtins__",
    "nsclc_mtl.encoders.__loader__.get_data",
    "monai.losses.PerceptualLoss",
    "monai.bundle.ConfigParser",
    "pytorch_lightning.trainer.trainer.os.system",
    "pytorch_lightning.seed_everything",
    "torch",
    "torch..load",
    "",
]


@pytest.mark.parametrize("target", ATTACKS)
def test_refused_by_what_it_leads_to(target: str) -> None:
    with pytest.raises(UsageFault):
        permitted(target)
    with pytest.raises(UsageFault):
        build({"_target_": target, "command": "touch attacked"})
    assert check({"node": {"_target_": target}})


@pytest.mark.parametrize("target", [None, 3, ["torch.nn.Linear"], {"a": 1}])
def test_a_target_that_is_no_text_is_refused(target: object) -> None:
    with pytest.raises(UsageFault):
        build({"_target_": target})


def test_a_forged_home_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    import nsclc_mtl.encoders

    def helpful(command: str) -> int:
        return os.system(command)

    helpful.__module__, helpful.__qualname__ = "nsclc_mtl.encoders", "helpful"
    monkeypatch.setattr(nsclc_mtl.encoders, "harmless", helpful, raising=False)
    with pytest.raises(UsageFault):
        permitted("nsclc_mtl.encoders.harmless")


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.Linear",
        "torch.optim.AdamW",
        "torch.optim.lr_scheduler.CosineAnnealingLR",
        "pytorch_lightning.Trainer",
        "pytorch_lightning.callbacks.EarlyStopping",
        "pytorch_lightning.loggers.CSVLogger",
        "torchmetrics.MeanMetric",
        "monai.networks.nets.resnet18",
        "monai.networks.nets.ResNet",
    ],
)
def test_permitted(target: str) -> None:
    assert callable(permitted(target))


def test_a_plugin_is_named_in_the_environment_and_gives_modules_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    with open(f"{tmp_path}/own_models.py", "w") as file:
        file.write("import torch\nclass Own(torch.nn.Identity): pass\ndef shell(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageFault, match="may only name"):
        permitted("own_models.Own")
    monkeypatch.setenv("MTL_PLUGINS", "own_models")
    assert permitted("own_models.Own").__name__ == "Own"
    with pytest.raises(UsageFault, match="may not name"):
        permitted("own_models.shell")


def test_build_children_first_and_hand_parts_to_the_outermost() -> None:
    import torch

    node = {"_target_": "torch.nn.Linear", "out_features": 2, "bias": False}
    assert build(node, in_features=3).weight.shape == (2, 3)
    activation = {"_target_": "torch.nn.GELU"}
    layer = {"_target_": "torch.nn.TransformerEncoderLayer", "d_model": 4, "nhead": 2, "activation": activation}
    assert isinstance(build(layer).activation, torch.nn.GELU)
    both = build({"a": node | {"in_features": 1}, "b": [activation, 7]})
    assert isinstance(both["a"], torch.nn.Linear)
    assert isinstance(both["b"][0], torch.nn.GELU)
    assert both["b"][1] == 7


def test_partial_waits_for_arguments() -> None:
    import torch

    waiting = build({"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.5})
    assert isinstance(waiting, functools.partial)
    assert waiting([torch.nn.Parameter(torch.ones(1))]).defaults["lr"] == 0.5


def test_arguments_that_do_not_fit_are_one_sentence() -> None:
    with pytest.raises(UsageFault, match="out_features"):
        build({"_target_": "torch.nn.Linear", "in_features": 1})
    with pytest.raises(UsageFault, match="without _target_"):
        build({"a": 1}, dim=3)
    with pytest.raises(UsageFault, match="_recursive_"):
        build({"_target_": "torch.nn.GELU", "_recursive_": False})


def test_check_lists_all_faults_at_once() -> None:
    faults = check(
        {
            "optim": {"_target_": "torch.optim.AdamW", "_partial_": True, "lrr": 1},
            "trainer": {"_target_": "pytorch_lightning.Trainer", "max_epochs": "three"},
            "head": {"_target_": "torch.nn.Linaer"},
            "slides": {"dir": "???"},
            "fine": {"_target_": "torch.nn.Linear", "in_features": 4},
        }
    )
    assert len(faults) == 4
    assert "did you mean 'lr'" in faults[0]
    assert "a number is needed" in faults[1]
    assert "did you mean 'Linear'" in faults[2]
    assert faults[3] == "slides.dir has no value: give slides.dir=..."
