"""Waiting for jobs: their ends as they come, and those that were lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsclc_mtl import signals
from nsclc_mtl.lease import Holder, Lease
from nsclc_mtl.records import TryAgain, UsageFault

from .call import Call
from .handing import Ticket, hand_over, handed, tidy

POLL_S = 0.3  # how often the ends of jobs are looked for
ASK_S = 15.0  # how often SLURM is asked for what is still queued or running
LATE_S = 60.0  # how late a file that another machine wrote may be seen
LEAVE_S = 40.0  # that local jobs get to keep their state in, after a signal to the command


@dataclass(frozen=True)
class End:
    """How a job ended: exit code, its sentence, and its seconds where it ran in one go."""

    exit_code: int
    sentence: str = ""
    seconds: float | None = None


def at_work(folder: Path) -> list[Ticket]:
    """Those of them that are queued or running. Raises UsageFault where they cannot be asked after from here."""
    return [ticket for ticket in _living(handed(folder), folder) if ended(folder, ticket.key) is None]


def ended(folder: Path, key: str) -> End | None:
    """How a job ended, None where it has not (or was killed)."""
    try:
        return End(**json.loads((folder / f"{key}.end.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def work_through(
    calls: Sequence[Call],
    tickets: Sequence[Ticket],
    engine: Mapping[str, Any],
    name: str,
    parallel: int,
    folder: Path,
    told: Callable[[Ticket], None],
) -> Iterator[tuple[Ticket, End | None]]:
    """Jobs as they end, None for one that was lost; `tickets` are of jobs that were handed over before.

    Hands the calls over, at most `parallel` at a time to this machine. `told` hears of each that was. A signal ends the
    jobs of this machine, which keep their state; those of SLURM go on.
    """
    waiting, out = list(calls), list(tickets)
    living, asked, missing = list(out), -ASK_S, dict[str, float]()
    try:
        while waiting or out:
            room = len(waiting) if engine["cluster"] == "slurm" else max(0, parallel - len(out))
            before = len(out)
            signals.undisturbed(lambda: out.extend(hand_over(waiting[:room], engine, name)))  # noqa: B023
            del waiting[:room]
            fresh = out[before:]
            for ticket in fresh:
                told(ticket)
            if time.monotonic() - asked > (ASK_S if any(t.cluster == "slurm" for t in out) else 0):
                asked, living = time.monotonic(), _living(out, folder)
            else:
                living += fresh
            for ticket in list(out):
                end = ended(folder, ticket.key)
                if end is None and ticket in living:
                    missing.pop(ticket.key, None)
                    continue
                since = missing.setdefault(ticket.key, time.monotonic())
                if end is None and ticket.cluster == "slurm" and time.monotonic() - since < LATE_S:
                    continue
                out.remove(ticket)
                if end is not None and end.exit_code == 0:
                    tidy(folder, ticket)
                yield ticket, end
            time.sleep(POLL_S)
    except BaseException:
        end_local(out, folder)
        raise


def end_local(tickets: Sequence[Ticket], folder: Path) -> None:
    """Asks the jobs of this machine to keep their state and end, and waits for it."""
    mine = [t for t in tickets if t.cluster == "local" and t.holder and Holder(**t.holder).alive()]
    for ticket in mine:
        with suppress(ProcessLookupError):
            os.kill(int(ticket.job), signal.SIGTERM)
    deadline = time.monotonic() + LEAVE_S
    while _living(mine, folder) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _living(tickets: Sequence[Ticket], folder: Path) -> list[Ticket]:
    """Those that are queued or running, or of which it cannot be known at the moment."""
    queue = _queue() if any(t.cluster == "slurm" for t in tickets) else None
    living = []
    for ticket in tickets:
        if ticket.cluster == "slurm":
            there = queue is None or ticket.job in queue
        else:
            there = _runs(ticket, folder)
        if there:
            living.append(ticket)
    return living


def _runs(ticket: Ticket, folder: Path) -> bool:
    """Whether the process of a local job is there; of another machine, or of before a restart, its lease tells."""
    if ticket.holder and (alive := Holder(**ticket.holder).alive()) is not None:
        return alive
    lease = folder / f"{ticket.key}.lease"
    if not lease.exists():
        return False
    try:
        Lease.claim(lease, f"'{ticket.key}'").release()
    except TryAgain:
        return True
    return False


def _queue() -> set[str] | None:
    """Numbers of this user's jobs that are queued or running; None where SLURM does not answer at the moment."""
    line = ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"]
    try:
        asked = subprocess.run(line, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None
    except FileNotFoundError:
        raise UsageFault(
            "jobs of this run were handed to SLURM, but squeue is not here: run it on a login node"
        ) from None
    return set(asked.stdout.split()) if asked.returncode == 0 else None
