"""`engine=ray` on clusters of this machine: nodes that go and come, slides that kill, signals, and who may listen."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_slide_jobs import mtl, tissue_image

from nsclc_mtl.commands import actors
from nsclc_mtl.commands.actors import Actors
from nsclc_mtl.commands.job import Job, Outcome
from nsclc_mtl.commands.staging import Stage
from nsclc_mtl.features import store
from nsclc_mtl.phantom.slides import write_pyramid
from nsclc_mtl.records import TryAgain, UsageFault

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `cluster` is not installed")

WORDS = ["slides.dir=slides", "slides.tile_um=32", "backbone.tile_px=64", "slides.pictures=false"]
RAY = [*WORDS, "engine=ray", "engine.cpus=1"]
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

def ready():
    print("ready", made.address, flush=True)

made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80_000_000})
nodes = []
ready()
for line in sys.stdin:
    if line.strip() == "add":
        nodes.append(made.add_node(num_cpus=1, object_store_memory=80_000_000))
    else:
        made.remove_node(nodes[int(line)], allow_graceful=False)
    ready()
made.shutdown()
"""


# ---------------------------------------------------------------------------------------------------------------------
# The crew, with a Ray that does as it is told
# ---------------------------------------------------------------------------------------------------------------------


class Far:
    """An actor: it starts, or not, on a machine, and ends its slides when it is told to."""

    def __init__(self, machine: str | Exception) -> None:
        self.machine = machine
        self.slides: list[tuple[Job, Future[Outcome]]] = []
        self.begin = SimpleNamespace(remote=lambda home: SimpleNamespace(future=self._started))
        self.slide = SimpleNamespace(remote=self._slide)

    def _started(self) -> Future[str]:
        future: Future[str] = Future()
        if isinstance(self.machine, Exception):
            future.set_exception(self.machine)
        elif self.machine:
            future.set_result(self.machine)
        return future

    def _slide(self, job: Job) -> Any:
        self.slides.append((job, Future()))
        return SimpleNamespace(future=lambda: self.slides[-1][1])


class Cluster:
    """What `Actors` asks of Ray: machines with cores, and actors, which start on the machines of a list in turn."""

    def __init__(self, cores: dict[str, float], starts: list[str | Exception]) -> None:
        from ray import exceptions

        self.cores, self.starts, self.exceptions = cores, starts, exceptions
        self.actors: list[Far] = []
        self.killed: list[Far] = []

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": cores > 0, "Resources": {"CPU": cores}} for cores in self.cores.values()]

    def remote(self, *given: Any) -> Far:
        self.actors.append(Far(self.starts.pop(0) if self.starts else ""))
        return self.actors[-1]

    def kill(self, actor: Far) -> None:
        self.killed.append(actor)


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Actors]:
    """A maker of crews on a cluster, whose machines are counted whenever it is asked for room."""
    monkeypatch.setattr(actors, "LOOK_S", 0.0)
    monkeypatch.setattr(actors, "AGAIN_S", 0.0)

    def make(cluster: Cluster, most: int = 20, **changes: Any) -> Actors:
        options = {"cpus": 2, "gpus": 0, "actors": None, "tries": 3, "wait_s": 100, "address": "auto"} | changes
        made = Actors(lambda job: Outcome(), Stage, options, most, [], said.append)
        made._ray = made._worker = cluster
        return made

    said: list[str] = []
    make.said = said  # type: ignore[attr-defined]
    return make


def test_workers_are_as_many_as_fit_and_those_of_new_machines_join(crew: Callable[..., Actors]) -> None:
    cluster = Cluster({"a": 4.0, "b": 3.0}, ["a", "b", "a", "c", "c"])
    made = crew(cluster)
    made.room()
    assert len(cluster.actors) == 3  # two of two cores on a, one on b
    assert made.room() == 2 * 3
    cluster.cores["c"] = 5.0
    made.room()
    assert made.room() == 2 * 5
    assert crew.said == [f"ray: slides go to machine {name}" for name in "abc"]  # type: ignore[attr-defined]
    assert len(cluster.actors) == 5

    few = Cluster({"a": 64.0}, ["a"] * 9)
    assert [crew(few, most=3).room(), len(few.actors)] == [0, 3]  # no more than slides
    few = Cluster({"a": 64.0}, ["a"] * 9)
    assert [crew(few, actors=2).room(), len(few.actors)] == [0, 2]
    none = Cluster({"a": 1.0}, [])
    assert [crew(none).room(), len(none.actors)] == [0, 1]  # it waits for a machine that is large enough


def test_a_lost_worker_is_replaced_and_its_slides_go_to_other_machines(crew: Callable[..., Actors]) -> None:
    cluster = Cluster({"a": 2.0, "b": 2.0}, ["a", "b", "a"])
    made = crew(cluster)
    made.room()
    assert made.room() == 4
    jobs = [Job(str(number), "") for number in range(4)]
    futures = [made.submit(job) for job in jobs]
    assert [len(actor.slides) for actor in cluster.actors] == [2, 2]  # the emptiest first
    cluster.cores["a"] = 0.0
    for _, future in cluster.actors[0].slides:
        future.set_exception(cluster.exceptions.ActorDiedError())
    lost = [future for future in futures if future.done()]
    assert [made.result(future).reason for future in lost] == ["machine_lost"] * 2
    assert made.room() == 2
    cluster.actors[1].slides[0][1].set_result(Outcome(tiles=7))
    assert made.result(cluster.actors[1].slides[0][1]).tiles == 7
    cluster.cores["a"] = 2.0  # the machine is back
    made.room()
    assert made.room() == 4
    assert cluster.killed == cluster.actors[:1]
    made.submit(jobs[0])
    assert len(cluster.actors[1].slides) == 3  # not where it was lost, though that worker has none
    made.submit(Job("new", ""))
    assert len(cluster.actors[2].slides) == 1

    cluster.actors[2].slides[0][1].set_result(Outcome(reason="worker_died"))
    told = made.result(cluster.actors[2].slides[0][1])
    assert (told.reason, "more engine.cpus" in told.sentence) == ("worker_died", True)
    assert made.room() == 4  # the worker itself lives on


def test_what_ends_the_run_comes_as_it_was_raised(crew: Callable[..., Actors]) -> None:
    from ray.exceptions import RayTaskError

    cluster = Cluster({"a": 2.0}, ["a"])
    made = crew(cluster)
    made.room()
    made.room()
    future = made.submit(Job("s", ""))
    future.set_exception(RayTaskError("slide", "a long traceback", TryAgain("no space left")).as_instanceof_cause())
    with pytest.raises(TryAgain) as told:
        made.result(future)
    assert str(told.value) == "no space left"


def test_workers_that_do_not_start_end_a_run_without_any(crew: Callable[..., Actors]) -> None:
    from ray.exceptions import RayActorError, RayTaskError

    def wrong() -> RayActorError:
        return RayActorError(None, "a long trace\nModuleNotFoundError: No module named 'nsclc_mtl'")

    made = crew(Cluster({"a": 2.0}, [wrong() for _ in range(3)]))
    assert [made.room() for _ in range(3)] == [0, 0, 0]
    with pytest.raises(
        UsageFault, match=r"do not start \(.*No module named 'nsclc_mtl'\); install nsclc-mtl at the same"
    ):
        made.room()
    some = crew(Cluster({"a": 2.0, "b": 2.0}, ["a", *(wrong() for _ in range(9))]))
    assert [some.room() for _ in range(6)][1:] == [2] * 5  # one machine of two is wrong: the other goes on
    blind: list[str | Exception] = [RayTaskError("begin", "trace", UsageFault("no folder")).as_instanceof_cause()]
    made = crew(Cluster({"a": 2.0}, blind))
    made.room()
    with pytest.raises(UsageFault, match=r"^no folder$"):
        made.room()


def test_a_run_waits_for_machines_from_when_the_last_was_lost(
    crew: Callable[..., Actors], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(actors.time, "monotonic", lambda: now)
    cluster = Cluster({"a": 2.0}, ["a"])
    made = crew(cluster)
    made.room()
    now = 50.0
    assert made.room() == 2
    future = made.submit(Job("s", ""))
    now = 5000.0  # a long slide
    future.set_exception(cluster.exceptions.ActorDiedError())
    made.result(future)
    assert made.room() == 0
    now = 5099.0
    assert made.room() == 0
    now = 5101.0
    with pytest.raises(
        TryAgain, match=r"no worker for engine.wait_s=100 s: no machine .* engine.cpus=2 and engine.gpus=0"
    ):
        made.room()


# ---------------------------------------------------------------------------------------------------------------------
# Ray itself
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder for runs of their own environment, in which nobody else takes part."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "slides").mkdir()
    (tmp_path / "h5py.py").write_text("raise SystemExit('workers import from the folder of the command')")
    return tmp_path


def slides(count: int) -> list[str]:
    for number in range(count):
        write_pyramid(Path("slides") / f"s{number:02}.tiff", tissue_image(384 + 16 * (number % 7), seed=number))
    return [f"s{number:02}" for number in range(count)]


class Nodes:
    """A cluster of this machine in a process of its own: a head without room for workers, and nodes of one core."""

    def __init__(self) -> None:
        line = [sys.executable, "-c", CLUSTER]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = self._ready()

    def do(self, word: str) -> None:
        """`add` a node, or kill that of a number."""
        assert self.process.stdin is not None
        print(word, file=self.process.stdin, flush=True)
        self._ready()

    def _ready(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ready "):
                return line.split()[1]
        raise AssertionError("the cluster ended")


@pytest.fixture
def cluster(here: Path) -> Iterator[Nodes]:
    made = Nodes()
    try:
        yield made
    finally:
        made.process.communicate(timeout=60)  # the end of its input ends it


def command(*words: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-P", "-m", "nsclc_mtl", "extract", *words]  # as `mtl`, which imports nothing from here
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(happened: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def outcome(process: subprocess.Popen[str], name: str, seconds: float = 400) -> tuple[int, dict[str, Any], str]:
    """Exit code, account and log of a run."""
    try:
        told = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise AssertionError(process.communicate(timeout=90)) from None
    folder = Path("runs/extract") / name
    assert told[0].splitlines()[-1] == f"run: {folder.resolve()}", told
    return process.returncode, json.loads((folder / "run.json").read_text()), (folder / "log.txt").read_text()


def made() -> list[Path]:
    return sorted(Path("out/features").rglob("*.h5"))


def whole(path: Path) -> bool:
    import h5py

    with h5py.File(path) as file:
        return store.is_complete(path, file.attrs["config_hash"], deep=True)


@pytest.mark.slow
def test_one_node_goes_another_comes_and_thirty_slides_are_made_once(cluster: Nodes) -> None:
    names = slides(30)
    cluster.do("add")
    cluster.do("add")
    process = command(*RAY, f"engine.address={cluster.address}", "name=first")
    until(lambda: len(made()) >= 6, process)
    cluster.do("0")
    until(lambda: len(made()) >= 10, process)
    cluster.do("add")
    code, account, log = outcome(process, "first")
    assert (code, account["done"], account["failed"], account["skipped"]) == (0, names, [], []), log
    assert [path.stem for path in made()] == names
    assert all(whole(path) for path in [*made(), *Path("out/tiles").rglob("*.h5")])
    assert log.count("ray: slides go to machine") == 3
    assert log.count("was lost, its slides go to others") == 1
    assert "30 of 30 done" in log
    assert not [path for path in Path("out").rglob("*") if path.suffix in {".lease", ".tmp"}]

    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.h5")}
    code, account, log = outcome(command(*RAY, f"engine.address={cluster.address}", "name=second"), "second")
    assert (code, account["done"]) == (0, names)
    assert "30 of 30 done (30 of them complete before)" in log
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.h5")} == before

    assert mtl("extract", *WORDS, "slides.workers=1", "paths.out=alone")[0] == 0
    for path in made():  # the same bytes as on one machine
        assert path.read_bytes() == (Path("alone") / path.relative_to("out")).read_bytes()


@pytest.mark.slow
def test_a_ray_of_its_own_listens_on_loopback_alone_and_a_signal_ends_it_tidily(here: Path) -> None:
    names = slides(8)
    process = command(*RAY, "name=ended")
    until(lambda: len(made()) >= 1, process)
    family = descendants(process.pid)
    assert {"raylet", "gcs_server"} <= {name for name, _ in family}
    assert set(listening({pid for _, pid in family})) == {"127.0.0.1"}
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=60)
    assert (process.returncode, told[1].splitlines()) == (143, ["mtl: ended by SIGTERM"])
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for _, pid in family):  # none of its processes is left
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kept = {path: path.stat().st_mtime_ns for path in made()}
    assert kept
    assert not [path for path in Path("out").rglob("*") if path.suffix in {".lease", ".tmp"}]
    code, account, _ = outcome(command(*RAY, "name=again", "slides.stage=fast"), "again")
    assert (code, account["done"]) == (0, names)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert list(Path("fast").iterdir()) == []


KILLER = """
import os, signal
from nsclc_mtl.features.backbones.texture import Texture

class Killer(Texture):
    def forward(self, tiles):
        if tiles[..., 1].float().median() < 140:  # only the pink of one slide is so dark
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(tiles)
"""


@pytest.mark.slow
def test_a_slide_that_kills_its_process_twice_costs_no_other(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = slides(5)
    image = tissue_image(512).astype(int)
    write_pyramid(Path("slides") / "dark.tiff", (image - [20, 50, 10] * (image[..., 1:2] < 200)).astype("uint8"))
    (here / "plugins").mkdir()
    (here / "plugins" / "killer.py").write_text(KILLER)
    places = [place for place in (os.environ.get("PYTHONPATH"), str(here / "plugins")) if place]  # an empty one is `.`
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    monkeypatch.setenv("MTL_PLUGINS", "killer")
    process = command(*RAY, "backbone._target_=killer.Killer", "name=killed")
    code, account, log = outcome(process, "killed")
    assert (code, account["done"]) == (4, names), log
    assert account["failed"] == [{"id": "dark", "reason": "worker_died"}]
    assert "perhaps for memory; take fewer workers a machine" in log
    assert "was lost" not in log  # the workers outlive it
    assert not [path for path in Path("out").rglob("*") if path.suffix in {".lease", ".tmp"}]


def descendants(pid: int) -> list[tuple[str, int]]:
    """Name and id of all processes below one, those of Ray among them (their first parent may have left them)."""
    parents, status = {pid}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
            status[int(folder.name)] = (lines["Name"], int(lines["PPid"]))
        except OSError:
            continue
    while grown := {child for child, (_, parent) in status.items() if parent in parents} - parents:
        parents |= grown
    return [(status[child][0], child) for child in sorted(parents - {pid})]


def listening(pids: set[int]) -> list[str]:
    """IPv4 addresses that processes listen on, of IPv6 the mapped one."""
    sockets = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.add(os.readlink(handle))
            except OSError:
                continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                last = bytes.fromhex(words[1].split(":")[0])[-4:]
                found.append(".".join(str(byte) for byte in last[::-1]))
    return found
