"""What is to be done with one slide, what became of it, and the lease under which it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nsclc_mtl.lease import Taken, heal, holding
from nsclc_mtl.records import DataFault, ItemFault, ItemSkip

Made = TypeVar("Made")

_begun = False  # whether this process has worked on a slide


@dataclass(frozen=True)
class Job:
    """One slide to be worked on."""

    slide_id: str
    path: str
    mpp: float | None = None  # um/px that somebody states, instead of the slide itself
    mpp_source: str = "metadata"
    staged: str = ""  # a copy on a faster disk
    roi: str | None = None  # file of regions that restrict the tiling, stated for this slide
    features: str = ""  # a file of its features that somebody else made: there is nothing to tile or to extract


@dataclass(frozen=True)
class Cost:
    """What a job took of the machine."""

    seconds: float
    read_bytes: int | None  # that the process asked its files for meanwhile, code and own results too; None: not known
    first: bool  # of its process, which it waited for to load its libraries and weights

    def __add__(self, other: Cost) -> Cost:
        read = None if None in (self.read_bytes, other.read_bytes) else self.read_bytes + other.read_bytes  # type: ignore[operator]
        return Cost(self.seconds + other.seconds, read, self.first or other.first)


@dataclass
class Outcome:
    """What became of a job: tiles, or the reason why there are none."""

    tiles: int = 0
    kept: bool = False  # complete before
    reason: str = ""
    sentence: str = ""
    skipped: bool = False  # nothing in it, rather than unusable
    busy: str = ""  # the lease that another process holds: to be tried again
    cost: Cost | None = None  # of the work, where it was done
    laid: bool = False  # `extract`: the tiles were laid on the way


class Busy(Exception):
    """Another process works on the slide; the lease that says so."""


def once(path: Path, complete: Callable[[], bool], make: Callable[[], Made]) -> Made | None:
    """What `make` makes of `path`, by one process at a time; None where it is complete. Raises Busy."""
    lease = path.with_name(f"{path.stem}.lease")
    if complete():
        if not heal(lease):  # the lease of a process that is just finishing, or that died after it had finished
            raise Busy(str(lease))
        return None
    try:  # it may have been finished between the look and the lease
        return holding(lease, lambda: None if complete() else make())
    except Taken as taken:
        raise Busy(str(lease)) from taken


def guarded(job: Job, work: Callable[[], Outcome]) -> Outcome:
    """What the work gives; a slide that cannot be used becomes an outcome with its reason, so that the others go on."""
    global _begun
    began, read, first, _begun = time.monotonic(), _bytes_read(), not _begun, True
    outcome = _guarded(job, work)
    after = _bytes_read()
    asked = None if read is None or after is None else after - read
    outcome.cost = Cost(round(time.monotonic() - began, 4), asked, first)
    return outcome


def _guarded(job: Job, work: Callable[[], Outcome]) -> Outcome:
    try:
        return work()
    except Busy as busy:
        return Outcome(busy=str(busy))
    except ItemFault as fault:
        return Outcome(reason=fault.reason, sentence=str(fault), skipped=isinstance(fault, ItemSkip))
    except DataFault as fault:
        return Outcome(reason="invalid", sentence=str(fault))
    except PermissionError as error:
        return Outcome(reason="unreadable", sentence=f"slide '{job.slide_id}': {error.strerror}; mend its permissions")


def _bytes_read() -> int | None:
    """Bytes that this process has asked its files for so far (Linux); files mapped into memory are not counted."""
    try:
        return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        return None
