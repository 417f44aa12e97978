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


# A run that leaves metrics: its folder is the working folder and the seed.
MEASURED = """
import json, pathlib, sys
folder = pathlib.Path("run-" + sys.argv[-1])
folder.mkdir()
if sys.argv[-1] != "seed=2":
    def row(task, metric, fold, model, value):
        return {"task": task, "metric": metric, "fold": fold, "model": model, "part": "test", "value": value}
    rows = [row("grade", "ordinal_auc", "0", "learner", 0.9), row("grade", "ordinal_auc", "all", "floor:rna", 0.8),
            row("grade", "ordinal_auc", "all", "learner", 0.6543), row("grade", "brier", "all", "learner", 0.2),
            row("survival", "c_index", "all", "learner", None)]
    (folder / "metrics.json").write_text(json.dumps(rows))
print("run: " + str(folder.resolve()))
"""


def test_the_table_shows_the_metric_of_every_task(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sweep("toy", ["fusion=concat", "seed=1,2"], command=(sys.executable, "-c", MEASURED)) == 0
    lines = capfd.readouterr().out.splitlines()
    assert any(line.find("grade") < line.find("survival") for line in lines if "grade" in line)
    assert any("ordinal_auc" in line and "c_index" in line and "seconds" in line for line in lines)
    one, two = (next(line for line in lines if f" seed={seed} " in line and "---" not in line) for seed in (1, 2))
    assert "0.654" in one
    assert "-" in one
    assert "0." not in two.split("run-")[0]
    assert "0.9" not in one
    assert "brier" not in "".join(lines)
