"""Scans over processes: one process a scan while many wait, and all processes on the images of the last few.

So a cohort's last and largest scan, or a single one, still keeps every core busy; images travel between processes only
where that pays, and few scans are open at a time, since an open one holds its filtered images in memory.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from nsclc_mtl.records import ItemFault
from nsclc_mtl.scans.radiomics import Opened, Part, measure

Result = dict[str, Any]
Measured = list[tuple[str, int, dict[str, Any]]]  # variant, number of its part, features
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
_MEMORY = {"reason": "memory", "sentence": "not enough memory for this scan; lower scans.workers or crop it"}
_DIED = {
    "reason": "worker_died",
    "sentence": "a worker was killed, perhaps for memory; lower scans.workers and run again, finished scans are kept",
}


@dataclass
class Pending:
    """A scan whose lesion is open, in as many variants as are measured (drawn, perturbed), with what is left to do.

    `told` is what the caller needs to finish it. A variant that could not be opened stands in `failed` with its reason.
    """

    variants: dict[str, Opened]
    told: dict[str, Any]
    failed: dict[str, ItemFault] = field(default_factory=dict)

    def parts(self) -> list[tuple[str, int, Part]]:
        """Every part with the name of its variant and its number there."""
        return [(name, i, part) for name, opened in self.variants.items() for i, part in enumerate(opened.parts)]

    def release(self) -> None:
        """Forgets the images, which their tasks hold from now on."""
        for opened in self.variants.values():
            opened.parts = []

    def closed(self, measured: Measured) -> dict[str, dict[str, Any]]:
        """The whole result of every variant, in the library's order, whatever the order of its parts here."""
        ordered = sorted(measured, key=lambda one: one[:2])
        return {
            name: opened.closed(values for variant, _, values in ordered if variant == name)
            for name, opened in self.variants.items()
        }


def work_through(
    todo: Sequence[tuple[str, Any]],
    start: Callable[[Any], Result],
    finish: Callable[[Pending, Measured], Result],
    workers: int,
) -> Iterator[tuple[str, Result]]:
    """The result of each of `todo` (id, row), as they come.

    `start(row)`, in a process of the pool, gives a result, or {"pending": Pending}; then its parts are measured and
    `finish`, in this process, gives the result. An expected fault becomes {reason, sentence}. With one worker all runs
    here, since a pool pays only where its start (seconds) is less than the work.
    """
    if workers < 2:
        yield from ((name, _alone(row, start, finish)) for name, row in todo)
        return
    with single_threaded(), ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from _Board(pool, workers, start, finish).results(todo)
        except BaseException:  # a full disk or a signal ends the job: what has not begun must not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Board:
    """What is running and what is open."""

    def __init__(self, pool: ProcessPoolExecutor, workers: int, start: Callable, finish: Callable) -> None:
        self.pool, self.start, self.finish, self.workers = pool, start, finish, workers
        self.running: dict[Future[Any], tuple[str, int]] = {}  # -> scan, number of the bundle; -1: the scan itself
        self.open: dict[str, Pending] = {}
        self.measured: dict[str, list[Measured | None]] = {}  # scan -> what each bundle gave

    def results(self, todo: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, Result]]:
        waiting = deque(todo)
        while waiting or self.running:
            while waiting and len(self.running) < 2 * self.workers:
                whole = len(waiting) > 2 * self.workers
                name, row = waiting.popleft()
                try:
                    self.running[self.pool.submit(_begun, self.start, row, whole)] = (name, -1)
                except BrokenProcessPool:
                    yield name, dict(_DIED)
            if not self.running:
                continue
            done, _ = wait(self.running, return_when=FIRST_COMPLETED)
            for future in done:
                name, number = self.running.pop(future)
                result = self._begun(name, future) if number < 0 else self._took(name, number, future)
                if result is not None:
                    yield name, result

    def _begun(self, name: str, future: Future[tuple[Result, Measured]]) -> Result | None:
        try:
            result, measured = future.result()
        except BrokenProcessPool:
            return dict(_DIED)
        pending = result.get("pending")
        if pending is None:
            return result
        parts = pending.parts()
        pending.release()
        # every n-th part, so that the bundles are alike; those of one lesion share its mask on the way
        bundles = [parts[i :: 2 * self.workers] for i in range(min(len(parts), 2 * self.workers))]
        self.open[name], self.measured[name] = pending, [measured, *[None] * len(bundles)]
        for number, bundle in enumerate(bundles, 1):
            try:
                self.running[self.pool.submit(_measured, bundle)] = (name, number)
            except BrokenProcessPool:
                return self._drop(name, dict(_DIED))
        return self._finished(name)

    def _took(self, name: str, number: int, future: Future[Measured]) -> Result | None:
        if name not in self.open:  # another bundle of it has failed already
            future.exception()
            return None
        try:
            self.measured[name][number] = future.result()
        except BrokenProcessPool:
            return self._drop(name, dict(_DIED))
        except ItemFault as fault:
            return self._drop(name, {"reason": fault.reason, "sentence": str(fault)})
        except MemoryError:
            return self._drop(name, dict(_MEMORY))
        return self._finished(name)

    def _finished(self, name: str) -> Result | None:
        bundles = self.measured[name]
        if any(bundle is None for bundle in bundles):
            return None
        del self.measured[name]
        return _closed(self.open.pop(name), [one for bundle in bundles for one in bundle or ()], self.finish)

    def _drop(self, name: str, result: Result) -> Result:
        del self.open[name], self.measured[name]
        return result


def _begun(start: Callable[[Any], Result], row: Any, whole: bool) -> tuple[Result, Measured]:
    """The scan opened, and where `whole` is asked for measured by the same process."""
    result = start(row)
    pending = result.get("pending")
    if pending is None or not whole:
        return result, []
    try:
        measured = _measured(pending.parts())
    except ItemFault as fault:
        return {"reason": fault.reason, "sentence": str(fault)}, []
    except MemoryError:
        return dict(_MEMORY), []
    pending.release()
    return result, measured


def _alone(row: Any, start: Callable[[Any], Result], finish: Callable[..., Result]) -> Result:
    result, measured = _begun(start, row, True)
    return _closed(result["pending"], measured, finish) if "pending" in result else result


def guarded(work: Callable[[], Result]) -> Result:
    """What became of one item: its result, or {reason, sentence} of an expected fault."""
    try:
        return work()
    except ItemFault as fault:
        return {"reason": fault.reason, "sentence": str(fault)}
    except MemoryError:
        return dict(_MEMORY)


def _closed(pending: Pending, measured: Measured, finish: Callable[..., Result]) -> Result:
    return guarded(lambda: finish(pending, measured))


def _measured(parts: Sequence[tuple[str, int, Part]]) -> Measured:
    found: Measured = []
    for variant, number, part in parts:
        try:
            found.append((variant, number, measure(part)))
        except ItemFault:
            if not variant:  # a perturbed lesion that cannot be measured is a missing value, no failure of the scan
                raise
    return found


@contextmanager
def single_threaded() -> Iterator[None]:
    """Children that start inside use one thread each: two libraries of eight threads a worker would only queue."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
