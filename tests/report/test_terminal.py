"""The table on the terminal says the numbers of the results, and which floor is the primary one."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console

from nsclc_mtl.commands.judging import evaluate_predictions, with_others
from nsclc_mtl.report import terminal

from .conftest import TASKS


def test_learner_floors_and_their_difference_stand_in_the_table(toy: dict[str, Any]) -> None:
    tested = toy["predictions"][toy["predictions"]["part"] == "test"]
    rng = np.random.default_rng(0)
    shuffled = tested.groupby(["task", "fold", "output"])["value"].transform(lambda v: rng.permutation(v))
    floors = [tested.assign(model=f"floor:{name}", value=shuffled) for name in ("clinical", "stage")]
    results = evaluate_predictions(with_others(toy["predictions"], *floors), TASKS, toy["manifest"], toy["splits"], 50)
    made = terminal.table(results, "floor:clinical", None, boxed=False)
    assert made.box is None
    assert terminal.table(results, "floor:clinical", None, boxed=True).box is not None
    console = Console(width=200)
    with console.capture() as captured:
        console.print(made)
    lines = captured.get().splitlines()
    for name, result in results.items():
        at = next(i for i, line in enumerate(lines) if line.strip().startswith(name))
        ours = result.metrics[result.primary]["learner"].interval()
        assert f"{ours.value:.3f} ({ours.lo:.3f} to {ours.hi:.3f})" in lines[at]
        assert [line.split()[:2] for line in lines[at + 1 : at + 3] if "*" in line] == [["clinical", "*"]]
        gap = result.difference(result.primary, "floor:stage")
        [stage] = [line for line in lines[at + 1 : at + 3] if line.split()[0] == "stage"]
        assert f"{gap.value:+.3f} ({gap.lo:+.3f} to {gap.hi:+.3f})" in stage
