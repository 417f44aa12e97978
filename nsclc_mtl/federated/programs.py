"""Programs that run beside this one: started on a leash, watched, and ended with it on every way out."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nsclc_mtl.federated.lines import leashed
from nsclc_mtl.records import TryAgain
from nsclc_mtl.signals import undisturbed

GRACE_S = 8.0  # that a program has for its leave-taking
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Program:
    """A program that runs, with all it says in the file `log`."""

    def __init__(self, line: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name, self.log = Path(line[0]).name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._begin = log.stat().st_size if log.exists() else 0
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                leashed(list(line)),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,  # a terminal's interrupt is for this process, which then ends its own
            )

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def said(self) -> str:
        """What it has said since it was started."""
        with self.log.open("rb") as file:
            file.seek(self._begin)
            return _COLOURS.sub("", file.read().decode("utf-8", "replace"))

    def last_words(self, lines: int = 3) -> str:
        """The end of what it said, in one line."""
        return (
            " / ".join(line.strip() for line in self.said().splitlines()[-lines:] if line.strip()) or "it said nothing"
        )

    def end(self) -> None:
        """Asks it to leave, and ends it where it does not."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=GRACE_S)


@contextlib.contextmanager
def running(line: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[Program]:
    """The program while it is needed."""
    program = undisturbed(lambda: Program(line, log, environment))
    try:
        yield program
    finally:
        undisturbed(program.end)


def told(line: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> str:
    """What a program that ends by itself says on its standard output. Raises TryAgain where it fails or is too slow."""
    name = Path(line[0]).name
    try:
        done = subprocess.run(
            leashed(list(line)), capture_output=True, env=dict(environment), timeout=timeout_s, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as wrong:
        raise TryAgain(f"'{name}' did not end within {timeout_s:.0f} s") from wrong
    text = _COLOURS.sub("", done.stdout.decode("utf-8", "replace"))
    if done.returncode:
        more = _COLOURS.sub("", done.stderr.decode("utf-8", "replace"))
        raise TryAgain(f"'{name}' failed: {' '.join((text + more).split())[-400:]}")
    return text


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def secret(path: Path) -> bytes:
    """Makes a file of 32 random bytes that only its owner reads."""
    content = os.urandom(32)
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    return content
