"""Leases: a slide or a run is worked on by the process that holds its lease file, and no process that died keeps it.

Several processes, on one machine or on many that share a folder, take leases by creating a file (O_EXCL) that says who
they are, and touch it while they live. Clocks of two machines are never compared: a holder on this machine is alive if
its process is (same id, same start), any other if its file changes while it is being watched.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

from nsclc_mtl.records import TryAgain
from nsclc_mtl.signals import Given, disturbed, undisturbed

POLL_S = 0.5  # how often a lease that is watched is looked at
BEAT_S = 10.0  # how often a holder touches its lease
PATIENCE_S = 90.0  # a lease unchanged for so long is stale; network file systems show changes up to 60 s late


@dataclass(frozen=True)
class Holder:
    """The process that a lease belongs to."""

    host: str  # name, boot and process namespace: a process id means something only within these
    pid: int
    started: str  # in clock ticks since the boot, so that a process id that is used again is told apart
    token: str

    @classmethod
    def of(cls, pid: int) -> Holder:
        """The process of this machine with this id."""
        return cls(_here(), pid, _started(pid) or "", uuid.uuid4().hex)

    def alive(self) -> bool | None:
        """Whether the process is there; None where it cannot be known from here."""
        if self.host != _here():
            return None
        if (now := _started(self.pid)) is not None:
            return now == self.started if now and self.started else None
        return False


class Lease:
    """Held from `take` to `release`; a thread touches the file meanwhile."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path, self._handle = path, handle
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._heart.start()

    @classmethod
    def take(cls, path: Path) -> Lease | None:
        """The lease at `path`, or None where another process holds it. That of a dead process here is taken over."""
        heal(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        except FileExistsError:
            return None
        try:
            holder = Holder.of(os.getpid())
            os.write(handle, json.dumps(asdict(holder)).encode())
            return cls(path, handle)
        except BaseException:  # a full disk, a signal: nobody would hold what was made
            path.unlink(missing_ok=True)
            os.close(handle)
            raise

    @classmethod
    def claim(cls, path: Path, what: str) -> Lease:
        """The lease at `path`. Raises TryAgain, which says that another process works on `what`, and which one.

        A lease of another machine is watched until it has been touched, or has not been for `PATIENCE_S`.
        """
        watch, first, told = Watch(), _look(path), False
        while (lease := cls.take(path)) is None:
            found = _look(path)
            if found and (found != first or (found[0] and found[0].alive())):
                raise TryAgain(f"{holder_of(path)} works on {what}: wait until it has ended, or end it")
            if not told:
                told = True
                print(
                    f"looking for up to {PATIENCE_S:.0f} s whether {holder_of(path)} still works on {what}", flush=True
                )
            if not watch.is_free(path):
                time.sleep(POLL_S)
        return lease

    def release(self) -> None:
        """Gives the lease back; no file is left, unless another process took it over meanwhile."""
        self._over.set()
        self._heart.join()
        with _locked(self._handle), contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._handle), os.stat(self.path)):
                self.path.unlink()
        os.close(self._handle)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            with contextlib.suppress(OSError):  # the file, not the name: another's lease must not look alive for us
                os.utime(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Taken(Exception):
    """Another process holds the lease."""


def holding(path: Path, work: Callable[[], Given]) -> Given:
    """What `work` gives while this process holds the lease at `path`. Raises Taken.

    No file stays behind, whenever a signal ends it: it often comes at the moment at which a slide is finished.
    """

    def hold() -> Given:
        held = Lease.take(path)
        if held is None:
            raise Taken(str(path))
        with held:
            return disturbed(work)

    return undisturbed(hold)


class Watch:
    """Tells stale leases from live ones by looking at them again and again."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[object, float]] = {}

    def is_free(self, path: Path) -> bool:
        """True once nobody holds `path`; a lease found stale is removed."""
        found = _look(path)
        if found is None:
            return True
        holder, beat = found
        alive = holder.alive() if holder else None
        if alive is None:
            before, since = self._seen.setdefault(path, (beat, time.monotonic()))
            if before != beat:
                self._seen[path] = (beat, time.monotonic())
                return False
            alive = time.monotonic() - since < PATIENCE_S
        return not alive and _remove(path, beat)


def heal(path: Path) -> bool:
    """True where `path` is free; the lease of a process of this machine that has died is removed."""
    found = _look(path)
    if found is None:
        return True
    holder, beat = found
    return holder is not None and holder.alive() is False and _remove(path, beat)


def holder_of(path: Path) -> str:
    """Who holds a lease, in words; empty where nobody does."""
    found = _look(path)
    if found is None:
        return ""
    return f"process {found[0].pid} on {found[0].host.split()[0]}" if found[0] else "an unknown process"


def _look(path: Path) -> tuple[Holder | None, tuple[int, int, bytes]] | None:
    """Holder and heartbeat of a lease, None where there is no lease; opened, since names may be cached for long."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        text, state = os.read(handle, 4096), os.fstat(handle)
    finally:
        os.close(handle)
    try:
        holder = Holder(**json.loads(text))
    except (ValueError, TypeError):  # its maker died before it had written who it was, or is just writing it
        holder = None
    return holder, (state.st_ino, state.st_mtime_ns, text)


def _remove(path: Path, beat: tuple[int, int, bytes]) -> bool:
    """Removes a stale lease unless it has changed; of several processes that find it stale, only one removes it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        with _locked(handle):
            found = _look(path)
            if found is not None and found[1] != beat:
                return False
            path.unlink(missing_ok=True)
            return True
    finally:
        os.close(handle)


@contextlib.contextmanager
def _locked(handle: int) -> Iterator[None]:
    """The file locked among those who remove it, where its file system can; else the window is a few microseconds."""
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)


@lru_cache(maxsize=1)
def _here() -> str:
    """This machine since its last start, and the namespace that its process ids belong to."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        return f"{socket.gethostname()} {boot.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def _started(pid: int) -> str | None:
    """When a process began, "" where the system does not say, None where it is gone (a zombie is gone)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return ""
    return None if fields[0] in "ZX" else fields[19]
