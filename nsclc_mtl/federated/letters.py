"""A message of ours as one of Flower's, and back.

It travels as one array of bytes, which Flower cuts into pieces and checks by their hashes, beside a record with its
SHA-256 and a random number that is used once. An answer names the hash and the number of its question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsclc_mtl.federated.messages import digest
from nsclc_mtl.records import IntegrityFault

if TYPE_CHECKING:
    from flwr.app import Message as Letter
    from flwr.app import RecordDict

KIND = "query"  # what all of them are to Flower
WELCOME, FAREWELL = "welcome", "farewell"  # kinds of message that are of the transport's own


def body_of(data: bytes) -> RecordDict:
    """Bytes as one array, which Flower sends in pieces."""
    from flwr.app import Array, ArrayRecord, RecordDict

    return RecordDict({"message": ArrayRecord({"bytes": Array("uint8", (len(data),), "mtl", data)})})


def sealed(body: RecordDict, data: bytes, number: str, answers: str = "") -> RecordDict:
    """The content of a letter; an answer has the hash of its question in `answers`, and that one's number."""
    from flwr.app import ConfigRecord, RecordDict

    about = ConfigRecord({"sha256": digest(data), "number": number, "answers": answers})
    return RecordDict({"message": body["message"], "about": about})


def opened(content: RecordDict) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a message and the record about them. Raises IntegrityFault where they do not belong together."""
    try:
        about = dict(content.config_records["about"])
        data = bytes(content.array_records["message"]["bytes"].data)
    except (KeyError, TypeError, AttributeError, ValueError) as wrong:
        raise IntegrityFault("a letter holds no message of mtl: it is from elsewhere") from wrong
    if about.get("sha256") != digest(data):
        raise IntegrityFault("a message is not the one that was sent: its hash differs")
    return data, about


def gone(reply: Letter) -> bool:
    """Whether Flower says that the node went before it answered."""
    from flwr.common.constant import ErrorCode

    return reply.has_error() and reply.error.code == ErrorCode.NODE_UNAVAILABLE
