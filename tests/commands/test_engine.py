"""The loop that all engines share, with a crew that does as it is told; a worker of a cluster, without a cluster."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

import pytest

from nsclc_mtl.commands import engine, staging
from nsclc_mtl.commands import worker as far
from nsclc_mtl.commands.job import Job, Outcome
from nsclc_mtl.commands.staging import Stage
from nsclc_mtl.commands.worker import Home, Worker
from nsclc_mtl.features.keys import code_digest
from nsclc_mtl.lease import Lease
from nsclc_mtl.records import TryAgain

DIED, LOST = Outcome(reason="worker_died"), Outcome(reason="machine_lost")


class Told:
    """A crew whose slides end as they are told, `rooms` at a time, the last of which stays."""

    tries: Mapping[str, int] = {"worker_died": 2, "machine_lost": 4}
    poll_s = 0.01

    def __init__(self, ends: dict[str, list[Outcome | Exception]], rooms: list[int] | None = None) -> None:
        self.ends = {name: deque(each) for name, each in ends.items()}
        self.rooms = deque(rooms or [2])
        self.begun: list[str] = []
        self.out: dict[Future[Outcome], Job] = {}
        self.most, self.left = 0, ""

    def start(self) -> None:
        self.left = "at work"

    def room(self) -> int:
        return self.rooms.popleft() if len(self.rooms) > 1 else self.rooms[0]

    def submit(self, job: Job) -> Future[Outcome]:
        self.begun.append(job.slide_id)
        future: Future[Outcome] = Future()
        self.out[future] = job
        self.most = max(self.most, len(self.out))
        threading.Timer(0.01, future.set_result, [Outcome()]).start()
        return future

    def result(self, future: Future[Outcome]) -> Outcome:
        end = self.ends[self.out.pop(future).slide_id].popleft()
        if isinstance(end, Exception):
            raise end
        return end

    def close(self) -> None:
        self.left = "closed"

    def end(self) -> None:
        self.left = "ended"


def through(crew: Told) -> dict[str, Outcome]:
    jobs = [Job(name, "") for name in crew.ends]
    found = list(engine._each(jobs, crew, Stage(), print))
    assert len(found) == len(crew.ends)  # each slide is told once
    return dict(found)


def test_a_slide_is_begun_again_as_often_as_its_loss_allows() -> None:
    done = Outcome(tiles=1)
    ends: dict[str, list[Outcome | Exception]] = {
        "once": [DIED, done], "twice": [DIED, DIED], "three machines": [LOST, LOST, LOST, done], "four": [LOST] * 4,
        "both": [LOST, DIED, LOST, LOST, done], "unlucky": [DIED, LOST, DIED], "fine": [done],
        "bad": [Outcome(reason="corrupt")],
    }  # fmt: skip
    crew = Told(ends)
    found = through(crew)
    assert {name: outcome.reason for name, outcome in found.items()} == {
        "once": "", "twice": "worker_died", "three machines": "", "four": "machine_lost", "both": "",
        "unlucky": "worker_died", "fine": "", "bad": "corrupt",
    }  # fmt: skip
    assert not any(crew.ends.values())  # and never once more
    assert crew.left == "closed"


def test_no_more_slides_are_out_than_there_is_room_for_and_room_may_come_late() -> None:
    crew = Told({str(number): [Outcome(tiles=1)] for number in range(12)}, rooms=[0, 0, 0, 1, 1, 0, 3])
    assert len(through(crew)) == 12
    assert crew.most == 3


def test_what_ends_the_run_ends_the_crew_in_the_middle() -> None:
    crew = Told({"a": [TryAgain("no space left")], "b": [Outcome()]})
    with pytest.raises(TryAgain, match="no space"):
        through(crew)
    assert crew.left == "ended"

    class Gone(Told):
        def room(self) -> int:
            raise TryAgain("no worker")

    gone = Gone({"a": [Outcome()]})
    with pytest.raises(TryAgain, match="no worker"):
        through(gone)
    assert gone.left == "ended"


def test_a_slide_of_another_command_is_taken_when_that_is_through(tmp_path: Path) -> None:
    held = Lease.take(tmp_path / "a.lease")
    assert held is not None
    crew = Told({"a": [Outcome(busy=str(held.path)), Outcome(kept=True)], "b": [Outcome(tiles=1)]})
    threading.Timer(0.3, held.release).start()
    found = through(crew)
    assert found["a"].kept
    assert crew.begun == ["a", "b", "a"]


# ---------------------------------------------------------------------------------------------------------------------
# A worker
# ---------------------------------------------------------------------------------------------------------------------


def work(job: Job) -> Outcome:
    """Slide `killer` kills its process, `long` takes long under a lease; the others tell which file they read."""
    if job.slide_id == "killer":
        Lease.take(Path("killer.lease"))
        os.kill(os.getpid(), signal.SIGKILL)
    if job.slide_id == "long":
        with Lease.take(Path("long.lease")):  # type: ignore[union-attr]
            time.sleep(60)
    return Outcome(tiles=Path(job.staged or job.path).stat().st_size, sentence=job.staged)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(far, "_here", lambda: "here")
    for name in ("CUDA_VISIBLE_DEVICES", "MTL_TOLD"):
        monkeypatch.setenv(name, "before")
    for name in ("killer", "long", "short"):
        (tmp_path / name).write_text(name)
    (tmp_path / "mark").touch()
    made = Worker(work, lambda: staging.Stage(tmp_path / "fast"), [tmp_path])
    assert made.begin(Home(str(tmp_path), "mark", {"MTL_TOLD": "after"}, 0.0, code_digest(""))) == "here"
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["MTL_TOLD"]) == ("", "after")
    return made


def test_a_worker_outlives_a_slide_that_kills_its_process(worker: Worker) -> None:
    with_copy = worker.slide(Job("short", "short"))
    assert (with_copy.tiles, with_copy.reason) == (5, "")
    assert Path(with_copy.sentence).parts[-3].startswith("mtl-")
    assert worker.slide(Job("killer", "killer")).reason == "worker_died"
    assert not Path("killer.lease").exists()  # other machines would wait for it
    assert worker.slide(Job("short", "short")).tiles == 5
    worker.stop()
    assert list(Path("fast").iterdir()) == []


def test_a_worker_that_is_stopped_gives_its_lease_back_and_begins_nothing_more(worker: Worker) -> None:
    found: dict[str, Outcome] = {}
    threads = [
        threading.Thread(target=lambda name=name: found.update({name: worker.slide(Job(name, name))}))
        for name in ("long", "short")
    ]
    deadline = time.monotonic() + 60
    threads[0].start()
    while not Path("long.lease").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    threads[1].start()  # waits for its turn
    time.sleep(0.2)
    worker.stop()
    for thread in threads:
        thread.join(30)
    assert not Path("long.lease").exists()
    assert {name: outcome.tiles for name, outcome in found.items()} == {"long": 0, "short": 0}
    assert list(Path("fast").iterdir()) == []


def test_a_worker_with_other_files_or_other_code_than_the_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(far, "_here", lambda: "node7")
    made = Worker(work, staging.Stage, [])
    with pytest.raises(Exception, match=r"node7 .* does not see the folder '/nowhere'.*share it") as told:
        made.begin(Home("/nowhere", "out/mark", {}, 0.0, code_digest("")))
    assert getattr(told.value, "exit_code", None) == 2
    with pytest.raises(Exception, match=r"node7 .* does not see what the command writes to 'out'"):
        made.begin(Home(str(tmp_path), "out/mark", {}, 0.0, code_digest("")))
    with pytest.raises(Exception, match=r"node7 .* runs other code of nsclc-mtl"):
        made.begin(Home(str(tmp_path), "out/mark", {}, 0.0, "0123"))
