"""What a job does, within the job: it works, keeps its state when it is told to end, and notes its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from nsclc_mtl import signals
from nsclc_mtl.lease import Lease
from nsclc_mtl.records import Fault, TryAgain

PREEMPTION = (signal.SIGUSR1, signal.SIGUSR2)  # one of them tells a job of submitit that its time is over
LINGER_S = 600.0  # that a job which SLURM has asked to end waits for what follows


class _Asked(BaseException):
    """The job was asked to end."""


@dataclass
class Call:
    """What a job does. `work` gives an exit code (None = 0); it must be able to go on where it was left.

    Where the time of the job is over, or its place is needed, the state that `work` keeps when an exception ends it is
    kept first, and then the same call is queued again.
    """

    key: str
    folder: Path
    work: Callable[[], int | None]
    environment: dict[str, str | None] = field(default_factory=dict)  # set before the work; None = taken away

    def __call__(self) -> None:
        """Does the work and leaves with its exit code, so that submitit pickles no result."""
        for name, value in self.environment.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        queue_again = {number: told for number in PREEMPTION if callable(told := signal.getsignal(number))}
        came: list[int] = []
        began, code = time.monotonic(), 0
        try:
            _listen((*queue_again, signal.SIGTERM), came)
            with Lease.claim(self.folder / f"{self.key}.lease", f"'{self.key}'"):
                code = self.work() or 0
        except _Asked:
            self._asked(came[0], queue_again)
        except Fault as fault:
            self._end(fault.exit_code, str(fault), began)
        except BaseException as wrong:
            self._end(*_told(wrong), began)
        self._end(code, "", began)

    def checkpoint(self) -> Any:
        """The call that goes on, as submitit asks for it before it queues the job again: the same one."""
        import submitit

        (self.folder / f"{self.key}.again").touch()
        return submitit.helpers.DelayedSubmission(self)

    def _asked(self, number: int, queue_again: Mapping[Any, Any]) -> None:
        """The state is kept; what is left is to be queued again, or to make room."""
        if number not in queue_again:
            # a job that SLURM has to kill for another is queued again by it; one that leaves early is taken for done
            _linger(queue_again)
        try:
            queue_again[number](number, None)  # ends the process, unless the time was over too often
        except Exception as wrong:
            why = str(wrong).removeprefix("Job not requeued because: ").rstrip(".")
            self._end(TryAgain.exit_code, f"it had to end and was not queued again ({why}; engine.restarts)", None)

    def _end(self, code: int, sentence: str, began: float | None) -> None:
        again = (self.folder / f"{self.key}.again").is_file() or os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
        seconds = None if began is None or again else round(time.monotonic() - began, 3)  # else of its last start alone
        if sentence:
            print(f"mtl: {sentence}", file=sys.stderr, flush=True)
        told = {"exit_code": code, "sentence": sentence, "seconds": seconds}
        write(self.folder / f"{self.key}.end.json", told)
        sys.exit(code)


def _listen(numbers: Iterable[int], came: list[int]) -> None:
    """From here on the first of these signals raises in the work, at the end of a step that must not be cut in two.

    `came` takes their numbers.
    """

    def asked(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            signals.end(_Asked())

    for number in numbers:
        signal.signal(number, asked)


def _linger(queue_again: Mapping[Any, Any]) -> None:
    """Waits for the signal to be queued again, or to be killed; a job of this machine leaves at once."""
    for number, handler in queue_again.items():
        signal.signal(number, handler)
    if "SLURM_JOB_ID" in os.environ and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        time.sleep(LINGER_S)
    sys.exit(128 + signal.SIGTERM)


def _told(wrong: BaseException) -> tuple[int, str]:
    """Exit code and sentence of an exception that is no fault of ours; messages may quote a patient's data."""
    if isinstance(wrong, SystemExit) and isinstance(wrong.code, int):
        return wrong.code, ""
    if type(wrong).__name__ in ("MemoryError", "OutOfMemoryError"):  # the latter is torch's, of a GPU
        return TryAgain.exit_code, "out of memory: give the jobs more, or take fewer patients a step or fewer tiles"
    traceback.print_tb(wrong.__traceback__)
    inside = [f for f in traceback.extract_tb(wrong.__traceback__) if "nsclc_mtl" in Path(f.filename).parts]
    place = f" at {Path(inside[-1].filename).name}:{inside[-1].lineno}" if inside else ""
    return 1, f"unexpected {type(wrong).__name__}{place}: a fault of the program"


def command(line: Sequence[str]) -> int:
    """Exit code of a command that keeps its state on SIGTERM; a signal to this process ends it so."""
    with signals.unheard(*PREEMPTION):  # SLURM tells all processes of a job, and the command knows SIGTERM alone
        process = subprocess.Popen(line)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def write(path: Path, content: Any) -> None:
    """JSON at `path`, written aside and renamed: a reader sees all of it or nothing."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    aside.write_text(json.dumps(content) + "\n", encoding="utf-8")
    aside.replace(path)
