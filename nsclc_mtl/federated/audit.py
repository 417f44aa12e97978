"""What left a site and what came: a line of JSON a message, each with the hash of the line before it.

A line that was changed or taken out shows, and so does a beginning cut off. An end cut off shows only against the last
hash, which both sides write down (`head`). Lines tell of sizes, names, shapes, hashes and metrics, never of patients.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nsclc_mtl.federated.messages import Message, digest
from nsclc_mtl.records import IntegrityFault

BEGINNING = "0" * 64  # what the first line has for the hash of the one before it


class AuditLog:
    """The log at `path`, which is made or gone on with. Raises IntegrityFault where what is there does not hold."""

    def __init__(self, path: Path) -> None:
        self.path, self.lines, self.head = path, 0, BEGINNING
        self._lock = threading.Lock()
        if path.exists():
            self.lines, self.head = verify(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))

    def note(self, direction: str, site: str, data: bytes, message: Message | None = None, **more: Any) -> None:
        """Writes a line: `direction` is `in`, `out` or `dropped`, `data` the bytes of the message.

        `message` is None where the bytes read as none. `more` are further words, such as why it was dropped.
        """
        line: dict[str, Any] = {"direction": direction, "site": site, "bytes": len(data), "sha256": digest(data)}
        if message is not None:
            line |= {"kind": message.kind, "round": message.round, "arrays": _shapes(message)}
            line |= {"words": sorted(message.words)}
            if "metrics" in message.words:
                line["metrics"] = message.words["metrics"]
        self._write(line | more)

    def say(self, what: str, **more: Any) -> None:
        """Writes a line about what is no message: a site that came, a run that began."""
        self._write({"event": what, **more})

    def _write(self, line: Mapping[str, Any]) -> None:
        with self._lock:
            time = datetime.now(UTC).isoformat(timespec="milliseconds")
            text = json.dumps({"time": time, **line, "before": self.head}, ensure_ascii=True).encode()
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(handle, text + b"\n")
                os.fsync(handle)
            finally:
                os.close(handle)
            self.head, self.lines = hashlib.sha256(text).hexdigest(), self.lines + 1


def verify(path: Path, head: str | None = None) -> tuple[int, str]:
    """Number of lines of a log and the hash of its last one.

    Raises IntegrityFault, which names the first line that does not follow from the one before it, or says that the
    last hash is not `head`.
    """
    before, number = BEGINNING, 0
    for number, text in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        try:
            whole, said = text.endswith(b"\n"), json.loads(text)["before"]
        except (ValueError, KeyError, TypeError):
            whole, said = False, ""
        if not whole or said != before:
            raise IntegrityFault(
                f"line {number} of the audit log {path.name} does not follow from the one before it: lines were "
                "changed or taken out, or its writing was cut short; keep it as evidence, move it away and start anew"
            )
        before = hashlib.sha256(text[:-1]).hexdigest()
    if head is not None and head != before:
        raise IntegrityFault(
            f"the audit log {path.name} has {number} lines and does not end as it was left: lines at its end are gone"
        )
    return number, before


def _shapes(message: Message) -> dict[str, str]:
    return {name: f"{values.dtype}{list(values.shape)}" for name, values in message.arrays.items()}
