"""Memory, in MB: what a process and its descendants hold, and what the machine has free. Read from /proc (Linux)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

SAMPLE_S = 0.25  # between two looks at a process


class Memory:
    """The largest resident memory, in MB, of a process and its descendants together, sampled while it runs.

    Pages that processes share are counted once a process, so it errs upwards. 0 where there is no /proc.
    """

    def __init__(self, pid: int) -> None:
        self.pid, self.peak_mb = pid, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak_mb = max(self.peak_mb, resident_mb(self.pid))
            if self._stop.wait(SAMPLE_S):
                return


def resident_mb(pid: int) -> float:
    """Resident memory of a process and its descendants now, in MB; 0 where there is no /proc."""
    parent, pages = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # after the name, which may hold spaces and brackets: state, parent, ... resident pages (proc(5))
            words = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        parent[int(folder.name)], pages[int(folder.name)] = int(words[1]), int(words[21])

    def ours(number: int) -> bool:
        while number not in (0, pid):
            number = parent.get(number, 0)
        return number == pid

    total = sum(count for number, count in pages.items() if ours(number))
    return total * os.sysconf("SC_PAGE_SIZE") / 1e6 if total else 0.0


def free_mb(root: Path = Path("/")) -> float | None:
    """Memory that can be had without swapping, MB; None where the system does not tell (no Linux).

    Of the machine, or less where control groups (version 2) set a limit, as containers and SLURM jobs do. `root` is
    where `proc` and `sys` lie.
    """
    try:
        told = (root / "proc/meminfo").read_text()
        free = float(next(line.split()[1] for line in told.splitlines() if line.startswith("MemAvailable:"))) * 1024
    except (OSError, StopIteration):
        return None
    top = root / "sys/fs/cgroup"
    for group in (top, *_own_groups(root, top)):
        try:
            limit, used = float((group / "memory.max").read_text()), float((group / "memory.current").read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
        cached = float(stat.get("inactive_file", 0))  # of files that were read, given back when it is wanted
        free = min(free, max(limit - used + cached, 0.0))
    return free / 1e6


def _own_groups(root: Path, top: Path) -> list[Path]:
    """Folders of the control group of this process and of those around it."""
    try:
        told = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:].strip("/") for line in told if line.startswith("0::")), "")
    if not own or ".." in own.split("/"):
        return []
    return [top / own, *(top / parent for parent in Path(own).parents if str(parent) != ".")]
