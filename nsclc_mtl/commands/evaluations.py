"""How often a model has been evaluated, and on whom: `evaluations.jsonl` of the trained run, which only grows.

A test set that is looked at again and again is no test set any more, so the count stands on every page.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsclc_mtl.config import Run
    from nsclc_mtl.records import Manifest

FILE = "evaluations.jsonl"


@dataclass(frozen=True)
class Counted:
    """Evaluations of a model so far, this one among them; `here` on the same tables. `why`: it was not counted."""

    here: int
    all: int
    why: str = ""

    def __str__(self) -> str:
        if self.why:
            return f"not counted: {self.why}"
        times = lambda n: "once" if n == 1 else f"{n} times"  # noqa: E731
        return f"evaluated {times(self.here)} on this cohort" + (
            f", {times(self.all)} in all" if self.all > self.here else ""
        )


def content_sha256(manifest: Manifest) -> str:
    """SHA-256 over those of the tables that a cohort was read from, wherever they lie."""
    return _over(manifest.inputs)


def _over(inputs: Iterable[Mapping[str, str]]) -> str:
    return hashlib.sha256("\n".join(sorted({entry["sha256"] for entry in inputs})).encode()).hexdigest()


def cohort_of(folder: Path, predictions: Path, counted: Path) -> tuple[str, str]:
    """Name and `content_sha256` of the cohort whose predictions a run folder holds, without opening it.

    A training's account lists the tables that it read and nothing else; an evaluation has been counted in `counted`.
    Where neither is there, the predictions stand for the cohort: the same ones are the same patients.
    """
    text = counted.read_text(encoding="utf-8", errors="replace") if counted.is_file() else ""
    own = [line for line in _lines(text) if line.get("run") == folder.name and line.get("content")]
    if counted.parent != folder and own:
        return str(own[-1].get("cohort")), str(own[-1]["content"])
    file = folder / "cohort.json"
    name = str(json.loads(file.read_text(encoding="utf-8")).get("name")) if file.is_file() else folder.name
    if file.is_file() and (folder / "run.json").is_file():
        inputs = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("inputs")
        if inputs:
            return name, _over(inputs)
    return name, hashlib.sha256(predictions.read_bytes()).hexdigest()


def place(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Where the evaluations of a model are counted: in the trained run; a bundle must stay as it is, so beside the
    evaluations."""
    from nsclc_mtl.commands import bundled

    if bundled.at(folder) is None:
        return folder / FILE
    return Path(settings["paths"]["runs"]) / "evaluate" / f"{bundled.sha256(folder)[:16]}.{FILE}"


def count(file: Path, manifest: Manifest, patients: int, tasks: Sequence[str], run: Run) -> Counted:
    """Appends this evaluation to `file` and says how many there are. Several processes may do so at a time.

    Where the file cannot be written, the evaluation goes on and says that it was not counted.
    """
    return look(file, manifest.name, content_sha256(manifest), patients, tasks, run)


def look(file: Path, cohort: str, content: str, patients: int, tasks: Sequence[str], run: Run) -> Counted:
    """`count` where no cohort is opened: its name and the SHA-256 over its tables (`cohort_of`) are given."""
    from datetime import UTC, datetime

    line = {
        "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "cohort": cohort,
        "content": content,
        "patients": patients,
        "tasks": list(tasks),
        "run": run.path.name,
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        before = _appended(file, json.dumps(line) + "\n")
    except OSError as error:
        return Counted(0, 0, f"'{file.name}' cannot be written ({error.strerror})")
    lines = [*_lines(before), line]
    return Counted(sum(entry.get("content") == line["content"] for entry in lines), len(lines))


def _appended(file: Path, text: str) -> str:
    """What the file held before `text` was put to its end, in one piece and on the disk."""
    handle = os.open(file, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
    try:
        with contextlib.suppress(OSError):  # a file system without locks; appending is still of one piece
            fcntl.flock(handle, fcntl.LOCK_EX)
        with open(file, encoding="utf-8", errors="replace") as reader:
            before = reader.read()
        whole = text if not before or before.endswith("\n") else "\n" + text  # a process died while it wrote
        os.write(handle, whole.encode())
        os.fsync(handle)
        return before
    finally:
        os.close(handle)


def _lines(text: str) -> list[dict[str, Any]]:
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            found += [entry] if isinstance(entry, dict) else []
    return found
