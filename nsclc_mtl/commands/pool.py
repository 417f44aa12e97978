"""Many slides: over some processes, copied ahead where asked, left to other commands where these have them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsclc_mtl import signals
from nsclc_mtl.commands import items
from nsclc_mtl.commands.job import Job, Outcome
from nsclc_mtl.commands.staging import Stage
from nsclc_mtl.lease import Watch, heal, holder_of
from nsclc_mtl.records import ItemFault, ItemSkip

if TYPE_CHECKING:
    from nsclc_mtl.config import Run

POLL_S = 0.2  # how often leases of others are looked at
LEAVE_S = 40.0  # what processes get to end in after a signal; the whole command has 60 s
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Work = Callable[[Job], Outcome]


class Ended(SystemExit):
    """A process of the pool was asked to end."""


def work_through(
    jobs: Sequence[Job], work: Work, workers: int, run: Run, label: str, folders: Sequence[Path], stage: Stage
) -> None:
    """All jobs, over some processes; the run keeps account of each. Raises what ends them all (full disk, usage).

    `folders` are those that the work writes into: what killed processes left there is removed before and after.
    """
    results: dict[str, Outcome] = {}
    _sweep(folders)
    try:
        with stage, closing(_each(jobs, work, min(workers, len(jobs) // 2), stage, run.say)) as each:
            for slide_id, outcome in run.track(each, label, total=len(jobs)):
                results[slide_id] = outcome
    finally:  # after a full disk or a signal too: nothing is left of dead processes, what was finished is told
        _sweep(folders)
        _account(jobs, results, run, label)
        items.write(run.path, items.of_slides(jobs, results, folders))


def _account(jobs: Sequence[Job], results: dict[str, Outcome], run: Run, label: str) -> None:
    """The account in the order of the list, however the processes ran."""
    for job in jobs:
        outcome = results.get(job.slide_id)
        if outcome is None:
            continue
        if outcome.reason:
            kind = ItemSkip if outcome.skipped else ItemFault
            run.not_done(job.slide_id, kind(outcome.reason, outcome.sentence))
            run.say(f"{label} {job.slide_id}: {outcome.sentence}")
        else:
            run.done.append(job.slide_id)
    done = [outcome for outcome in results.values() if not outcome.reason]
    kept = sum(outcome.kept for outcome in done)
    run.say(
        f"{label}: {len(done)} of {len(jobs)} done ({kept} of them complete before), "
        f"{sum(outcome.tiles for outcome in done)} tiles"
    )


def _sweep(folders: Iterable[Path]) -> None:
    """Removes what dead processes left of files and their leases; what somebody works on is left alone."""
    from nsclc_mtl.features.store import remove_remnants

    for folder in folders:
        for lease in folder.glob("*.lease"):
            heal(lease)
        remove_remnants(folder, lambda slide_id, folder=folder: not heal(folder / f"{slide_id}.lease"))  # type: ignore[misc]


def _each(
    jobs: Sequence[Job], work: Work, workers: int, stage: Stage, say: Callable[[str], None]
) -> Generator[tuple[str, Outcome], None, None]:
    """Outcomes as they come. Slides that another command has are tried again when it is through with them."""
    watch, parked = Watch(), dict[Job, Path]()
    running: dict[Future[Outcome], Job] = {}
    lost: set[str] = set()  # slides that were in work when a process died
    told = False
    for job in jobs:
        stage.add(job)
    with _crew(workers) as crew:  # a process costs seconds to start, more than a slide or two
        while stage or running or parked:
            while stage and len(running) < max(1, workers):
                job, fault = stage.next()
                if fault is not None:
                    yield job.slide_id, Outcome(reason=fault.reason, sentence=str(fault))
                    continue
                running[crew.submit(work, job)] = job
            for future in wait(running, timeout=POLL_S if parked else None, return_when=FIRST_COMPLETED).done:
                job, outcome = stage.drop(running.pop(future)), _result(future)
                if outcome.reason == "worker_died" and job.slide_id not in lost:  # perhaps for another slide's sake
                    lost.add(job.slide_id)
                    stage.add(job)
                elif outcome.busy:
                    parked[job] = Path(outcome.busy)
                else:
                    yield job.slide_id, outcome
            for job in [job for job, lease in parked.items() if watch.is_free(lease)]:
                del parked[job]
                stage.add(job)
            if parked and not running and not stage:
                if not told:
                    told = True
                    say(f"waiting for {len(parked)} slides that {holder_of(next(iter(parked.values())))} works on")
                time.sleep(POLL_S)


def _result(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except (BrokenProcessPool, Ended):
        told = "a worker was killed, perhaps for memory; lower slides.workers and run again, finished slides are kept"
        return Outcome(reason="worker_died", sentence=told)


# ---------------------------------------------------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------------------------------------------------


class _Crew:
    """Some processes, made again when one of them is killed; none for fewer than two workers."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._before = set(multiprocessing.active_children())

    def submit(self, work: Work, job: Job) -> Future[Outcome]:
        if self.workers < 2:
            inline: Future[Outcome] = Future()
            inline.set_result(work(job))
            return inline
        try:
            return self._start().submit(work, job)
        except BrokenProcessPool:
            self._pool = None
            return self._start().submit(work, job)

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=begin)
        return self._pool

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def end(self) -> None:
        """Ends the processes in the middle of their slides, which give back their leases."""
        if self._pool is None:
            return
        self._pool.shutdown(wait=False, cancel_futures=True)
        end_processes(self._before)


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


@contextmanager
def _crew(workers: int) -> Iterator[_Crew]:
    before = {name: os.environ.get(name) for name in _THREADS}
    if workers > 1:
        os.environ.update(dict.fromkeys(_THREADS, "1"))  # one thread a process: more would only queue
    crew = _Crew(workers)
    try:
        yield crew
        crew.close()
    except BaseException:  # a full disk or a signal: what has not begun must not begin
        crew.end()
        raise
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


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
