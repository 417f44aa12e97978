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
from pathlib import Path
from typing import Any

import pytest
from test_slide_jobs import mtl, tissue_image

from nsclc_mtl.features import store
from nsclc_mtl.phantom.slides import write_pyramid

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `cluster` is not installed"),
]

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


def test_a_slide_that_kills_its_process_twice_costs_no_other(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = slides(5)
    image = tissue_image(512).astype(int)
    write_pyramid(Path("slides") / "dark.tiff", (image - [20, 50, 10] * (image[..., 1:2] < 200)).astype("uint8"))
    (here / "plugins").mkdir()
    (here / "plugins" / "killer.py").write_text(KILLER)
    monkeypatch.setenv("PYTHONPATH", f"{os.environ.get('PYTHONPATH', '')}:{here / 'plugins'}")
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
