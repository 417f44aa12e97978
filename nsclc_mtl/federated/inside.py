"""Sites in this very process: for simulations and tests, with messages as they would travel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nsclc_mtl.federated.audit import AuditLog
from nsclc_mtl.federated.messages import Message, packed, unpacked


class Answering(Protocol):
    """What answers questions: a site."""

    def answer(self, question: Message) -> Message:
        """The answer to a question."""
        ...


class InProcess:
    """A channel to sites of this process; every message goes through its bytes, and into the log where there is one."""

    def __init__(self, sites: Mapping[str, Answering], log: AuditLog | None = None) -> None:
        self._sites, self.log = dict(sites), log

    def sites(self) -> list[str]:
        """Names of the sites, sorted."""
        return sorted(self._sites)

    def ask(self, questions: Mapping[str, Message], timeout_s: float) -> dict[str, Message]:
        """Answers by site, one after the other; nobody is waited for."""
        answers = {}
        for site, question in questions.items():
            sent = packed(question)
            came = packed(self._sites[site].answer(unpacked(sent)))
            answers[site] = unpacked(came)
            if self.log is not None:
                self.log.note("out", site, sent, question)
                self.log.note("in", site, came, answers[site])
        return answers
