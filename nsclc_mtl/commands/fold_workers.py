"""How many folds are trained at the same time: those that are asked for, as far as the free memory holds them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsclc_mtl.config import Run
    from nsclc_mtl.records import Manifest

# Of the process of a fold that holds no tile features, MB: torch, Lightning and tables. Measured on folds of
# 400 phantom patients: 840 to 1,140 at most, of which 290 are files that all processes share.
PROCESS_MB = 1000


def workers(settings: Mapping[str, Any], manifest: Manifest, run: Run) -> int:
    """Folds to train at once: `folds.workers`, or fewer, and a note, where the free memory holds fewer. At least one.

    A fold keeps up to `bag_cache_mb` of the tile features of the cohort. Where the free memory is not known, or none of
    it is needed here (`folds.workers` of one or none), the number stays as it is.
    """
    asked = int(settings["folds"]["workers"])
    free = free_mb()
    if asked <= 1 or free is None:
        return asked
    each = PROCESS_MB + min(features_mb(manifest), float(settings["bag_cache_mb"]))
    held = max(1, min(asked, int(free // each)))
    if held < asked:
        run.say(
            f"note: {free:,.0f} MB of memory are free and a fold may need {each:,.0f}: "
            f"{held} at a time instead of {asked}"
        )
    return held


def features_mb(manifest: Manifest) -> float:
    """Size of all tile features of the cohort, MB; a file that is not there counts nothing."""
    files = {file for bags in manifest.bags.values() for several in bags.values() for file in several}
    return sum(os.path.getsize(file) for file in files if os.path.isfile(file)) / 1e6


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
