"""`mtl demo`: makes the cohort once, keeps it, refuses another, verifies it; and its account of memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nsclc_mtl.commands import demo, memory
from nsclc_mtl.config import compose
from nsclc_mtl.records import DataFault, IntegrityFault, UsageFault

SMALL = {"level": "features", "n": 4, "seed": 3, "missing": "mcar", "site": "none", "extras": []}


class Said:
    """A run that keeps what it was told."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.lines: list[str] = []

    def say(self, text: str, style: str | None = None) -> None:
        self.lines.append(text)


@pytest.fixture
def run() -> Any:
    return Said()


def mtl(*words: str, at: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nsclc_mtl", *words]
    return subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=300)


def small(words: Sequence[str] = ()) -> list[str]:
    return [f"cohort.{key}={value}" for key, value in SMALL.items() if key != "extras"] + list(words)


def test_makes_once_and_keeps_afterwards(tmp_path: Path, run: Any) -> None:
    out = tmp_path / "data"
    assert demo.make_cohort(SMALL, out, run)
    stamp = (out / "rna.csv").stat().st_mtime_ns
    assert not demo.make_cohort(SMALL, out, run)
    assert (out / "rna.csv").stat().st_mtime_ns == stamp
    assert "kept" in run.lines[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]  # nothing half-made is left


def test_another_identity_is_refused_by_name(tmp_path: Path, run: Any) -> None:
    out = tmp_path / "data"
    demo.make_cohort(SMALL, out, run)
    with pytest.raises(UsageFault, match=r"another phantom cohort: n=4 \(asked: 5\)"):
        demo.make_cohort({**SMALL, "n": 5}, out, run)


def test_a_folder_of_the_users_own_is_left_alone(tmp_path: Path, run: Any) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UsageFault, match="holds no phantom cohort"):
        demo.make_cohort(SMALL, tmp_path, run)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_incomplete_cohort_is_told(tmp_path: Path, run: Any) -> None:
    out = tmp_path / "data"
    demo.make_cohort(SMALL, out, run)
    (out / "rna.csv").unlink()
    with pytest.raises(IntegrityFault, match=r"lacks rna\.csv"):
        demo.make_cohort(SMALL, out, run)


def test_unknown_words_leave_nothing_behind(tmp_path: Path, run: Any) -> None:
    for wrong in ({"missing": "often"}, {"extras": ["x"]}, {"level": "slides"}):
        with pytest.raises(UsageFault, match="none of"):
            demo.make_cohort({**SMALL, **wrong}, tmp_path / "data", run)
    assert list(tmp_path.iterdir()) == []


def test_verify_accepts_the_same_and_finds_a_change(tmp_path: Path, run: Any) -> None:
    out = tmp_path / "data"
    with pytest.raises(DataFault, match="no phantom cohort"):
        demo.verify(SMALL, out, run)
    demo.make_cohort(SMALL, out, run)
    demo.verify(SMALL, out, run)
    assert "every file agrees" in run.lines[-1]
    (out / "patients.csv").write_text((out / "patients.csv").read_text().replace("male", "other", 1))
    with pytest.raises(IntegrityFault, match=r"first: patients\.csv: column sex differs"):
        demo.verify(SMALL, out, run)


def test_the_command_line_has_the_exit_codes_of_the_contract(tmp_path: Path) -> None:
    made = mtl("demo", "--data-only", "--out", "d", *small(), at=tmp_path)
    assert made.returncode == 0, made.stderr
    assert json.loads((tmp_path / "d" / "phantom.json").read_text())["n"] == 4
    assert made.stdout.splitlines()[-1].startswith("run: ")
    other = mtl("demo", "--data-only", "--out", "d", *small(["cohort.seed=4"]), at=tmp_path)
    assert other.returncode == 2
    assert other.stderr.count("\n") == 1
    (tmp_path / "d" / "truth" / "oracle.json").write_text("{}")
    changed = mtl("demo", "--verify", "--out", "d", *small(), at=tmp_path)
    assert changed.returncode == 5
    assert "truth/oracle.json" in changed.stderr


def test_defaults_are_the_cohort_that_data_dvc_pins() -> None:
    cfg = compose("demo", [])
    words = {key: cfg.cohort[key] for key in demo.WORDS}
    assert words == {"level": "images", "n": 48, "seed": 0, "missing": "mcar", "site": "none"}
    assert cfg.folds == 3
    assert set(cfg.verbs) == {"tile", "extract", "train", "evaluate", "predict"}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="memory of other processes is read from /proc")
def test_memory_counts_descendants() -> None:
    alone = memory.resident_mb(os.getpid())
    assert 10 < alone < 20_000
    hold = "x = bytes(range(256)) * 400_000; "  # 102 MB
    code = f"import subprocess, sys; {hold}subprocess.run([sys.executable, '-c', {hold + 'input()'!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        with memory.Memory(child.pid) as held:
            deadline = time.monotonic() + 20
            while held.peak_mb < 205 and time.monotonic() < deadline:
                time.sleep(0.05)
        child.communicate(b"\n")
    assert held.peak_mb > 205  # twice 102 MB
    assert memory.resident_mb(2**22 + 1) == 0


def test_table_shows_the_best_floor_and_the_ceiling() -> None:
    def row(model: str, value: float, task: str = "grade", fold: str = "all") -> dict[str, Any]:
        return {
            "task": task, "metric": "ordinal_auc", "part": "test", "fold": fold, "model": model,
            "value": value, "lo": value - 0.1, "hi": value + 0.1,
        }  # fmt: skip

    rows = [
        row("learner", 0.71), row("learner", 0.9, fold="1"), row("floor:clinical", 0.52), row("floor:rna", 0.61),
        row("oracle:attainable", 0.83), row("learner", 0.66, task="stage"),
    ]  # fmt: skip
    table = demo.results(rows)
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["grade", "stage"]
    assert cells[2] == ["0.710", "0.660"]
    assert cells[3][0] == "0.61 to 0.81"
    assert cells[4] == ["0.610 (rna)", ""]
    assert cells[5] == ["0.830", "not known"]
