"""A small configuration folder with the shape of the shipped one."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import nsclc_mtl.config.wiring as wiring

FILES = {
    "toy.yaml": """
        defaults:
          - _self_
          - cohort: small
          - /tasks@parts.tasks.binary: binary
          - survival: cox
          - encoder: abmil
          - fusion: concat
          - optim: adamw
          - model: abmil
          - experiment: null
        seed: 0
        fold: all
        name: null
        tasks: null
        modalities: null
        scheduler: {_target_: torch.optim.lr_scheduler.StepLR, _partial_: true, step_size: 10}
        weights: {}
        paths: {runs: runs}
    """,
    "tile.yaml": "{slides: {dir: '???'}, name: null, seed: 0, paths: {runs: runs}}",
    "cohort/small.yaml": """
        root: data
        n: 40
        tasks: {grade: {kind: binary}, survival: {kind: survival}}
        modalities: {wsi: {kind: bag}, clinical: {kind: table}}
    """,
    "tasks/binary.yaml": "kind: binary",
    "survival/cox.yaml": """
        # @package parts.tasks.survival
        kind: survival
        fit: {bins: 3}
    """,
    "modalities/bag.yaml": "kind: bag",
    "encoder/abmil.yaml": """
        # @package parts.modalities.bag.encoder
        hidden: 64
    """,
    "optim/adamw.yaml": "{_target_: torch.optim.AdamW, _partial_: true, lr: 0.001}",
    "fusion/concat.yaml": "{kind: concat, dim: 8}",
    "fusion/experts.yaml": "{kind: experts, experts: 4}",
    "model/abmil.yaml": "name: abmil",
    "model/moe_mil.yaml": """
        # @package _global_
        defaults:
          - override /fusion: experts
        model: {name: moe_mil}
    """,
    "experiment/large.yaml": """
        # @package _global_
        defaults:
          - override /model: moe_mil
        seed: 7
    """,
}


def write(folder: Path, files: dict[str, str]) -> None:
    """Writes YAML files, their common indentation removed."""
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip("\n"))


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small configuration folder, taken for the shipped one; the test runs in an empty folder beside it."""
    folder = tmp_path / "conf"
    write(folder, FILES)
    monkeypatch.setattr(wiring, "conf_root", lambda: folder)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return folder


@pytest.fixture
def write_conf() -> Callable[[Path, dict[str, str]], None]:
    """Writes YAML files into a folder."""
    return write
