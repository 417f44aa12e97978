"""The count of evaluations: it only grows, whoever writes to it at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nsclc_mtl.commands.evaluations import Counted, count


def cohort(*digests: str) -> Any:
    return SimpleNamespace(name="toy", inputs=[{"path": "patients.csv", "sha256": d} for d in digests])


def test_many_at_a_time_are_counted_one_by_one(tmp_path: Path) -> None:
    file, run = tmp_path / "evaluations.jsonl", SimpleNamespace(path=Path("r"))
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda k: count(file, cohort("a" if k % 2 else "b"), 3, ["t"], run), range(40)))  # type: ignore[arg-type]
    assert sorted(c.all for c in made) == list(range(1, 41))
    assert max(c.here for c in made) == 20
    with file.open("a") as text:
        text.write('{"content": "cut of')  # a process died while it wrote
    after = count(file, cohort("a"), 3, ["t"], run)  # type: ignore[arg-type]
    assert (after.here, after.all) == (21, 41)
    assert file.read_text().endswith("}\n")


def test_order_and_place_of_the_tables_do_not_count(tmp_path: Path) -> None:
    file, run = tmp_path / "evaluations.jsonl", SimpleNamespace(path=Path("r"))
    count(file, cohort("a", "b"), 3, [], run)  # type: ignore[arg-type]
    assert str(count(file, cohort("b", "a"), 3, [], run)) == "evaluated 2 times on this cohort"  # type: ignore[arg-type]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = count(tmp_path / "file" / "evaluations.jsonl", cohort("a"), 3, [], SimpleNamespace(path=Path("r")))  # type: ignore[arg-type]
    assert str(told).startswith("not counted: ")
    assert str(Counted(1, 3)) == "evaluated once on this cohort, 3 times in all"
