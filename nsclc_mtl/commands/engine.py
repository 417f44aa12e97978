"""Many slides, by the engine that is asked for: one loop, whoever works on the slides and wherever that is.

They are copied ahead where asked, left to other commands where these have them, and begun again where a worker is lost.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nsclc_mtl.commands import items, pool, shards, staging
from nsclc_mtl.commands.job import Job, Outcome
from nsclc_mtl.commands.staging import Stage
from nsclc_mtl.lease import Watch, heal, holder_of
from nsclc_mtl.records import ItemFault, ItemSkip

if TYPE_CHECKING:
    from nsclc_mtl.config import Run

POLL_S = 0.2  # how often leases of others are looked at


def work_on(
    jobs: Sequence[Job],
    work: pool.Work,
    state: Callable[[Job], str],
    settings: Mapping[str, Any],
    run: Run,
    folders: Sequence[Path],
) -> None:
    """All slides by `engine=local|shard|ray`, see `work_through`; `state` says of a slide whether it is to be read."""
    crew: Crew
    slides, options = settings["slides"], settings["engine"]
    if options["name"] == "ray" and jobs:
        from nsclc_mtl.commands.actors import Actors

        stage = functools.partial(staging.of, slides, state)  # copies are local to a node: each worker has its own
        crew = Actors(work, stage, options, len(jobs), folders, run.say)
        work_through(jobs, crew, run, "slides", folders, Stage(), shards.largest_first(jobs, shards.slide_bytes(jobs)))
        return
    workers = min(int(slides["workers"]), len(jobs) // 2)  # a process costs seconds to start, more than a slide or two
    crew = pool.Processes(work, workers) if workers > 1 else pool.Here(work)
    work_through(jobs, crew, run, "slides", folders, staging.of(slides, state))


class Crew(Protocol):
    """Who works on slides: this process, processes of this machine (pool.py), or actors of a cluster (actors.py)."""

    tries: Mapping[str, int]
    """Reasons for which a worker is lost, and after how many losses for that reason a slide is given up."""
    poll_s: float | None
    """How often `room` is to be asked while slides wait; None: it never changes by itself."""

    def start(self) -> None:
        """Called once, before the first slide."""

    def room(self) -> int:
        """How many slides it can have at present, those that it has included. Raises TryAgain: there will be none."""

    def submit(self, job: Job) -> Future[Outcome]:
        """Takes a slide on."""

    def result(self, future: Future[Outcome]) -> Outcome:
        """What became of a slide; a reason of `tries` where its worker was lost. Raises what ends the whole run."""

    def close(self) -> None:
        """Sends the workers home; all slides are through."""

    def end(self) -> None:
        """Ends the workers in the middle of their slides, which give back their leases."""


def work_through(
    jobs: Sequence[Job],
    crew: Crew,
    run: Run,
    label: str,
    folders: Sequence[Path],
    stage: Stage,
    queue: Sequence[Job] | None = None,
) -> None:
    """All jobs, by a crew; the run keeps account of each. Raises what ends them all (full disk, usage).

    `folders` are those that the work writes into: what killed processes left there is removed before and after. `queue`
    is the order in which slides are taken on, where it is another than that of the account.
    """
    results: dict[str, Outcome] = {}
    _sweep(folders)
    try:
        with stage, closing(_each(jobs if queue is None else queue, crew, stage, run.say)) as each:
            for slide_id, outcome in run.track(each, label, total=len(jobs)):
                results[slide_id] = outcome
    finally:  # after a full disk or a signal too: nothing is left of dead processes, what was finished is told
        _sweep(folders)
        _account(jobs, results, run, label)
        items.write(run.path, items.of_slides(jobs, results, folders))


def _account(jobs: Sequence[Job], results: dict[str, Outcome], run: Run, label: str) -> None:
    """The account in the order of the list, however the processes ran."""
    if jobs and not results:  # the run could not begin, and says why
        return
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
    jobs: Sequence[Job], crew: Crew, stage: Stage, say: Callable[[str], None]
) -> Generator[tuple[str, Outcome], None, None]:
    """Outcomes as they come. Slides that another command has are tried again when it is through with them."""
    watch, parked = Watch(), dict[Job, Path]()
    running: dict[Future[Outcome], Job] = {}
    lost: Counter[tuple[str, str]] = Counter()  # (slide, reason): how often it came back so
    told = False
    for job in jobs:
        stage.add(job)
    with _at_work(crew):
        while stage or running or parked:
            while stage and len(running) < crew.room():
                job, fault = stage.next()
                if fault is not None:
                    yield job.slide_id, Outcome(reason=fault.reason, sentence=str(fault))
                    continue
                running[crew.submit(job)] = job
            pause = POLL_S if parked else crew.poll_s if stage else None
            for future in wait(running, timeout=pause, return_when=FIRST_COMPLETED).done:
                job, outcome = stage.drop(running.pop(future)), crew.result(future)
                why = (job.slide_id, outcome.reason)
                lost[why] += 1
                if lost[why] < crew.tries.get(outcome.reason, 0):  # perhaps for another slide's sake
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
            elif stage and not running and not crew.room():
                time.sleep(POLL_S)


@contextmanager
def _at_work(crew: Crew) -> Iterator[None]:
    try:
        crew.start()
        yield
        crew.close()
    except BaseException:  # a full disk or a signal: what has not begun must not begin
        crew.end()
        raise
