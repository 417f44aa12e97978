"""A grid: what it expands to, one process a run, and one failed run does not end it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nsclc_mtl.config.sweep import expand, sweep

# Stands for `python -m nsclc_mtl`: fails for seed 1, and says so.
CHILD = """
import sys
words = sys.argv[2:]
print("words", *words)
print("run: /runs/" + "-".join(words))
sys.exit(3 if "seed=1" in words else 0)
"""


def test_expand(conf: Path) -> None:
    assert expand("toy", ["model=abmil,moe_mil", "seed=0,1"]) == [
        ["model=abmil", "seed=0"],
        ["model=abmil", "seed=1"],
        ["model=moe_mil", "seed=0"],
        ["model=moe_mil", "seed=1"],
    ]
    assert expand("toy", ["seed=range(0,3)"]) == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert expand("toy", ["tasks=[grade],[grade,survival]"]) == [["tasks=[grade]"], ["tasks=[grade,survival]"]]
    assert expand("toy", ["+optim.weight_decay=0,0.1"]) == [["+optim.weight_decay=0"], ["+optim.weight_decay=0.1"]]
    assert expand("toy", ["name=s", "seed=0,1"]) == [["name=s-0", "seed=0"], ["name=s-1", "seed=1"]]
    assert expand("toy", ["seed=4"]) == [["seed=4"]]


@pytest.mark.parametrize(("seeds", "code"), [("0,2", 0), ("0,1", 4), ("1,1", 3)])
def test_one_process_a_run_and_a_table(conf: Path, capfd: pytest.CaptureFixture[str], seeds: str, code: int) -> None:
    child = (sys.executable, "-c", CHILD)
    assert sweep("toy", ["fusion=concat", f"seed={seeds}"], options=["--verbose"], command=child) == code
    out = capfd.readouterr().out
    assert out.count("words fusion=concat seed=") == 2
    assert out.count("--verbose") >= 2
    assert "2 runs" in out


def test_a_wrong_word_stops_the_grid_before_it_begins(conf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    child = (sys.executable, "-c", CHILD)
    assert sweep("toy", ["seed=0,1", "model=abmil,moe_mill"], command=child) == 2
    captured = capfd.readouterr()
    assert "words" not in captured.out
    assert "did you mean 'moe_mil'?" in captured.err


def test_show_prints_every_combination(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("toy", ["seed=8,9"], show=True) == 0
    out = capsys.readouterr().out
    assert "seed: 8" in out
    assert "seed: 9" in out
