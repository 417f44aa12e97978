"""The tasks that `docs/outcomes.md` shows are tasks, and what it says of them holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nsclc_mtl.tables import outcomes

PAGE = Path(__file__).parents[2] / "docs" / "outcomes.md"
TASKS: dict[str, Any] = {
    f"{name}-{i}": task
    for i, block in enumerate(re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S))
    for name, task in yaml.safe_load(block)["tasks"].items()
}


def test_every_rule_is_shown() -> None:
    assert {task.get("rule") for task in TASKS.values()} - {None} == set(outcomes.RULES)


@pytest.mark.parametrize("name", TASKS)
def test_every_shown_task_is_one(name: str) -> None:
    spec = outcomes.task_spec(name.split("-")[0], TASKS[name])
    assert spec.columns
    assert len(spec.classes) != 1
