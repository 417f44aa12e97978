"""Leases: one holder at a time, the dead lose theirs, the living never do, and nothing is left."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsclc_mtl import lease, signals
from nsclc_mtl.lease import Lease, Taken, Watch, heal, holder_of, holding
from nsclc_mtl.records import TryAgain

HOLD = """
import sys, time
from pathlib import Path
from nsclc_mtl.lease import Lease
assert Lease.take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "slide.lease"


@pytest.fixture
def other(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def foreign(path: Path) -> None:
    """A lease of another machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": "far away", "pid": os.getpid(), "started": "1", "token": "t"}))


def test_a_lease_has_one_holder_and_leaves_nothing(path: Path) -> None:
    with Lease.take(path) as held:  # type: ignore[union-attr]
        assert held.path == path
        assert Lease.take(path) is None
        assert not Watch().is_free(path)
        assert str(os.getpid()) in holder_of(path)
    assert list(path.parent.iterdir()) == []
    assert holder_of(path) == ""
    assert Watch().is_free(path)


def test_of_many_that_try_at_once_one_gets_it(path: Path) -> None:
    gate, got = threading.Barrier(8), []

    def attempt() -> None:
        gate.wait()
        got.append(Lease.take(path))

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (held,) = [one for one in got if one is not None]
    held.release()


def test_the_lease_of_a_killed_process_is_taken_over_even_while_it_is_a_zombie(
    path: Path, other: subprocess.Popen[str]
) -> None:
    assert Lease.take(path) is None
    other.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet waited for
    taken = Lease.take(path)
    assert taken is not None
    taken.release()


def test_a_stopped_process_of_this_machine_keeps_its_lease(
    path: Path, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "PATIENCE_S", 0.0)
    other.send_signal(signal.SIGSTOP)
    watch = Watch()
    assert not any(watch.is_free(path) for _ in range(3))


def test_a_process_id_that_is_used_again_is_no_holder(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"host": lease._here(), "pid": os.getpid(), "started": "1", "token": "t"}))
    assert heal(path)
    assert not path.exists()


def test_a_lease_from_elsewhere_counts_while_it_beats_whatever_its_clock_says(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    foreign(path)
    watch = Watch()
    for beat in range(5):
        os.utime(path, (beat, beat))  # a clock in 1970
        assert not watch.is_free(path)
        assert not heal(path)
        assert Lease.take(path) is None
        now[0] += lease.PATIENCE_S - 1
    now[0] += 2
    assert watch.is_free(path)
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1}'])
def test_a_lease_without_a_name_is_watched_as_well(path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    path.write_text(text)
    watch = Watch()
    assert not watch.is_free(path)
    monkeypatch.setattr(lease, "PATIENCE_S", 0.0)
    assert watch.is_free(path)


def test_a_holder_shows_that_it_lives(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.01)
    held = Lease.take(path)
    os.utime(path, (0, 0))
    while path.stat().st_mtime == 0:
        time.sleep(0.01)
    assert held is not None
    held.release()


def test_who_was_taken_over_does_not_remove_the_lease_of_the_next(path: Path) -> None:
    held = Lease.take(path)
    assert held is not None
    path.unlink()
    foreign(path)
    held.release()
    assert "far" in holder_of(path)


def test_a_stale_lease_that_changed_hands_meanwhile_stays(path: Path) -> None:
    foreign(path)
    _, beat = lease._look(path)  # type: ignore[misc]
    path.unlink()
    foreign(path)
    assert not lease._remove(path, (*beat[:1], beat[1] - 1, beat[2]))
    assert path.exists()


class Ended(BaseException):
    """What a signal's handler raises."""


def test_signals_at_any_moment_of_a_lease_leave_no_file(path: Path) -> None:
    def handler(number: int, frame: object) -> None:
        signals.end(Ended())

    before, disturbed = signal.signal(signal.SIGALRM, handler), 0
    try:
        for delay in range(10, 1200, 4):  # microseconds: while it is taken, held, and given back
            try:
                signal.setitimer(signal.ITIMER_REAL, delay * 1e-6)
                holding(path, lambda: time.sleep(0.0002))
                time.sleep(0.002)
            except Ended:
                disturbed += 1
            assert not path.exists(), delay
            assert not [one for one in threading.enumerate() if one.name == "lease"]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert disturbed > 100


def test_work_under_a_lease_is_ended_by_a_signal_at_once(path: Path) -> None:
    reached = []

    def work() -> None:
        signals.end(Ended())
        reached.append(1)

    with pytest.raises(Ended):
        holding(path, work)
    assert not reached
    assert not path.exists()


def test_a_lease_of_another_is_not_worked_under(path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(Taken):
        holding(path, lambda: pytest.fail("worked under it"))
    assert path.exists()


def test_a_lease_that_cannot_be_written_is_a_fault_and_leaves_no_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, text: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        Lease.take(path)
    assert not path.exists()


def test_who_claims_a_lease_that_is_held_is_told_by_whom(path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(TryAgain, match=f"process {other.pid} on .* works on the run 'a'"):
        Lease.claim(path, "the run 'a'")
    other.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    Lease.claim(path, "the run 'a'").release()
    assert list(path.parent.iterdir()) == []


def test_a_lease_of_another_machine_is_watched_before_it_is_claimed(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, beats = [0.0], [True]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if beats[0] and now[0] > 10:
            os.utime(path, (1, 1))

    monkeypatch.setattr(time, "sleep", sleep)
    foreign(path)
    with pytest.raises(TryAgain, match="on far works on it"):
        Lease.claim(path, "it")
    assert now[0] < 12
    beats[0] = False
    Lease.claim(path, "it").release()
    assert now[0] > lease.PATIENCE_S
    assert "looking for up to" in capsys.readouterr().out
