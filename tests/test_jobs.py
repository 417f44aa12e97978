"""Calls as jobs of this machine: how they end, one that is killed, one whose time is over, and the files they leave."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nsclc_mtl import jobs
from nsclc_mtl.lease import Holder, Lease
from nsclc_mtl.records import UsageFault

pytest.importorskip("submitit", reason="the extra `cluster` is not installed")

ENGINE: dict[str, Any] = {
    "name": "submitit", "cluster": "local", "wait": True, "hours": 1, "restarts": 3, "grace_s": 60, "memory_gb": None,
    "cores": None, "gpus": 0, "parallel": None, "partition": None, "account": None, "setup": [], "more": {},
}  # fmt: skip

# Works until it is told to end, keeps that it was, and comes to its end at the second start.
GOES_ON = """
import pathlib, signal, sys, time
here = pathlib.Path(sys.argv[1])
kept = here / "kept"
def end(*_):
    kept.write_text("half of it")
    sys.exit(143)
if kept.exists():
    (here / "done").write_text(kept.read_text())
else:
    signal.signal(signal.SIGTERM, end)
    (here / "begun").touch()
    time.sleep(60)
"""


def calls(folder: Path, *programs: str) -> list[jobs.Call]:
    lines = [[sys.executable, "-c", program, str(folder)] for program in programs]
    return [jobs.Call(f"run{k}", folder, functools.partial(jobs.command, line)) for k, line in enumerate(lines)]


def through(given: Sequence[jobs.Call], folder: Path, parallel: int = 2, **engine: Any) -> dict[str, jobs.End | None]:
    heard: list[jobs.Ticket] = []
    each = jobs.work_through(given, [], {**ENGINE, **engine}, "test", parallel, folder, heard.append)
    found = {ticket.key: end for ticket, end in each}
    assert [ticket.key for ticket in heard] == [call.key for call in given]
    return found


def until(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def process_in(folder: Path, key: str) -> int:
    """The process that works on a job, by its lease."""
    return int(json.loads((folder / f"{key}.lease").read_text())["pid"])


def test_jobs_end_each_for_itself_and_leave_only_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "77")  # of a job that the command itself may run in
    says = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ.get('SLURM_ARRAY_JOB_ID'))"
    ends = through(calls(tmp_path, says, "raise SystemExit(3)"), tmp_path)
    one, other = ends["run0"], ends["run1"]
    assert one is not None
    assert other is not None
    assert (one.exit_code, other.exit_code) == (0, 3)
    assert 0 < (one.seconds or 0) < 60
    logs = sorted(path.read_text() for path in tmp_path.glob("*_log.out"))
    assert sum("3 None" in log for log in logs) == 1
    left = {path.name.split("_")[-1] for path in tmp_path.iterdir()}
    assert left == {"log.out", "submitted.pkl", "run1.end.json", "run1.job.json"}  # of the one that failed
    assert os.environ["SLURM_ARRAY_JOB_ID"] == "77"


def test_setup_comes_first(tmp_path: Path) -> None:
    program = "import os; raise SystemExit(os.environ['WORD'] != 'said')"
    assert through(calls(tmp_path, program), tmp_path, setup=["export WORD=said"])["run0"] is not None
    assert not list(tmp_path.glob("*.json"))


def test_a_job_whose_time_is_over_keeps_its_state_and_goes_on(tmp_path: Path) -> None:
    def tell(ticket: jobs.Ticket) -> None:
        until(tmp_path / "begun")
        os.kill(process_in(tmp_path, "run0"), signal.SIGUSR2)  # as SLURM does, and submitit's local cluster

    each = jobs.work_through(calls(tmp_path, GOES_ON), [], ENGINE, "test", 1, tmp_path, tell)
    ((ticket, end),) = list(each)
    assert end == jobs.End(0, "", None)  # its seconds would be those of the second start alone
    assert (tmp_path / "done").read_text() == "half of it"
    assert "Requeued job" in (tmp_path / f"{ticket.job}_0_log.out").read_text()
    assert not list(tmp_path.glob("*.pkl"))


def test_a_job_whose_time_was_over_too_often_ends_with_75(tmp_path: Path) -> None:
    def tell(ticket: jobs.Ticket) -> None:
        until(tmp_path / "begun")
        os.kill(process_in(tmp_path, "run0"), signal.SIGUSR2)

    engine = {**ENGINE, "restarts": 0, "hours": 0.01}
    ((_, end),) = list(jobs.work_through(calls(tmp_path, GOES_ON), [], engine, "test", 1, tmp_path, tell))
    assert end is not None
    assert end.exit_code == 75
    assert "timed-out too many times" in end.sentence
    assert (tmp_path / "kept").exists()


def test_a_killed_job_is_lost_and_the_others_stay(tmp_path: Path) -> None:
    def tell(ticket: jobs.Ticket) -> None:
        if ticket.key == "run1":
            until(tmp_path / "begun")
            os.kill(process_in(tmp_path, "run1"), signal.SIGKILL)

    each = jobs.work_through(calls(tmp_path, "", GOES_ON), [], ENGINE, "test", 2, tmp_path, tell)
    ends = {ticket.key: end for ticket, end in each}
    assert ends["run1"] is None
    assert ends["run0"] is not None
    assert ends["run0"].exit_code == 0


def test_a_signal_to_the_command_ends_the_jobs_which_keep_their_state(tmp_path: Path) -> None:
    def tell(ticket: jobs.Ticket) -> None:
        until(tmp_path / "begun")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(jobs.work_through(calls(tmp_path, GOES_ON), [], ENGINE, "test", 1, tmp_path, tell))
    assert (tmp_path / "kept").exists()
    assert jobs.at_work(tmp_path) == []


def test_jobs_of_an_earlier_start_are_found_and_waited_for(tmp_path: Path) -> None:
    given = calls(tmp_path, "import time; time.sleep(1)")
    (ticket,) = jobs.hand_over(given, ENGINE, "test")
    assert jobs.at_work(tmp_path) == [ticket]
    ((found, end),) = list(jobs.work_through([], [ticket], ENGINE, "test", 1, tmp_path, lambda ticket: None))
    assert (found, end is not None and end.exit_code) == (ticket, 0)
    assert jobs.handed(tmp_path) == []


def test_what_a_job_is_handed_to_is_not_taken_for_another_process(tmp_path: Path) -> None:
    mine = Holder.of(os.getpid())
    known = {"host": mine.host, "pid": mine.pid, "started": mine.started, "token": ""}
    for key, started in (("now", mine.started), ("before", "1")):  # a process id that was used again
        ticket = {"key": key, "cluster": "local", "job": str(mine.pid), "holder": {**known, "started": started}}
        (tmp_path / f"{key}.job.json").write_text(json.dumps(ticket))
    for key in ("far", "gone"):  # of another machine, or of this one before its restart: leases tell
        ticket = {"key": key, "cluster": "local", "job": "1", "holder": {**known, "host": "another boot pid:[1]"}}
        (tmp_path / f"{key}.job.json").write_text(json.dumps(ticket))
    held = Lease.take(tmp_path / "far.lease")
    assert held is not None
    assert [ticket.key for ticket in jobs.at_work(tmp_path)] == ["far", "now"]
    held.release()
    assert [ticket.key for ticket in jobs.at_work(tmp_path)] == ["now"]


def test_slurm_needs_its_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageFault, match="sbatch is not here"):
        jobs.sound({**ENGINE, "cluster": "slurm"})
    (tmp_path / "a.job.json").write_text(json.dumps({"key": "a", "cluster": "slurm", "job": "12_0"}))
    with pytest.raises(UsageFault, match="squeue is not here"):
        jobs.at_work(tmp_path)


# Stands for SLURM's commands: takes a script, and knows one job in its queue.
SBATCH = """#!/bin/sh
cp "$1" {folder}/taken.sh
case "$(cat "$1")" in *--partition=none*) echo "sbatch: error: invalid partition specified: none" >&2; exit 1;; esac
echo Submitted batch job 41
"""


def test_what_sbatch_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_, folder = tmp_path / "bin", tmp_path / "jobs"
    bin_.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": "#!/bin/sh\n", "squeue": "#!/bin/sh\necho 41_1 12\n"}.items():
        (bin_ / name).write_text(text.format(folder=tmp_path))
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{os.environ['PATH']}")
    more = {"qos": "long", "requeue": True}
    engine = {
        **ENGINE, "cluster": "slurm", "hours": 0.5, "memory_gb": 7.5, "cores": 4, "gpus": 1, "parallel": 2,
        "grace_s": 200, "partition": "long", "account": "me", "setup": ["module load cuda"], "more": more,
    }  # fmt: skip
    jobs.sound(engine)
    tickets = jobs.hand_over(calls(folder, "", "", ""), engine, "mtl-name")
    assert [ticket.job for ticket in tickets] == ["41_0", "41_1", "41_2"]
    script = (tmp_path / "taken.sh").read_text()
    for flag in (
        "--array=0-2%2", "--time=30", "--mem=7680MB", "--cpus-per-task=4", "--gpus-per-node=1", "--partition=long",
        "--account=me", "--signal=USR2@200", "--requeue", "--qos=long", "--job-name=mtl-name", "--open-mode=append",
    ):  # fmt: skip
        assert f"#SBATCH {flag}\n" in script, flag
    assert script.index("module load cuda") < script.index("srun")
    assert "srun --unbuffered" in script
    assert "--cpus-per-task=4 " in script.split("srun")[1]
    assert [ticket.job for ticket in jobs.at_work(folder)] == ["41_1"]
    with pytest.raises(UsageFault, match="invalid partition specified: none"):
        jobs.hand_over(calls(tmp_path / "other", ""), {**engine, "partition": "none"}, "mtl-name")
    assert not list((tmp_path / "other").iterdir())
