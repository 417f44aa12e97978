"""`engine=ray`: slides over the machines of a Ray cluster, as a crew of the same loop that processes are (engine.py).

Between the machines go only the names of slides and what became of them. Slides are read from, and results written to,
storage that all share, under the same leases as everywhere. Each worker is an actor that has its slides done by one
process of its machine: so a slide that kills its process is told from a machine that goes, which is no slide's fault.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from nsclc_mtl.commands.job import Job, Outcome
from nsclc_mtl.commands.pool import LEAVE_S, Work
from nsclc_mtl.commands.staging import Stage
from nsclc_mtl.commands.worker import Home, Worker
from nsclc_mtl.features.keys import code_digest
from nsclc_mtl.lease import Lease
from nsclc_mtl.records import TryAgain, UsageFault

DEPTH = 2  # slides that a worker has at most: one in work, and one that waits and is copied meanwhile
LOOK_S = 2.0  # how often the machines of the cluster are counted
REACH_S = 10.0  # what a cluster gets to answer in
AGAIN_S = 10.0  # longer before every further start, where workers do not start
STORE_BYTES = 100_000_000  # of Ray's object store, through which nothing large goes


@dataclass(eq=False)
class _Hand:
    """A worker as the command sees it."""

    actor: Any
    begun: Future[str]
    machine: str = ""  # once it works
    slides: int = 0  # that it has


class Actors:
    """Workers on all machines that have room for them, made anew where machines go, and more where machines come."""

    poll_s: float | None = 0.5

    def __init__(
        self,
        work: Work,
        stage: Callable[[], Stage],
        options: Mapping[str, Any],
        most: int,
        folders: Sequence[Path],
        say: Callable[[str], None],
    ) -> None:
        self.options, self.most, self.folders, self.say = options, most, folders, say
        self._given = (work, stage, folders)
        self.tries: Mapping[str, int] = {"worker_died": 2, "machine_lost": int(options["tries"])}
        self._ask = {"CPU": float(options["cpus"]), "GPU": float(options["gpus"])}
        self._hands: list[_Hand] = []
        self._out: dict[Future[Outcome], tuple[_Hand, Job]] = {}
        self._lost_on: dict[str, set[str]] = {}  # slide_id -> machines
        self._failures, self._look = 0, 0.0
        self._without: float | None = None  # since when no worker is there
        self._environment: dict[str, str | None] = {}
        self._mark: Lease | None = None
        self._ray: Any = None
        self._worker: Any = None  # the class of the actors
        self._home: Home | None = None

    def start(self) -> None:
        """Starts Ray, or joins a cluster. Raises UsageFault where there is none, or no room for a worker."""
        options, own = self.options, self.options["address"] is None
        environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        if own:  # nobody else on this machine can give it work, or reach it from another
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            if ip_address(options["interface"]).is_loopback:
                environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's word for: this machine alone
        self._environment = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        ray = _ray()
        if own:
            _here(options["interface"])
        else:
            _reached(options["address"] if options["address"] != "auto" else os.environ.get("RAY_ADDRESS", ""))
        given: dict[str, Any] = {"address": options["address"]}
        if own:
            given = {
                "address": "local",
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
                "num_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
                "_node_ip_address": options["interface"],
            }
        _quiet(ray)
        self._ray = ray
        try:
            # workers import from where Ray is started, and the folder of a command may hold anything: not from there
            with _our_signals(), chdir(os.sep):
                ray.init(**given, configure_logging=False, log_to_driver=False)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as wrong:
            told = " ".join(str(wrong).split())[:300]
            raise UsageFault(f"engine.address={options['address'] or 'null'}: Ray cannot be had: {told}") from None
        if own and not self._fits():
            raise UsageFault(
                f"this machine has no room for a worker with {self._words()}; lower engine.cpus or engine.gpus"
            )
        self._mark = Lease.take(self.folders[0] / f"ray-{uuid.uuid4().hex}.lease")
        assert self._mark is not None  # nobody else has this name
        ours = {name: value for name, value in os.environ.items() if name.startswith("MTL_")}
        self._home = Home(os.getcwd(), str(self._mark.path), ours, self._ask["GPU"], code_digest(""))
        limits = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": DEPTH + 1}
        of_ray = ray.remote(num_cpus=self._ask["CPU"], num_gpus=self._ask["GPU"], **limits)(Worker)
        self._worker = of_ray.options(scheduling_strategy="SPREAD")

    def room(self) -> int:
        """How many slides the workers of the moment can have. Raises TryAgain after engine.wait_s without one."""
        self._grow()
        ready = sum(bool(hand.machine) for hand in self._hands)
        if ready:
            self._without = None
        elif self._without is None:
            self._without = time.monotonic()
        elif time.monotonic() - self._without > float(self.options["wait_s"]):
            told = f"no worker for engine.wait_s={self.options['wait_s']} s: no machine of the Ray cluster has"
            raise TryAgain(f"{told} {self._words()} free; run again, finished slides are kept")
        return DEPTH * ready

    def submit(self, job: Job) -> Future[Outcome]:
        """Gives the slide to the worker that has the fewest, on a machine where it was not lost before."""
        before = self._lost_on.get(job.slide_id, ())
        free = [hand for hand in self._hands if hand.machine and hand.slides < DEPTH]
        hand = min(free, key=lambda hand: (hand.machine in before, hand.slides))
        future: Future[Outcome] = hand.actor.slide.remote(job).future()
        hand.slides += 1
        self._out[future] = hand, job
        return future

    def result(self, future: Future[Outcome]) -> Outcome:
        """What became of a slide; `machine_lost` where the actor is gone, `worker_died` where its process is."""
        from ray.exceptions import RayError, RayTaskError

        hand, job = self._out.pop(future)
        hand.slides -= 1
        try:
            outcome = future.result()
        except RayTaskError as error:
            raise error.cause from None
        except RayError:
            self._lost_on.setdefault(job.slide_id, set()).add(hand.machine)
            self._drop(hand)
            told = "its machines were lost again and again; run again, finished slides are kept"
            return Outcome(reason="machine_lost", sentence=f"slide '{job.slide_id}': {told}")
        if outcome.reason == "worker_died":
            self._lost_on.setdefault(job.slide_id, set()).add(hand.machine)
            told = "a worker was killed, perhaps for memory; take fewer workers a machine (more engine.cpus)"
            outcome.sentence = f"{told} and run again, finished slides are kept"
        return outcome

    def close(self) -> None:
        """Sends the workers home and leaves the cluster, or ends the Ray that was started."""
        self.end()

    def end(self) -> None:
        """Ends the workers in the middle of their slides, which give back their leases; nothing of Ray is left here."""
        if self._ray is not None:
            ray, self._ray = self._ray, None
            stops = [hand.actor.stop.remote() for hand in self._hands if hand.machine]
            with suppress(ray.exceptions.RayError):
                ray.wait(stops, num_returns=len(stops), timeout=LEAVE_S + 5) if stops else None
            for hand in self._hands:
                with suppress(ray.exceptions.RayError):
                    ray.kill(hand.actor)
            ray.shutdown()
        if self._mark is not None:
            self._mark.release()
            self._mark = None
        for name, value in self._environment.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})

    # -- workers ------------------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Takes on workers that have started, and asks for those that lack."""
        for hand in [hand for hand in self._hands if not hand.machine and hand.begun.done()]:
            self._took_on(hand)
        if time.monotonic() < self._look:
            return
        self._look = time.monotonic() + LOOK_S + AGAIN_S * self._failures
        wanted = min(self.most, self.options["actors"] or max(1, self._fits()))
        for _ in range(wanted - len(self._hands)):
            actor = self._worker.remote(*self._given)
            self._hands.append(_Hand(actor, actor.begin.remote(self._home).future()))

    def _took_on(self, hand: _Hand) -> None:
        """A worker that has started, or has not; raises UsageFault where none does, or none sees the files."""
        from ray.exceptions import RayError, RayTaskError

        try:
            machine = hand.begun.result()
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            self._drop(hand)
            self._failures += 1
            if self._failures >= self.options["tries"] and not any(hand.machine for hand in self._hands):
                told = f"workers of the Ray cluster do not start ({str(error).strip().splitlines()[-1].strip()[:200]})"
                raise UsageFault(f"{told}; install nsclc-mtl at the same place on every machine") from None
            return
        self._failures = 0
        if machine not in {hand.machine for hand in self._hands}:
            self.say(f"ray: slides go to machine {machine}")
        hand.machine = machine

    def _drop(self, hand: _Hand) -> None:
        """Forgets a worker that is gone; one that is only out of reach must not go on."""
        if hand in self._hands:
            self._hands.remove(hand)
            if hand.machine:
                self.say(f"ray: a worker on machine {hand.machine} was lost, its slides go to others")
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(hand.actor)

    def _fits(self) -> int:
        """For how many workers the machines have room that are there at present, whoever uses it."""
        ask = {name: amount for name, amount in self._ask.items() if amount}
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return sum(min(math.floor(has.get(name, 0.0) / amount + 1e-9) for name, amount in ask.items()) for has in alive)

    def _words(self) -> str:
        return f"engine.cpus={self._ask['CPU']:g} and engine.gpus={self._ask['GPU']:g}"


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UsageFault("engine=ray needs the extra `cluster`: pip install 'nsclc-mtl[cluster]'") from None
    return ray


def _here(address: str) -> None:
    """Raises UsageFault where this machine does not have an address: Ray itself would wait for it for minutes."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError as wrong:
        raise UsageFault(f"engine.interface={address} is no address of this machine ({wrong.strerror})") from None


def _reached(address: str) -> None:
    """Raises UsageFault where nobody answers at HOST:PORT: Ray itself would ask for a quarter of an hour."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():  # not known from here: Ray looks for a cluster on this machine
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except OSError as wrong:
        raise UsageFault(f"no Ray cluster answers at {address} ({wrong}): start it, or mend engine.address") from None


def _quiet(ray: Any) -> None:
    """What Ray has to say goes to log.txt, like that of other libraries."""
    logging.getLogger("ray").propagate = True
    with suppress(AttributeError, ImportError):  # it prints what becomes of machines, whatever log_to_driver says
        from ray._private import worker

        worker._worker_logs_enabled = False


@contextmanager
def _our_signals() -> Iterator[None]:
    """Ray sets a handler of its own for SIGTERM; the command's, which ends it tidily, is put back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, ended = signal.getsignal(signal.SIGTERM), False
    try:
        yield
    except SystemExit:  # by Ray's handler
        ended = True
    finally:
        signal.signal(signal.SIGTERM, before)
    if ended:
        os.kill(os.getpid(), signal.SIGTERM)
