"""Shares of a cohort: each of several commands does one, and every one of them finds the same shares by itself.

Items are dealt by their bytes, the largest first and each to the share with the fewest so far (Graham 1969: the
largest share is at most 4/3 of the best that can be had). Equal sizes go by id, so that nothing depends on an order.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsclc_mtl.commands.finding import Account
from nsclc_mtl.commands.job import Job
from nsclc_mtl.commands.staging import parts_of
from nsclc_mtl.records import ItemFault

LATER = "tables of patients are of the whole: write them with engine=local, once all shards are through"


@dataclass(frozen=True)
class Shard:
    """One of `count` shares, counted from 0."""

    index: int
    count: int

    def of(self, sizes: Mapping[str, int]) -> frozenset[str]:
        """The ids of this share, of all that `sizes` (bytes) names."""
        return frozenset(deal(sizes, self.count)[self.index])

    def told(self, mine: Sequence[str], sizes: Mapping[str, int], what: str) -> str:
        """How much of how much this share is, in words."""
        own, whole = (sum(sizes[name] for name in names) / 1e9 for names in (mine, sizes))
        return f"shard {self.index} of {self.count}: {len(mine)} of {len(sizes)} {what}, {own:.3g} of {whole:.3g} GB"


def of(settings: Mapping[str, Any]) -> Shard | None:
    """The share that `engine=shard` asks for; None where a command does the whole."""
    if (settings.get("engine") or {}).get("name") != "shard":
        return None
    return Shard(int(settings["shard"]["index"]), int(settings["shard"]["count"]))


def deal(sizes: Mapping[str, int], count: int) -> list[list[str]]:
    """`count` lists of ids, disjoint and complete, of about as many bytes each; items of no size count as one byte."""
    shares: list[list[str]] = [[] for _ in range(count)]
    least = [(0, index) for index in range(count)]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        taken, index = least[0]
        shares[index].append(name)
        heapq.heapreplace(least, (taken + max(1, sizes[name]), index))
    return shares


def largest_first(jobs: Sequence[Job], sizes: Mapping[str, int]) -> list[Job]:
    """The jobs so that no large slide comes last, when only one worker would be busy with it; equal ones by id."""
    return sorted(jobs, key=lambda job: (-sizes[job.slide_id], job.slide_id))


def slide_bytes(jobs: Sequence[Job]) -> dict[str, int]:
    """slide_id -> bytes of all files of a slide; 0 where it cannot be found.

    A folder of DICOM files counts in equal parts for the slides in it: whose file is whose stands in thousands of
    headers.
    """
    folders = Counter(Path(job.path).parent for job in jobs if job.path.lower().endswith(".dcm"))
    part = {
        folder: sum(_size(file) for file in folder.glob("*.dcm")) // slides if folder.is_dir() else 0
        for folder, slides in folders.items()
    }

    def size(path: Path) -> int:
        try:
            return part[path.parent] if path.suffix.lower() == ".dcm" else sum(map(_size, parts_of(path)))
        except OSError:
            return 0

    return {job.slide_id: size(Path(job.path)) for job in jobs}


def scan_bytes(root: Path, images: Mapping[str, str]) -> dict[str, int]:
    """scan_id -> bytes of its image below `root`; of a folder the number of files times the size of the first.

    The slices of a series are alike, and asking for the size of each would take minutes on a network file system.
    """

    def size(path: Path) -> int:
        if not path.is_dir():
            return _size(path)
        files = sorted(Path(where) / name for where, _, names in os.walk(path) for name in names)
        return len(files) * _size(files[0]) if files else 0

    return {scan: size(root / image) for scan, image in images.items()}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


class Unsaid:
    """The account of what is wrong with the list itself, for all shares but the first, which tells it."""

    def not_done(self, item: str, fault: ItemFault) -> None:
        """Tells nobody."""

    def say(self, text: str) -> None:
        """Tells nobody."""


def share(settings: Mapping[str, Any], account: Account, found: Callable[[Account], Sequence[Job]]) -> Sequence[Job]:
    """What `found` finds; of it the share of this command where it is one of several, which the account is told."""
    shard = of(settings)
    if shard is None:
        return found(account)
    jobs = found(account if shard.index == 0 else Unsaid())
    sizes = slide_bytes(jobs)
    names = shard.of(sizes)
    mine = [job for job in jobs if job.slide_id in names]
    account.say(shard.told([job.slide_id for job in mine], sizes, "slides"))
    return mine
