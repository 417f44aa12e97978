"""What travels between a server and its sites: numbers by name and plain words, as bytes that execute nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from nsclc_mtl.records import IntegrityFault

VERSION = 1
_HEAD = "mtl"  # where the words stand in the header of the safetensors file


@dataclass(frozen=True)
class Message:
    """A question of the server or the answer of a site.

    `kind` is what it is about (`fit`, `begin`, `train`, `finish`, and `refused` for an answer that is a
    sentence), `round` counts the questions of a federation from 0 on: an answer carries that of its question. `arrays`
    are numbers by name, `words` anything that JSON can hold.
    """

    kind: str
    round: int
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    words: Mapping[str, Any] = field(default_factory=dict)


class Channel(Protocol):
    """How a server reaches its sites: in one process, or over a network."""

    def sites(self) -> list[str]:
        """Names of the sites that can be asked, sorted."""
        ...

    def ask(self, questions: Mapping[str, Message], timeout_s: float) -> dict[str, Message]:
        """Answers by site. A site that says nothing within `timeout_s` is not among them."""
        ...


def packed(message: Message) -> bytes:
    """The message as the bytes of a safetensors file whose header holds the words."""
    from safetensors.numpy import save

    head = {"version": VERSION, "kind": message.kind, "round": message.round, "words": message.words}
    arrays = {name: np.asarray(values, order="C") for name, values in message.arrays.items()}
    return save(arrays, metadata={_HEAD: json.dumps(head, allow_nan=True)})


def unpacked(data: bytes) -> Message:
    """The message of such bytes. Raises IntegrityFault where they are none, or those of another version."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        length = int.from_bytes(data[:8], "little")
        head = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_HEAD])
        arrays = load(data)
        kind, number, words, version = str(head["kind"]), int(head["round"]), head["words"], head["version"]
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as wrong:
        raise IntegrityFault("a message does not read as one of mtl: it was changed, or is from elsewhere") from wrong
    if version != VERSION:
        raise IntegrityFault(f"a message is of version {version}, this program speaks {VERSION}: update the older side")
    if not isinstance(words, dict):
        raise IntegrityFault("the words of a message are no table: it was changed, or is from elsewhere")
    return Message(kind, number, arrays, words)


def digest(data: bytes) -> str:
    """SHA-256 of a packed message, by which the audit logs of both sides can be compared."""
    return hashlib.sha256(data).hexdigest()
