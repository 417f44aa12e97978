"""The evidence on noise, small: `mtl train` with selected genes says that there is nothing to find."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "evidence" / "noise_genes.py"


@pytest.mark.slow
def test_selected_noise_is_a_coin(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("noise_genes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    words = ["--patients", "60", "--genes", "2000", "--keep", "50", "--seeds", "2", "--out", str(tmp_path / "n.json")]
    means = script.main(words)
    assert abs(means["response"] - 0.5) < 0.15
    assert abs(means["survival"] - 0.5) < 0.15
