"""Processes of this machine that work on slides, and how they end: tidily, and never later than their command."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any

from nsclc_mtl import signals
from nsclc_mtl.commands.job import Job, Outcome

LEAVE_S = 40.0  # what processes get to end in after a signal; the whole command has 60 s
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Work = Callable[[Job], Outcome]


class Ended(SystemExit):
    """A process of the pool was asked to end."""


class Here:
    """This process, one slide at a time."""

    tries: Mapping[str, int] = {}
    poll_s: float | None = None

    def __init__(self, work: Work) -> None:
        self.work = work

    def start(self) -> None:
        """Nothing is to be started."""

    def room(self) -> int:
        """One slide."""
        return 1

    def submit(self, job: Job) -> Future[Outcome]:
        """Works on the slide before it returns."""
        done: Future[Outcome] = Future()
        done.set_result(self.work(job))
        return done

    def result(self, future: Future[Outcome]) -> Outcome:
        """What became of the slide."""
        return future.result()

    def close(self) -> None:
        """Nothing is left."""

    def end(self) -> None:
        """Nothing is left."""


class Processes:
    """Some processes of this machine, made again when one of them is killed.

    `threads` is how many each may compute with; None leaves it as the environment has it.
    """

    tries: Mapping[str, int] = {"worker_died": 2}  # twice: perhaps for another slide's sake, and then for its own
    poll_s: float | None = None

    def __init__(self, work: Work, workers: int, threads: int | None = 1) -> None:
        self.work, self.workers, self.threads = work, workers, threads
        self._pool: ProcessPoolExecutor | None = None
        self._before: set[BaseProcess] = set()
        self._environment: dict[str, str | None] = {}

    def start(self) -> None:
        """Processes start with the first slides; with as many threads as there are workers they would only queue."""
        self._before = set(multiprocessing.active_children())
        if self.threads is not None:
            self._environment = {name: os.environ.get(name) for name in _THREADS}
            os.environ.update(dict.fromkeys(_THREADS, str(self.threads)))

    def room(self) -> int:
        """A slide for every process."""
        return self.workers

    def submit(self, job: Job) -> Future[Outcome]:
        """Takes a slide on, by new processes where the old ones broke."""
        try:
            return self._made().submit(self.work, job)
        except BrokenProcessPool:
            self._pool = None
            return self._made().submit(self.work, job)

    def _made(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=begin)
        return self._pool

    def result(self, future: Future[Outcome]) -> Outcome:
        """What became of a slide; `worker_died` where its process was killed."""
        try:
            return future.result()
        except (BrokenProcessPool, Ended):
            told = "a worker was killed, perhaps for memory; lower slides.workers and run again"
            return Outcome(reason="worker_died", sentence=f"{told}, finished slides are kept")

    def close(self) -> None:
        """Waits until the processes have ended."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        self._restore()

    def end(self) -> None:
        """Ends the processes in the middle of their slides, which give back their leases."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            end_processes(self._before)
        self._restore()

    def _restore(self) -> None:
        for name, value in self._environment.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def end_processes(but: Collection[BaseProcess] = ()) -> None:
    """Ends the processes that this one has started, tidily if they manage within `LEAVE_S`."""
    children = [child for child in multiprocessing.active_children() if child not in but]
    for child in children:
        child.terminate()
    deadline = time.monotonic() + LEAVE_S
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        if child.is_alive():
            child.kill()


def begin() -> None:
    """In a process of the pool: a signal ends the slide tidily, and the end of the command ends the process."""

    def end(number: int, frame: Any) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)  # once: the tidying must not be disturbed
        signals.end(Ended(128 + number))

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    end_with_parent()


def end_with_parent() -> None:
    """From here on the end of the process that has started this one, whatever it was, ends this one."""
    command = multiprocessing.parent_process()

    def follow() -> None:
        command.join()  # type: ignore[union-attr]
        os._exit(1)

    if command is not None:
        threading.Thread(target=follow, name="follow", daemon=True).start()
