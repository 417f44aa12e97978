"""How many folds train at once: as many as are asked for and the free memory holds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nsclc_mtl.commands import fold_workers, memory


def machine(root: Path, free_mb: float, **groups: tuple[str, int, int]) -> Path:
    """A root with `proc` and `sys`; groups: name -> (limit, used, of that cached), bytes; `top` is the outermost."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {free_mb * 1e6 / 1024:.0f} kB\n")
    (root / "proc/self/cgroup").write_text("0::/slurm/job_7\n")
    for name, (limit, used, cached) in groups.items():
        folder = root / "sys/fs/cgroup" / ("" if name == "top" else name.replace("__", "/"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")
    return root


def test_free_memory_is_that_of_the_machine_or_of_the_tightest_group(tmp_path: Path) -> None:
    assert memory.free_mb(machine(tmp_path / "a", 5000)) == pytest.approx(5000, abs=0.1)
    assert memory.free_mb(machine(tmp_path / "b", 5000, top=("max", 10**9, 0))) == pytest.approx(5000, abs=0.1)
    boxed = machine(tmp_path / "c", 5000, top=("4000000000", 10**9, 200 * 10**6))
    assert memory.free_mb(boxed) == pytest.approx(3200)
    job = machine(tmp_path / "d", 5000, slurm__job_7=("2000000000", 10**9, 0), slurm=("max", 10**9, 0))
    assert memory.free_mb(job) == pytest.approx(1000)
    around = machine(tmp_path / "e", 5000, slurm=("1500000000", 10**9, 0))
    assert memory.free_mb(around) == pytest.approx(500)
    assert memory.free_mb(tmp_path / "nowhere") is None


class Told:
    """A run that keeps what it says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.mark.parametrize(
    ("asked", "free", "held"),
    [(2, 2100.0, 2), (2, 1900.0, 1), (2, 10.0, 1), (8, 4300.0, 4), (1, 10.0, 1), (0, 10.0, 0), (3, None, 3)],
)
def test_no_more_folds_at_once_than_the_memory_holds(
    asked: int, free: float | None, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_mb", lambda: free)
    settings: dict[str, Any] = {"folds": {"workers": asked}, "bag_cache_mb": 2000}
    run: Any = Told()
    manifest: Any = SimpleNamespace(bags={})
    assert fold_workers.workers(settings, manifest, run) == held
    assert bool(run.said) == (held < asked)
    if run.said:
        assert f"{held} at a time instead of {asked}" in run.said[0]


def test_tile_features_count_up_to_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.h5").write_bytes(bytes(3_000_000))
    manifest: Any = SimpleNamespace(
        bags={"wsi": {"p": [str(tmp_path / "a.h5")], "q": [str(tmp_path / "a.h5"), str(tmp_path / "gone.h5")]}}
    )
    assert fold_workers.features_mb(manifest) == pytest.approx(3.0)
    monkeypatch.setattr(memory, "free_mb", lambda: 2 * fold_workers.PROCESS_MB + 4.5)
    run: Any = Told()
    assert fold_workers.workers({"folds": {"workers": 2}, "bag_cache_mb": 2000}, manifest, run) == 1
    assert fold_workers.workers({"folds": {"workers": 2}, "bag_cache_mb": 2}, manifest, run) == 2
