"""What `engine=ray` runs on the machines of a cluster: an actor that has its slides done by one process there.

So a slide that kills its process is told from a machine that goes, and the actor lives on to say so.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nsclc_mtl.commands.job import Job, Outcome, guarded
from nsclc_mtl.commands.pool import LEAVE_S, Processes, Work
from nsclc_mtl.commands.staging import Stage
from nsclc_mtl.features.keys import code_digest
from nsclc_mtl.lease import heal
from nsclc_mtl.records import UsageFault


@dataclass(frozen=True)
class Home:
    """Where the command runs, for workers to take the same place."""

    folder: str
    mark: str  # a file of this run, in the folder that results go to
    environment: Mapping[str, str]
    gpus: float
    code: str  # digest of this package


class Worker:
    """An actor: slides one at a time, in a process of its own, and meanwhile a copy of the next where asked."""

    def __init__(self, work: Work, stage: Callable[[], Stage], folders: Sequence[Path]) -> None:
        self._crew, self._stage = Processes(work, 1, threads=None), stage()  # Ray sets the threads to engine.cpus
        self._folders = folders
        self._turn, self._over = threading.Lock(), False

    def begin(self, home: Home) -> str:
        """The name of this machine. Raises UsageFault where its files or its code are not those of the command."""
        name = _here()
        lacks, results = f"machine {name} of the Ray cluster does not see", Path(home.mark).parent
        if code_digest("") != home.code:  # its features would lie elsewhere
            told = f"machine {name} of the Ray cluster runs other code of nsclc-mtl than this command"
            raise UsageFault(f"{told}; install the same version, or share one installation")
        try:
            os.chdir(home.folder)
        except OSError:
            raise UsageFault(
                f"{lacks} the folder '{home.folder}', from which the command was called; share it"
            ) from None
        if not Path(home.mark).is_file():
            raise UsageFault(f"{lacks} what the command writes to '{results}'; put paths.out where all machines see it")
        os.environ.update(home.environment)
        if not home.gpus:  # Ray leaves them visible, and all workers would crowd on the first
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._stage.__enter__()
        self._crew.start()
        return name

    def slide(self, job: Job) -> Outcome:
        """What became of a slide. Raises what ends the whole run."""
        return guarded(job, lambda: self._slide(job))

    def _slide(self, job: Job) -> Outcome:
        staged = self._stage.copy(job)
        try:
            with self._turn:
                if self._over:
                    return Outcome(reason="machine_lost")  # nobody waits for it any more
                outcome = self._crew.result(self._crew.submit(staged))
                if outcome.reason == "worker_died":
                    self._heal(job)
                return outcome
        finally:
            self._stage.drop(staged)

    def _heal(self, job: Job) -> None:
        """Removes the leases of the process that died: from other machines nobody could see that it is dead."""
        for child in multiprocessing.active_children():
            child.join(LEAVE_S)  # that it is dying is known a moment before it is dead
        for folder in self._folders:
            heal(folder / f"{job.slide_id}.lease")

    def stop(self) -> None:
        """Ends the process, a slide in work tidily: its lease is given back."""
        self._over = True
        if self._turn.acquire(blocking=False):
            self._crew.close()
        else:
            self._crew.end()
        self._stage.__exit__()


def _here() -> str:
    """This machine, and which of its nodes of the cluster, should it have several."""
    import ray

    return f"{socket.gethostname()} ({ray.get_runtime_context().get_node_id()[:8]})"
