"""Sites in this very process: for simulations and tests, with messages as they would travel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nsclc_mtl.federated.messages import Message, packed, unpacked


class Answering(Protocol):
    """What answers questions: a site."""

    def answer(self, question: Message) -> Message:
        """The answer to a question."""
        ...


class InProcess:
    """A channel to sites of this process; every message goes through its bytes."""

    def __init__(self, sites: Mapping[str, Answering]) -> None:
        self._sites = dict(sites)

    def sites(self) -> list[str]:
        """Names of the sites, sorted."""
        return sorted(self._sites)

    def ask(self, questions: Mapping[str, Message], timeout_s: float) -> dict[str, Message]:
        """Answers by site, one after the other; nobody is waited for."""
        return {
            site: unpacked(packed(self._sites[site].answer(unpacked(packed(question)))))
            for site, question in questions.items()
        }
